//! The daemon as a process on its own socket, with the simulated driver library.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use simulated_nvml::{HolderKind, Scenario, SimulatedDriver, profiles};

use super::daemon_process::{Daemon, spawn};
use super::run::{MODEL, Outcome, run, run_with_daemon};

/// Returns an answer without the time of its reading.
fn timeless(outcome: &Outcome) -> Value {
    let mut answer = outcome.json();
    answer["sampled_at"] = Value::Null;
    answer
}

#[test]
fn answer_is_same_without_daemon() {
    let mut daemon = Daemon::start(&["--gpus", "2xRTX4090,1xT4"]);
    for line in [
        "fits",
        "fits --frontier",
        "fits --context 8192 --sequences 4",
        "estimate",
        "fits --engine sglang",
    ] {
        let (command, options) = line.split_once(' ').unwrap_or((line, ""));
        let through_daemon = run_with_daemon(
            &daemon.socket(),
            &format!("{command} {MODEL} {options} --gpus 2xRTX4090,1xT4 --json"),
        );
        assert!(
            through_daemon.err.contains("answered by the daemon"),
            "{}",
            through_daemon.err
        );

        let in_process = run(&format!(
            "{command} {MODEL} {options} --gpus 2xRTX4090,1xT4 --json"
        ));
        assert!(
            in_process.err.contains("answered in process"),
            "{}",
            in_process.err
        );
        assert_eq!(timeless(&through_daemon), timeless(&in_process), "{line}");
        assert_eq!(through_daemon.code, in_process.code);
    }
    // The client reports a missing snapshot file; the daemon never sees it as a card's name.
    let line = format!("fits {MODEL} --gpus absent.json --json");

    let (through_daemon, in_process) = (run_with_daemon(&daemon.socket(), &line), run(&line));
    assert_eq!(
        (through_daemon.code, through_daemon.json()),
        (2, in_process.json())
    );
    assert_eq!(daemon.stop(), Some(0));
    assert!(!daemon.socket().exists(), "its own socket is removed");

    assert!(
        daemon.directory.path().join("config.toml").exists(),
        "and nothing else"
    );
}

#[test]
fn site_settings_apply_without_daemon() {
    let directory = tempfile::tempdir().unwrap();
    let more = "[engines]\ndefault_engine = \"sglang\"\n[engines.profiles.sglang.constants]\ncontext_libraries_mib = 1234\n";
    fs::write(directory.path().join("more.toml"), more).unwrap();
    let config = directory.path().join("config.toml");
    let mut daemon = Daemon::start_in(directory, &["--gpus", "2xRTX4090"]);
    for command in ["fits", "estimate"] {
        let line = format!("{command} {MODEL} --gpus 2xRTX4090 --json");
        let through_daemon = run_with_daemon(&daemon.socket(), &line);
        let in_process = run(&format!("{line} --local --config {}", config.display()));
        assert_eq!(
            timeless(&through_daemon),
            timeless(&in_process),
            "{command}"
        );
        let built_in = run(&format!("{line} --local --engine sglang"));
        assert_ne!(
            built_in.json()["requirement"],
            in_process.json()["requirement"],
            "{command}"
        );
    }

    assert_eq!(daemon.stop(), Some(0));

    fs::write(
        &config,
        "[engines.profiles.sglang.constants]\nno_such_constant = 1\n",
    )
    .unwrap();

    let refused = run(&format!(
        "fits {MODEL} --gpus 24GiB --json --local --config {}",
        config.display()
    ));
    assert_eq!(
        (refused.code, refused.json()["reason"].as_str()),
        (78, Some("bad_configuration")),
        "{}",
        refused.out
    );
}

#[test]
fn site_margin_applies_without_daemon() {
    let directory = tempfile::tempdir().unwrap();
    let driver =
        SimulatedDriver::install(directory.path(), &Scenario::of([profiles::h100_80()])).unwrap();
    let config = directory.path().join("config.toml");
    fs::write(&config, "[placement]\nmargin = \"20GiB\"\n").unwrap();

    let line = format!(
        "fits {MODEL} --json --local --nvml {}",
        driver.library().display()
    );
    let available_bytes = |line: &str| {
        let outcome = run(line);
        outcome.json()["placement"]["devices"][0]["available_bytes"]
            .as_u64()
            .unwrap_or_else(|| panic!("{}", outcome.out))
    };

    let kept_back =
        available_bytes(&line) - available_bytes(&format!("{line} --config {}", config.display()));
    assert_eq!(kept_back, 20 << 30);
}

