//! The first line of an answer: the verdict, the model, the devices, the engine.

use hf_mem_core::placement::Strategy;
use hf_mem_core::report::answer::{Answer, DeviceShare, PlacementAnswer, Verdict};
use hf_mem_core::wire_word::WireWord;

use super::figure::figure;
use super::page::{Page, PageLayout, Signs, Tone};
use super::{grouped, plural, wrapped_to};

/// The most kinds of devices that the line names.
const MAX_KINDS: usize = 3;

/// Appends the headline. The engine and the workload are at the right if there is room.
pub(super) fn headline(page: &mut Page, answer: &Answer, layout: PageLayout) {
    let (tone, sign) = verdict_sign(answer.verdict, layout.signs);
    let claim = claim(answer, layout.signs);

    // The answer's own sentence names the engine and the workload.
    let notes: Vec<String> = if claim == answer.message {
        Vec::new()
    } else {
        engine_note(answer)
            .into_iter()
            .chain(workload_note(answer, layout.signs))
            .collect()
    };

    let indent = sign.chars().count() + usize::from(!sign.is_empty());
    if !sign.is_empty() {
        page.push(tone, format!("{sign} "));
    }
    page.push(
        Tone::Strong,
        wrapped_to(layout.columns, &claim, indent, indent),
    );

    let end = indent + claim.chars().count();
    let longest = notes.iter().map(|note| note.chars().count()).max();
    let has_room = longest.is_some_and(|longest| end + 2 + longest <= layout.columns);

    if has_room {
        for (line, note) in notes.iter().enumerate() {
            let begin = if line == 0 { end } else { 0 };
            let room = layout.columns - begin;
            page.push(Tone::Dim, format!("{note:>room$}"));
            page.end_line();
        }
        return;
    }

    page.end_line();
    let notes = notes.join(layout.signs.choose(" · ", "; "));
    if !notes.is_empty() {
        let notes = wrapped_to(layout.columns, &notes, indent, indent);
        page.push(Tone::Dim, format!("{:indent$}{notes}", ""));
        page.end_line();
    }
}

/// Returns the sign of a verdict and its tone. An estimate has none.
pub(super) fn verdict_sign(verdict: Option<Verdict>, signs: Signs) -> (Tone, &'static str) {
    match verdict {
        Some(Verdict::Fits) => (Tone::Good, signs.choose("✓", "OK")),
        Some(Verdict::Tight) => (Tone::Warning, "~"),
        Some(Verdict::DoesNotFit) => (Tone::Bad, signs.choose("✗", "NO")),
        Some(Verdict::Unknown) => (Tone::Warning, "?"),
        None => (Tone::Plain, ""),
    }
}

/// Returns the claim: `Qwen/Qwen3-8B fits on 2 x 24.00 GiB device`.
///
/// Without a placement, the answer's own sentence has the reason.
fn claim(answer: &Answer, signs: Signs) -> String {
    let Some(placement) = answer
        .placement
        .as_ref()
        .filter(|placement| !placement.devices.is_empty())
    else {
        return answer.message.clone();
    };

    let file = answer
        .model
        .file
        .as_ref()
        .map_or_else(String::new, |file| format!(" ({file})"));
    let model = format!("{}{file}", answer.model.repo);
    let devices = devices(&placement.devices, signs);

    match answer.verdict {
        Some(Verdict::Fits) => format!("{model} fits on {devices}"),
        Some(Verdict::Tight) => format!("{model} is tight on {devices}"),
        Some(Verdict::DoesNotFit) => format!("{model} does not fit on {devices}"),
        Some(Verdict::Unknown) => answer.message.clone(),
        None => {
            let total = answer.requirement.as_ref().and_then(|need| need.total);
            match total {
                Some(total) => {
                    format!("{model} needs {} on {devices}", figure(total.likely_bytes))
                }
                None => answer.message.clone(),
            }
        }
    }
}

/// Returns the devices by name: `2 x H100 80GB HBM3`.
fn devices(shares: &[DeviceShare], signs: Signs) -> String {
    let mut kinds: Vec<(String, usize)> = Vec::new();
    for share in shares {
        let name = short_name(&share.name);
        match kinds.iter_mut().find(|(known, _)| *known == name) {
            Some((_, count)) => *count += 1,
            None => kinds.push((name, 1)),
        }
    }

    if kinds.len() > MAX_KINDS {
        return format!("{} devices", shares.len());
    }

    let times = signs.choose("×", "x");
    let names: Vec<String> = kinds
        .into_iter()
        .map(|(name, count)| {
            if count == 1 && shares.len() == 1 {
                name
            } else {
                format!("{count} {times} {name}")
            }
        })
        .collect();
    names.join(" + ")
}

/// Returns a product name in at most 22 characters, without the vendor.
///
/// The name of a MIG instance is the first word of its card, and its profile.
pub(super) fn short_name(name: &str) -> String {
    let name = name.strip_prefix("NVIDIA ").unwrap_or(name);
    let short = match name.split_once(" MIG ") {
        Some((card, profile)) => {
            format!("{} MIG {profile}", card.split(' ').next().unwrap_or(card))
        }
        None => name.to_owned(),
    };

    short.chars().take(22).collect()
}

/// Returns the engine and the split: `vllm 0.33, tensor parallel 2`.
fn engine_note(answer: &Answer) -> Option<String> {
    let engine = answer.engine.as_ref()?;
    let profile = if engine.profile.is_empty() {
        String::new()
    } else {
        format!(" {}", engine.profile)
    };
    let split = answer
        .placement
        .as_ref()
        .and_then(split_note)
        .map_or_else(String::new, |split| format!(", {split}"));

    Some(format!("{}{profile}{split}", engine.name))
}

/// Returns the split in words; `None` for a whole model on one device.
pub(super) fn split_note(placement: &PlacementAnswer) -> Option<String> {
    let is_offload = placement.strategy.known().is_some_and(Strategy::is_offload);
    match (placement.tensor_parallel, placement.pipeline_parallel) {
        _ if is_offload => Some(strategy_words(&placement.strategy)),
        (1, 1) => None,
        (tensor, 1) => Some(format!("tensor parallel {tensor}")),
        (1, stages) => Some(format!("{} {stages}", strategy_words(&placement.strategy))),
        (tensor, stages) => Some(format!(
            "tensor parallel {tensor}, pipeline parallel {stages}"
        )),
    }
}

/// Returns the strategy in words: `pipeline parallel`.
fn strategy_words(strategy: &WireWord<Strategy>) -> String {
    strategy.as_str().replace('_', " ")
}

/// Returns the workload: `40,960 tokens x 1 sequence`.
fn workload_note(answer: &Answer, signs: Signs) -> Option<String> {
    let workload = answer
        .workload
        .as_ref()
        .filter(|workload| workload.context > 0)?;
    Some(format!(
        "{} tokens {} {}",
        grouped(workload.context),
        signs.choose("×", "x"),
        plural(workload.sequences, "sequence")
    ))
}
