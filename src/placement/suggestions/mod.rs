//! What to change when it does not fit. Every suggestion is planned anew on what is available: computed, never guessed.
//!
//! The order is by harm, least first: a smaller workload than asked, a coarser cache, a slower engine, more devices, another
//! engine or file, coarser weights, host memory, and at last what others would have to give up. Within that, what fits
//! comes before what is tight.

mod devices;
mod room;
mod wait;
mod workload;

pub use room::Holder;
pub use wait::wait;

use super::ask::{Ask, PlacementError};
use super::availability::Availability;
use super::order::Grade;
use super::plan::Plan;
use super::ways::grade;
use crate::api::answer::Verdict;
use crate::bytes::Bytes;

/// A change that would help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// `context=32768`, `kv_cache_dtype=fp8`, `stop pid 4121`, ...
    pub change: String,
    /// A sentence for a person.
    pub message: String,
    /// What it leads to.
    pub verdict: Verdict,
    /// Bytes that the model needs less on its devices than the recommended way, or that others give back; zero where the
    /// change only finds other room.
    pub saves: Bytes,
}

/// Another engine, file or quantisation that could be asked for instead.
pub struct Other<'a> {
    /// `engine=llama.cpp`, `file=Q4_K_M`, ...
    pub change: String,
    /// A sentence for a person.
    pub message: String,
    /// The whole question.
    pub ask: Ask<'a>,
}

/// What would make `ask` fit, least harm first; nothing where `plan` says that it fits. `others` are asked in the order given;
/// `holders` are processes and leases that could make room.
pub fn suggestions(
    ask: &Ask<'_>,
    here: &Availability,
    plan: &Plan,
    others: &[Other<'_>],
    holders: &[Holder],
) -> Result<Vec<Advice>, PlacementError> {
    if plan.verdict() == Verdict::Fits {
        return Ok(Vec::new());
    }
    let mut tried = Tried::new(here, plan);
    if let (Some(settled), Some(_)) = (&plan.settled, &plan.recommended) {
        workload::context(&mut tried, ask, settled)?;
        workload::sequences(&mut tried, ask, settled)?;
        workload::cache_dtype(&mut tried, ask, settled);
        workload::engine(&mut tried, ask, settled);
    }
    open(&mut tried, ask)?;
    devices::more(&mut tried, ask)?;
    for other in others {
        tried.question(&other.change, &other.message, &other.ask);
    }
    if let (Some(settled), Some(_)) = (&plan.settled, &plan.recommended) {
        workload::dtype(&mut tried, ask);
        workload::quantization(&mut tried, ask, settled)?;
    }
    if !ask.constraints.offload {
        let mut offloaded = ask.clone();
        offloaded.constraints.offload = true;
        tried.question("offload=allow", "part of the model stays in host memory, at the cost of speed", &offloaded);
    }
    devices::host_memory(&mut tried, ask, plan)?;
    room::make(&mut tried, ask, holders)?;
    tried.advice.sort_by_key(|advice| advice.verdict != Verdict::Fits);
    Ok(tried.advice)
}

/// Leaves devices and split open where they were fixed.
fn open(tried: &mut Tried<'_>, ask: &Ask<'_>) -> Result<(), PlacementError> {
    let asked = &ask.constraints;
    if asked.devices.is_some() || asked.tensor.is_some() || asked.pipeline.is_some() {
        let mut freer = ask.clone();
        (freer.constraints.devices, freer.constraints.tensor, freer.constraints.pipeline) = (None, None, None);
        if let Some((_, _, devices)) = grade(&freer, tried.here)?.filter(|(grade, ..)| *grade < Grade::No) {
            let message = "with devices and split left open".to_owned();
            tried.question(&format!("devices={devices}"), &message, &freer);
        }
    }
    Ok(())
}

/// What has been tried and found to help.
struct Tried<'h> {
    here: &'h Availability,
    tight_already: bool,
    required: Bytes,
    advice: Vec<Advice>,
}

impl<'h> Tried<'h> {
    fn new(here: &'h Availability, plan: &Plan) -> Self {
        let ranks = plan.recommended.iter().flat_map(|placement| &placement.ranks);
        let required = ranks.map(|rank| rank.required.high).sum();
        Self { here, tight_already: plan.verdict() == Verdict::Tight, required, advice: Vec::new() }
    }

    /// Whether `grade` is better than what there is.
    fn helps(&self, grade: Grade) -> bool {
        grade == Grade::Fits || (grade == Grade::Tight && !self.tight_already)
    }

    /// Plans `changed` and keeps it if it helps. A change that the engine does not take is none.
    fn question(&mut self, change: &str, message: &str, changed: &Ask<'_>) -> bool {
        let Ok(Some((grade, required, _))) = grade(changed, self.here) else { return false };
        self.keep(change, message, grade, self.required.less(required).unwrap_or(Bytes::ZERO))
    }

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
