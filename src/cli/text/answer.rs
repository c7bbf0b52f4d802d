//! Answers as text.

use std::fmt::Write as _;

use hf_mem_core::engines::ComponentName;
use hf_mem_core::report::answer::{
    Answer, ComponentAnswer, DeviceShare, PlacementAnswer, Requirement, Verdict,
};

use super::bar::{BarParts, LEGEND, bar};
use super::launch::launch;
use super::suggestion::{alternative_lines, suggestion_line};
use super::{grouped, size, wrapped};

/// The columns of a bar. The longest note ("short by 100.04 GiB") then ends within 80 columns.
const BAR: usize = 28;

/// Returns the whole answer.
pub fn answer(answer: &Answer) -> String {
    let mut out = String::new();
    let head = match answer.verdict {
        Some(verdict) => format!("{}: {}", verdict_words(verdict), answer.message),
        None => answer.message.clone(),
    };

    out.push_str(&wrapped(&head, 0, 2));
    out.push('\n');
    model(&mut out, answer);

    if let Some(placement) = &answer.placement {
        devices(&mut out, placement);
    }

    if let Some(requirement) = &answer.requirement {
        components(&mut out, requirement);
    }

    if let Some(files) = &answer.files {
        super::files::files(&mut out, files);
    }

    if let Some(placement) = &answer.placement {
        reach(&mut out, answer, placement);
        launch(&mut out, placement);
    }

    tail(&mut out, answer);
    out
}

pub(super) fn verdict_words(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Fits => "fits",
        Verdict::Tight => "tight",
        Verdict::DoesNotFit => "does not fit",
        Verdict::Unknown => "unknown",
    }
}

fn model(out: &mut String, answer: &Answer) {
    let model = &answer.model;
    let facts = [
        model.architecture.clone(),
        model
            .parameters
            .map(|count| format!("{} parameters", grouped(count))),
        model
            .weights_bytes
            .map(|bytes| format!("{} stored", size(bytes))),
        model.quantization.clone(),
        model
            .commit
            .as_ref()
            .map(|commit| format!("commit {}", commit.get(..10).unwrap_or(commit))),
    ];

    let line: Vec<String> = facts.into_iter().flatten().collect();
    if !line.is_empty() {
        let _ = writeln!(out, "  {}", wrapped(&line.join(", "), 2, 2));
    }

    if model.weights_by_component_bytes.len() > 1 {
        for (name, bytes) in &model.weights_by_component_bytes {
            let name = if name.is_empty() { "(root)" } else { name };
            let _ = writeln!(out, "    {name:<24} {:>12}", size(*bytes));
        }
    }
}

fn devices(out: &mut String, placement: &PlacementAnswer) {
    if placement.devices.is_empty() {
        return;
    }

    out.push('\n');
    for share in &placement.devices {
        let name = short_name(&share.name);
        let left = share
            .available_bytes
            .map(|available| available.saturating_sub(share.required_bytes));
        let note = match share.short_by_bytes {
            Some(short @ 1..) => format!("short by {}", size(short)),
            _ => left.map_or_else(String::new, |left| format!("{} left", size(left))),
        };

        let _ = writeln!(
            out,
            "  {:>3} {name:<22} {} {note}",
            share.index,
            bar(&bar_parts(share), BAR)
        );
    }

    let legend: Vec<String> = LEGEND
        .iter()
        .map(|(letter, words)| format!("{letter} {words}"))
        .collect();
    let _ = writeln!(out, "      {}", legend.join("  "));

    if let Some(host) = &placement.host {
        let available = host
            .available_bytes
            .map_or_else(|| "unknown".to_owned(), size);
        let _ = writeln!(
            out,
            "  host memory: {} needed, {available} available",
            size(host.required_bytes)
        );
    }
}

/// Returns a product name in at most 22 characters, without the vendor.
///
/// The name of a MIG instance is the first word of its card, and its profile.
fn short_name(name: &str) -> String {
    let name = name.strip_prefix("NVIDIA ").unwrap_or(name);
    let short = match name.split_once(" MIG ") {
        Some((card, profile)) => {
            format!("{} MIG {profile}", card.split(' ').next().unwrap_or(card))
        }
        None => name.to_owned(),
    };

    short.chars().take(22).collect()
}

fn bar_parts(share: &DeviceShare) -> BarParts {
    let weights = high_bytes(share, &[ComponentName::Weights]);

    // Heavier weights leave the cache a smaller part of the engine's share.
    let cache = high_bytes(share, &[ComponentName::KvCache, ComponentName::State])
        .min(share.required_bytes.saturating_sub(weights));

    BarParts {
        used: share
            .free_bytes
            .map_or(0, |free| share.total_bytes.saturating_sub(free)),
        leased: share.leased_bytes,
        weights,
        cache,
        other: share
            .required_bytes
            .saturating_sub(weights)
            .saturating_sub(cache),
        total: share.total_bytes,
    }
}