#[test]
fn inaccessible_daemon_is_not_absent() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let driver =
        SimulatedDriver::install(directory.path(), &Scenario::of([profiles::h100_80()])).unwrap();

    // Equivalent to a socket without connect permission, which root always has.
    let socket = directory.path().join("api.sock");
    std::os::unix::fs::symlink(&socket, &socket).unwrap();
    let library = driver.library().to_str().unwrap();
    let run_on = |socket: &Path, line: &str| {
        run_with_daemon(socket, &format!("{line} --nvml {library} --json"))
    };

    // Memory leased to others must not be reported as free.
    for line in [&format!("fits {MODEL}"), "free"] {
        let refused = run_on(&socket, line);
        assert_eq!(
            (refused.code, refused.json()["reason"].as_str()),
            (69, Some("daemon_unreachable")),
            "{line}"
        );

        assert!(
            refused.json()["hint"].as_str().unwrap().contains("--local"),
            "{}",
            refused.out
        );
    }

    assert_eq!(
        run_on(&socket, &format!("fits {MODEL} --condition")).code,
        255
    );
    for line in ["--local", "--gpus 80GiB"] {
        let asked_here = run_on(&socket, &format!("fits {MODEL} {line}"));
        assert_eq!(
            (asked_here.code, asked_here.out.contains("leases")),
            (0, false),
            "{line}: {}",
            asked_here.out
        );
    }

    assert_eq!(
        run_with_daemon(&socket, &format!("estimate {MODEL}")).code,
        0,
        "it needs no leases"
    );

    let gpus = run_on(&socket, "gpus");
    assert!(
        gpus.json()["devices"].is_array() && gpus.err.contains("are not counted"),
        "{}",
        gpus.err
    );
}

#[test]
fn degraded_daemon_still_answers() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let lost = Scenario::of([profiles::h100_80(), profiles::h100_80().lost()]);
    let driver = SimulatedDriver::install(directory.path(), &lost).unwrap();
    let daemon = Daemon::start(&["--nvml", driver.library().to_str().unwrap()]);

    // The devices' state is known only after a reading, which this answer proves.
    assert_eq!(run_with_daemon(&daemon.socket(), "free --gpu 0").code, 0);
    for (line, code) in [("health --json", 0), ("health --strict --json", 1)] {
        let degraded = run_with_daemon(&daemon.socket(), line);
        let reply = degraded.json();
        assert_eq!(
            (degraded.code, reply["status"].as_str()),
            (code, Some("degraded")),
            "{line}: {reply}"
        );
        assert_eq!(reply["parts"][0]["name"], "devices", "{reply}");
    }

    let daemon = Daemon::start(&["--gpus", "24GiB"]);
    let well = run_with_daemon(&daemon.socket(), "health --strict --json");
    assert_eq!(
        (well.code, well.json()["status"].as_str()),
        (0, Some("ok")),
        "{}",
        well.out
    );
}

#[test]
fn stopped_daemon_ends_every_wait() {
    let daemon = Daemon::start(&["--gpus", "24GiB"]);
    let pid = rustix::process::Pid::from_child(&daemon.child);
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();

    for line in [
        "health",
        "gpus",
        "gpus --watch",
        "free",
        "lease list",
        &format!("fits {MODEL}"),
    ] {
        let through_daemon =
            run_with_daemon(&daemon.socket(), &format!("{line} --timeout 100ms --json"));
        let reply = through_daemon.json();
        assert_eq!(
            (through_daemon.code, reply["reason"].as_str()),
            (69, Some("daemon_unreachable")),
            "{line}: {reply}"
        );

        assert!(
            reply["detail"]
                .as_str()
                .unwrap()
                .ends_with("did not answer within 100ms"),
            "{line}: {reply}"
        );

        assert!(
            reply["hint"].as_str().unwrap().contains("--timeout"),
            "{line}: {reply}"
        );
    }

    assert_eq!(
        run_with_daemon(&daemon.socket(), "health --timeout 0s").code,
        2
    );
    let through_daemon = run_with_daemon(&daemon.socket(), "health --json");
    assert!(
        through_daemon.out.contains("did not answer within 5s"),
        "the default: {}",
        through_daemon.out
    );

    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    assert_eq!(
        run_with_daemon(&daemon.socket(), "health").code,
        0,
        "it keeps running"
    );
}

