//! What the asker fixed: the engine, the split, the devices, host memory.

use super::Tried;
use super::proposal::{Change, Proposal, Setting};
use crate::engines::Engine;
use crate::placement::plan::ResolvedWorkload;

/// Leaves the split or the devices open where they were fixed; both where neither alone helps.
pub(super) fn open(tried: &mut Tried<'_>) {
    let asked = &tried.ask.constraints;
    let tensor = asked.tensor.map(|_| Setting::TensorParallel);
    let split: Vec<Setting> = tensor
        .into_iter()
        .chain(asked.pipeline.map(|_| Setting::PipelineParallel))
        .collect();
    let devices: Vec<Setting> = asked.devices.iter().map(|_| Setting::Devices).collect();
    let both: Vec<Setting> = split.iter().chain(&devices).cloned().collect();

    let ways = [
        (&split, "the split is then chosen for you"),
        (&devices, "every device of this host is then considered"),
        (
            &both,
            "every device of this host is then considered, and the split chosen for you",
        ),
    ];

    for (settings, message) in ways
        .into_iter()
        .filter(|(settings, _)| !settings.is_empty())
    {
        if tried.propose(&Proposal::new(
            settings.iter().cloned().map(Change::LeaveOpen),
            message,
        )) {
            return;
        }
    }
}

/// The same workload on each of `engines`, with every constraint kept.
pub(super) fn engines<'e>(
    tried: &mut Tried<'e>,
    engines: &[&'e dyn Engine],
    settled: Option<&ResolvedWorkload>,
) {
    for &engine in engines {
        let message = format!("the same workload on {}", engine.name());
        let plain = Proposal::new([Change::Engine(engine)], message);
        let Some(proposal) =
            takes(tried, plain.clone()).or_else(|| takes(tried, without_own_words(tried, plain)))
        else {
            continue;
        };

        let context = settled.map(|settled| settled.workload.context);
        let proposal = match context.filter(|context| tried.context_of(&proposal) != Some(*context))
        {
            Some(context) => proposal.and(Change::Context(context)),
            None => proposal,
        };

        tried.propose(&proposal);
    }
}

/// The proposal, where the engine takes the question.
fn takes<'e>(tried: &Tried<'e>, proposal: Proposal<'e>) -> Option<Proposal<'e>> {
    tried.context_of(&proposal).map(|_| proposal)
}

/// The proposal without parameters that another engine may not know.
fn without_own_words<'e>(tried: &Tried<'e>, proposal: Proposal<'e>) -> Proposal<'e> {
    let parameters = tried.ask.parameters.keys().cloned().map(Setting::Parameter);
    let dtype = tried
        .ask
        .asked
        .kv_cache_dtype
        .as_ref()
        .map(|_| Setting::CacheDtype);

    parameters
        .chain(dtype)
        .map(Change::LeaveOpen)
        .fold(proposal, Proposal::and)
}

/// Host memory, where it was denied.
pub(super) fn offload(tried: &mut Tried<'_>) {
    if !tried.ask.constraints.offload {
        let message = "part of the model stays in host memory, at the cost of speed";
        tried.propose(&Proposal::new([Change::Offload], message));
    }
}
