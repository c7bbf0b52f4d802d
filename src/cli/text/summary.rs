//! The first screen of an answer: the verdict, the devices, the need, the launch line.

use hf_mem_core::engines::ComponentName;
use hf_mem_core::report::answer::{
    Answer, DeviceShare, PlacementAnswer, Requirement, Shortfall, Suggestion, Verdict,
};
use hf_mem_core::report::problem::Reason;

use super::answer::{Detail, verdict_words};
use super::details::warnings;
use super::device_bars::device_bars;
use super::figure::{FigureUnit, figure, interval};
use super::headline::headline;
use super::launch::launch;
use super::page::{Page, PageLayout, Tone};
use super::suggestion::{alternative_lines, suggestion_options};
use super::{grouped, plural, wrapped_to};

/// The columns of a title, such as `needs`.
const TITLE: usize = 10;
/// The most suggestions on the first screen.
const MAX_SUGGESTIONS: usize = 3;
/// The most warnings on the first screen, each cut to one line.
const MAX_WARNINGS: usize = 2;

/// Appends the first screen. With more `detail`, what the parts below say is left out here.
pub(super) fn summary(page: &mut Page, answer: &Answer, detail: Detail, layout: PageLayout) {
    headline(page, answer, layout);

    if let Some(placement) = &answer.placement
        && !placement.devices.is_empty()
    {
        device_bars(page, placement, answer.verdict, layout);
    }

    if answer.requirement.is_some() {
        page.end_line();
    }
    if let Some(requirement) = &answer.requirement {
        need(page, requirement, layout);
    }
    shortage(page, answer, layout);

    if let Some(placement) = &answer.placement {
        host(page, placement, layout);
        reach(page, answer, placement, layout);
    }
    if let Some(files) = &answer.files {
        super::files::files(page, files, layout);
    }

    if let Some(placement) = &answer.placement {
        launch(page, placement, layout);
    }

    if detail == Detail::Summary {
        suggestions(page, &answer.suggestions, layout);
        first_warnings(page, &warnings(answer), layout);
        footer(page, answer, layout);
    }
}

/// Appends a titled line, wrapped under its text.
fn titled(page: &mut Page, title: &str, text: &str, layout: PageLayout) {
    page.push(Tone::Dim, format!("  {title:<8}"));
    page.line(wrapped_to(layout.columns, text, TITLE, TITLE));
}

/// Appends the need: the total, and its largest parts in the total's unit.
fn need(page: &mut Page, requirement: &Requirement, layout: PageLayout) {
    let Some(total) = requirement.total else {
        let stored = bytes_of(requirement, &[ComponentName::Weights]);
        let text = format!("unknown; the weights are {}", figure(stored));
        return titled(page, "needs", &text, layout);
    };

    let weights = bytes_of(requirement, &[ComponentName::Weights]);
    let cache = bytes_of(requirement, &[ComponentName::KvCache]);
    let state = bytes_of(requirement, &[ComponentName::State]);
    let named = weights.saturating_add(cache).saturating_add(state);

    let unit = FigureUnit::of_bytes(total.likely_bytes);
    let separator = layout.signs.choose(" · ", ", ");
    let parts = [
        ("weights", weights),
        ("KV cache", cache),
        ("state", state),
        ("other", total.likely_bytes.saturating_sub(named)),
    ];
    let parts: Vec<String> = parts
        .iter()
        .filter(|(_, bytes)| *bytes > 0)
        .map(|(name, bytes)| format!("{name} {}", unit.number(*bytes)))
        .collect();

    let text = format!("{}   {}", interval(total), parts.join(separator));
    if TITLE + text.chars().count() <= layout.columns {
        page.push(Tone::Dim, format!("  {:<8}", "needs"));
        return page.line(text);
    }

    titled(page, "needs", &interval(total), layout);
    titled(page, "", &parts.join(separator), layout);
}

/// Returns the likely bytes of the components with these names.
fn bytes_of(requirement: &Requirement, names: &[ComponentName]) -> u64 {
    requirement
        .components
        .iter()
        .filter(|part| names.contains(&part.name))
        .map(|part| part.likely_bytes)
        .fold(0, u64::saturating_add)
}

/// Appends what is short, or how tight it is.
fn shortage(page: &mut Page, answer: &Answer, layout: PageLayout) {
    let Some(placement) = &answer.placement else {
        return;
    };

    let sum_of = |bytes: fn(&DeviceShare) -> Option<u64>| {
        let each = placement.devices.iter().filter_map(bytes);
        each.fold(0, u64::saturating_add)
    };
    let required = figure(sum_of(|share| Some(share.required_bytes)));
    let available = figure(sum_of(|share| share.available_bytes));

    match (answer.verdict, answer.short_by_bytes) {
        (Some(Verdict::Tight), _) => {
            let text = format!("it may need up to {required} of {available} available");
            titled(page, "tight", &text, layout);
        }
        (Some(Verdict::DoesNotFit), Shortfall::Bytes(short @ 1..)) => {
            let text = format!(
                "{}: up to {required} needed of {available} available",
                figure(short)
            );
            titled(page, "short", &text, layout);
            reason(page, answer, layout);
        }
        (Some(Verdict::DoesNotFit), _) => reason(page, answer, layout),
        _ => {}
    }
}

/// Appends the answer's own sentence, unless the line above has all of it.
fn reason(page: &mut Page, answer: &Answer, layout: PageLayout) {
    let is_plain_shortage = answer.known_reason() == Some(Reason::InsufficientMemory)
        && !answer.message.contains("leaves it");
    if !is_plain_shortage {
        titled(page, "why", &answer.message, layout);
    }
}

