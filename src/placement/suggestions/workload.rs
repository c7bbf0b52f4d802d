//! A smaller workload, a coarser cache, a thriftier engine.

use serde_json::Value;

use super::Tried;
use crate::engines::AskedContext;
use crate::placement::ask::{Ask, PlacementError};
use crate::placement::order::Grade;
use crate::placement::plan::Settled;
use crate::placement::ways::grade;

/// A context below this many tokens is of no use to anyone; it is not suggested.
const LEAST_CONTEXT: u64 = 512;
/// Cache dtypes of half the bytes or fewer, by the engines' own names: vLLM's and SGLang's, llama.cpp's.
const CACHE_DTYPES: [(&str, &str); 3] = [("fp8", "fp8"), ("fp8", "fp8_e4m3"), ("q8_0", "q8_0")];
/// Tokens of one step: vLLM, SGLang, llama.cpp.
const STEP_TOKENS: [&str; 3] = ["max_num_batched_tokens", "chunked_prefill_size", "n_ubatch"];
/// Sequences of one step: vLLM, SGLang.
const STEP_SEQUENCES: [&str; 2] = ["max_num_seqs", "max_running_requests"];
/// What turns CUDA graphs off: vLLM, SGLang.
const EAGER: [&str; 2] = ["enforce_eager", "disable_cuda_graph"];
/// A step is not cut below this many sequences.
const LEAST_SEQUENCES: u64 = 16;

/// A step of fewer tokens than this makes prompts crawl. It must not be smaller than the sequences of a step either: vLLM
/// (`config/scheduler.py`) and SGLang refuse that.
fn least_tokens(name: &str, settled: &Settled) -> u64 {
    let sequences =
        STEP_SEQUENCES.iter().filter_map(|name| settled.parameters.get(*name).and_then(Value::as_u64)).max();
    sequences.unwrap_or(0).max(if name == "n_ubatch" { 128 } else { 512 })
}

/// The largest context that fits with the sequences asked for.
pub(super) fn context(tried: &mut Tried<'_>, ask: &Ask<'_>, settled: &Settled) -> Result<(), PlacementError> {
    let with = |context: u64| {
        let mut smaller = ask.clone();
        smaller.asked.context = Some(AskedContext::Tokens(context));
        smaller
    };
    let fits = |context: u64| goes(tried, &with(context));
    let Some(most) = largest(LEAST_CONTEXT, settled.workload.context, fits)? else { return Ok(()) };
    let context = if goes(tried, &with(round(most)))? { round(most) } else { most };
    tried.question(&format!("context={context}"), &format!("at most {most} tokens fit"), &with(context));
    Ok(())
}

/// The most sequences that fit with the context asked for.
pub(super) fn sequences(tried: &mut Tried<'_>, ask: &Ask<'_>, settled: &Settled) -> Result<(), PlacementError> {
    let with = |sequences: u64| {
        let mut fewer = ask.clone();
        fewer.asked.sequences = Some(sequences);
        fewer
    };
    let fits = |sequences: u64| goes(tried, &with(sequences));
    if let Some(most) = largest(1, settled.workload.sequences, fits)? {
        tried.question(&format!("sequences={most}"), "the most that fit at this context", &with(most));
    }
    Ok(())
}

/// A cache of fewer bits, by whichever of its names the engine takes.
pub(super) fn cache_dtype(tried: &mut Tried<'_>, ask: &Ask<'_>, settled: &Settled) {
    let mut suggested = "";
    for (kind, dtype) in CACHE_DTYPES {
        if kind == suggested || settled.kv_cache_dtype.starts_with(dtype) {
            continue;
        }
        let mut coarser = ask.clone();
        coarser.asked.kv_cache_dtype = Some(dtype.to_owned());
        let change = format!("kv_cache_dtype={dtype}");
        if tried.question(&change, "keys and values in 8 bits; answers may differ a little", &coarser) {
            suggested = kind;
        }
    }
}

