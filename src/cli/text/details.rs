//! The parts of an answer behind the first screen: `-v` and `-vv`.

use std::fmt::Write as _;

use hf_mem_core::report::answer::{
    Answer, ComponentAnswer, DeviceShare, IntervalAnswer, Requirement,
};

use super::page::PageLayout;
use super::suggestion::{alternative_line, alternative_lines, suggestion_line};
use super::{grouped, size, wrapped_to};

/// Returns the parts of `-v`: the model, every component, and what the figures rest on.
pub(super) fn parts(answer: &Answer, layout: PageLayout) -> String {
    let mut out = String::new();
    model(&mut out, answer, layout);

    if let Some(requirement) = &answer.requirement {
        components(&mut out, requirement, layout);
    }

    tail(&mut out, answer, layout);
    out
}

/// Returns what `-vv` adds: the devices' exact bytes, every alternative, the parameters in force.
pub(super) fn everything(answer: &Answer, layout: PageLayout) -> String {
    let mut out = String::new();

    for share in answer
        .placement
        .iter()
        .flat_map(|placement| &placement.devices)
    {
        device(&mut out, share, layout);
    }

    let ways: Vec<String> = answer
        .alternatives
        .iter()
        .filter_map(alternative_line)
        .collect();
    section(&mut out, "way", &ways, layout);

    if let Some(requirement) = &answer.requirement {
        let cache = &requirement.kv_cache;
        let _ = writeln!(
            out,
            "\n{}",
            wrapped_to(
                layout.columns,
                &format!(
                    "cache: {} bytes a token, {} bytes of state a sequence, as {}",
                    grouped(cache.bytes_per_token),
                    grouped(cache.state_bytes_per_sequence),
                    if cache.dtype.is_empty() {
                        "-"
                    } else {
                        &cache.dtype
                    }
                ),
                0,
                2
            )
        );
    }

    if let Some(engine) = &answer.engine {
        let settings: Vec<String> = engine
            .parameters
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        section(&mut out, "set", &settings, layout);
    }

    out
}

/// Appends a device's exact bytes.
fn device(out: &mut String, share: &DeviceShare, layout: PageLayout) {
    let exact = |bytes: Option<u64>| bytes.map_or_else(|| "unknown".to_owned(), grouped);
    let line = format!(
        "device {} {}: total {}, free {}, leased {}, available {}, required {}, layers {} to {}",
        share.index,
        share.uuid,
        grouped(share.total_bytes),
        exact(share.free_bytes),
        grouped(share.leased_bytes),
        exact(share.available_bytes),
        grouped(share.required_bytes),
        share.layers.0,
        share.layers.1,
    );

    let _ = writeln!(out, "{}", wrapped_to(layout.columns, &line, 0, 2));
}

fn model(out: &mut String, answer: &Answer, layout: PageLayout) {
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
        let _ = writeln!(
            out,
            "  {}",
            wrapped_to(layout.columns, &line.join(", "), 2, 2)
        );
    }

    if model.weights_by_component_bytes.len() > 1 {
        for (name, bytes) in &model.weights_by_component_bytes {
            let name = if name.is_empty() { "(root)" } else { name };
            let _ = writeln!(out, "    {name:<24} {:>12}", size(*bytes));
        }
    }
}

fn components(out: &mut String, requirement: &Requirement, layout: PageLayout) {
    out.push('\n');
    for part in &requirement.components {
        component(out, part, layout);
    }

    let Some(total) = requirement.total else {
        let _ = writeln!(out, "  {:<14} {:>11}", "total", "unknown");
        return;
    };

    let _ = writeln!(
        out,
        "  {:<14} {:>11}  {}",
        "total",
        size(total.likely_bytes),
        wrapped_to(layout.columns, &exact_bytes(total), 30, 30)
    );
}

/// Returns an interval in bytes: `27,381,182,464 (24,189,927,424 to 32,481,607,680) bytes`.
fn exact_bytes(total: IntervalAnswer) -> String {
    let likely = grouped(total.likely_bytes);
    if total.low_bytes == total.high_bytes {
        return format!("{likely} bytes");
    }

    format!(
        "{likely} bytes ({} to {})",
        grouped(total.low_bytes),
        grouped(total.high_bytes)
    )
}

fn component(out: &mut String, part: &ComponentAnswer, layout: PageLayout) {
    let name = wire_word(&part.name);
    let basis = wire_word(&part.basis);
    let bytes = exact_bytes(IntervalAnswer {
        low_bytes: part.low_bytes,
        likely_bytes: part.likely_bytes,
        high_bytes: part.high_bytes,
    });

    let _ = writeln!(
        out,
        "  {name:<14} {:>11}  {}",
        size(part.likely_bytes),
        wrapped_to(layout.columns, &format!("{basis}: {}", part.detail), 30, 30)
    );
    let _ = writeln!(
        out,
        "{:30}{}",
        "",
        wrapped_to(layout.columns, &bytes, 30, 30)
    );
}

/// Returns the wire word of an enum, as serde writes it.
fn wire_word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

/// Appends what the figures rest on, the best other ways, and the changes that would help.
fn tail(out: &mut String, answer: &Answer, layout: PageLayout) {
    let hints: Vec<String> = answer.suggestions.iter().map(suggestion_line).collect();

    section(out, "assumed", &answer.assumptions, layout);
    section(out, "warning", &warnings(answer), layout);
    section(out, "or", &alternative_lines(&answer.alternatives), layout);
    section(out, "hint", &hints, layout);
}

/// Returns the answer's warnings, with one about an old reading.
pub(super) fn warnings(answer: &Answer) -> Vec<String> {
    let mut warnings = answer.warnings.clone();
    if let (true, Some(at)) = (answer.stale, &answer.sampled_at) {
        warnings.push(format!(
            "the device reading is out of date: it was taken at {at}"
        ));
    }

    warnings
}

/// Appends `lines` after an empty line, each with its title.
fn section(out: &mut String, title: &str, lines: &[String], layout: PageLayout) {
    for (place, line) in lines.iter().enumerate() {
        if place == 0 {
            out.push('\n');
        }
        let line = wrapped_to(layout.columns, &format!("{title}: {line}"), 0, 2);
        let _ = writeln!(out, "{line}");
    }
}
