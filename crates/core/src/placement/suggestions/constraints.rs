//! Suggestions that change a constraint: the engine, the split, the devices, host memory.

use super::proposal::{Change, Proposal, Setting};
use super::trials::Trials;
use crate::engines::Engine;
use crate::placement::plan::ResolvedWorkload;

/// Leaves a fixed split or fixed devices open; both if neither alone helps.
pub(super) fn leave_open(trials: &mut Trials<'_>) {
    let asked = &trials.ask.constraints;
    let tensor = asked.tensor.map(|_| Setting::TensorParallel);
    let split: Vec<Setting> = tensor
        .into_iter()
        .chain(asked.pipeline.map(|_| Setting::PipelineParallel))
        .collect();
    let devices: Vec<Setting> = asked.devices.iter().map(|_| Setting::Devices).collect();
    let both: Vec<Setting> = split.iter().chain(&devices).cloned().collect();

    let choices = [
        (&split, "the split is then chosen for you"),
        (&devices, "every device of this host is then considered"),
        (
            &both,
            "every device of this host is then considered, and the split chosen for you",
        ),
    ];

    for (settings, message) in choices
        .into_iter()
        .filter(|(settings, _)| !settings.is_empty())
    {
        if trials.propose(&Proposal::new(
            settings.iter().cloned().map(Change::LeaveOpen),
            message,
        )) {
            return;
        }
    }
}

/// Tries the same workload on each of `engines`, with every constraint kept.
pub(super) fn other_engines<'e>(
    trials: &mut Trials<'e>,
    engines: &[&'e dyn Engine],
    settled: Option<&ResolvedWorkload>,
) {
    for &engine in engines {
        let message = format!("the same workload on {}", engine.name());
        let plain = Proposal::new([Change::Engine(engine)], message);
        let Some(proposal) = accepted(trials, plain.clone())
            .or_else(|| accepted(trials, without_engine_parameters(trials, plain)))
        else {
            continue;
        };

        let context = settled.map(|settled| settled.workload.context);
        let proposal =
            match context.filter(|context| trials.context_of(&proposal) != Some(*context)) {
                Some(context) => proposal.and(Change::Context(context)),
                None => proposal,
            };

        trials.propose(&proposal);
    }
}

/// Returns the proposal if the engine accepts the question.
fn accepted<'e>(trials: &Trials<'e>, proposal: Proposal<'e>) -> Option<Proposal<'e>> {
    trials.context_of(&proposal).map(|_| proposal)
}

/// Returns the proposal without parameters that another engine may not know.
fn without_engine_parameters<'e>(trials: &Trials<'e>, proposal: Proposal<'e>) -> Proposal<'e> {
    let parameters = trials
        .ask
        .parameters
        .keys()
        .cloned()
        .map(Setting::Parameter);
    let dtype = trials
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

/// Allows host memory if the question denies it.
pub(super) fn offload(trials: &mut Trials<'_>) {
    if !trials.ask.constraints.offload {
        let message = "part of the model stays in host memory, at the cost of speed";
        trials.propose(&Proposal::new([Change::Offload], message));
    }
}
