//! `run` with the real daemon: the queue, a killed daemon, renewal, the end of the command.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "run_leased/host.rs"]
mod host;
mod leases_daemon;

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use hf_mem_core::report::lease::State;
use hf_mem_probe::api::client::{Client, block_on};
use hf_mem_probe::leases::event::Event;
use host::{Host, PROGRAM};
use leases_daemon::bare;
use rustix::process::{Pid, Signal, kill_process};

#[test]
fn queued_request_survives_daemon_kill() {
    let mut host = Host::new();
    let mut first = host.start(&["--ttl", "600s"], "first");
    let on = first.line();
    let id = host.leases().leases[0].id.clone();
    assert!(
        on.starts_with("on ") && on.ends_with(&id) && on.split(' ').count() == 3,
        "{on}"
    );
    let mut second = host.start(&["--wait", "600s"], "second");
    let line = host
        .until("one in line", |leases| leases.waiting.len() == 1)
        .waiting;
    assert_eq!(line[0].position, 1);

    assert!(
        line[0].pid.is_some_and(|pid| pid != second.child.id()),
        "the process that becomes the command waits"
    );

    host.daemon.kill();
    host.daemon.start_again();
    let again = host.until("in line again", |leases| leases.waiting.len() == 1);
    assert_eq!(
        (again.leases.len(), again.leases[0].id.as_str()),
        (1, id.as_str()),
        "the first lease is restored"
    );

    assert_eq!(again.waiting[0].pid, line[0].pid);

    let (code, _) = first.end();
    assert_eq!(code, Some(5), "the command never noticed");
    assert!(second.line().starts_with("on "));
    let now = host.leases();
    assert_eq!((now.leases.len(), now.waiting.len()), (1, 0), "{now:?}");
    let (code, remarks) = second.end();
    assert_eq!(code, Some(5));
    assert!(
        remarks.contains("went away before it answered"),
        "{remarks}"
    );
    host.until("released at the end", |leases| leases.leases.is_empty());
}

#[test]
fn queued_request_moves_to_next_daemon() {
    let mut host = Host::new();
    let mut first = host.start(&[], "first");
    first.line();
    let mut second = host.start(&["--wait", "600s"], "second");
    host.until("one in line", |leases| leases.waiting.len() == 1);
    assert_eq!(host.daemon.stop(), Some(0));

    assert!(
        host.daemon
            .log()
            .contains("all requests in flight were answered"),
        "{}",
        host.daemon.log()
    );

    host.daemon.start_again();
    host.until("in line again", |leases| leases.waiting.len() == 1);
    first.end();
    assert!(second.line().starts_with("on "));
    assert_eq!(second.end().0, Some(5));
}

#[test]
fn failed_runs_leave_no_lease() {
    let host = Host::new();
    let mut first = host.start(&[], "first");
    first.line();

    let timed_out = host
        .run(&["--wait", "1s", "--json"], &["true"])
        .output()
        .unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&timed_out.stdout).unwrap();
    assert_eq!(
        (timed_out.status.code(), answer["reason"].as_str()),
        (Some(75), Some("wait_over")),
        "{answer}"
    );

    assert!(
        answer["message"]
            .as_str()
            .unwrap()
            .contains("position 1 of 1"),
        "{answer}"
    );
    let refused = host.run(&[], &["true"]).output().unwrap();
    assert_eq!(
        refused.status.code(),
        Some(1),
        "without a wait it is a plain no"
    );

    first.end();
    host.until("released", |leases| leases.leases.is_empty());

    assert_eq!(
        host.run(&[], &["/no/such/command"])
            .output()
            .unwrap()
            .status
            .code(),
        Some(127)
    );

    assert_eq!(
        host.run(&[], &["/etc/passwd"])
            .output()
            .unwrap()
            .status
            .code(),
        Some(126)
    );

    host.until("released", |leases| leases.leases.is_empty());
}

#[test]
fn killed_supervisor_ends_command() {
    let host = Host::new();
    let mut run = host.start(&[], "gate");
    run.line();
    kill_process(Pid::from_child(&run.child), Signal::KILL).unwrap();
    run.child.wait().unwrap();
    let mut rest = String::new();
    run.out.read_to_string(&mut rest).unwrap();
    host.until("released", |leases| leases.leases.is_empty());
}

