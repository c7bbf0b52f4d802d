//! The real daemon with a ledger that cannot be read or written. It grants no memory that may be
//! leased already, and acknowledges no change that would not survive.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod leases_daemon;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};
use std::{fs, io};

use hf_mem_core::report::lease::Holder;
use hf_mem_core::report::lease::State;
use hf_mem_core::report::problem::Reason;
use hf_mem_core::report::question::ContextQuestion;
use hf_mem_core::report::{Answer, Problem, Question};
use hf_mem_probe::api::client::{Client, ClientError, block_on};
use hf_mem_probe::api::lease::LeaseRequest;
use hf_mem_probe::api::status::HealthStatus;
use hf_mem_probe::leases::event::Event;
use hf_mem_probe::leases::journal::{Entry, read};
use hf_mem_probe::leases::store::peek;
use leases_daemon::{Daemon, model};

/// A question that needs 16 GiB.
fn question(directory: &Path) -> Question {
    let mut question = block_on(model::question(directory, SystemTime::now())).unwrap();
    question.workload.context = Some(ContextQuestion::Tokens(262_144));
    question
}

fn lease(client: &Client, question: &Question) -> Result<Answer, Problem> {
    lease_for(client, question, 600)
}

fn lease_for(client: &Client, question: &Question, seconds: u64) -> Result<Answer, Problem> {
    let request = LeaseRequest {
        question: question.clone(),
        ttl_seconds: Some(seconds),
        holder: Some(Holder::Name("nightly".to_owned())),
        ..LeaseRequest::default()
    };

    daemon_answer(block_on(client.create_lease(&request)).unwrap())
}

fn daemon_answer<T>(outcome: Result<T, ClientError>) -> Result<T, Problem> {
    outcome.map_err(|error| match error {
        ClientError::Problem(problem) => *problem,
        other => panic!("{other}"),
    })
}

/// The fault of the leases that the daemon reports, if any.
fn fault(client: &Client) -> Option<String> {
    let health = block_on(client.health()).unwrap().unwrap();
    let part = health
        .parts
        .into_iter()
        .find(|part| part.name == "leases")
        .unwrap();

    assert_eq!(part.status == HealthStatus::Ok, part.reason.is_none());
    part.reason
}

#[test]
fn damaged_ledger_blocks_grants() {
    let directory = tempfile::tempdir().unwrap();
    let question = question(directory.path());
    let program = Path::new(env!("CARGO_BIN_EXE_hf-mem-probe"));
    let mut daemon = Daemon::start(program, directory.path(), &["--gpus", "24GiB"]);
    let client = Client::new(daemon.socket());
    assert!(lease(&client, &question).unwrap().lease.is_some());
    assert_eq!(fault(&client), None);
    daemon.kill();
    let ledger = directory.path().join("state/leases.json");
    let mut content = fs::read(&ledger).unwrap();
    let near_the_end = content.len() - 20;
    content[near_the_end] ^= 1;
    fs::write(&ledger, content).unwrap();

    let aside = directory.path().join("state/leases.json.set-aside-1");
    let aside_name = aside.to_str().unwrap();

    for start in ["first", "second"] {
        daemon.start_again();
        let reason = fault(&client).unwrap();
        assert!(
            reason.contains("no lease is granted") && reason.contains(aside_name),
            "{start}: {reason}"
        );
        let mut refused = vec![lease(&client, &question).unwrap_err()];
        refused.push(daemon_answer(block_on(client.fits(&question)).unwrap()).unwrap_err());
        refused.push(daemon_answer(block_on(client.gpus()).unwrap()).unwrap_err());

        for problem in refused {
            assert_eq!(
                (problem.reason, problem.reason.exit_code()),
                (Reason::Busy, 75),
                "{start}: {problem}"
            );

            assert!(
                problem
                    .hint
                    .as_ref()
                    .is_some_and(|hint| hint.contains(aside_name)),
                "{start}: {problem:?}"
            );
        }

        let listed = daemon_answer(block_on(client.leases()).unwrap()).unwrap();
        assert!(
            listed.leases.is_empty() && listed.warnings[0].contains(aside_name),
            "{start}: {listed:?}"
        );
        let metrics = block_on(client.metrics()).unwrap().unwrap();

        let unknown = [
            "hf_mem_probe_device_available_bytes{",
            "hf_mem_probe_device_leased_bytes{",
        ];
        assert!(
            metrics.contains("hf_mem_probe_device_free_bytes{"),
            "{start}: {metrics}"
        );

        assert!(
            !unknown.iter().any(|name| metrics.contains(name)),
            "{start}: {metrics}"
        );
        let declared = Question {
            gpus: Some("24GiB".to_owned()),
            ..question.clone()
        };

        assert!(
            daemon_answer(block_on(client.fits(&declared)).unwrap()).is_ok(),
            "{start}: declared devices have no leases"
        );
        daemon.kill();
    }

    // The operator decides that its leases are not needed.
    fs::remove_file(&aside).unwrap();

    daemon.start_again();
    assert_eq!(fault(&client), None);
    assert!(lease(&client, &question).unwrap().lease.is_some());
}

fn lease_id(answer: &Answer) -> String {
    answer.lease.as_ref().unwrap().id.clone()
}

