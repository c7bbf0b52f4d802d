//! The metrics and the alert rules as Prometheus' own tool sees them, where it is installed
//! (Debian's `prometheus`).

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "the helpers of tests may fail them, and say why they skip"
)]

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use hf_mem_probe::metrics::{Metrics, Stage};

/// What promtool says; `None` where there is none.
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
        eprintln!("skipped: no promtool here");
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

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn the_metrics_are_well_formed_and_named_as_is_the_custom() {
    let metrics = Metrics::default();
    metrics.question("fits", "fits");
    metrics.took(Stage::Request, std::time::Duration::from_micros(40));
    let Some(output) = promtool(&["check", "metrics"], &metrics.classic_text()) else {
        return;
    };

    assert!(
        output.status.success() && said(&output).trim().is_empty(),
        "{}",
        said(&output)
    );
}

#[test]
fn the_alerts_are_raised_when_they_should_be_and_not_otherwise() {
    let Some(output) = promtool(&["check", "rules", "alerts.yml"], "") else {
        return;
    };

    assert!(output.status.success(), "{}", said(&output));
    let Some(output) = promtool(&["test", "rules", "alerts_test.yml"], "") else {
        return;
    };

    assert!(output.status.success(), "{}", said(&output));
}
