//! Answers as text.

use hf_mem_core::report::answer::{Answer, Verdict};

use super::details;
use super::page::{Page, PageLayout};
use super::quiet::quiet_line;
use super::summary::summary;

/// How much of an answer is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Detail {
    /// One line: `-q`.
    Line,
    /// The first screen.
    #[default]
    Summary,
    /// With every component, assumption and alternative: `-v`.
    Parts,
    /// With all that the answer holds: `-vv`.
    Everything,
}

/// Returns the answer as a page.
pub fn answer(answer: &Answer, detail: Detail, layout: PageLayout) -> Page {
    if detail == Detail::Line {
        return quiet_line(answer).into();
    }

    let mut page = Page::default();
    summary(&mut page, answer, detail, layout);

    if detail >= Detail::Parts {
        page.end_line();
        page.push_text(details::parts(answer, layout));
    }
    if detail >= Detail::Everything {
        page.end_line();
        page.push_text(details::everything(answer, layout));
    }

    page
}

pub(super) fn verdict_words(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Fits => "fits",
        Verdict::Tight => "tight",
        Verdict::DoesNotFit => "does not fit",
        Verdict::Unknown => "unknown",
    }
}
