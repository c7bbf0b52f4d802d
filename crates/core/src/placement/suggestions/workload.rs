//! Suggestions that change the workload: less context, a coarser cache, smaller engine buffers.

use serde_json::Value;

use super::proposal::{Change, Proposal};
use super::trials::Trials;
use crate::engines::share::decimal;
use crate::placement::placed::RankShare;
use crate::placement::plan::{Plan, ResolvedWorkload};

/// The smallest context that is suggested. A smaller one is useless.
const MIN_CONTEXT: u64 = 512;
/// Cache dtypes of at most half the bytes, with the engines' own names: vLLM's and SGLang's,
/// llama.cpp's.
const CACHE_DTYPES: [(&str, &str); 3] = [("fp8", "fp8"), ("fp8", "fp8_e4m3"), ("q8_0", "q8_0")];
/// Parameters for the tokens of a step: vLLM, SGLang, llama.cpp.
const STEP_TOKENS: [&str; 3] = ["max_num_batched_tokens", "chunked_prefill_size", "n_ubatch"];
/// Parameters for the sequences of a step: vLLM, SGLang.
const STEP_SEQUENCES: [&str; 2] = ["max_num_seqs", "max_running_requests"];
/// Parameters that disable CUDA graphs: vLLM, SGLang.
const EAGER: [&str; 2] = ["enforce_eager", "disable_cuda_graph"];
/// The step between suggested shares, a hundredth, in millionths.
const SHARE_STEP: u64 = 10_000;
/// The fewest sequences of a suggested step.
const MIN_SEQUENCES: u64 = 16;

/// Returns the fewest tokens of a suggested step.
///
/// Smaller steps slow down prompts. The tokens must not be fewer than the sequences of a step
/// either: vLLM (`config/scheduler.py`) and SGLang reject that.
fn min_tokens(name: &str, settled: &ResolvedWorkload) -> u64 {
    let sequences = STEP_SEQUENCES
        .iter()
        .filter_map(|name| settled.parameters.get(*name).and_then(Value::as_u64))
        .max();
    sequences
        .unwrap_or(0)
        .max(if name == "n_ubatch" { 128 } else { 512 })
}

/// Suggests the largest context that fits with the requested sequences.
pub(super) fn context(trials: &mut Trials<'_>, settled: &ResolvedWorkload) {
    let Some(most) = largest(MIN_CONTEXT, settled.workload.context, |context| {
        trials.fits_with(Change::Context(context))
    }) else {
        return;
    };

    let rounded = round_down(most);
    let (context, message) = if rounded < most && trials.fits_with(Change::Context(rounded)) {
        (rounded, "the longest context that fits, in round figures")
    } else {
        (most, "the longest context that fits")
    };

    trials.propose(&Proposal::new([Change::Context(context)], message));
}

/// Suggests the most sequences that fit with the requested context.
pub(super) fn sequences(trials: &mut Trials<'_>, settled: &ResolvedWorkload) {
    if let Some(most) = largest(1, settled.workload.sequences, |sequences| {
        trials.fits_with(Change::Sequences(sequences))
    }) {
        trials.propose(&Proposal::new(
            [Change::Sequences(most)],
            "the most that fit at this context",
        ));
    }
}

/// Suggests a cache of fewer bits, under the name that the engine accepts.
pub(super) fn cache_dtype(trials: &mut Trials<'_>, settled: &ResolvedWorkload) {
    let mut suggested = "";
    for (kind, dtype) in CACHE_DTYPES {
        if kind == suggested || settled.kv_cache_dtype.starts_with(dtype) {
            continue;
        }
        let message = "keys and values in 8 bits; answers may differ a little";
        if trials.propose(&Proposal::new([Change::CacheDtype(dtype)], message)) {
            suggested = kind;
        }
    }
}

