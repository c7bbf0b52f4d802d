//! What others wrote, on a terminal: names and messages of other users, processes and hubs are
//! shown, never obeyed.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::run::{program, run, run_beside};

/// Titles the window, clears the screen, begins a line, turns the direction, and steers by C1.
const HOSTILE: &str = "job\x1b]0;owned\x07\x1b[2J\nFAKE  root  lease\u{202e}\u{9b}2J";

/// Whether a terminal would act on something in `text`. Of sequences, colours and what draws a
/// screen anew are ours.
fn steers(text: &str) -> bool {
    let mut rest = text.to_owned();
    for ours in ["\x1b[H", "\x1b[K", "\x1b[J"] {
        rest = rest.replace(ours, "");
    }

    let colours = rest.split("\x1b[").skip(1).all(|after| {
        after
            .trim_start_matches(|letter: char| letter.is_ascii_digit() || letter == ';')
            .starts_with('m')
    });

    let controls =
        |letter: char| letter.is_control() && !matches!(letter, '\n' | '\r' | '\t' | '\x1b');

    !colours
        || rest.contains("\x1b]")
        || rest
            .chars()
            .any(|letter| controls(letter) || letter == '\u{202e}')
}

/// A daemon of a hostile tongue: the answer to each request.
struct Tongue {
    _directory: tempfile::TempDir,
    socket: PathBuf,
}

impl Tongue {
    fn new(says: impl Fn(&str) -> (u16, Value) + Send + 'static) -> Self {
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
                // All of it: what is left unread would reset the connection.
                reader.read_exact(&mut vec![0; length]).unwrap();

                let (status, body) = says(head.split(" HTTP").next().unwrap_or_default());
                let body = body.to_string();
                let length = body.len();

                // Who hung up wanted no answer.
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

/// What a command line shows on a terminal of its own, standard error in it too; `None` where there
/// is none to be had.
#[expect(clippy::print_stderr, reason = "a test that did not run says so")]
fn on_a_terminal(socket: &Path, words: &[&str]) -> Option<String> {
    let program = program();
    let quoted = |word: &str| format!("'{}'", word.replace('\'', r"'\''"));
    let line: Vec<String> = std::iter::once(program.get_program().to_str().unwrap())
        .chain(words.iter().copied())
        .map(quoted)
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

/// Two devices, their names and processes hostile.
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

fn says(devices: &Value) -> impl Fn(&str) -> (u16, Value) + Send + 'static {
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
fn what_others_wrote_does_not_steer_the_terminal() {
    let daemon = Tongue::new(says(&devices()));
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
        assert!(!steers(&shown), "{words:?}: {shown:?}");
        let forged = shown
            .lines()
            .any(|line| line.starts_with("FAKE") && words != ["lease", HOSTILE]);
        assert!(!forged, "{words:?}: {shown:?}");

        // Once more as JSON, which means the same to a program.
        let mut json = words.to_vec();
        json.insert(if words[0] == "lease" { 2 } else { 1 }, "--json");
        let shown = on_a_terminal(&daemon.socket, &json).unwrap();
        assert!(!steers(&shown), "{json:?}: {shown:?}");
    }

    let list = run_beside(&daemon.socket, "lease list --json").json();
    assert_eq!(list["leases"][0]["holder"]["name"], HOSTILE);
    let shown = on_a_terminal(&daemon.socket, &["lease", "list"]).unwrap();
    assert!(
        shown.contains(r#"for "job\u{1b}]0;owned\u{7}\u{1b}[2J\u{a}FAKE"#),
        "{shown}"
    );
}

#[test]
fn a_holder_that_steers_is_refused_before_anybody_is_asked() {
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
