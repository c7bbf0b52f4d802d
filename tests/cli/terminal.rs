//! Foreign text on a terminal: control characters in names and messages are escaped.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::run::{program, run, run_with_daemon};

/// Sets the window title, clears the screen, breaks the line, changes the text direction, and has
/// a C1 control.
const HOSTILE: &str = "job\x1b]0;owned\x07\x1b[2J\nFAKE  root  lease\u{202e}\u{9b}2J";

/// Whether a terminal would act on a part of `text`.
///
/// Sequences for colors and for redrawing the screen are this program's own.
fn controls_terminal(text: &str) -> bool {
    let mut rest = text.to_owned();
    for sequence in ["\x1b[H", "\x1b[K", "\x1b[J"] {
        rest = rest.replace(sequence, "");
    }

    let only_colors = rest.split("\x1b[").skip(1).all(|after| {
        after
            .trim_start_matches(|letter: char| letter.is_ascii_digit() || letter == ';')
            .starts_with('m')
    });

    let is_forbidden =
        |letter: char| letter.is_control() && !matches!(letter, '\n' | '\r' | '\t' | '\x1b');

    !only_colors
        || rest.contains("\x1b]")
        || rest
            .chars()
            .any(|letter| is_forbidden(letter) || letter == '\u{202e}')
}

/// A daemon with hostile text in its answers.
struct HostileDaemon {
    _directory: tempfile::TempDir,
    socket: PathBuf,
}

impl HostileDaemon {
    fn new(replies: impl Fn(&str) -> (u16, Value) + Send + 'static) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("api.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let (mut head, mut length) = (String::new(), 0);
                while reader.read_line(&mut head).unwrap() > 2 {
                    let line = head.lines().last().unwrap_or_default();
                    length = line
                        .strip_prefix("content-length: ")
                        .map_or(length, |bytes| bytes.parse().unwrap());
                }
                // Reads the whole request: unread bytes would reset the connection.
                reader.read_exact(&mut vec![0; length]).unwrap();

                let (status, body) = replies(head.split(" HTTP").next().unwrap_or_default());
                let body = body.to_string();
                let length = body.len();

                // A disconnected client needs no answer.
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status} x\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
                );
            }
        });

        Self {
            _directory: directory,
            socket,
        }
    }
}

/// Returns the output of a command line on its own terminal, with standard error.
///
/// `None` if no terminal is available.
#[expect(clippy::print_stderr, reason = "a test that did not run says so")]
fn on_a_terminal(socket: &Path, words: &[&str]) -> Option<String> {
    let program = program();
    let quote_word = |word: &str| format!("'{}'", word.replace('\'', r"'\''"));
    let line: Vec<String> = std::iter::once(program.get_program().to_str().unwrap())
        .chain(words.iter().copied())
        .map(quote_word)
        .collect();
    let mut terminal = Command::new("/usr/bin/script");
    terminal.args([
        "--quiet",
        "--return",
        "--command",
        &line.join(" "),
        "/dev/null",
    ]);

    terminal
        .env_clear()
        .env("TERM", "xterm-256color")
        .env("HF_MEM_PROBE_SOCKET", socket)
        .env("HF_HUB_OFFLINE", "1");

    let output = terminal
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null())
        .output();
    let Ok(output) = output else {
        eprintln!("skipped: `script` is not installed");
        return None;
    };

    Some(String::from_utf8(output.stdout).unwrap())
}

fn lease() -> Value {
    json!({
        "id": "1-2", "state": "granted", "reason": null, "model": HOSTILE, "holder": { "name": HOSTILE }, "uid": 1000,
        "granted_at": "2026-11-25T00:00:00Z", "expires_at": "2026-11-25T00:02:00Z", "expires_in_seconds": 120,
        "ttl_seconds": 120, "note": HOSTILE,
        "devices": [{ "uuid": HOSTILE, "granted_bytes": 1, "visible_bytes": 0, "claimed_bytes": 1 }],
    })
}

fn problem() -> Value {
    json!({
        "schema_version": 1, "type": "x", "title": HOSTILE, "status": 404, "detail": HOSTILE, "hint": HOSTILE,
        "reason": "not_found",
    })
}

