//! `run` as a process: exit code, signals and environment of the command, without a daemon.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Returns a `run` of the shipped model, without a daemon.
fn run(home: &TempDir, more: &[&str], command: &[&str]) -> Command {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/Qwen3-8B");
    let mut run = Command::new(env!("CARGO_BIN_EXE_hf-mem-probe"));
    run.args(["--color", "never", "run"]).arg(model).args([
        "--engine",
        "vllm",
        "--context",
        "8192",
    ]);
    run.arg("--socket").arg(home.path().join("none.sock"));
    run.args(more).arg("--").args(command);
    bare(&mut run).env("HOME", home.path()).stdin(Stdio::null());

    run
}

/// Clears the environment of `command`, except for `PATH` and `TMPDIR`.
fn bare(command: &mut Command) -> &mut Command {
    command.env_clear();
    for name in ["PATH", "TMPDIR"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }

    command
}

const CARD: [&str; 3] = ["--no-lease", "--gpus", "H100-80GB"];

fn started(mut command: Command) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    (child, out)
}

#[test]
fn no_daemon_runs_nothing() {
    let home = tempfile::tempdir().unwrap();
    let output = run(
        &home,
        &["--json"],
        &["touch", home.path().join("ran").to_str().unwrap()],
    )
    .output()
    .unwrap();

    assert_eq!(
        output.status.code(),
        Some(69),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );

    let problem: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(problem["reason"], "daemon_unreachable");
    assert!(problem["hint"].as_str().unwrap().contains("--no-lease"));
    assert!(!home.path().join("ran").exists());
}

#[test]
fn unfitting_model_runs_nothing() {
    let home = tempfile::tempdir().unwrap();
    let ran = home.path().join("ran");

    let output = run(
        &home,
        &["--no-lease", "--gpus", "1x8GiB"],
        &["touch", ran.to_str().unwrap()],
    )
    .output()
    .unwrap();
    assert_eq!(
        output.status.code(),
        Some(1),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );

    assert!(!ran.exists());
}

#[test]
fn exit_code_is_the_commands() {
    let home = tempfile::tempdir().unwrap();
    let run_code = |command: &[&str]| run(&home, &CARD, command).output().unwrap().status.code();
    assert_eq!(run_code(&["sh", "-c", "exit 0"]), Some(0));
    assert_eq!(run_code(&["sh", "-c", "exit 37"]), Some(37));
    assert_eq!(run_code(&["sh", "-c", "kill -KILL $$"]), Some(137));
    assert_eq!(run_code(&["/no/such/command"]), Some(127));
}

#[test]
fn command_gets_placement_and_arguments() {
    let home = tempfile::tempdir().unwrap();
    let print = "echo \"$CUDA_VISIBLE_DEVICES|$HF_MEM_PROBE_LEASE|$*\"";

    let output = run(
        &home,
        &CARD,
        &["sh", "-c", print, "x", "before", "{args}", "after"],
    )
    .output()
    .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let parts: Vec<&str> = text.trim_end().split('|').collect();
    assert_eq!(parts[1], "", "no lease: {text}");

    assert!(
        parts[2].starts_with("before --") && parts[2].ends_with(" after"),
        "{text}"
    );
    let mut flags = CARD.to_vec();
    flags.push("--flags");
    let appended = run(&home, &flags, &["echo", "first"]).output().unwrap();
    assert!(
        String::from_utf8(appended.stdout)
            .unwrap()
            .starts_with("first --")
    );
}

#[test]
fn signals_reach_the_command() {
    let home = tempfile::tempdir().unwrap();
    for (signal, name) in [
        (Signal::TERM, "TERM"),
        (Signal::INT, "INT"),
        (Signal::HUP, "HUP"),
        (Signal::USR1, "USR1"),
        (Signal::USR2, "USR2"),
    ] {
        let script = format!(
            "trap 'echo got {name}; exit 5' {name}; echo ready; while :; do read x < '{}'; done",
            fifo(&home, name)
        );
        let (mut child, mut out) = started(run(&home, &CARD, &["sh", "-c", &script]));
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        kill_process(Pid::from_child(&child), signal).unwrap();
        let mut rest = String::new();
        out.read_to_string(&mut rest).unwrap();

        assert_eq!(
            (rest.trim(), child.wait().unwrap().code()),
            (format!("got {name}").as_str(), Some(5))
        );
    }

    let (mut child, mut out) = started(run(
        &home,
        &CARD,
        &["sh", "-c", "echo ready; exec sleep 1000"],
    ));
    out.read_line(&mut String::new()).unwrap();
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();

    assert_eq!(
        child.wait().unwrap().code(),
        Some(143),
        "by default a signal ends it"
    );
}

/// Creates a FIFO to wait on.
fn fifo(home: &TempDir, name: &str) -> String {
    let path = home.path().join(name);
    assert!(
        Command::new("mkfifo")
            .arg(&path)
            .status()
            .unwrap()
            .success()
    );

    path.display().to_string()
}

/// A terminal sends its signals to its whole foreground group.
///
/// A forwarded signal would be a second one, which servers treat as "stop at once".
#[test]
fn terminal_interrupt_reaches_command_once() {
    for needed in ["script", "perl"] {
        if Command::new(needed).arg("--version").output().is_err() {
            println!("skipped: `{needed}` is not installed");
            return;
        }
    }

    let home = tempfile::tempdir().unwrap();

    // The handler itself counts, because two signals at once look like one afterwards.
    let counts = "$| = 1; $SIG{INT} = sub { $n++; $end = time + 2 }; print qq(up\\n); \
                  while (!$end || time < $end) { select undef, undef, undef, 0.1 } print qq(interrupts: $n\\n)";
    let run = run(&home, &CARD, &["perl", "-e", counts]);
    let words = std::iter::once(run.get_program()).chain(run.get_args());
    let line: Vec<String> = words
        .map(|word| format!("'{}'", word.to_str().unwrap().replace('\'', r"'\''")))
        .collect();

    // `exec` replaces the shell, which would be interrupted as well.
    let line = format!("exec {}", line.join(" "));
    let mut terminal = Command::new("script");
    terminal.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    bare(&mut terminal)
        .env("HOME", home.path())
        .env("PERL_SIGNALS", "unsafe");

    let (mut child, mut out) = started({
        terminal.stdin(Stdio::piped());
        terminal
    });
    let mut keys = child.stdin.take().unwrap();
    let mut text = String::new();
    while !text.ends_with("up\r\n") {
        assert_ne!(out.read_line(&mut text).unwrap(), 0, "{text}");
    }

    keys.write_all(b"\x03").unwrap();
    out.read_to_string(&mut text).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{text}");
    assert!(text.contains("interrupts: 1\r\n"), "{text}");
}
