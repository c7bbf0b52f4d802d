//! An answer as a person reads it.

use std::fmt::Write as _;

use super::bar::{LEGEND, Parts, bar};
use super::{WIDTH, gib, grouped, size, wrapped};
use crate::api::answer::{Answer, ComponentAnswer, DeviceShare, PlacementAnswer, Requirement, Verdict};
use crate::engines::ComponentName;

const BAR: usize = 32;

/// The whole answer.
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
        model.parameters.map(|count| format!("{} parameters", grouped(count))),
        model.weights_bytes.map(|bytes| format!("{} stored", size(bytes))),
        model.quantization.clone(),
        model.commit.as_ref().map(|commit| format!("commit {}", commit.get(..10).unwrap_or(commit))),
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
        let name: String = share.name.chars().take(22).collect();
        let left = share.available_bytes.map(|available| available.saturating_sub(share.required_bytes));
        let note = if share.short_by_bytes > 0 {
            format!("short by {}", size(share.short_by_bytes))
        } else {
            left.map_or_else(String::new, |left| format!("{} GiB left", gib(left)))
        };
        let _ = writeln!(out, "  {:>3} {name:<22} {} {note}", share.index, bar(&parts(share), BAR));
    }
    let legend: Vec<String> = LEGEND.iter().map(|(letter, words)| format!("{letter} {words}")).collect();
    let _ = writeln!(out, "      {}", legend.join("  "));
    if let Some(host) = &placement.host {
        let available = host.available_bytes.map_or_else(|| "unknown".to_owned(), size);
        let _ = writeln!(out, "  host memory: {} needed, {available} available", size(host.required_bytes));
    }
}

fn parts(share: &DeviceShare) -> Parts {
    let of = |wanted: &[ComponentName]| -> u64 {
        share.components.iter().filter(|part| wanted.contains(&part.name)).map(|part| part.high_bytes).sum()
    };
    let weights = of(&[ComponentName::Weights]);
    let cache = of(&[ComponentName::KvCache, ComponentName::State]);
    Parts {
        used: share.free_bytes.map_or(0, |free| share.total_bytes.saturating_sub(free)),
        leased: share.leased_bytes,
        weights,
        cache,
        other: share.required_bytes.saturating_sub(weights).saturating_sub(cache),
        total: share.total_bytes,
    }
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
    let _ = writeln!(out, "  {:<14} {:>11}  {range}", "total", size(total.likely_bytes));
}

fn component(out: &mut String, part: &ComponentAnswer) {
    let name = word(&part.name);
    let basis = word(&part.basis);
    let detail = wrapped(&part.detail, 41, 41);
    let line = format!("  {name:<14} {:>11}  {basis:<10} {detail}", size(part.likely_bytes));
    let _ = writeln!(out, "{}", line.trim_end());
}

/// The wire word of an enum, as serde writes it.
fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

fn reach(out: &mut String, answer: &Answer, placement: &PlacementAnswer) {
    let context = answer.workload.as_ref().map(|workload| workload.context);
    let line = match (placement.max_context, placement.max_sequences, context) {
        (Some(0), ..) => "no context at all fits this way".to_owned(),
        (Some(longest), Some(sequences), Some(context)) => format!(
            "longest context {} at 1 sequence; {} at {} tokens",
            grouped(longest),
            plural(sequences, "sequence"),
            grouped(context)
        ),
        (Some(longest), _, _) => format!("longest context {} at 1 sequence", grouped(longest)),
        _ => return,
    };
    let _ = writeln!(out, "\n  {line}");
    for point in answer.frontier.iter().flatten() {
        let _ = writeln!(out, "    {:>6} x {:>10} tokens", point.sequences, grouped(point.context));
    }
}

/// `1 sequence`, `3 sequences`.
fn plural(count: u64, thing: &str) -> String {
    format!("{} {thing}{}", grouped(count), if count == 1 { "" } else { "s" })
}

fn launch(out: &mut String, placement: &PlacementAnswer) {
    let Some(launch) = placement.launch.as_ref().filter(|launch| !launch.args.is_empty()) else { return };
    out.push('\n');
    for (name, value) in &launch.env {
        let _ = writeln!(out, "  {name}={} \\", quoted(value));
    }
    out.push_str("  ");
    let mut column = 2;
    for (place, argument) in launch.args.iter().enumerate() {
        let value = launch.args.get(place + 1).filter(|next| !next.starts_with('-')).map_or(0, |next| next.len() + 1);
        let argument = quoted(argument);
        // A flag and its value stay on one line.
        if place > 0 && argument.starts_with('-') && column + argument.len() + value > WIDTH - 2 {
            out.push_str("\\\n    ");
            column = 4;
        }
        column += argument.len() + 1;
        out.push_str(&argument);
        out.push(' ');
    }
    let length = out.trim_end().len();
    out.truncate(length);
    out.push('\n');
}

/// An argument as a POSIX shell takes it.
fn quoted(argument: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_=/.,:@%+".contains(&byte);
    if !argument.is_empty() && argument.bytes().all(plain) {
        argument.to_owned()
    } else {
        format!("'{}'", argument.replace('\'', r"'\''"))
    }
}

fn tail(out: &mut String, answer: &Answer) {
    let mut section = |title: &str, lines: Vec<String>| {
        for (place, line) in lines.into_iter().enumerate() {
            if place == 0 {
                out.push('\n');
            }
            let _ = writeln!(out, "{}", wrapped(&format!("{title}: {line}"), 0, 2));
        }
    };
    section("assumed", answer.assumptions.clone());
    section("warning", answer.warnings.clone());
    section("hint", answer.suggestions.iter().map(|suggestion| suggestion.message.clone()).collect());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shell_words_survive() {
        assert_eq!(quoted("GPU-1,GPU-2"), "GPU-1,GPU-2");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
