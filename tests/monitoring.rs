//! Checks the metrics and the alert rules with promtool (Debian's `prometheus`), if installed.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "test helpers can fail a test, and print why they skip"
)]

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use hf_mem_probe::metrics::{Metrics, Stage};

/// Runs promtool; `None` if it is not installed.
fn promtool(arguments: &[&str], input: &str) -> Option<Output> {
    let mut command = Command::new("promtool");
    command
        .args(arguments)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/prometheus"));

    let spawned = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = spawned else {
        eprintln!("skipped: promtool is not installed");
        return None;
    };

    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();

    Some(child.wait_with_output().unwrap())
}

fn printed(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn metrics_pass_promtool() {
    let metrics = Metrics::default();
    metrics.question("fits", "fits");
    metrics.took(Stage::Request, std::time::Duration::from_micros(40));
    let Some(output) = promtool(&["check", "metrics"], &metrics.classic_text()) else {
        return;
    };

    assert!(
        output.status.success() && printed(&output).trim().is_empty(),
        "{}",
        printed(&output)
    );
}

#[test]
fn alerts_pass_promtool() {
    let Some(output) = promtool(&["check", "rules", "alerts.yml"], "") else {
        return;
    };

    assert!(output.status.success(), "{}", printed(&output));
    let Some(output) = promtool(&["test", "rules", "alerts_test.yml"], "") else {
        return;
    };

    assert!(output.status.success(), "{}", printed(&output));
}