#[test]
fn killed_daemons_leases_give_warning() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let driver =
        SimulatedDriver::install(directory.path(), &Scenario::of([profiles::h100_80()])).unwrap();
    let library = driver.library().to_str().unwrap().to_owned();
    let mut daemon = Daemon::start(&["--nvml", &library]);
    let socket = daemon.socket();
    let run_line =
        |line: &str| run_with_daemon(&socket, &format!("{line} --nvml {library} --json"));
    assert_eq!(
        run_line(&format!(
            "fits {MODEL} --reserve --holder job --set gpu_memory_utilization=0.9"
        ))
        .code,
        0
    );

    assert_eq!(
        run_line(&format!("fits {MODEL}")).json()["verdict"],
        "does_not_fit",
        "all of it is leased"
    );

    daemon.child.kill().unwrap();
    daemon.child.wait().unwrap();
    let has_warning = |text: &str| text.contains("leases of a stopped daemon may still be active");
    let fits = run_line(&format!("fits {MODEL}"));
    assert_eq!(
        (fits.code, has_warning(&fits.json()["warnings"].to_string())),
        (0, true),
        "{}",
        fits.out
    );

    assert!(has_warning(&fits.err), "{}", fits.err);
    assert_eq!(
        run_line(&format!("fits {MODEL} --condition")).code,
        255,
        "nothing is started on a guess"
    );

    assert!(has_warning(&run_line("free").err) && has_warning(&run_line("gpus").err));
    for line in ["--local", "--gpus 80GiB"] {
        let asked_here = run_line(&format!("fits {MODEL} {line} --condition"));
        assert_eq!(
            (asked_here.code, has_warning(&asked_here.out)),
            (0, false),
            "{line}: {}",
            asked_here.out
        );
    }
}