/// Returns the sum of the upper bounds of the components with these names.
fn high_bytes(share: &DeviceShare, names: &[ComponentName]) -> u64 {
    share
        .components
        .iter()
        .filter(|part| names.contains(&part.name))
        .map(|part| part.high_bytes)
        .sum()
}

fn components(out: &mut String, requirement: &Requirement) {
    out.push('\n');
    for part in &requirement.components {
        component(out, part);
    }

    let Some(total) = requirement.total else {
        let _ = writeln!(out, "  {:<14} {:>11}", "total", "unknown");
        return;
    };

    let range = if total.low_bytes == total.high_bytes {
        String::new()
    } else {
        format!("{} to {}", size(total.low_bytes), size(total.high_bytes))
    };

    let _ = writeln!(
        out,
        "  {:<14} {:>11}  {range}",
        "total",
        size(total.likely_bytes)
    );
}

fn component(out: &mut String, part: &ComponentAnswer) {
    let name = wire_word(&part.name);
    let basis = wire_word(&part.basis);
    let detail = wrapped(&part.detail, 41, 41);
    let line = format!(
        "  {name:<14} {:>11}  {basis:<10} {detail}",
        size(part.likely_bytes)
    );
    let _ = writeln!(out, "{}", line.trim_end());
}

/// Returns the wire word of an enum, as serde writes it.
fn wire_word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

fn reach(out: &mut String, answer: &Answer, placement: &PlacementAnswer) {
    let context = answer.workload.as_ref().map(|workload| workload.context);
    let surely = if answer.verdict == Some(Verdict::Tight) {
        "sure to fit: "
    } else {
        ""
    };

    let line = match (placement.max_context, placement.max_sequences, context) {
        (Some(0), ..) if surely.is_empty() => Some("no context length fits this way".to_owned()),
        (Some(0), ..) => Some("no context length is sure to fit this way".to_owned()),
        (Some(longest), Some(sequences @ 1..), Some(context)) => Some(format!(
            "{surely}longest context {} at 1 sequence; {} at {} tokens",
            grouped(longest),
            plural(sequences, "sequence"),
            grouped(context)
        )),
        (Some(longest), _, _) => Some(format!(
            "{surely}longest context {} at 1 sequence",
            grouped(longest)
        )),
        _ => None,
    };

    let lines: Vec<String> = line
        .into_iter()
        .chain(cache_capacity(placement, context))
        .collect();
    for (place, line) in lines.iter().enumerate() {
        let before = if place == 0 { "\n" } else { "" };
        let _ = writeln!(out, "{before}  {}", wrapped(line, 2, 4));
    }

    for point in answer.frontier.iter().flatten() {
        let _ = writeln!(
            out,
            "    {:>6} x {:>10} tokens",
            point.sequences,
            grouped(point.context)
        );
    }
}

/// Returns the KV cache capacity of the started engine, in the words of vLLM's log.
fn cache_capacity(placement: &PlacementAnswer, context: Option<u64>) -> Option<String> {
    let (tokens, concurrency) = (placement.kv_cache_tokens?, placement.max_concurrency?);
    let least = placement.kv_cache_low_tokens.filter(|low| *low < tokens);
    let least = least.map_or_else(String::new, |low| format!(" (at least {})", grouped(low)));
    let context = grouped(context?);

    Some(format!(
        "KV cache {} tokens{least}; maximum concurrency for {context} tokens per request {concurrency:.2}x",
        grouped(tokens)
    ))
}

/// Returns a count with its noun: `1 sequence`, `3 sequences`.
fn plural(count: u64, thing: &str) -> String {
    format!(
        "{} {thing}{}",
        grouped(count),
        if count == 1 { "" } else { "s" }
    )
}

fn tail(out: &mut String, answer: &Answer) {
    let mut warnings = answer.warnings.clone();
    if let (true, Some(at)) = (answer.stale, &answer.sampled_at) {
        warnings.push(format!(
            "the device reading is out of date: it was taken at {at}"
        ));
    }

    let hints: Vec<String> = answer.suggestions.iter().map(suggestion_line).collect();

    section(out, "assumed", &answer.assumptions);
    section(out, "warning", &warnings);
    section(out, "or", &alternative_lines(&answer.alternatives));
    section(out, "hint", &hints);
}

/// Appends `lines` after an empty line, each with its title.
fn section(out: &mut String, title: &str, lines: &[String]) {
    for (place, line) in lines.iter().enumerate() {
        if place == 0 {
            out.push('\n');
        }
        let _ = writeln!(out, "{}", wrapped(&format!("{title}: {line}"), 0, 2));
    }
}