/// Suggests the smallest share that holds the need, if the question sets one that is too small or
/// not free.
pub(super) fn share(trials: &mut Trials<'_>, plan: &Plan) {
    let ranks = plan
        .recommended
        .iter()
        .flat_map(|placement| &placement.ranks);
    let shares: Option<Vec<(&'static str, u64)>> = ranks.map(needed_share).collect();
    let Some((name, millionths)) =
        shares.and_then(|shares| shares.into_iter().max_by_key(|(_, share)| *share))
    else {
        return;
    };

    let millionths = millionths.next_multiple_of(SHARE_STEP);
    if millionths <= 1_000_000 {
        let change = Change::Parameter(name.to_owned(), decimal(millionths).into());
        trials.propose(&Proposal::new(
            [change],
            "the smallest share that holds the need",
        ));
    }
}

/// Returns the share, in millionths, that holds what `rank` needs; `None` without a share.
fn needed_share(rank: &RankShare) -> Option<(&'static str, u64)> {
    let share = rank.share?;
    let inside = rank.need.high.less(share.outside.high)?;
    let whole = share.taken.high.less(share.outside.high)?;
    Some((
        share.name,
        inside.scale(share.millionths, whole.get().max(1)).get(),
    ))
}

/// Suggests fewer tokens and sequences a step, and no CUDA graphs, if the engine has such
/// parameters.
pub(super) fn engine(trials: &mut Trials<'_>, settled: &ResolvedWorkload) {
    let before = trials.advice.len();
    let mut both = Vec::new();

    for (names, are_tokens) in [(&STEP_TOKENS[..], true), (&STEP_SEQUENCES[..], false)] {
        for &name in names {
            let Some(now) = settled.parameters.get(name).and_then(Value::as_u64) else {
                continue;
            };

            let least = if are_tokens {
                min_tokens(name, settled)
            } else {
                // No engine accepts fewer than the workload holds.
                MIN_SEQUENCES.max(settled.workload.sequences)
            };

            let mut value = now / 2;
            while value >= least {
                if propose_parameters(
                    trials,
                    &[(name, value.into())],
                    "smaller steps take smaller buffers",
                ) {
                    break;
                }
                value /= 2;
            }

            if value < least && now / 2 >= least {
                both.push((name, Value::from(now / 2), Value::from(least)));
            }
        }
    }

    if both.len() > 1 {
        let halved: Vec<_> = both
            .iter()
            .map(|(name, half, _)| (*name, half.clone()))
            .collect();
        propose_parameters(trials, &halved, "smaller steps take smaller buffers");
    }

    let mut helped = trials.advice.len() > before;
    let mut all: Vec<(&str, Value)> = both
        .into_iter()
        .map(|(name, _, least)| (name, least))
        .collect();

    for name in EAGER {
        if settled.parameters.get(name).and_then(Value::as_bool) == Some(false) {
            helped |= propose_parameters(
                trials,
                &[(name, true.into())],
                "without CUDA graphs; slower at small batches",
            );
            all.push((name, true.into()));
        }
    }

    if !helped && all.len() > 1 {
        propose_parameters(
            trials,
            &all,
            "the smallest steps, and no CUDA graphs where it has them",
        );
    }
}

/// Suggests 16-bit weights if they would be loaded in 32 bits.
pub(super) fn dtype(trials: &mut Trials<'_>) {
    if trials.ask.asked.dtype.is_none() {
        // Nothing is saved, and nothing suggested, if they already have 16 bits.
        trials.propose(&Proposal::new(
            [Change::Dtype("float16")],
            "weights in 16 bits instead of 32",
        ));
    }
}

/// Suggests 8-bit weights, made at load; with a smaller context if they alone are not enough.
pub(super) fn quantization(trials: &mut Trials<'_>, settled: &ResolvedWorkload) {
    let quantized = trials
        .ask
        .model
        .architecture
        .as_ref()
        .is_ok_and(|it| it.quantization.is_some());
    if quantized || trials.ask.parameters.contains_key("quantization") {
        return;
    }

    let message = "weights in 8 bits, made at load; answers may differ a little";
    let coarser = Proposal::new(
        [Change::Parameter("quantization".to_owned(), "fp8".into())],
        message,
    );

    // An engine that does not know the parameter computes no figures.
    if trials.propose(&coarser) || trials.grade(&coarser).is_none() {
        return;
    }

    let coarser_at = |context: u64| coarser.clone().and(Change::Context(context));
    if let Some(most) = largest(MIN_CONTEXT, settled.workload.context, |context| {
        trials.fits(&coarser_at(context))
    }) {
        let context = round_down(most);
        let without = trials
            .advice
            .iter()
            .find_map(|it| it.change.strip_prefix("context=")?.parse().ok());
        if without.is_none_or(|without: u64| context > without) {
            trials.propose(&coarser_at(context));
        }
    }
}

/// Returns a round figure not above `context`, as people write them into configurations.
fn round_down(context: u64) -> u64 {
    let round = context - context % if context > 16_384 { 1024 } else { 256 };
    if round >= MIN_CONTEXT { round } else { context }
}

/// Proposes new values for engine parameters.
fn propose_parameters(trials: &mut Trials<'_>, changes: &[(&str, Value)], message: &str) -> bool {
    let changes = changes
        .iter()
        .map(|(name, value)| Change::Parameter((*name).to_owned(), value.clone()));
    trials.propose(&Proposal::new(changes, message))
}

/// Returns the largest value from `least` up to below `asked` for which `fits` holds.
fn largest(least: u64, asked: u64, fits: impl Fn(u64) -> bool) -> Option<u64> {
    if asked <= least || !fits(least) {
        return None;
    }

    let (mut yes, mut no) = (least, asked);
    while no - yes > 1 {
        let middle = yes + (no - yes) / 2;
        if fits(middle) {
            yes = middle;
        } else {
            no = middle;
        }
    }

    Some(yes)
}
