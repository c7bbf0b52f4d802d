//! The sentence that summarizes an answer.

use crate::bytes::Bytes;
use crate::placement::{Plan, RankShare, Strategy};
use crate::report::answer::{Answer, Verdict};
use crate::report::problem::Reason;
use crate::wire_word::WireWord;

/// Returns the sentence of an answer.
pub(super) fn message(answer: &Answer, plan: &Plan) -> String {
    let subject = subject(answer);
    let Some(placement) = &answer.placement else {
        return format!("{}: {}", subject.trim_end_matches(','), plan.why);
    };

    let needed: u64 = placement
        .devices
        .iter()
        .map(|share| share.required_bytes)
        .fold(0, u64::saturating_add);
    let available: u64 = placement
        .devices
        .iter()
        .filter_map(|share| share.available_bytes)
        .fold(0, u64::saturating_add);

    let (needed, available) = (Bytes::new(needed), Bytes::new(available));
    let placed = placed(answer);

    match answer.verdict {
        Some(Verdict::Fits) => format!("{subject} {placed}, {needed} of {available} available"),
        Some(Verdict::Tight) => {
            let total = answer
                .requirement
                .as_ref()
                .and_then(|requirement| requirement.total);
            let likely = total.map_or(needed, |total| Bytes::new(total.likely_bytes));
            format!(
                "{subject} {placed}: {likely} as a rule, {needed} at the most, \
                 of {available} available"
            )
        }
        _ if plan.short_by == Bytes::ZERO
            && placement
                .host
                .as_ref()
                .is_some_and(|host| host.available_bytes.is_none()) =>
        {
            let host = placement
                .host
                .as_ref()
                .map_or(0, |host| host.required_bytes);
            format!(
                "{subject} {placed} would take {needed} of {available} available, \
                 and {} of host memory, whose size is unknown",
                Bytes::new(host)
            )
        }
        _ if plan.reason == Reason::InsufficientMemory
            && let Some(limit) = outgrown_share(plan) =>
        {
            format!(
                "{subject} {placed} would take {needed}; {limit} of {available} available, {} short",
                plan.short_by
            )
        }
        _ if plan.reason == Reason::InsufficientMemory => {
            format!(
                "{subject} {placed} would take {needed} of {available} available, {} short",
                plan.short_by
            )
        }
        _ if plan.reason == Reason::Leased => {
            format!(
                "{subject} {placed} would take {needed} of {available} available; \
                 the rest is leased to others"
            )
        }
        _ => format!(
            "{subject} {placed} would take {needed} of {available} available: {}",
            plan.why
        ),
    }
}

/// Describes a share that is too small: `gpu_memory_utilization = 0.9 leaves it 22.11 GiB`.
fn outgrown_share(plan: &Plan) -> Option<String> {
    let ranks = &plan.recommended.as_ref()?.ranks;
    let share = ranks.iter().find_map(RankShare::outgrown_share)?;
    let taken: Bytes = ranks
        .iter()
        .filter_map(|rank| rank.share)
        .map(|share| share.taken.high)
        .sum();

    Some(format!("{share} leaves it {taken}"))
}

/// Returns the sentence of an estimate.
pub(super) fn estimate(answer: &Answer) -> String {
    let total = answer
        .requirement
        .as_ref()
        .and_then(|requirement| requirement.total);
    let need = match total {
        Some(total) if total.low_bytes == total.high_bytes => {
            format!(" needs {}", Bytes::new(total.likely_bytes))
        }
        Some(total) => format!(
            " needs {} ({} to {})",
            Bytes::new(total.likely_bytes),
            Bytes::new(total.low_bytes),
            Bytes::new(total.high_bytes)
        ),
        None => String::new(),
    };

    format!("{}{need} {}", subject(answer), placed(answer))
}

/// Returns the subject: `Qwen/Qwen3-8B on vllm 0.33, 40960 tokens x 1 sequence`.
fn subject(answer: &Answer) -> String {
    let engine = answer.engine.as_ref().map_or_else(String::new, |engine| {
        format!(" on {} {}", engine.name, engine.profile)
    });
    let file = answer
        .model
        .file
        .as_ref()
        .map_or_else(String::new, |file| format!(" ({file})"));

    let workload = answer
        .workload
        .as_ref()
        .filter(|workload| workload.context > 0)
        .map_or_else(String::new, |workload| {
            let plural = if workload.sequences == 1 { "" } else { "s" };
            format!(
                ", {} tokens x {} sequence{plural},",
                workload.context, workload.sequences
            )
        });

    format!("{}{file}{engine}{workload}", answer.model.repo)
}

/// Returns the devices and the split: `on 2 devices (tensor parallel 2)`.
fn placed(answer: &Answer) -> String {
    let Some(placement) = &answer.placement else {
        return String::new();
    };

    let count = placement.devices.len();
    let devices = match placement.devices.first() {
        Some(share) if count == 1 => format!("on {}", share.name),
        _ => format!("over {count} devices"),
    };

    let split = match (placement.tensor_parallel, placement.pipeline_parallel) {
        (1, 1) => String::new(),
        (tensor, 1) => format!(" (tensor parallel {tensor})"),
        (1, _) => format!(" ({})", spaced(&placement.strategy)),
        (tensor, pipeline) => format!(" (tensor parallel {tensor}, pipeline parallel {pipeline})"),
    };

    let is_offload = placement.strategy.known().is_some_and(Strategy::is_offload);
    let offload = if is_offload && placement.pipeline_parallel == 1 {
        format!(" ({})", spaced(&placement.strategy))
    } else {
        String::new()
    };

    format!("{devices}{split}{offload}")
}

/// Returns the strategy in words: `pipeline parallel`.
fn spaced(strategy: &WireWord<Strategy>) -> String {
    strategy.as_str().replace('_', " ")
}
