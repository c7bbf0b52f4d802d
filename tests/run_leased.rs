//! `run` beside the real daemon: in line, through a kill of the daemon, to the command's end.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod leases_daemon;

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use hf_mem_core::report::lease::State;
use hf_mem_probe::api::client::{Client, block_on};
use hf_mem_probe::api::lease::LeasesAnswer;
use hf_mem_probe::leases::event::Event;
use leases_daemon::{Daemon, bare, model};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_hf-mem-probe");

/// A daemon with declared cards, one of 24 GiB unless said otherwise, and a model whose context of
/// 256 Ki tokens takes 16 GiB of it.
struct Host {
    directory: TempDir,
    daemon: Daemon,
}

impl Host {
    fn new() -> Self {
        Self::on("24GiB")
    }

    fn on(gpus: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        model::write(&directory.path().join("model"));
        let daemon = Daemon::start(Path::new(PROGRAM), directory.path(), &["--gpus", gpus]);
        Self { directory, daemon }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn run(&self, options: &[&str], command: &[&str]) -> Command {
        self.run_under(&[PROGRAM], options, command)
    }

    /// `run` by a line that ends in this program.
    fn run_under(&self, line: &[&str], options: &[&str], command: &[&str]) -> Command {
        let mut run = Command::new(line[0]);
        run.args(&line[1..])
            .arg("run")
            .arg("--model")
            .arg(self.path("model"))
            .args(["--engine", "reference", "--context", "262144"]);

        run.arg("--socket")
            .arg(self.daemon.socket())
            .args(options)
            .arg("--")
            .args(command);

        bare(&mut run)
            .env("HOME", self.directory.path())
            .stdin(Stdio::null());

        run
    }

    /// A command that says "on", where it is and by which lease, and ends when its `gate` is
    /// written to.
    fn start(&self, options: &[&str], gate: &str) -> Running {
        self.start_under(&[PROGRAM], options, gate)
    }

    fn start_under(&self, line: &[&str], options: &[&str], gate: &str) -> Running {
        let path = self.path(gate);
        assert!(
            Command::new("mkfifo")
                .arg(&path)
                .status()
                .unwrap()
                .success()
        );

        let script = format!(
            "echo \"on $CUDA_VISIBLE_DEVICES $HF_MEM_PROBE_LEASE\"; read x < '{}'; exit 5",
            path.display()
        );
        let mut run = self.run_under(line, options, &["sh", "-c", &script]);
        let mut child = run
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();

        let out = BufReader::new(child.stdout.take().unwrap());
        Running {
            child,
            out,
            gate: path,
        }
    }

    fn leases(&self) -> LeasesAnswer {
        block_on(Client::new(self.daemon.socket()).leases())
            .unwrap()
            .unwrap()
    }

    /// Looks until it is so.
    fn until(&self, what: &str, so: impl Fn(&LeasesAnswer) -> bool) -> LeasesAnswer {
        let began = Instant::now();
        loop {
            let leases = self.leases();
            if so(&leases) {
                return leases;
            }

            assert!(
                began.elapsed() < Duration::from_secs(60),
                "it never came to: {what}: {leases:?}"
            );
            std::thread::yield_now();
        }
    }
}

struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
    gate: PathBuf,
}

impl Running {
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Lets the command end, and says how it ended and what was remarked.
    fn end(mut self) -> (Option<i32>, String) {
        std::fs::write(&self.gate, "\n").unwrap();
        self.told()
    }

    fn told(&mut self) -> (Option<i32>, String) {
        let mut told = String::new();
        self.child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut told)
            .unwrap();

        (self.child.wait().unwrap().code(), told)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A test that failed: the command goes with its supervisor. Else it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_second_waits_in_line_through_a_kill_of_the_daemon_and_is_promised_once() {
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
        "the first one's lease is there"
    );

    assert_eq!(again.waiting[0].pid, line[0].pid);

    let (code, _) = first.end();
    assert_eq!(code, Some(5), "the command never noticed");
    assert!(second.line().starts_with("on "));
    let now = host.leases();
    assert_eq!((now.leases.len(), now.waiting.len()), (1, 0), "{now:?}");
    let (code, told) = second.end();
    assert_eq!(code, Some(5));
    assert!(told.contains("went away before it answered"), "{told}");
    host.until("released at the end", |leases| leases.leases.is_empty());
}