#[test]
fn watch_shows_leases_without_secrets() {
    let host = Host::new();
    let events = block_on(async {
        let client = Client::new(host.daemon.socket());
        let mut lines = client.watch_gpus().await.unwrap();
        lines.next().await.unwrap().unwrap().unwrap();
        let mut first = host.start(&[], "first");
        first.line();
        let listed = serde_json::to_string(&client.leases().await.unwrap()).unwrap();
        assert!(!listed.contains("key"), "{listed}");
        first.end();
        let mut events = Vec::new();
        while !events
            .iter()
            .any(|event| matches!(event, (Event::Ended { .. }, _)))
        {
            let line = lines.next().await.unwrap().unwrap().unwrap();
            assert_eq!(line.missed_lease_events, 0);
            events.extend(
                line.lease_events
                    .into_iter()
                    .map(|event| (event.event, event.state)),
            );
        }

        events
    });

    let events = events.unwrap();
    assert!(
        matches!(
            &events[..],
            [
                (Event::Granted(_), None),
                ..,
                (Event::Ended { .. }, Some(State::Released))
            ]
        ),
        "{events:?}"
    );
}

/// Returns a command line in its own PID namespace, as in a container.
///
/// Prints a message and returns `None` if this user cannot create one.
#[expect(clippy::print_stderr, reason = "a test that did not run says so")]
fn contained() -> Option<[&'static str; 6]> {
    let line = [
        "unshare",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        PROGRAM,
    ];
    let made = Command::new(line[0])
        .args(&line[1..5])
        .arg("true")
        .stderr(Stdio::null())
        .status();

    if made.is_ok_and(|status| status.success()) {
        return Some(line);
    }

    eprintln!("skipped: no PID namespace can be made here");
    None
}

#[test]
fn lease_is_renewed_while_command_runs() {
    let check_renewal = |line: &[&str]| {
        let host = Host::new();
        let mut run = host.start_under(line, &["--ttl", "12s"], "gate");
        run.line();
        let lease = host.leases().leases[0].clone();

        host.until("renewed", |now| {
            assert_eq!(
                now.leases.first().map(|now| &now.id),
                Some(&lease.id),
                "it goes on"
            );
            now.leases[0].expires_at > lease.expires_at
        });

        assert_eq!(run.end().0, Some(5));
        host.until("released at the end", |leases| leases.leases.is_empty());
    };

    std::thread::scope(|threads| {
        threads.spawn(|| check_renewal(&[PROGRAM]));
        if let Some(line) = contained() {
            check_renewal(&line);
        }
    });
}

#[test]
fn failed_renewal_and_loss_are_reported() {
    let mut host = Host::new();
    let mut run = host.start(&["--ttl", "12s"], "gate");
    run.line();
    let id = host.leases().leases[0].id.clone();
    let (sender, receiver) = std::sync::mpsc::channel();
    let lines = BufReader::new(run.child.stderr.take().unwrap()).lines();
    std::thread::spawn(move || {
        lines
            .map_while(Result::ok)
            .try_for_each(|line| sender.send(line))
    });

    let mut remarks = std::iter::from_fn(|| receiver.recv_timeout(Duration::from_secs(60)).ok());
    host.daemon.kill();
    let failure = remarks
        .find(|line| line.starts_with("warning: cannot renew the lease: "))
        .unwrap();
    assert!(failure.contains("no daemon answers at"), "{failure}");
    host.daemon.start_again();

    // If the lease has expired meanwhile, it is lost as well.
    let _ended = block_on(Client::new(host.daemon.socket()).release_lease(&id)).unwrap();
    let lost = remarks
        .find(|line| !line.starts_with("warning: cannot renew the lease: "))
        .unwrap();
    assert!(
        lost.starts_with("warning: the lease is lost: ")
            && lost.contains("continues without a lease"),
        "{lost}"
    );
    std::fs::write(&run.gate, "\n").unwrap();

    assert_eq!(
        run.child.wait().unwrap().code(),
        Some(5),
        "the command never noticed"
    );

    assert_eq!(remarks.next(), None, "each is reported once");
}

/// In the daemon's pid namespace, the container's pid is another process or none.
#[test]
fn container_pid_holds_no_lease() {
    let host = Host::new();
    let Some(line) = contained() else { return };

    let script = format!(
        "'{PROGRAM}' fits '{}' --engine reference --context 1024 --reserve --socket '{}'; exit $?",
        host.path("model").display(),
        host.daemon.socket().display()
    );
    let refused = bare(&mut Command::new(line[0]))
        .args(&line[1..5])
        .args(["sh", "-c", "sh -c \"$1\"; exit $?", "x", &script])
        .env("HOME", host.directory.path())
        .output()
        .unwrap();

    let output_text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{output_text}");

    assert!(
        output_text.contains("is a pid of the requester's container")
            && output_text.contains("--holder NAME"),
        "{output_text}"
    );
    assert!(host.leases().leases.is_empty());
}

