//! The daemon's log: each state change once, each fact as a field, each request by its id.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use simulated_nvml::{Scenario, SimulatedDriver, profiles};

use super::daemon_process::Daemon;
use super::fake_hub::{FakeHub, Reply, Request};
use super::run::{MODEL, run_with_daemon};

/// Starts a daemon with a JSON log and `filter`.
fn start(filter: &str, arguments: &[&str]) -> Daemon {
    let directory = tempfile::tempdir().unwrap();
    let more = format!("[log]\nformat = \"json\"\nfilter = \"{filter}\"\n");
    std::fs::write(directory.path().join("more.toml"), more).unwrap();
    Daemon::start_in(directory, arguments)
}

/// Sends one request with the id `id`, and returns the answer's status and body.
fn ask_of(socket: &Path, method: &str, path: &str, id: &str, body: &str) -> (u16, Value) {
    let mut stream = UnixStream::connect(socket).unwrap();
    let length = body.len();

    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nx-request-id: {id}\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
    .unwrap();

    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();

    (status, serde_json::from_str(body).unwrap())
}

/// Parses each line of the log.
fn lines(log: &str) -> Vec<Value> {
    log.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

/// Returns the lines with the message `message`.
fn lines_with<'a>(lines: &'a [Value], message: &str) -> Vec<&'a Value> {
    lines
        .iter()
        .filter(|line| line["message"] == message)
        .collect()
}

#[test]
fn each_health_change_is_logged_once() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let well = Scenario::of([profiles::h100_80(), profiles::h100_80()]);
    let driver = SimulatedDriver::install(directory.path(), &well).unwrap();
    let daemon = start("info", &["--nvml", driver.library().to_str().unwrap()]);
    let socket = daemon.socket();

    let count_unusable = |status: u16, answer: &Value| {
        assert_eq!(status, 200);
        answer["devices"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|device| !device["unusable"].is_null())
            .count()
    };

    let wait_for_unusable = |count: usize| loop {
        let (status, answer) = ask_of(&socket, "GET", "/v1/gpus?fresh=true", "reading", "");
        if count_unusable(status, &answer) == count {
            break;
        }
    };

    let read_repeatedly = || {
        for _ in 0..20 {
            ask_of(&socket, "GET", "/v1/gpus?fresh=true", "reading", "");
            ask_of(&socket, "GET", "/v1/health", "health", "");
        }
    };

    read_repeatedly();
    driver
        .set(&Scenario::of([
            profiles::h100_80(),
            profiles::h100_80().lost(),
        ]))
        .unwrap();

    wait_for_unusable(1);
    read_repeatedly();
    driver.set(&well).unwrap();
    wait_for_unusable(0);
    read_repeatedly();

    driver
        .set(
            &well
                .clone()
                .fault("nvmlDeviceGetCount_v2", simulated_nvml::Fault::code(9)),
        )
        .unwrap();

    while ask_of(&socket, "GET", "/v1/gpus?fresh=true", "reading", "").0 == 200 {}
    read_repeatedly();
    let lines = lines(&daemon.log());

    let ill = lines_with(&lines, "a device cannot be used");
    assert_eq!(ill.len(), 1, "{ill:?}");
    let index = ill[0]["index"].as_u64().unwrap();
    assert_eq!(
        (ill[0]["level"].as_str(), ill[0]["reason"].as_str(), index),
        (Some("WARN"), Some("gpu_lost"), 1)
    );

    assert!(
        ill[0]["uuid"].as_str().unwrap().starts_with("GPU-"),
        "{}",
        ill[0]
    );

    let again = lines_with(&lines, "a device can be used again");
    assert_eq!((again.len(), &again[0]["uuid"]), (1, &ill[0]["uuid"]));

    let degraded = lines_with(&lines, "a part of the daemon is degraded");
    let causes: Vec<_> = degraded
        .iter()
        .map(|line| (line["part"].as_str(), line["cause"].as_str()))
        .collect();
    let devices = Some("devices");

    assert_eq!(
        causes,
        [
            (devices, Some("unusable_devices")),
            (devices, Some("nvml_unavailable"))
        ]
    );

    assert!(
        degraded[0]["why"]
            .as_str()
            .unwrap()
            .contains("fallen off the bus"),
        "{}",
        degraded[0]
    );

    let well = lines_with(&lines, "a part of the daemon has recovered");
    assert_eq!(
        (
            well.len(),
            well[0]["part"].as_str(),
            well[0]["level"].as_str()
        ),
        (1, devices, Some("INFO"))
    );
}

