//! A smaller workload, a coarser cache, a thriftier engine.

use serde_json::Value;

use super::Tried;
use super::proposal::{Change, Proposal};
use crate::engines::share::decimal;
use crate::placement::placed::RankShare;
use crate::placement::plan::{Plan, ResolvedWorkload};

/// A context below this many tokens is of no use to anyone; it is not suggested.
const LEAST_CONTEXT: u64 = 512;
/// Cache dtypes of half the bytes or fewer, by the engines' own names: vLLM's and SGLang's,
/// llama.cpp's.
const CACHE_DTYPES: [(&str, &str); 3] = [("fp8", "fp8"), ("fp8", "fp8_e4m3"), ("q8_0", "q8_0")];
/// Tokens of one step: vLLM, SGLang, llama.cpp.
const STEP_TOKENS: [&str; 3] = ["max_num_batched_tokens", "chunked_prefill_size", "n_ubatch"];
/// Sequences of one step: vLLM, SGLang.
const STEP_SEQUENCES: [&str; 2] = ["max_num_seqs", "max_running_requests"];
/// What turns CUDA graphs off: vLLM, SGLang.
const EAGER: [&str; 2] = ["enforce_eager", "disable_cuda_graph"];
/// Shares are suggested in hundredths, in millionths.
const SHARE_STEP: u64 = 10_000;
/// A step is not cut below this many sequences.
const LEAST_SEQUENCES: u64 = 16;

/// A step of fewer tokens than this makes prompts crawl. It must not be smaller than the sequences
/// of a step either: vLLM (`config/scheduler.py`) and SGLang refuse that.
fn least_tokens(name: &str, settled: &ResolvedWorkload) -> u64 {
    let sequences = STEP_SEQUENCES
        .iter()
        .filter_map(|name| settled.parameters.get(*name).and_then(Value::as_u64))
        .max();
    sequences
        .unwrap_or(0)
        .max(if name == "n_ubatch" { 128 } else { 512 })
}

/// The largest context that fits with the sequences asked for.
pub(super) fn context(tried: &mut Tried<'_>, settled: &ResolvedWorkload) {
    let fits = |context: u64| tried.fits(&Proposal::new([Change::Context(context)], ""));
    let Some(most) = largest(LEAST_CONTEXT, settled.workload.context, fits) else {
        return;
    };

    let round = round(most);
    let (context, message) = if round < most && fits(round) {
        (round, "the longest context that fits, in round figures")
    } else {
        (most, "the longest context that fits")
    };

    tried.propose(&Proposal::new([Change::Context(context)], message));
}

/// The most sequences that fit with the context asked for.
pub(super) fn sequences(tried: &mut Tried<'_>, settled: &ResolvedWorkload) {
    let fits = |sequences: u64| tried.fits(&Proposal::new([Change::Sequences(sequences)], ""));
    if let Some(most) = largest(1, settled.workload.sequences, fits) {
        tried.propose(&Proposal::new(
            [Change::Sequences(most)],
            "the most that fit at this context",
        ));
    }
}

/// A cache of fewer bits, by whichever of its names the engine takes.
pub(super) fn cache_dtype(tried: &mut Tried<'_>, settled: &ResolvedWorkload) {
    let mut suggested = "";
    for (kind, dtype) in CACHE_DTYPES {
        if kind == suggested || settled.kv_cache_dtype.starts_with(dtype) {
            continue;
        }
        let message = "keys and values in 8 bits; answers may differ a little";
        if tried.propose(&Proposal::new([Change::CacheDtype(dtype)], message)) {
            suggested = kind;
        }
    }
}

/// The smallest share that holds the need, where the asker set one that is too small or not free.
pub(super) fn share(tried: &mut Tried<'_>, plan: &Plan) {
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
        tried.propose(&Proposal::new(
            [change],
            "the smallest share that holds the need",
        ));
    }
}