#[test]
fn answer_follows_changing_memory() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let driver =
        SimulatedDriver::install(directory.path(), &Scenario::of([profiles::h100_80()])).unwrap();
    let library = driver.library().to_str().unwrap().to_owned();
    let mut daemon = Daemon::start(&["--nvml", &library]);
    let socket = daemon.socket();
    let ask_daemon = || run_with_daemon(&socket, &format!("fits {MODEL} --json"));
    let empty = ask_daemon();
    assert_eq!(
        (empty.code, empty.json()["verdict"].as_str()),
        (0, Some("fits")),
        "{}",
        empty.out
    );

    let free = empty.json()["placement"]["devices"][0]["free_bytes"]
        .as_u64()
        .unwrap();

    driver
        .set(&Scenario::of([profiles::h100_80().used(70 << 30)]))
        .unwrap();

    // A reading can be as old as the sampling interval, so the answer can still be the previous
    // one.
    let ask_until = |is_done: &dyn Fn(&Outcome) -> bool| {
        let started = Instant::now();
        loop {
            let outcome = ask_daemon();
            if is_done(&outcome) {
                return outcome;
            }

            assert!(
                started.elapsed() < Duration::from_secs(60),
                "the reading follows: {}",
                outcome.out
            );
        }
    };

    let ask_until_changed = |before: &str| ask_until(&|outcome| outcome.json()["reason"] != before);
    let full = ask_until_changed("fits");
    assert_eq!(
        (full.code, full.json()["reason"].as_str()),
        (1, Some("insufficient_memory")),
        "{}",
        full.out
    );

    assert!(
        full.json()["placement"]["devices"][0]["free_bytes"]
            .as_u64()
            .unwrap()
            < free - (69 << 30)
    );

    // Some memory is free again: the answer is "not yet", with an expected time.
    driver
        .set(&Scenario::of([profiles::h100_80().used(64 << 30)]))
        .unwrap();
    let rising = ask_until_changed("insufficient_memory");
    assert_eq!(
        (rising.code, rising.json()["reason"].as_str()),
        (75, Some("memory_draining")),
        "{}",
        rising.out
    );

    let wait = rising.json()["suggestions"][0].clone();
    assert!(
        wait["change"].as_str().unwrap().starts_with("wait ") && wait["verdict"] == "fits",
        "{wait}"
    );

    driver
        .set(&Scenario::of([profiles::h100_80().lost()]))
        .unwrap();

    // If memory stops draining, the plain "no" returns. Both are answers from before the loss.
    let lost = ask_until(&|outcome| outcome.code == 4);
    assert_eq!(
        (lost.code, lost.json()["reason"].as_str()),
        (4, Some("gpu_lost")),
        "{}",
        lost.out
    );

    driver.set(&Scenario::of([profiles::h100_80()])).unwrap();
    assert_eq!(ask_until_changed("gpu_lost").code, 0);
    let table = run_with_daemon(&daemon.socket(), "gpus --topology");
    assert!(table.out.contains("H100 80GB HBM3"), "{}", table.out);
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn free_reads_devices_on_request() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let driver =
        SimulatedDriver::install(directory.path(), &Scenario::of([profiles::h100_80()])).unwrap();
    let library = driver.library().to_str().unwrap();
    let daemon = Daemon::start_sampling(tempfile::tempdir().unwrap(), "1h", &["--nvml", library]);
    let free_bytes = || {
        run_with_daemon(&daemon.socket(), "free")
            .out
            .trim()
            .parse::<u64>()
            .unwrap()
    };

    let empty = free_bytes();

    // All of this happens within one sampling interval, in which `gpus` would not change.
    for gib in [70, 30, 50] {
        driver
            .set(&Scenario::of([profiles::h100_80().used(gib << 30)]))
            .unwrap();
        assert_eq!(free_bytes(), empty - (gib << 10));
    }
    // This process holds a lease and takes part of its memory. The memory is leased or in use,
    // never counted twice.
    driver.set(&Scenario::of([profiles::h100_80()])).unwrap();

    let reserved = run_with_daemon(&daemon.socket(), &format!("fits {MODEL} --reserve --json"));
    assert_eq!(reserved.code, 0, "{}", reserved.out);
    let promised = free_bytes();
    assert!(promised < empty - (20 << 10));

    driver
        .set(&Scenario::of([profiles::h100_80().process(
            std::process::id(),
            10 << 30,
            HolderKind::Compute,
        )]))
        .unwrap();

    assert_eq!(free_bytes(), promised);
}

#[test]
fn second_daemon_keeps_first_running() {
    let daemon = Daemon::start(&["--gpus", "24GiB"]);
    let (second, _notices) = spawn(daemon.directory.path(), &["--gpus", "24GiB"]);
    let second = second.wait_with_output().unwrap();
    assert_eq!(second.status.code(), Some(75));
    assert!(String::from_utf8_lossy(&second.stderr).contains("api.sock"));

    assert_eq!(
        run_with_daemon(&daemon.socket(), "health").code,
        0,
        "the first still answers"
    );
}

#[test]
fn only_stale_socket_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("api.sock");
    fs::write(&path, "precious").unwrap();
    let (child, _notices) = spawn(directory.path(), &["--gpus", "24GiB"]);
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(78));
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");

    fs::remove_file(&path).unwrap();
    drop(UnixListener::bind(&path).unwrap());
    let daemon = Daemon::start_in(directory, &["--gpus", "24GiB"]);
    assert_eq!(run_with_daemon(&daemon.socket(), "health --json").code, 0);
}

#[test]
fn daemon_answers_each_quantization() {
    let folder = tempfile::tempdir().unwrap();
    super::files::write_repository(folder.path());
    let mut daemon = Daemon::start(&["--gpus", "11GiB"]);
    let line = format!("fits {} --json", folder.path().display());
    let through = run_with_daemon(&daemon.socket(), &line);
    assert!(
        through.err.starts_with("answered by the daemon"),
        "{}",
        through.err
    );

    let in_process = run(&format!("{line} --gpus 11GiB --local"));
    let (through, in_process) = (through.json(), in_process.json());
    assert_eq!(through["files"], in_process["files"]);

    assert_eq!(
        through["files"]["recommended"],
        "Q6_K/m-Q6_K-00001-of-00002.gguf"
    );
    assert_eq!(through["files"]["list"].as_array().unwrap().len(), 9);
    assert_eq!(daemon.stop(), Some(0));
}