/// Fewer tokens and sequences a step, no CUDA graphs: whichever of these the engine counts among its parameters.
pub(super) fn engine(tried: &mut Tried<'_>, ask: &Ask<'_>, settled: &Settled) {
    let before = tried.advice.len();
    let mut both = Vec::new();
    for (names, are_tokens) in [(&STEP_TOKENS[..], true), (&STEP_SEQUENCES[..], false)] {
        for &name in names {
            let Some(now) = settled.parameters.get(name).and_then(Value::as_u64) else { continue };
            let least = if are_tokens { least_tokens(name, settled) } else { LEAST_SEQUENCES };
            let mut value = now / 2;
            while value >= least {
                if with_parameters(tried, ask, &[(name, value.into())], "smaller steps take smaller buffers") {
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
        let halved: Vec<_> = both.iter().map(|(name, half, _)| (*name, half.clone())).collect();
        with_parameters(tried, ask, &halved, "smaller steps take smaller buffers");
    }
    let mut helped = tried.advice.len() > before;
    let mut all: Vec<(&str, Value)> = both.into_iter().map(|(name, _, least)| (name, least)).collect();
    for name in EAGER {
        if settled.parameters.get(name).and_then(Value::as_bool) == Some(false) {
            helped |=
                with_parameters(tried, ask, &[(name, true.into())], "without CUDA graphs; slower at small batches");
            all.push((name, true.into()));
        }
    }
    if !helped && all.len() > 1 {
        with_parameters(tried, ask, &all, "the smallest steps, and no CUDA graphs where it has them");
    }
}

/// Weights of 16 bits where they would be loaded in 32.
pub(super) fn dtype(tried: &mut Tried<'_>, ask: &Ask<'_>) {
    if ask.asked.dtype.is_none() {
        let mut narrower = ask.clone();
        narrower.asked.dtype = Some("float16".to_owned());
        // Where they are of 16 bits already, nothing is saved and nothing suggested.
        tried.question("dtype=float16", "weights in 16 bits instead of 32", &narrower);
    }
}

/// Weights of 8 bits, made at load; with a smaller context where they alone are not enough.
pub(super) fn quantization(tried: &mut Tried<'_>, ask: &Ask<'_>, settled: &Settled) -> Result<(), PlacementError> {
    let mut parameters = ask.parameters.clone();
    let quantised = ask.model.architecture.as_ref().is_ok_and(|it| it.quantization.is_some());
    if parameters.insert("quantization".to_owned(), "fp8".into()).is_some() || quantised {
        return Ok(());
    }
    let coarser = Ask { parameters: &parameters, ..ask.clone() };
    let message = "weights in 8 bits, made at load; answers may differ a little";
    // An engine that does not know the parameter has no figures for it.
    if tried.question("quantization=fp8", message, &coarser) || coarser_is_refused(tried, &coarser) {
        return Ok(());
    }
    let with = |context: u64| {
        let mut smaller = coarser.clone();
        smaller.asked.context = Some(AskedContext::Tokens(context));
        smaller
    };
    if let Some(most) = largest(LEAST_CONTEXT, settled.workload.context, |context| goes(tried, &with(context)))? {
        let context = round(most);
        let without = tried.advice.iter().find_map(|it| it.change.strip_prefix("context=")?.parse().ok());
        if without.is_none_or(|without: u64| context > without) {
            tried.question(&format!("quantization=fp8 context={context}"), message, &with(context));
        }
    }
    Ok(())
}

fn coarser_is_refused(tried: &Tried<'_>, ask: &Ask<'_>) -> bool {
    grade(ask, tried.here).map_or(true, |found| found.is_none())
}

/// A round figure not above `context`: people write them into configurations.
fn round(context: u64) -> u64 {
    let round = context - context % if context > 16_384 { 1024 } else { 256 };
    if round >= LEAST_CONTEXT { round } else { context }
}

fn with_parameters(tried: &mut Tried<'_>, ask: &Ask<'_>, changes: &[(&str, Value)], message: &str) -> bool {
    let mut parameters = ask.parameters.clone();
    parameters.extend(changes.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    let change: Vec<String> = changes.iter().map(|(name, value)| format!("{name}={value}")).collect();
    tried.question(&change.join(" "), message, &Ask { parameters: &parameters, ..ask.clone() })
}

/// Whether `ask` is better off than now.
fn goes(tried: &Tried<'_>, ask: &Ask<'_>) -> Result<bool, PlacementError> {
    Ok(grade(ask, tried.here)?.is_some_and(|(grade, ..)| grade == Grade::Fits))
}

/// The largest value from `least` up to below `asked` for which `fits`.
fn largest(
    least: u64,
    asked: u64,
    fits: impl Fn(u64) -> Result<bool, PlacementError>,
) -> Result<Option<u64>, PlacementError> {
    if asked <= least || !fits(least)? {
        return Ok(None);
    }
    let (mut yes, mut no) = (least, asked);
    while no - yes > 1 {
        let middle = yes + (no - yes) / 2;
        if fits(middle)? {
            yes = middle;
        } else {
            no = middle;
        }
    }
    Ok(Some(yes))
}