#[test]
fn hub_failure_is_logged_once() {
    let down = Arc::new(AtomicBool::new(true));
    let is_down = Arc::clone(&down);
    let hub_reply = move |_: &Request, _| {
        is_down
            .load(Ordering::SeqCst)
            .then(|| Reply::status(503).with("retry-after", "3600"))
    };

    // The Hub runs on its own thread until the process ends, because this thread blocks.
    let (started, endpoint) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(async {
                started
                    .send(FakeHub::start(hub_reply).await.endpoint)
                    .unwrap();
                std::future::pending::<()>().await;
            });
    });

    let endpoint = endpoint.recv().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let more = format!("endpoint = \"{endpoint}\"\n[log]\nformat = \"json\"\n");
    std::fs::write(directory.path().join("more.toml"), more).unwrap();
    let daemon = Daemon::start_in(directory, &["--gpus", "24GiB"]);
    let socket = daemon.socket();
    let question = r#"{"model": {"repo": "a/b"}, "engine": {"name": "reference"}}"#;
    let ask_daemon = || ask_of(&socket, "POST", "/v1/fits", "model", question);
    for _ in 0..10 {
        let (status, answer) = ask_daemon();
        assert_eq!(
            (status, answer["reason"].as_str()),
            (502, Some("hub_unreachable")),
            "{answer}"
        );
    }

    down.store(false, Ordering::SeqCst);
    for _ in 0..10 {
        let (status, answer) = ask_daemon();
        assert_ne!(answer["reason"], "hub_unreachable", "{status}: {answer}");
    }

    let lines = lines(&daemon.log());
    let degraded = lines_with(&lines, "a part of the daemon is degraded");
    let causes: Vec<_> = degraded
        .iter()
        .map(|line| (line["part"].as_str(), line["cause"].as_str()))
        .collect();
    assert_eq!(
        causes,
        [(Some("hub"), Some(endpoint.as_str()))],
        "{lines:?}"
    );

    assert!(
        degraded[0]["why"]
            .as_str()
            .unwrap()
            .contains("the daemon answers for known models"),
        "{}",
        degraded[0]
    );

    let well = lines_with(&lines, "a part of the daemon has recovered");
    assert_eq!((well.len(), well[0]["part"].as_str()), (1, Some("hub")));
    assert!(lines.len() < 10, "nothing for each request: {lines:?}");
}

#[test]
fn initial_faults_are_logged_at_start() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(
        directory.path().join("more.toml"),
        "[log]\nformat = \"json\"\n",
    )
    .unwrap();

    // A directory blocks the path of a file that the ledger needs.
    std::fs::create_dir_all(directory.path().join("state/leases.lock")).unwrap();
    let lines = lines(&Daemon::start_in(directory, &["--gpus", "24GiB"]).log());
    let degraded = lines_with(&lines, "a part of the daemon is degraded");
    assert_eq!(
        (degraded.len(), degraded[0]["part"].as_str()),
        (1, Some("leases")),
        "{lines:?}"
    );
}

#[test]
fn driver_release_is_logged_with_requester() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let driver =
        SimulatedDriver::install(directory.path(), &Scenario::of([profiles::h100_80()])).unwrap();
    let daemon = start("info", &["--nvml", driver.library().to_str().unwrap()]);
    let socket = daemon.socket();
    assert_eq!(
        ask_of(
            &socket,
            "POST",
            "/v1/nvml/release",
            "reset-1",
            r#"{"seconds": 1}"#
        )
        .0,
        200
    );

    while ask_of(&socket, "GET", "/v1/gpus?fresh=true", "reading", "").0 != 200 {}
    let lines = lines(&daemon.log());
    let began = lines_with(&lines, "driver released at this user's request");
    assert_eq!(began.len(), 1, "{lines:?}");

    assert_eq!(
        (
            began[0]["request_id"].as_str(),
            began[0]["seconds"].as_u64()
        ),
        (Some("reset-1"), Some(1))
    );

    assert_eq!(
        began[0]["uid"].as_u64(),
        Some(rustix::process::getuid().as_raw().into())
    );
    assert_eq!(began[0]["pid"].as_u64(), Some(std::process::id().into()));

    let ended = lines_with(
        &lines,
        "the release of the driver is over: it is opened again when somebody asks",
    );
    assert_eq!(
        (ended.len(), ended[0]["span"]["request_id"].as_str()),
        (1, Some("reset-1")),
        "{lines:?}"
    );
}

