//! Trials of changed questions: plans each proposal and keeps those that help.

use super::proposal::{Change, Proposal};
use crate::bytes::Bytes;
use crate::placement::ask::Ask;
use crate::placement::availability::Availability;
use crate::placement::order::Grade;
use crate::placement::plan::Plan;
use crate::placement::search_summary::{BestGrade, grade};
use crate::report::answer::Verdict;

/// A change that would help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// `context=32768`, `kv_cache_dtype=fp8`, `tensor_parallel=null`, `stop pid 4121`, ...
    pub change: String,
    /// A sentence for a person.
    pub message: String,
    /// The verdict with the change.
    pub verdict: Verdict,
    /// Bytes that the model needs less than the recommended placement, or that others release; zero
    /// if the change only finds other room.
    pub saves: Bytes,
}

/// The question, and the changes that were found to help.
pub(super) struct Trials<'t> {
    /// The question.
    pub(super) ask: Ask<'t>,
    /// The available memory of the host.
    pub(super) host: &'t Availability,
    /// Whether the question itself is tight, so that only a fit is an improvement.
    pub(super) tight_already: bool,
    required: Bytes,
    /// The changes that help.
    pub(super) advice: Vec<Advice>,
}

impl<'t> Trials<'t> {
    /// Returns an empty list of trials for `ask`.
    pub(super) fn new(ask: &Ask<'t>, host: &'t Availability, plan: &Plan) -> Self {
        let ranks = plan
            .recommended
            .iter()
            .flat_map(|placement| &placement.ranks);
        let required = ranks.map(|rank| rank.required.high).sum();
        let tight_already = plan.verdict() == Verdict::Tight;

        Self {
            ask: ask.clone(),
            host,
            tight_already,
            required,
            advice: Vec::new(),
        }
    }

    /// Whether `grade` is an improvement.
    pub(super) fn helps(&self, grade: Grade) -> bool {
        grade == Grade::Fits || (grade == Grade::Tight && !self.tight_already)
    }

    /// Returns the grade and the need of `proposal`. `None` for a question that the engine rejects,
    /// or whose figures overflow.
    pub(super) fn grade(&self, proposal: &Proposal<'t>) -> Option<BestGrade> {
        let revised = proposal.revise(&self.ask);
        grade(&revised.ask(&self.ask), self.host).ok().flatten()
    }

    /// Whether `proposal` fits, not only tightly.
    pub(super) fn fits(&self, proposal: &Proposal<'t>) -> bool {
        self.grade(proposal)
            .is_some_and(|best| best.grade == Grade::Fits)
    }

    /// Whether the question with one change fits, not only tightly.
    pub(super) fn fits_with(&self, change: Change<'t>) -> bool {
        self.fits(&Proposal::new([change], ""))
    }

    /// Returns the context that the engine would use for `proposal`; `None` if it rejects the
    /// question.
    pub(super) fn context_of(&self, proposal: &Proposal<'t>) -> Option<u64> {
        let revised = proposal.revise(&self.ask);
        let ask = revised.ask(&self.ask);
        let ask = ask.with_host_context(self.host);

        let usable = self
            .host
            .devices
            .iter()
            .find(|device| device.unusable.is_none())?;
        let prepared = ask.prepare(&usable.facts).ok()?;

        Some(prepared.workload().context)
    }

    /// Plans `proposal` and keeps it if it helps; returns whether it does.
    pub(super) fn propose(&mut self, proposal: &Proposal<'t>) -> bool {
        let Some(best) = self.grade(proposal) else {
            return false;
        };
        let saves = self.required.less(best.required).unwrap_or(Bytes::ZERO);
        self.keep(&proposal.words(), &proposal.message, best.grade, saves)
    }

    /// Keeps a change that leads to `grade` if that helps; returns whether it does.
    pub(super) fn keep(&mut self, change: &str, message: &str, grade: Grade, saves: Bytes) -> bool {
        let helps = self.helps(grade);
        if helps {
            self.advice.push(Advice {
                change: change.to_owned(),
                message: message.to_owned(),
                verdict: grade.verdict(),
                saves,
            });
        }

        helps
    }
}
