//! An answer as a person reads it.

use std::fmt::Write as _;

use hf_mem_core::engines::ComponentName;
use hf_mem_core::placement::Strategy;
use hf_mem_core::report::answer::{
    Alternative, Answer, ComponentAnswer, DeviceShare, PlacementAnswer, Requirement, Suggestion,
    Verdict,
};
use hf_mem_core::wire_word::WireWord;

use super::bar::{BarParts, LEGEND, bar};
use super::{WIDTH, grouped, size, wrapped};

/// With this many, the longest note ("short by 100.04 GiB") still ends within 80 columns.
const BAR: usize = 28;

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
            bar(&parts(share), BAR)
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

/// A product name in 22 characters: without the maker's, and of a MIG instance the card's first
/// word and the profile.
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

fn parts(share: &DeviceShare) -> BarParts {
    let of = |wanted: &[ComponentName]| -> u64 {
        share
            .components
            .iter()
            .filter(|part| wanted.contains(&part.name))
            .map(|part| part.high_bytes)
            .sum()
    };

    let weights = of(&[ComponentName::Weights]);

    // What a share adds to the cache is the less the larger the weights turn out.
    let cache = of(&[ComponentName::KvCache, ComponentName::State])
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
    let name = word(&part.name);
    let basis = word(&part.basis);
    let detail = wrapped(&part.detail, 41, 41);
    let line = format!(
        "  {name:<14} {:>11}  {basis:<10} {detail}",
        size(part.likely_bytes)
    );
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
    let surely = if answer.verdict == Some(Verdict::Tight) {
        "sure to fit: "
    } else {
        ""
    };

    let line = match (placement.max_context, placement.max_sequences, context) {
        (Some(0), ..) if surely.is_empty() => Some("no context at all fits this way".to_owned()),
        (Some(0), ..) => Some("no context is sure to fit this way".to_owned()),
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
        .chain(capacity(placement, context))
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

/// The cache of the engine once it is started, in the words of vLLM's log.
fn capacity(placement: &PlacementAnswer, context: Option<u64>) -> Option<String> {
    let (tokens, concurrency) = (placement.kv_cache_tokens?, placement.max_concurrency?);
    let least = placement.kv_cache_low_tokens.filter(|low| *low < tokens);
    let least = least.map_or_else(String::new, |low| {
        format!(" ({} at the least)", grouped(low))
    });
    let context = grouped(context?);

    Some(format!(
        "KV cache {} tokens{least}; maximum concurrency for {context} tokens per request {concurrency:.2}x",
        grouped(tokens)
    ))
}

/// `1 sequence`, `3 sequences`.
fn plural(count: u64, thing: &str) -> String {
    format!(
        "{} {thing}{}",
        grouped(count),
        if count == 1 { "" } else { "s" }
    )
}

fn launch(out: &mut String, placement: &PlacementAnswer) {
    let Some(launch) = placement
        .launch
        .as_ref()
        .filter(|launch| !launch.args.is_empty())
    else {
        return;
    };

    out.push('\n');
    for (name, value) in &launch.env {
        let _ = writeln!(out, "  {name}={} \\", quoted(value));
    }

    out.push_str("  ");
    let mut column = 2;

    for (place, argument) in launch.args.iter().enumerate() {
        let value = launch
            .args
            .get(place + 1)
            .filter(|next| !next.starts_with('-'))
            .map_or(0, |next| next.len() + 1);

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

    let takes: Vec<u64> = placement
        .devices
        .iter()
        .filter_map(|share| share.takes_bytes)
        .collect();

    if let Some(line) = takes_line(&takes) {
        let _ = writeln!(out, "\n  {}", wrapped(&line, 2, 2));
    }
}

/// What the engine will take when started so, where that is its own choice.
fn takes_line(takes: &[u64]) -> Option<String> {
    let first = *takes.first()?;
    if takes.iter().all(|bytes| *bytes == first) {
        let each = if takes.len() > 1 {
            " on each device"
        } else {
            ""
        };
        return Some(format!("started so it takes {}{each}", size(first)));
    }

    let each: Vec<String> = takes.iter().map(|bytes| size(*bytes)).collect();
    Some(format!("started so it takes {}", each.join(", ")))
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
    let mut warnings = answer.warnings.clone();
    if let (true, Some(at)) = (answer.stale, &answer.sampled_at) {
        warnings.push(format!(
            "this rests on what was read at {at}, which is older than it should be"
        ));
    }

    section("warning", warnings);
    section("or", other_ways(&answer.alternatives));
    section("hint", answer.suggestions.iter().map(hint).collect());
}

/// The best of each other kind of way that would do; more of them would only be more of the same.
fn other_ways(alternatives: &[Alternative]) -> Vec<String> {
    let mut seen: Vec<&WireWord<Strategy>> = Vec::new();
    let mut lines = Vec::new();

    for way in alternatives.iter().filter(|way| !way.devices.is_empty()) {
        if !seen.contains(&&way.strategy) {
            seen.push(&way.strategy);
            lines.extend(other_way(way));
        }
    }

    lines.truncate(3);
    lines
}

/// Another way that would do, in a line: `tensor parallel 8 on 8 devices: fits too, ...`.
fn other_way(way: &Alternative) -> Option<String> {
    if way.verdict > Verdict::Tight {
        return None;
    }

    let degrees = match (way.tensor_parallel, way.pipeline_parallel) {
        (1, 1) => String::new(),
        (tensor, 1) => format!(" {tensor}"),
        (1, stages) => format!(" {stages}"),
        (tensor, stages) => format!(" {tensor} x {stages}"),
    };

    let devices = if way.devices.len() == 1 {
        "1 device".to_owned()
    } else {
        format!("{} devices", way.devices.len())
    };

    Some(format!(
        "{}{degrees} on {devices}: {}",
        way.strategy.as_str().replace('_', " "),
        way.reason
    ))
}

/// A suggestion as it is typed, with what it leads to.
fn hint(suggestion: &Suggestion) -> String {
    let tight = if suggestion.verdict == Verdict::Tight {
        " (tight)"
    } else {
        ""
    };

    format!(
        "{}{tight}: {}",
        typed(&suggestion.change),
        suggestion.message
    )
}

/// The options that make a change: `--engine sglang without --set gpu_memory_utilization`.
fn typed(change: &str) -> String {
    // A file's name may have spaces.
    if let Some(file) = change.strip_prefix("file=") {
        return format!("--file {}", quoted(file));
    }
    // Only changes of the question are several words of `name=value`.
    let Some(words) = change
        .split(' ')
        .map(|word| word.split_once('='))
        .collect::<Option<Vec<_>>>()
    else {
        return change.to_owned();
    };

    let mut added: Vec<String> = Vec::new();
    let mut left_out: Vec<String> = Vec::new();

    for (name, value) in words {
        let option = match name {
            "devices" if value != "null" => {
                added.push(format!(
                    "{value} device{}",
                    if value == "1" { "" } else { "s" }
                ));
                continue;
            }
            "host_memory_bytes" => {
                added.push("with host memory".to_owned());
                continue;
            }
            "devices" => "--on".to_owned(),
            "context" | "sequences" | "kv_cache_dtype" | "dtype" | "offload" | "engine"
            | "tensor_parallel" | "pipeline_parallel" => format!("--{}", name.replace('_', "-")),
            parameter if value == "null" => format!("--set {parameter}"),
            parameter => {
                added.push(format!("--set {}", quoted(&format!("{parameter}={value}"))));
                continue;
            }
        };

        if value == "null" {
            left_out.push(option);
        } else {
            added.push(format!("{option} {}", quoted(value)));
        }
    }

    if !left_out.is_empty() {
        added.push(format!("without {}", left_out.join(" ")));
    }

    added.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn change_reads_as_options() {
        let cases = [
            ("context=22528", "--context 22528"),
            (
                "quantization=fp8 context=512",
                "--set quantization=fp8 --context 512",
            ),
            (
                "tensor_parallel=null devices=null",
                "without --tensor-parallel --on",
            ),
            (
                "engine=sglang max_num_seqs=null",
                "--engine sglang without --set max_num_seqs",
            ),
            ("devices=4", "4 devices"),
            (
                "offload=allow host_memory_bytes=1",
                "--offload allow with host memory",
            ),
            ("file=my model.gguf", "--file 'my model.gguf'"),
            ("stop pid 7, stop pid 8", "stop pid 7, stop pid 8"),
        ];

        for (change, options) in cases {
            assert_eq!(typed(change), options);
        }
    }

    #[test]
    fn shell_words_survive() {
        assert_eq!(quoted("GPU-1,GPU-2"), "GPU-1,GPU-2");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
