//! The real daemon on a ledger that was damaged while it was down: it promises nothing that may be promised already.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod leases_daemon;

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use hf_mem_probe::api::client::{Client, ClientError, block_on};
use hf_mem_probe::api::lease::{Holder, LeaseRequest};
use hf_mem_probe::api::problem::Reason;
use hf_mem_probe::api::question::ContextQuestion;
use hf_mem_probe::api::status::HealthStatus;
use hf_mem_probe::api::{Answer, Problem, Question};
use leases_daemon::{Daemon, model};

/// A question of 16 GiB.
fn question(directory: &Path) -> Question {
    let mut question = block_on(model::question(directory, SystemTime::now())).unwrap();
    question.workload.context = Some(ContextQuestion::Tokens(262_144));
    question
}

fn lease(client: &Client, question: &Question) -> Result<Answer, Problem> {
    let request = LeaseRequest {
        question: question.clone(),
        ttl_seconds: Some(600),
        holder: Some(Holder::Name("nightly".to_owned())),
        idempotency_key: None,
        wait_seconds: 0,
    };
    told(block_on(client.create_lease(&request)).unwrap())
}

fn told<T>(outcome: Result<T, ClientError>) -> Result<T, Problem> {
    outcome.map_err(|error| match error {
        ClientError::Problem(problem) => *problem,
        other => panic!("{other}"),
    })
}

/// What the daemon says of its leases, where they are not well.
fn trouble(client: &Client) -> Option<String> {
    let health = block_on(client.health()).unwrap().unwrap();
    let part = health.parts.into_iter().find(|part| part.name == "leases").unwrap();
    assert_eq!(part.status == HealthStatus::Ok, part.reason.is_none());
    part.reason
}

#[test]
fn one_bit_of_the_ledger_makes_nobody_promise_the_same_memory_twice() {
    let directory = tempfile::tempdir().unwrap();
    let question = question(directory.path());
    let program = Path::new(env!("CARGO_BIN_EXE_hf-mem-probe"));
    let mut daemon = Daemon::start(program, directory.path(), &["--gpus", "24GiB"]);
    let client = Client::new(daemon.socket());
    assert!(lease(&client, &question).unwrap().lease.is_some());
    assert_eq!(trouble(&client), None);
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
        let reason = trouble(&client).unwrap();
        assert!(reason.contains("no lease is granted") && reason.contains(aside_name), "{start}: {reason}");
        let mut refused = vec![lease(&client, &question).unwrap_err()];
        refused.push(told(block_on(client.fits(&question)).unwrap()).unwrap_err());
        refused.push(told(block_on(client.gpus()).unwrap()).unwrap_err());
        for problem in refused {
            assert_eq!((problem.reason, problem.reason.exit_code()), (Reason::Busy, 75), "{start}: {problem}");
            assert!(problem.hint.as_ref().is_some_and(|hint| hint.contains(aside_name)), "{start}: {problem:?}");
        }
        let listed = told(block_on(client.leases()).unwrap()).unwrap();
        assert!(listed.leases.is_empty() && listed.warnings[0].contains(aside_name), "{start}: {listed:?}");
        let metrics = block_on(client.metrics()).unwrap().unwrap();
        let unknown = ["hf_mem_probe_device_available_bytes{", "hf_mem_probe_device_leased_bytes{"];
        assert!(metrics.contains("hf_mem_probe_device_free_bytes{"), "{start}: {metrics}");
        assert!(!unknown.iter().any(|name| metrics.contains(name)), "{start}: {metrics}");
        let declared = Question { gpus: Some("24GiB".to_owned()), ..question.clone() };
        assert!(told(block_on(client.fits(&declared)).unwrap()).is_ok(), "{start}: declared devices are nobody's");
        daemon.kill();
    }

    // The operator knows that nothing of it is needed.
    fs::remove_file(&aside).unwrap();
    daemon.start_again();
    assert_eq!(trouble(&client), None);
    assert!(lease(&client, &question).unwrap().lease.is_some());
}
