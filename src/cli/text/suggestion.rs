//! Other placements that fit, and suggested changes of the command line.

use hf_mem_core::placement::Strategy;
use hf_mem_core::report::answer::{Alternative, Suggestion, Verdict};
use hf_mem_core::wire_word::WireWord;

use super::launch::shell_quoted;

/// The most alternatives to list.
const MAX_ALTERNATIVES: usize = 3;

/// Returns the best alternative of each other strategy, one line each.
pub(super) fn alternative_lines(alternatives: &[Alternative]) -> Vec<String> {
    let mut seen: Vec<&WireWord<Strategy>> = Vec::new();
    let mut lines = Vec::new();

    for way in alternatives.iter().filter(|way| !way.devices.is_empty()) {
        if !seen.contains(&&way.strategy) {
            seen.push(&way.strategy);
            lines.extend(alternative_line(way));
        }
    }

    lines.truncate(MAX_ALTERNATIVES);
    lines
}

/// Returns the line of an alternative that fits: `tensor parallel 8 on 8 devices: fits too, ...`.
pub(super) fn alternative_line(way: &Alternative) -> Option<String> {
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

/// Returns a suggestion as command line options, with its effect.
pub(super) fn suggestion_line(suggestion: &Suggestion) -> String {
    let tight = if suggestion.verdict == Verdict::Tight {
        " (tight)"
    } else {
        ""
    };

    format!(
        "{}{tight}: {}",
        options(&suggestion.change),
        suggestion.message
    )
}

/// Returns a suggestion as command line options only.
pub(super) fn suggestion_options(suggestion: &Suggestion) -> String {
    options(&suggestion.change)
}

/// Returns the options of a change: `--engine sglang without --set gpu_memory_utilization`.
fn options(change: &str) -> String {
    // A file's name can have spaces.
    if let Some(file) = change.strip_prefix("file=") {
        return format!("--file {}", shell_quoted(file));
    }

    // A change of the question is a list of `name=value` words; other changes are plain text.
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
                added.push(format!(
                    "--set {}",
                    shell_quoted(&format!("{parameter}={value}"))
                ));
                continue;
            }
        };

        if value == "null" {
            left_out.push(option);
        } else {
            added.push(format!("{option} {}", shell_quoted(value)));
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
    fn changes_become_options() {
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

        for (change, expected) in cases {
            assert_eq!(options(change), expected);
        }
    }
}