#[test]
fn a_stopping_daemon_sends_those_who_wait_to_the_next_one() {
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
fn a_wait_in_vain_and_a_command_that_cannot_be_started_leave_nothing_behind() {
    let host = Host::new();
    let mut first = host.start(&[], "first");
    first.line();

    let vain = host
        .run(&["--wait", "1s", "--json"], &["true"])
        .output()
        .unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&vain.stdout).unwrap();
    assert_eq!(
        (vain.status.code(), answer["reason"].as_str()),
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
fn a_supervisor_that_is_killed_takes_the_command_with_it() {
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
fn the_watch_stream_tells_of_leases_and_the_list_tells_no_secret() {
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

/// In a PID namespace of its own, as a container has one; `None`, with a word, where this user may
/// not make one.
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
fn the_lease_is_renewed_for_as_long_as_the_command_runs() {
    let renewed = |line: &[&str]| {
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
        threads.spawn(|| renewed(&[PROGRAM]));
        if let Some(line) = contained() {
            renewed(&line);
        }
    });
}

#[test]
fn renewals_that_fail_and_a_lease_that_is_lost_are_told_of() {
    let mut host = Host::new();
    let mut run = host.start(&["--ttl", "12s"], "gate");
    run.line();
    let id = host.leases().leases[0].id.clone();
    let (said, told) = std::sync::mpsc::channel();
    let lines = BufReader::new(run.child.stderr.take().unwrap()).lines();
    std::thread::spawn(move || {
        lines
            .map_while(Result::ok)
            .try_for_each(|line| said.send(line))
    });

    let mut told = std::iter::from_fn(|| told.recv_timeout(Duration::from_secs(60)).ok());
    host.daemon.kill();
    let trouble = told
        .find(|line| line.starts_with("the lease could not be renewed: "))
        .unwrap();
    assert!(trouble.contains("no daemon answers at"), "{trouble}");
    host.daemon.start_again();

    // It may have run out meanwhile, which is a loss as well.
    let _ended = block_on(Client::new(host.daemon.socket()).release_lease(&id)).unwrap();
    let lost = told
        .find(|line| !line.starts_with("the lease could not be renewed: "))
        .unwrap();
    assert!(
        lost.starts_with("the lease is lost: ") && lost.contains("goes on without one"),
        "{lost}"
    );
    std::fs::write(&run.gate, "\n").unwrap();

    assert_eq!(
        run.child.wait().unwrap().code(),
        Some(5),
        "the command never noticed"
    );

    assert_eq!(told.next(), None, "each is told once");
}

/// The caller's pid is what the container calls it: out here that is another process, or none.
#[test]
fn a_pid_of_a_container_holds_nothing() {
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

    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{said}");

    assert!(
        said.contains("is a pid of the requester's container") && said.contains("--holder NAME"),
        "{said}"
    );
    assert!(host.leases().leases.is_empty());
}

/// What a lease holds on its first device in GiB, and on how many devices, while `run` starts
/// `command` with `options`.
fn held(host: &Host, options: &[&str], command: &[&str]) -> (f64, usize, String) {
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

    let mut said = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut said)
        .unwrap();
    let leases = host.leases().leases;

    // Its standard input ends, and with it the server.
    let output = child.wait_with_output().unwrap();
    host.until("released", |leases| leases.leases.is_empty());

    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let lease = leases
        .first()
        .unwrap_or_else(|| panic!("{command:?} holds no lease: {said}{told}"));
    let gib = f64::from(u32::try_from(lease.devices[0].granted_bytes >> 20).unwrap()) / 1024.0;

    assert_eq!(
        said.trim_end().split(',').count(),
        lease.devices.len(),
        "visible devices, {command:?}"
    );

    (gib, lease.devices.len(), told)
}

#[test]
fn command_that_leaves_lease_is_refused() {
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
fn lease_holds_what_servers_take() {
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
    let (gib, devices, told) = held(&host, &[], &share);
    assert!(
        devices == 1 && gib > 0.9 * 79.0,
        "vLLM takes its default share: {gib} GiB on {devices}\n{told}"
    );
    let (need, _, _) = held(&host, &["--lease", "need"], &share);
    assert!((20.0..40.0).contains(&need), "{need} GiB");
    let (gib, _, _) = held(&host, &["--flags"], &share);
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
    let (gib, devices, _) = held(&host, &[], &half);
    assert!(
        devices == 2 && (38.0..46.0).contains(&gib),
        "{gib} GiB on {devices}"
    );
    let (gib, devices, _) = held(&host, &[], &["sglang", "serve", "--model-path", "MODEL"]);
    assert!(
        devices == 1 && gib > 0.8 * 79.0,
        "SGLang takes its default share: {gib} GiB"
    );
    let (gib, _, told) = held(&host, &[], &["serve.sh", "vllm", "serve", "MODEL"]);
    assert!(
        (gib - need).abs() < 0.1 && told.matches("is not a server that is known here").count() == 1,
        "{told}"
    );

    let (gib, _, _) = held(
        &host,
        &["--engine", "vllm", "--lease", "share"],
        &["serve.sh"],
    );
    assert!(gib > 0.9 * 79.0, "{gib} GiB");
    let (gib, _, told) = held(&host, &["--context", "4096"], &share);
    assert!(
        gib > 0.9 * 79.0 && told.contains("CMD does not carry --context 4096"),
        "{gib} GiB\n{told}"
    );
    let (_, _, told) = held(&host, &[], &["vllm", "serve", "owner/another"]);
    assert!(
        told.contains("CMD loads owner/another, and the lease is for "),
        "{told}"
    );
}