fn host(page: &mut Page, placement: &PlacementAnswer, layout: PageLayout) {
    let Some(host) = &placement.host else {
        return;
    };

    let available = host
        .available_bytes
        .map_or_else(|| "unknown".to_owned(), figure);
    let text = format!(
        "{} needed, {available} available",
        figure(host.required_bytes)
    );
    titled(page, "host", &text, layout);
}

/// Appends the longest context, the number of sequences, the cache's size and the frontier.
fn reach(page: &mut Page, answer: &Answer, placement: &PlacementAnswer, layout: PageLayout) {
    let context = answer.workload.as_ref().map(|workload| workload.context);
    let is_tight = answer.verdict == Some(Verdict::Tight);

    if let Some(text) = longest_context(placement, context, is_tight, layout) {
        titled(page, "room", &text, layout);
    }
    if let Some(text) = cache_capacity(placement, context) {
        titled(page, "cache", &text, layout);
    }

    // A pipeline has no context to divide.
    if placement.max_context.is_none() {
        return;
    }
    for point in answer.frontier.iter().flatten() {
        let text = format!(
            "{:>6} x {:>10} tokens",
            point.sequences,
            grouped(point.context)
        );
        page.line(format!("{:TITLE$}{text}", ""));
    }
}

/// Returns the longest context and the sequences that fit; for a tight answer those that surely do.
fn longest_context(
    placement: &PlacementAnswer,
    context: Option<u64>,
    is_tight: bool,
    layout: PageLayout,
) -> Option<String> {
    let surely = if is_tight { "sure to fit: " } else { "" };
    let longest = placement.max_context?;
    if longest == 0 {
        let text = if is_tight {
            "no context length is sure to fit this way"
        } else {
            "no context length fits this way"
        };
        return Some(text.to_owned());
    }

    let text = format!("{surely}longest context {}", grouped(longest));
    Some(match (placement.max_sequences, context) {
        (Some(sequences @ 1..), Some(context)) => format!(
            "{text}{}{} at {} tokens",
            layout.signs.choose(" · ", "; "),
            plural(sequences, "sequence"),
            grouped(context)
        ),
        _ => text,
    })
}

/// Returns the KV cache capacity of the started engine, in the words of vLLM's log.
fn cache_capacity(placement: &PlacementAnswer, context: Option<u64>) -> Option<String> {
    let (tokens, concurrency) = (placement.kv_cache_tokens?, placement.max_concurrency?);
    let least = placement.kv_cache_low_tokens.filter(|low| *low < tokens);
    let least = least.map_or_else(String::new, |low| format!(" (at least {})", grouped(low)));
    let context = grouped(context?);

    Some(format!(
        "{} tokens{least}; maximum concurrency for {context} tokens per request {concurrency:.2}x",
        grouped(tokens)
    ))
}

/// Appends the first suggestions as command line options, each with its verdict.
fn suggestions(page: &mut Page, suggestions: &[Suggestion], layout: PageLayout) {
    let shown: Vec<(String, Verdict)> = suggestions
        .iter()
        .take(MAX_SUGGESTIONS)
        .map(|suggestion| (suggestion_options(suggestion), suggestion.verdict))
        .collect();
    // The longest verdict takes 12 columns, and two separate it.
    let room = layout.columns.saturating_sub(TITLE + 14);
    let widest = shown
        .iter()
        .map(|(options, _)| options.chars().count())
        .max()
        .unwrap_or(0)
        .min(room);

    for (place, (options, verdict)) in shown.iter().enumerate() {
        if place == 0 {
            page.end_line();
        }

        let title = if place == 0 { "try" } else { "" };
        let tone = if *verdict == Verdict::Fits {
            Tone::Good
        } else {
            Tone::Warning
        };

        page.push(Tone::Dim, format!("  {title:<8}"));
        if options.chars().count() > widest {
            let options = wrapped_to(TITLE + room, options, TITLE, TITLE);
            page.push(Tone::Plain, options);
            page.push(Tone::Plain, "  ");
        } else {
            page.push(Tone::Plain, format!("{options:<widest$}  "));
        }
        page.push(tone, verdict_words(*verdict));
        page.end_line();
    }
}

/// Appends the first warnings, each cut to one line.
fn first_warnings(page: &mut Page, warnings: &[String], layout: PageLayout) {
    let ellipsis = layout.signs.choose("…", "...");
    for (place, warning) in warnings.iter().take(MAX_WARNINGS).enumerate() {
        if place == 0 {
            page.end_line();
        }

        let room = layout.columns.saturating_sub(TITLE);
        let text = if warning.chars().count() <= room {
            warning.clone()
        } else {
            let kept = room.saturating_sub(ellipsis.chars().count());
            let start: String = warning.chars().take(kept).collect();
            format!("{}{ellipsis}", start.trim_end())
        };

        page.push(Tone::Warning, format!("  {:<8}", "warning"));
        page.line(text);
    }
}

/// Appends the count of what `-v` shows in addition.
fn footer(page: &mut Page, answer: &Answer, layout: PageLayout) {
    let counts = [
        (answer.assumptions.len(), "assumption"),
        (warnings(answer).len(), "warning"),
        (alternative_lines(&answer.alternatives).len(), "other way"),
        (answer.suggestions.len(), "suggestion"),
    ];
    let parts: Vec<String> = counts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, thing)| plural(*count as u64, thing))
        .collect();

    page.end_line();
    let text = if parts.is_empty() {
        "more: -v".to_owned()
    } else {
        format!("{}: -v", parts.join(", "))
    };
    page.push(
        Tone::Dim,
        format!("  {}", wrapped_to(layout.columns, &text, 2, 2)),
    );
    page.end_line();
}