/// The share, in millionths, that holds what `rank` needs; `None` without one.
fn needed_share(rank: &RankShare) -> Option<(&'static str, u64)> {
    let share = rank.share?;
    let inside = rank.need.high.less(share.outside.high)?;
    let whole = share.taken.high.less(share.outside.high)?;
    Some((
        share.name,
        inside.scale(share.millionths, whole.get().max(1)).get(),
    ))
}

/// Fewer tokens and sequences a step, no CUDA graphs: whichever of these the engine counts among
/// its parameters.
pub(super) fn engine(tried: &mut Tried<'_>, settled: &ResolvedWorkload) {
    let before = tried.advice.len();
    let mut both = Vec::new();

    for (names, are_tokens) in [(&STEP_TOKENS[..], true), (&STEP_SEQUENCES[..], false)] {
        for &name in names {
            let Some(now) = settled.parameters.get(name).and_then(Value::as_u64) else {
                continue;
            };

            let least = if are_tokens {
                least_tokens(name, settled)
            } else {
                // No engine takes fewer than it is asked to hold.
                LEAST_SEQUENCES.max(settled.workload.sequences)
            };

            let mut value = now / 2;
            while value >= least {
                if with_parameters(
                    tried,
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
        with_parameters(tried, &halved, "smaller steps take smaller buffers");
    }

    let mut helped = tried.advice.len() > before;
    let mut all: Vec<(&str, Value)> = both
        .into_iter()
        .map(|(name, _, least)| (name, least))
        .collect();

    for name in EAGER {
        if settled.parameters.get(name).and_then(Value::as_bool) == Some(false) {
            helped |= with_parameters(
                tried,
                &[(name, true.into())],
                "without CUDA graphs; slower at small batches",
            );
            all.push((name, true.into()));
        }
    }

    if !helped && all.len() > 1 {
        with_parameters(
            tried,
            &all,
            "the smallest steps, and no CUDA graphs where it has them",
        );
    }
}

/// Weights of 16 bits where they would be loaded in 32.
pub(super) fn dtype(tried: &mut Tried<'_>) {
    if tried.ask.asked.dtype.is_none() {
        // Where they are of 16 bits already, nothing is saved and nothing suggested.
        tried.propose(&Proposal::new(
            [Change::Dtype("float16")],
            "weights in 16 bits instead of 32",
        ));
    }
}

/// Weights of 8 bits, made at load; with a smaller context where they alone are not enough.
pub(super) fn quantization(tried: &mut Tried<'_>, settled: &ResolvedWorkload) {
    let quantised = tried
        .ask
        .model
        .architecture
        .as_ref()
        .is_ok_and(|it| it.quantization.is_some());
    if quantised || tried.ask.parameters.contains_key("quantization") {
        return;
    }

    let message = "weights in 8 bits, made at load; answers may differ a little";
    let coarser = Proposal::new(
        [Change::Parameter("quantization".to_owned(), "fp8".into())],
        message,
    );

    // An engine that does not know the parameter has no figures for it.
    if tried.propose(&coarser) || tried.grade(&coarser).is_none() {
        return;
    }

    let with = |context: u64| coarser.clone().and(Change::Context(context));
    if let Some(most) = largest(LEAST_CONTEXT, settled.workload.context, |context| {
        tried.fits(&with(context))
    }) {
        let context = round(most);
        let without = tried
            .advice
            .iter()
            .find_map(|it| it.change.strip_prefix("context=")?.parse().ok());
        if without.is_none_or(|without: u64| context > without) {
            tried.propose(&with(context));
        }
    }
}

/// A round figure not above `context`: people write them into configurations.
fn round(context: u64) -> u64 {
    let round = context - context % if context > 16_384 { 1024 } else { 256 };
    if round >= LEAST_CONTEXT {
        round
    } else {
        context
    }
}

fn with_parameters(tried: &mut Tried<'_>, changes: &[(&str, Value)], message: &str) -> bool {
    let changes = changes
        .iter()
        .map(|(name, value)| Change::Parameter((*name).to_owned(), value.clone()));
    tried.propose(&Proposal::new(changes, message))
}

/// The largest value from `least` up to below `asked` for which `fits`.
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