fn listed(client: &Client) -> Vec<State> {
    daemon_answer(block_on(client.leases()).unwrap())
        .unwrap()
        .leases
        .into_iter()
        .map(|lease| lease.state)
        .collect()
}

fn until(what: &str, reached: impl Fn() -> bool) {
    let began = Instant::now();
    while !reached() {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "waited a minute for: {what}"
        );
        std::thread::yield_now();
    }
}

/// The test moves the state folder away to make it unwritable.
#[test]
fn unwritable_release_fails_and_survives_kill() {
    let directory = tempfile::tempdir().unwrap();
    let question = question(directory.path());
    let program = Path::new(env!("CARGO_BIN_EXE_hf-mem-probe"));
    let mut daemon = Daemon::start(program, directory.path(), &["--gpus", "24GiB"]);
    let client = Client::new(daemon.socket());

    let (state, away) = (
        directory.path().join("state"),
        directory.path().join("away"),
    );
    let release = |id: &str| daemon_answer(block_on(client.release_lease(id)).unwrap());

    let id = lease_id(&lease(&client, &question).unwrap());
    fs::rename(&state, &away).unwrap();
    let refused = release(&id).unwrap_err();
    assert!(
        refused
            .detail
            .contains("no lease is granted, renewed or released"),
        "{refused}"
    );

    assert_eq!(listed(&client), [State::Granted]);
    daemon.kill();
    fs::rename(&away, &state).unwrap();
    daemon.start_again();
    assert_eq!(listed(&client), [State::Granted], "as the error said");

    // An acknowledged release survives a kill.
    assert_eq!(release(&id).unwrap().state, State::Released);
    daemon.kill();
    daemon.start_again();
    assert!(listed(&client).is_empty());

    // A lease expires in time, and the expiry is written once that is possible.
    lease_for(&client, &question, 3).unwrap();
    fs::rename(&state, &away).unwrap();
    until("the lease's expiry", || listed(&client).is_empty());
    until("the fault", || {
        fault(&client).is_some_and(|why| why.contains("cannot write changes to"))
    });
    fs::rename(&away, &state).unwrap();

    let live = || {
        peek(&state)
            .unwrap()
            .unwrap()
            .leases
            .iter()
            .filter(|lease| lease.is_live())
            .count()
    };

    until("the ledger's retry", || live() == 0);
    until("the end of the fault", || fault(&client).is_none());
}

/// Starts the daemon with its state on a disk of 64 KiB that only it sees.
const SMALL_DISK: &str = "#!/bin/sh
exec unshare --user --map-current-user --keep-caps --mount sh -c \
  'mount -t tmpfs -o size=64k tmpfs \"$0\" && cp \"$1\" \"$0/journal.jsonl\" && shift && exec \"$@\"' \
";

/// A journal that ends near the end of its page, so that only part of the next line fits on a full
/// disk.
fn nearly_full_page() -> String {
    let now = SystemTime::now();
    let warning_line = |message: String| {
        let event = Event::Warning { message };
        serde_json::to_string(&Entry::event(now, event)).unwrap() + "\n"
    };

    let padding = 4096 - 40 - warning_line(String::new()).len();
    warning_line("x".repeat(padding))
}

#[test]
fn retried_grant_is_logged_once() {
    let directory = tempfile::tempdir().unwrap();
    let question = question(directory.path());

    let (state, journal) = (
        directory.path().join("state"),
        directory.path().join("journal"),
    );
    fs::write(&journal, nearly_full_page()).unwrap();
    let wrapper = directory.path().join("daemon.sh");
    let program = env!("CARGO_BIN_EXE_hf-mem-probe");

    fs::write(
        &wrapper,
        format!(
            "{SMALL_DISK}  '{}' '{}' '{program}' \"$@\"\n",
            state.display(),
            journal.display()
        ),
    )
    .unwrap();

    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
    let probe = [
        "--user",
        "--map-current-user",
        "--keep-caps",
        "--mount",
        "mount",
        "-t",
        "tmpfs",
        "tmpfs",
        "/mnt",
    ];

    if !Command::new("unshare")
        .args(probe)
        .status()
        .is_ok_and(|status| status.success())
    {
        eprintln!("skipped: cannot mount a file system");
        return;
    }

    let daemon = Daemon::start(&wrapper, directory.path(), &["--gpus", "24GiB"]);
    let client = Client::new(daemon.socket());

    let seen = Path::new("/proc")
        .join(daemon.pid().to_string())
        .join("root")
        .join(state.strip_prefix("/").unwrap());
    let filler = seen.join("filler");
    let full = fs::write(&filler, vec![0; 1 << 20]).unwrap_err();
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    let refused = lease(&client, &question).unwrap_err();
    assert!(refused.detail.contains("no lease is granted"), "{refused}");
    fs::remove_file(&filler).unwrap();
    let granted = lease_id(&lease(&client, &question).unwrap());

    let is_grant = |entry: &&Entry| match &entry.event {
        Some(Event::Granted(subject)) => subject.lease == granted,
        _ => false,
    };

    until("the journal's retry, and no torn line", || {
        // A line that is being written is unreadable.
        let (entries, unreadable) = read(&seen).unwrap();
        (entries.iter().filter(is_grant).count(), unreadable) == (1, 0)
    });
}