/// Returns two devices with hostile names and processes.
fn devices() -> Value {
    let mut answer = run("gpus --gpus 2x24GiB --json").json();
    for device in answer["devices"].as_array_mut().unwrap() {
        device["name"] = HOSTILE.into();
        device["unusable"] = json!({ "reason": "drain", "message": HOSTILE });
        device["processes"] = json!([{
            "pid": 7, "used_bytes": 1, "kind": "compute", "name": HOSTILE, "uid": 1, "user": HOSTILE, "unit": HOSTILE,
            "container": HOSTILE, "cgroup": HOSTILE, "start_ticks": null,
        }]);
    }

    answer
}

fn replies(devices: &Value) -> impl Fn(&str) -> (u16, Value) + Send + 'static {
    let devices = devices.clone();
    move |request| match request {
        "GET /v1/leases" => (
            200,
            json!({ "schema_version": 1, "leases": [lease(), lease()], "waiting": [], "note": HOSTILE }),
        ),
        "GET /v1/gpus" => (200, devices.clone()),
        "GET /v1/health" => {
            let part = json!({ "name": "hub", "status": "degraded", "reason": HOSTILE });
            (
                200,
                json!({ "schema_version": 1, "status": "degraded", "version": HOSTILE, "uptime_seconds": 1, "parts": [part] }),
            )
        }
        _ => (404, problem()),
    }
}

#[test]
fn foreign_text_cannot_control_terminal() {
    let daemon = HostileDaemon::new(replies(&devices()));
    let journal = tempfile::tempdir().unwrap();
    let change = json!({
        "device": HOSTILE, "pid": 7, "name": HOSTILE, "uid": 1, "before_bytes": null, "after_bytes": 1, "free_bytes": 1,
    });
    let warning = json!({ "event": "warning", "message": HOSTILE });

    let lines = format!(
        "{}\n{}\n",
        json!({ "at": "2026-11-25T00:00:00Z", "memory": change }),
        json!({ "at": "2026-11-25T00:00:01Z", "event": warning })
    );
    std::fs::write(journal.path().join("journal.jsonl"), lines).unwrap();
    let journal = journal.path().to_str().unwrap();

    let lines: [&[&str]; 9] = [
        &["lease", "list"],
        &["lease", "release", "1-2"],
        &["health"],
        &["gpus"],
        &[
            "explain",
            "--at",
            "2026-11-25T00:00:02Z",
            "--journal",
            journal,
        ],
        &["fits", "tests/fixtures/Qwen3-8B"],
        &["fits", HOSTILE, "--local"],
        &["lease", HOSTILE],
        &["run", "--model", "tests/fixtures/Qwen3-8B", "--", "true"],
    ];
    for words in lines {
        let Some(shown) = on_a_terminal(&daemon.socket, words) else {
            return;
        };

        assert!(shown.contains("job"), "{words:?} shows it: {shown:?}");
        assert!(!controls_terminal(&shown), "{words:?}: {shown:?}");
        let forged = shown
            .lines()
            .any(|line| line.starts_with("FAKE") && words != ["lease", HOSTILE]);
        assert!(!forged, "{words:?}: {shown:?}");

        // The JSON output has the same meaning for a program.
        let mut json = words.to_vec();
        json.insert(if words[0] == "lease" { 2 } else { 1 }, "--json");
        let shown = on_a_terminal(&daemon.socket, &json).unwrap();
        assert!(!controls_terminal(&shown), "{json:?}: {shown:?}");
    }

    let list = run_with_daemon(&daemon.socket, "lease list --json").json();
    assert_eq!(list["leases"][0]["holder"]["name"], HOSTILE);
    let shown = on_a_terminal(&daemon.socket, &["lease", "list"]).unwrap();
    assert!(
        shown.contains(r#"for "job\u{1b}]0;owned\u{7}\u{1b}[2J\u{a}FAKE"#),
        "{shown}"
    );
}

#[test]
fn control_characters_in_holder_are_refused() {
    let refused: super::run::Outcome = program()
        .args([
            "fits",
            "tests/fixtures/Qwen3-8B",
            "--reserve",
            "--holder",
            "a\nb",
        ])
        .output()
        .unwrap()
        .into();
    assert_eq!(refused.code, 2, "{}", refused.err);

    assert!(
        refused
            .err
            .contains("`--holder` holds the control character \\u{a}"),
        "{}",
        refused.err
    );
}