#[test]
fn lease_events_have_fields_and_request() {
    let daemon = start("debug", &["--gpus", "80GiB"]);
    let socket = daemon.socket();
    let reserved = run_with_daemon(
        &socket,
        &format!("fits {MODEL} --reserve --holder job --json"),
    );
    let lease = reserved.json()["lease"]["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/leases/{lease}");

    assert_eq!(
        ask_of(
            &socket,
            "POST",
            &format!("{path}/renew"),
            "job-7",
            r#"{"ttl_seconds": 600}"#
        )
        .0,
        200
    );

    assert_eq!(ask_of(&socket, "DELETE", &path, "job-8", "").0, 200);
    let config = socket.with_file_name("config.toml");
    let log = daemon.log();
    let lines = lines(&log);

    let events: Vec<&Value> = lines
        .iter()
        .filter(|line| line["lease"] == lease.as_str())
        .collect();
    let words: Vec<_> = events
        .iter()
        .map(|line| line["event"].as_str().unwrap())
        .collect();
    assert_eq!(words, ["granted", "renewed", "ended"], "{lines:?}");

    for event in &events {
        assert_eq!(
            event["uid"].as_u64(),
            Some(rustix::process::getuid().as_raw().into()),
            "{event}"
        );

        assert_eq!(
            (event["name"].as_str(), event["level"].as_str()),
            (Some("job"), Some("INFO")),
            "{event}"
        );

        let granted = event["granted_bytes"].as_str().unwrap();
        let (uuid, bytes) = granted.split_once('=').unwrap();
        assert!(
            uuid == "declared-0" && bytes.parse::<u64>().unwrap() > 1 << 30,
            "{granted}"
        );

        assert!(
            event["model"].as_str().unwrap().ends_with("Qwen3-8B"),
            "{event}"
        );
    }

    let ids: Vec<_> = events
        .iter()
        .map(|line| line["request_id"].as_str().unwrap())
        .collect();
    assert_eq!(&ids[1..], ["job-7", "job-8"]);
    assert_eq!(events[2]["reason"], "by_owner");

    // The request's id connects its stages, its result and its end.
    let of_grant: Vec<&Value> = lines
        .iter()
        .filter(|line| line["span"]["request_id"] == ids[0] || line["request_id"] == ids[0])
        .collect();
    let stages: Vec<_> = of_grant
        .iter()
        .filter_map(|line| line["stage"].as_str())
        .collect();
    assert_eq!(stages, ["model", "plan", "lease"], "{of_grant:?}");

    for line in of_grant.iter().filter(|line| !line["stage"].is_null()) {
        assert!(
            line["outcome"].is_string() && line["elapsed_us"].is_u64(),
            "{line}"
        );
    }

    assert_eq!(
        lines_with(&lines, "answered")
            .iter()
            .filter(|line| line["span"]["request_id"] == ids[0])
            .count(),
        1
    );

    let starting = lines_with(&lines, "starting");
    assert_eq!(starting[0]["config"].as_str(), config.to_str());
    assert!(!log.contains("Some("), "{log}");

    for line in &lines {
        let target = line["target"].as_str().unwrap();
        assert!(
            target.starts_with("hf_mem_probe"),
            "`debug` is of this program alone: {line}"
        );
    }
}

#[test]
fn text_log_has_same_fields() {
    let daemon = Daemon::start_in(tempfile::tempdir().unwrap(), &["--gpus", "80GiB"]);
    let reserved = run_with_daemon(
        &daemon.socket(),
        &format!("fits {MODEL} --reserve --holder job --json"),
    );
    let lease = reserved.json()["lease"]["id"].as_str().unwrap().to_owned();
    let log = daemon.log();
    let granted = log
        .lines()
        .find(|line| line.contains(&format!("lease=\"{lease}\"")))
        .unwrap();

    for fact in [
        " INFO ",
        "event=\"granted\"",
        "uid=",
        "name=\"job\"",
        "granted_bytes=\"declared-0=",
        "request_id=\"",
    ] {
        assert!(granted.contains(fact), "{fact} in {granted}");
    }
}