/// Runs `command` with `options`, and returns its lease and the remarks.
///
/// The lease is the GiB on its first device and the number of devices.
fn leased_by(host: &Host, options: &[&str], command: &[&str]) -> (f64, usize, String) {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/Qwen3-8B");
    let mut run = Command::new(PROGRAM);
    run.arg("run")
        .arg("--model")
        .arg(&model)
        .arg("--socket")
        .arg(host.daemon.socket());

    run.args(options).arg("--").arg(host.path(command[0]));
    run.args(command[1..].iter().map(|word| {
        if *word == "MODEL" {
            model.to_str().unwrap()
        } else {
            word
        }
    }));

    bare(&mut run)
        .env("HOME", host.directory.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = run.stderr(Stdio::piped()).spawn().unwrap();

    let mut output_text = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut output_text)
        .unwrap();
    let leases = host.leases().leases;

    // The server ends with its standard input.
    let output = child.wait_with_output().unwrap();
    host.until("released", |leases| leases.leases.is_empty());

    let remarks = String::from_utf8_lossy(&output.stderr).into_owned();
    let lease = leases
        .first()
        .unwrap_or_else(|| panic!("{command:?} holds no lease: {output_text}{remarks}"));
    let gib = f64::from(u32::try_from(lease.devices[0].granted_bytes >> 20).unwrap()) / 1024.0;

    assert_eq!(
        output_text.trim_end().split(',').count(),
        lease.devices.len(),
        "visible devices, {command:?}"
    );

    (gib, lease.devices.len(), remarks)
}

#[test]
fn detaching_command_is_refused() {
    let host = Host::new();
    for command in [
        &["env", "CUDA_VISIBLE_DEVICES=1", "true"][..],
        &["env", "-u", "CUDA_VISIBLE_DEVICES", "true"],
        &["setsid", "--fork", "true"],
    ] {
        let refused = host.run(&[], command).output().unwrap();
        assert_eq!(refused.status.code(), Some(2), "{command:?}");
    }

    assert!(host.leases().leases.is_empty());
}

#[test]
fn lease_covers_what_servers_take() {
    let host = Host::on("2xH100-80GB");
    for name in ["vllm", "sglang", "serve.sh"] {
        let path = host.path(name);
        std::fs::write(
            &path,
            "#!/bin/sh\necho \"$CUDA_VISIBLE_DEVICES\"\nread x\nexit 0\n",
        )
        .unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .unwrap();
    }

    let share = ["vllm", "serve", "MODEL"];
    let (gib, devices, remarks) = leased_by(&host, &[], &share);
    assert!(
        devices == 1 && gib > 0.9 * 79.0,
        "vLLM takes its default share: {gib} GiB on {devices}\n{remarks}"
    );
    let (need, _, _) = leased_by(&host, &["--lease", "need"], &share);
    assert!((20.0..40.0).contains(&need), "{need} GiB");
    let (gib, _, _) = leased_by(&host, &["--flags"], &share);
    assert!((20.0..40.0).contains(&gib), "its flags limit it: {gib} GiB");

    let half = [
        "vllm",
        "serve",
        "MODEL",
        "--gpu_memory_utilization=0.5",
        "-tp",
        "2",
        "--seed",
        "1",
    ];
    let (gib, devices, _) = leased_by(&host, &[], &half);
    assert!(
        devices == 2 && (38.0..46.0).contains(&gib),
        "{gib} GiB on {devices}"
    );
    let (gib, devices, _) = leased_by(&host, &[], &["sglang", "serve", "--model-path", "MODEL"]);
    assert!(
        devices == 1 && gib > 0.8 * 79.0,
        "SGLang takes its default share: {gib} GiB"
    );
    let (gib, _, remarks) = leased_by(&host, &[], &["serve.sh", "vllm", "serve", "MODEL"]);
    assert!(
        (gib - need).abs() < 0.1 && remarks.matches("is not a known server").count() == 1,
        "{remarks}"
    );

    let (gib, _, _) = leased_by(
        &host,
        &["--engine", "vllm", "--lease", "share"],
        &["serve.sh"],
    );
    assert!(gib > 0.9 * 79.0, "{gib} GiB");
    let (gib, _, remarks) = leased_by(&host, &["--context", "4096"], &share);
    assert!(
        gib > 0.9 * 79.0 && remarks.contains("CMD does not set --context 4096"),
        "{gib} GiB\n{remarks}"
    );
    let (_, _, remarks) = leased_by(&host, &[], &["vllm", "serve", "owner/another"]);
    assert!(
        remarks.contains("CMD loads owner/another, but the lease is for "),
        "{remarks}"
    );
}
