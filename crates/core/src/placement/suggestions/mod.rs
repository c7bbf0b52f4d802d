//! What to change when it does not fit. Every suggestion is a question that differs from the
//! asker's in named changes, and is planned on what is available: computed, never guessed.
//!
//! The order is by harm, least first: a smaller workload than asked, a coarser cache, a slower
//! engine, more devices, another engine or file, coarser weights, host memory, and at last what
//! others would have to give up. Within that, what fits comes before what is tight.

mod constraints;
mod devices;
mod proposal;
mod room;
mod wait;
mod workload;

pub use room::MemoryHolder;
pub use wait::wait;

use self::proposal::Proposal;
use super::ask::Ask;
use super::availability::Availability;
use super::order::Grade;
use super::plan::Plan;
use super::ways::grade;
use crate::bytes::Bytes;
use crate::engines::Engine;
use crate::report::answer::Verdict;

/// A change that would help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// `context=32768`, `kv_cache_dtype=fp8`, `tensor_parallel=null`, `stop pid 4121`, ...
    pub change: String,
    /// A sentence for a person.
    pub message: String,
    /// What it leads to.
    pub verdict: Verdict,
    /// Bytes that the model needs less on its devices than the recommended way, or that others give
    /// back; zero where the change only finds other room.
    pub saves: Bytes,
}

/// What would make `ask` fit, least harm first; nothing where `plan` says that it fits. `engines`
/// are asked in the order given; `holders` are processes and leases that could make room.
pub fn suggestions<'a>(
    ask: &Ask<'a>,
    here: &'a Availability,
    plan: &Plan,
    engines: &[&'a dyn Engine],
    holders: &[MemoryHolder],
) -> Vec<Advice> {
    if plan.verdict() == Verdict::Fits {
        return Vec::new();
    }

    let mut tried = Tried::new(ask, here, plan);
    let settled = plan.settled.as_ref().filter(|_| plan.recommended.is_some());
    if let Some(settled) = settled {
        workload::context(&mut tried, settled);
        workload::sequences(&mut tried, settled);
        workload::cache_dtype(&mut tried, settled);
        workload::share(&mut tried, plan);
        workload::engine(&mut tried, settled);
    }

    constraints::open(&mut tried);
    devices::more(&mut tried);
    constraints::engines(&mut tried, engines, plan.settled.as_ref());

    if let Some(settled) = settled {
        workload::dtype(&mut tried);
        workload::quantization(&mut tried, settled);
    }

    constraints::offload(&mut tried);
    devices::host_memory(&mut tried, plan);
    room::make(&mut tried, holders);

    let mut advice = tried.advice;
    advice.sort_by_key(|advice| advice.verdict != Verdict::Fits);

    advice
}

/// What has been tried and found to help.
struct Tried<'t> {
    ask: Ask<'t>,
    here: &'t Availability,
    tight_already: bool,
    required: Bytes,
    advice: Vec<Advice>,
}

impl<'t> Tried<'t> {
    fn new(ask: &Ask<'t>, here: &'t Availability, plan: &Plan) -> Self {
        let ranks = plan
            .recommended
            .iter()
            .flat_map(|placement| &placement.ranks);
        let required = ranks.map(|rank| rank.required.high).sum();
        let tight_already = plan.verdict() == Verdict::Tight;

        Self {
            ask: ask.clone(),
            here,
            tight_already,
            required,
            advice: Vec::new(),
        }
    }

    /// Whether `grade` is better than what there is.
    fn helps(&self, grade: Grade) -> bool {
        grade == Grade::Fits || (grade == Grade::Tight && !self.tight_already)
    }

    /// Grade and need of `proposal` on what is `here`. `None` for a question that the engine
    /// refuses, or whose figures leave 64 bits: it is no way out.
    fn grade(&self, proposal: &Proposal<'t>) -> Option<(Grade, Bytes)> {
        let revised = proposal.revise(&self.ask);
        let found = grade(&revised.ask(&self.ask), self.here);
        found
            .ok()
            .flatten()
            .map(|(grade, required, _)| (grade, required))
    }

    /// Whether `proposal` surely fits.
    fn fits(&self, proposal: &Proposal<'t>) -> bool {
        self.grade(proposal)
            .is_some_and(|(grade, _)| grade == Grade::Fits)
    }

    /// The context that the engine would settle for `proposal`; `None` where it refuses the
    /// question.
    fn context_of(&self, proposal: &Proposal<'t>) -> Option<u64> {
        let revised = proposal.revise(&self.ask);
        let ask = revised.ask(&self.ask);
        let ask = ask.settled(self.here);

        let usable = self
            .here
            .devices
            .iter()
            .find(|device| device.unusable.is_none())?;
        let prepared = ask.prepare(&usable.facts).ok()?;

        Some(prepared.workload().context)
    }

    /// Plans `proposal` and keeps it if it helps.
    fn propose(&mut self, proposal: &Proposal<'t>) -> bool {
        let Some((grade, required)) = self.grade(proposal) else {
            return false;
        };
        let saves = self.required.less(required).unwrap_or(Bytes::ZERO);
        self.keep(&proposal.words(), &proposal.message, grade, saves)
    }

    /// Keeps a change that leads to `grade`, if that helps.
    fn keep(&mut self, change: &str, message: &str, grade: Grade, saves: Bytes) -> bool {
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
