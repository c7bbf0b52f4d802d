//! The history of memory holders, with and without leases: `explain` after background readings.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod leases_daemon;

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hf_mem_probe::devices::holders::HostRoots;
use hf_mem_probe::devices::nvml::NvmlOptions;
use hf_mem_probe::devices::sampler::{Sampler, SamplerOptions};
use leases_daemon::{Daemon, bare};
use serde_json::Value;
use simulated_nvml::{FakeHost, HolderKind, Scenario, SimulatedDriver, profiles};

const PROGRAM: &str = env!("CARGO_BIN_EXE_hf-mem-probe");
const LIMIT: Duration = Duration::from_secs(60);

/// Runs `explain` for the current time.
fn explain(state: &Path, more: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(PROGRAM);
    bare(&mut command)
        .args(["explain", "--at", "now", "--journal"])
        .arg(state)
        .args(more);
    let output = command.output().unwrap();

    (
        output.status.code(),
        String::from_utf8(output.stdout).unwrap(),
    )
}

fn until(what: &str, reached: impl Fn() -> bool) {
    let began = Instant::now();
    while !reached() {
        assert!(began.elapsed() < LIMIT, "waited a minute for: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn holder_without_lease_is_explained() {
    let directory = tempfile::tempdir().unwrap();
    let drivers = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let idle = Scenario::of([profiles::h100_80()]);
    let driver = SimulatedDriver::install(drivers.path(), &idle).unwrap();
    let more = "idle_release = \"10ms\"\n[history]\ninterval = \"1s\"\n";
    let library = driver.library().to_str().unwrap();

    let mut daemon = Daemon::start_with(
        Path::new(PROGRAM),
        directory.path(),
        &["--nvml", library],
        more,
    );

    let state = directory.path().join("state");
    until("the first reading", || {
        explain(&state, &[])
            .1
            .contains("no process was seen using memory")
    });

    // There is no lease and no question: only background readings see the process.
    let pid = std::process::id();
    driver
        .set(&Scenario::of([profiles::h100_80().process(
            pid,
            30 << 30,
            HolderKind::Compute,
        )]))
        .unwrap();

    let first_holder = || {
        let (code, text) = explain(&state, &["--json"]);
        assert_eq!(code, Some(0), "{text}");
        let account: Value = serde_json::from_str(&text).unwrap();
        account["memory"].as_array().unwrap().first().cloned()
    };

    until("the holder's line", || {
        first_holder().is_some_and(|held| held["pid"] == pid && held["after_bytes"] == 30_u64 << 30)
    });
    assert!(
        first_holder().unwrap()["found"].is_null(),
        "it came between two readings"
    );
    let inits = driver.statistics().unwrap().inits;
    assert!(inits >= 2, "the driver is opened for each reading: {inits}");

    // For the next daemon the process was there before.
    daemon.stop();
    daemon.start_again();

    until("the next daemon's record", || {
        let text = std::fs::read_to_string(state.join("journal.jsonl")).unwrap();
        text.matches("\"checkpoint\":").count() == 2
    });
    let text = explain(&state, &[]).1;
    assert!(
        text.contains(&format!("in use:   pid {pid} ")) && text.contains("nothing to 30.00 GiB"),
        "{text}"
    );
    daemon.kill();
}

#[test]
fn fresh_daemon_has_recorded_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let _daemon = Daemon::start(Path::new(PROGRAM), directory.path(), &["--gpus", "24GiB"]);
    let state = directory.path().join("state");
    until("the journal", || state.join("journal.jsonl").exists());
    let (code, text) = explain(&state, &[]);
    assert_eq!(code, Some(0), "{text}");

    assert!(
        text.contains("nothing was recorded yet") && !text.contains("using memory"),
        "{text}"
    );
    assert_eq!(
        explain(directory.path(), &[]).0,
        Some(5),
        "a folder without a journal"
    );
}

#[tokio::test]
async fn look_keeps_driver_closed() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let driver =
        SimulatedDriver::install(directory.path(), &Scenario::of([profiles::h100_80()])).unwrap();
    let host = FakeHost::new(&directory.path().join("host")).unwrap();
    let nvml = NvmlOptions {
        library: Some(driver.library().to_owned()),
        roots: HostRoots::under(host.root()),
        ..NvmlOptions::default()
    };

    let (interval, idle_after) = (
        Some(Duration::from_secs(3600)),
        Some(Duration::from_millis(1)),
    );
    let sampler = Sampler::start(SamplerOptions {
        nvml,
        interval,
        idle_after,
        ..SamplerOptions::default()
    })
    .unwrap();

    let began = Arc::new(Mutex::new(Vec::new()));
    let mut readings = sampler.listen();

    let listening = tokio::spawn({
        let began = Arc::clone(&began);
        async move {
            readings.mark_changed();
            while readings.changed().await.is_ok() {
                let reading = readings.borrow_and_update().clone();
                began
                    .lock()
                    .unwrap()
                    .extend(reading.map(|reading| reading.began));
            }
        }
    });

    let wait_for_readings = async |count: usize| {
        let since = Instant::now();
        while began.lock().unwrap().len() < count || sampler.status().open {
            assert!(
                since.elapsed() < LIMIT,
                "{count} readings, and the driver closed"
            );
            tokio::task::yield_now().await;
        }
    };

    wait_for_readings(1).await;
    for count in 2..5 {
        sampler.request_background_reading();
        wait_for_readings(count).await;
    }

    let set_status = |status| {
        host.gpu("0000:01:00.0", "NVIDIA H100", "GPU-x", status)
            .unwrap();
    };

    host.gpu("0000:02:00.0", "NVIDIA L40S", "GPU-y", "active")
        .unwrap();
    set_status("suspended");

    for _ in 0..100 {
        sampler.request_background_reading();
        tokio::task::yield_now().await;
    }

    let awake_at = Instant::now();
    set_status("active");
    sampler.request_background_reading();
    wait_for_readings(5).await;
    let last = began.lock().unwrap()[4];
    assert!(
        last >= awake_at,
        "no reading was made while opening the driver could wake a GPU"
    );
    drop(sampler);
    listening.await.unwrap();
}
