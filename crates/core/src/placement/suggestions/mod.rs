//! Suggestions: changes that would make a model fit.
//!
//! Every suggestion is a question that differs from the original in named changes. Each one is
//! planned on what is available, so it is computed, never guessed.
//!
//! The order is by harm, least first: a smaller workload, a coarser cache, a slower engine, more
//! devices, another engine or file, coarser weights, host memory, and last what other users would
//! have to release. Suggestions that fit come before those that are tight.

mod constraints;
mod devices;
mod proposal;
mod room;
mod trials;
mod wait;
mod workload;

pub use room::MemoryHolder;
pub use trials::Advice;
pub use wait::wait;

use self::trials::Trials;
use super::ask::Ask;
use super::availability::Availability;
use super::plan::Plan;
use crate::engines::Engine;
use crate::report::answer::Verdict;

/// Returns the changes that would make `ask` fit, least harm first; none if `plan` fits already.
///
/// `engines` are tried in the given order. `holders` are processes and leases that could make room.
pub fn suggestions<'a>(
    ask: &Ask<'a>,
    host: &'a Availability,
    plan: &Plan,
    engines: &[&'a dyn Engine],
    holders: &[MemoryHolder],
) -> Vec<Advice> {
    if plan.verdict() == Verdict::Fits {
        return Vec::new();
    }

    let mut trials = Trials::new(ask, host, plan);
    let settled = plan.settled.as_ref().filter(|_| plan.recommended.is_some());
    if let Some(settled) = settled {
        workload::context(&mut trials, settled);
        workload::sequences(&mut trials, settled);
        workload::cache_dtype(&mut trials, settled);
        workload::share(&mut trials, plan);
        workload::engine(&mut trials, settled);
    }

    constraints::leave_open(&mut trials);
    devices::more_devices(&mut trials);
    constraints::other_engines(&mut trials, engines, plan.settled.as_ref());

    if let Some(settled) = settled {
        workload::dtype(&mut trials);
        workload::quantization(&mut trials, settled);
    }

    constraints::offload(&mut trials);
    devices::host_memory(&mut trials, plan);
    room::make_room(&mut trials, holders);

    let mut advice = trials.advice;
    advice.sort_by_key(|advice| advice.verdict != Verdict::Fits);

    advice
}
