//! The daemon as a process, on a socket of its own, with the driver's look-alike that the real
//! wrapper loads.

use std::fs;
use std::io::Read as _;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use simulated_nvml::{HolderKind, Scenario, SimulatedDriver, profiles};
use tempfile::TempDir;

use super::run::{MODEL, Outcome, program, run, run_beside};

/// A daemon that says READY when it may be asked.
pub(crate) struct Daemon {
    directory: TempDir,
    child: Child,
}

impl Daemon {
    /// Starts it with `arguments` behind `daemon`, and waits for READY.
    fn start(arguments: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), arguments)
    }

    /// The same in a directory that has something in it; `host` in it stands for the host's files,
    /// and `more.toml` is more configuration, of the Hub to begin with.
    pub(crate) fn start_in(directory: TempDir, arguments: &[&str]) -> Self {
        Self::start_sampling(directory, "10ms", arguments)
    }

    /// The same with a sampling interval of its own.
    fn start_sampling(directory: TempDir, interval: &str, arguments: &[&str]) -> Self {
        let (mut child, notices) = spawn_sampling(directory.path(), interval, arguments);
        let mut notice = [0; 256];
        let ready = loop {
            match notices.recv(&mut notice) {
                Ok(length) if notice[..length].starts_with(b"READY=1") => break true,
                Ok(_) => {}
                // Who was stopped and goes on hears this of a socket with a time limit.
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break false,
            }
        };

        if !ready {
            child.kill().unwrap();
            child.wait().unwrap();
            let mut said = String::new();

            child
                .stderr
                .take()
                .unwrap()
                .read_to_string(&mut said)
                .unwrap();

            panic!("the daemon did not become ready: {said}");
        }

        Self { directory, child }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("api.sock")
    }

    /// All that it said, once it was stopped.
    pub(crate) fn log(mut self) -> String {
        let mut log = self.child.stderr.take().unwrap();
        let reader = std::thread::spawn(move || {
            let mut said = String::new();
            log.read_to_string(&mut said).map(|_| said)
        });
        assert_eq!(self.stop(), Some(0));
        reader.join().unwrap().unwrap()
    }

    /// SIGTERM, and how it ended.
    pub(crate) fn stop(&mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap().code()
    }
}

fn spawn(directory: &Path, arguments: &[&str]) -> (Child, UnixDatagram) {
    spawn_sampling(directory, "10ms", arguments)
}

fn spawn_sampling(directory: &Path, interval: &str, arguments: &[&str]) -> (Child, UnixDatagram) {
    let notify = directory.join("notify.sock");
    let _ = fs::remove_file(&notify);
    let notices = UnixDatagram::bind(&notify).unwrap();
    notices
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let config = directory.join("config.toml");

    let text = format!(
        "[socket]\npath = \"{0}/api.sock\"\ngroup = \"{1}\"\n[devices]\nsample_interval = \"{2}\"\nmax_age = \"1h\"\n[leases]\n\
         state_directory = \"{0}/state\"\n[hub]\ncache_directory = \"{0}/cache\"\n",
        directory.display(),
        rustix::process::getgid().as_raw(),
        interval,
    );

    let more = fs::read_to_string(directory.join("more.toml")).unwrap_or_default();
    fs::write(&config, text + &more).unwrap();

    for folder in ["cache", "state"] {
        fs::create_dir_all(directory.join(folder)).unwrap();
    }

    let mut command = program();
    command
        .arg("daemon")
        .arg("--config")
        .arg(&config)
        .args(arguments)
        .env("NOTIFY_SOCKET", &notify);

    if more.starts_with("endpoint") {
        command.env_remove("HF_HUB_OFFLINE");
    }

    if directory.join("host").exists() {
        command.env("HF_MEM_PROBE_HOST_ROOT", directory.join("host"));
    }

    (command.stderr(Stdio::piped()).spawn().unwrap(), notices)
}

/// All of an answer but the moment of its reading.
fn timeless(outcome: &Outcome) -> Value {
    let mut answer = outcome.json();
    answer["sampled_at"] = Value::Null;
    answer
}

#[test]
fn with_and_without_the_daemon_the_answer_is_the_same() {
    let mut daemon = Daemon::start(&["--gpus", "2xRTX4090,1xT4"]);
    for line in [
        "fits",
        "fits --frontier",
        "fits --context 8192 --sequences 4",
        "estimate",
        "fits --engine sglang",
    ] {
        let (command, options) = line.split_once(' ').unwrap_or((line, ""));
        let asked = run_beside(
            &daemon.socket(),
            &format!("{command} {MODEL} {options} --gpus 2xRTX4090,1xT4 --json"),
        );
        assert!(
            asked.err.contains("answered by the daemon"),
            "{}",
            asked.err
        );

        let alone = run(&format!(
            "{command} {MODEL} {options} --gpus 2xRTX4090,1xT4 --json"
        ));
        assert!(alone.err.contains("answered in process"), "{}", alone.err);
        assert_eq!(timeless(&asked), timeless(&alone), "{line}");
        assert_eq!(asked.code, alone.code);
    }
    // A snapshot that is not there is missed here, and no card of that name by the daemon.
    let line = format!("fits {MODEL} --gpus absent.json --json");

    let (asked, alone) = (run_beside(&daemon.socket(), &line), run(&line));
    assert_eq!((asked.code, asked.json()), (2, alone.json()));
    assert_eq!(daemon.stop(), Some(0));
    assert!(!daemon.socket().exists(), "its own socket is removed");

    assert!(
        daemon.directory.path().join("config.toml").exists(),
        "and nothing else"
    );
}

#[test]
fn the_sites_settings_apply_without_the_daemon() {
    let directory = tempfile::tempdir().unwrap();
    let more = "[engines]\ndefault_engine = \"sglang\"\n[engines.profiles.sglang.constants]\ncontext_libraries_mib = 1234\n";
    fs::write(directory.path().join("more.toml"), more).unwrap();
    let config = directory.path().join("config.toml");
    let mut daemon = Daemon::start_in(directory, &["--gpus", "2xRTX4090"]);
    for command in ["fits", "estimate"] {
        let line = format!("{command} {MODEL} --gpus 2xRTX4090 --json");
        let asked = run_beside(&daemon.socket(), &line);
        let alone = run(&format!("{line} --local --config {}", config.display()));
        assert_eq!(timeless(&asked), timeless(&alone), "{command}");
        let built_in = run(&format!("{line} --local --engine sglang"));
        assert_ne!(
            built_in.json()["requirement"],
            alone.json()["requirement"],
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
fn the_sites_margin_applies_without_the_daemon() {
    let directory = tempfile::tempdir().unwrap();
    let driver =
        SimulatedDriver::install(directory.path(), &Scenario::of([profiles::h100_80()])).unwrap();
    let config = directory.path().join("config.toml");
    fs::write(&config, "[placement]\nmargin = \"20GiB\"\n").unwrap();

    let line = format!(
        "fits {MODEL} --json --local --nvml {}",
        driver.library().display()
    );
    let available = |line: &str| {
        let outcome = run(line);
        outcome.json()["placement"]["devices"][0]["available_bytes"]
            .as_u64()
            .unwrap_or_else(|| panic!("{}", outcome.out))
    };

    let kept_back = available(&line) - available(&format!("{line} --config {}", config.display()));
    assert_eq!(kept_back, 20 << 30);
}

#[test]
fn a_daemon_that_cannot_be_asked_is_not_taken_for_none() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let driver =
        SimulatedDriver::install(directory.path(), &Scenario::of([profiles::h100_80()])).unwrap();

    // As good as one that this user may not connect to, which root always may.
    let socket = directory.path().join("api.sock");
    std::os::unix::fs::symlink(&socket, &socket).unwrap();
    let library = driver.library().to_str().unwrap();
    let beside =
        |socket: &Path, line: &str| run_beside(socket, &format!("{line} --nvml {library} --json"));

    // Memory that is promised to others must not be called free.
    for line in [&format!("fits {MODEL}"), "free"] {
        let refused = beside(&socket, line);
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
        beside(&socket, &format!("fits {MODEL} --condition")).code,
        255
    );
    for line in ["--local", "--gpus 80GiB"] {
        let asked_here = beside(&socket, &format!("fits {MODEL} {line}"));
        assert_eq!(
            (asked_here.code, asked_here.out.contains("leases")),
            (0, false),
            "{line}: {}",
            asked_here.out
        );
    }

    assert_eq!(
        run_beside(&socket, &format!("estimate {MODEL}")).code,
        0,
        "it needs no leases"
    );

    let gpus = beside(&socket, "gpus");
    assert!(
        gpus.json()["devices"].is_array() && gpus.err.contains("is not counted"),
        "{}",
        gpus.err
    );
}

#[test]
fn a_degraded_daemon_answers_and_is_not_well() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let lost = Scenario::of([profiles::h100_80(), profiles::h100_80().lost()]);
    let driver = SimulatedDriver::install(directory.path(), &lost).unwrap();
    let daemon = Daemon::start(&["--nvml", driver.library().to_str().unwrap()]);

    // An answer about the devices is one of a reading: only then is their state known.
    assert_eq!(run_beside(&daemon.socket(), "free --gpu 0").code, 0);
    for (line, code) in [("health --json", 0), ("health --strict --json", 1)] {
        let degraded = run_beside(&daemon.socket(), line);
        let said = degraded.json();
        assert_eq!(
            (degraded.code, said["status"].as_str()),
            (code, Some("degraded")),
            "{line}: {said}"
        );
        assert_eq!(said["parts"][0]["name"], "devices", "{said}");
    }

    let daemon = Daemon::start(&["--gpus", "24GiB"]);
    let well = run_beside(&daemon.socket(), "health --strict --json");
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
        let asked = run_beside(&daemon.socket(), &format!("{line} --timeout 100ms --json"));
        let said = asked.json();
        assert_eq!(
            (asked.code, said["reason"].as_str()),
            (69, Some("daemon_unreachable")),
            "{line}: {said}"
        );

        assert!(
            said["detail"]
                .as_str()
                .unwrap()
                .ends_with("did not answer within 100ms"),
            "{line}: {said}"
        );

        assert!(
            said["hint"].as_str().unwrap().contains("--timeout"),
            "{line}: {said}"
        );
    }

    assert_eq!(run_beside(&daemon.socket(), "health --timeout 0s").code, 2);
    let asked = run_beside(&daemon.socket(), "health --json");
    assert!(
        asked.out.contains("did not answer within 5s"),
        "the default: {}",
        asked.out
    );

    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    assert_eq!(run_beside(&daemon.socket(), "health").code, 0, "it goes on");
}

#[test]
fn the_leases_of_a_daemon_that_was_killed_are_warned_of() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let driver =
        SimulatedDriver::install(directory.path(), &Scenario::of([profiles::h100_80()])).unwrap();
    let library = driver.library().to_str().unwrap().to_owned();
    let mut daemon = Daemon::start(&["--nvml", &library]);
    let socket = daemon.socket();
    let beside = |line: &str| run_beside(&socket, &format!("{line} --nvml {library} --json"));
    assert_eq!(
        beside(&format!(
            "fits {MODEL} --reserve --holder job --set gpu_memory_utilization=0.9"
        ))
        .code,
        0
    );

    assert_eq!(
        beside(&format!("fits {MODEL}")).json()["verdict"],
        "does_not_fit",
        "all of it is leased"
    );

    daemon.child.kill().unwrap();
    daemon.child.wait().unwrap();
    let warned = |said: &str| said.contains("leases of a stopped one go on");
    let fits = beside(&format!("fits {MODEL}"));
    assert_eq!(
        (fits.code, warned(&fits.json()["warnings"].to_string())),
        (0, true),
        "{}",
        fits.out
    );

    assert!(warned(&fits.err), "{}", fits.err);
    assert_eq!(
        beside(&format!("fits {MODEL} --condition")).code,
        255,
        "nothing is started on a guess"
    );

    assert!(warned(&beside("free").err) && warned(&beside("gpus").err));
    for line in ["--local", "--gpus 80GiB"] {
        let asked_here = beside(&format!("fits {MODEL} {line} --condition"));
        assert_eq!(
            (asked_here.code, warned(&asked_here.out)),
            (0, false),
            "{line}: {}",
            asked_here.out
        );
    }
}

#[test]
fn the_answer_follows_memory_that_changes_while_the_daemon_runs() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let driver =
        SimulatedDriver::install(directory.path(), &Scenario::of([profiles::h100_80()])).unwrap();
    let library = driver.library().to_str().unwrap().to_owned();
    let mut daemon = Daemon::start(&["--nvml", &library]);
    let socket = daemon.socket();
    let ask = || run_beside(&socket, &format!("fits {MODEL} --json"));
    let empty = ask();
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

    // A reading may be as old as the sampling interval: until the next one the answer is the one
    // before.
    let until = |so: &dyn Fn(&Outcome) -> bool| {
        let begun = Instant::now();
        loop {
            let outcome = ask();
            if so(&outcome) {
                return outcome;
            }

            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "the reading follows: {}",
                outcome.out
            );
        }
    };

    let after = |before: &str| until(&|outcome| outcome.json()["reason"] != before);
    let full = after("fits");
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

    // A part of it has come back since: not yet, and about when.
    driver
        .set(&Scenario::of([profiles::h100_80().used(64 << 30)]))
        .unwrap();
    let rising = after("insufficient_memory");
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

    // While it drains and nothing more comes free, the plain no returns; either is an answer of
    // before.
    let lost = until(&|outcome| outcome.code == 4);
    assert_eq!(
        (lost.code, lost.json()["reason"].as_str()),
        (4, Some("gpu_lost")),
        "{}",
        lost.out
    );

    driver.set(&Scenario::of([profiles::h100_80()])).unwrap();
    assert_eq!(after("gpu_lost").code, 0);
    let table = run_beside(&daemon.socket(), "gpus --topology");
    assert!(table.out.contains("H100 80GB HBM3"), "{}", table.out);
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn what_is_free_is_read_when_it_is_asked_for() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let driver =
        SimulatedDriver::install(directory.path(), &Scenario::of([profiles::h100_80()])).unwrap();
    let library = driver.library().to_str().unwrap();
    let daemon = Daemon::start_sampling(tempfile::tempdir().unwrap(), "1h", &["--nvml", library]);
    let free = || {
        run_beside(&daemon.socket(), "free")
            .out
            .trim()
            .parse::<u64>()
            .unwrap()
    };

    let empty = free();

    // All well within one sampling interval, in which `gpus` would repeat itself.
    for gib in [70, 30, 50] {
        driver
            .set(&Scenario::of([profiles::h100_80().used(gib << 30)]))
            .unwrap();
        assert_eq!(free(), empty - (gib << 10));
    }
    // A lease of this very process, which then takes a part of what it was promised: claimed or in
    // use, never both.
    driver.set(&Scenario::of([profiles::h100_80()])).unwrap();

    let reserved = run_beside(&daemon.socket(), &format!("fits {MODEL} --reserve --json"));
    assert_eq!(reserved.code, 0, "{}", reserved.out);
    let promised = free();
    assert!(promised < empty - (20 << 10));

    driver
        .set(&Scenario::of([profiles::h100_80().process(
            std::process::id(),
            10 << 30,
            HolderKind::Compute,
        )]))
        .unwrap();

    assert_eq!(free(), promised);
}

#[test]
fn a_second_daemon_leaves_the_first_alone() {
    let daemon = Daemon::start(&["--gpus", "24GiB"]);
    let (second, _notices) = spawn(daemon.directory.path(), &["--gpus", "24GiB"]);
    let second = second.wait_with_output().unwrap();
    assert_eq!(second.status.code(), Some(75));
    assert!(String::from_utf8_lossy(&second.stderr).contains("api.sock"));

    assert_eq!(
        run_beside(&daemon.socket(), "health").code,
        0,
        "the first still answers"
    );
}

#[test]
fn what_is_not_a_socket_is_not_removed_and_a_stale_socket_is_taken_over() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("api.sock");
    fs::write(&path, "precious").unwrap();
    let (child, _notices) = spawn(directory.path(), &["--gpus", "24GiB"]);
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(78));
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");

    fs::remove_file(&path).unwrap();
    drop(UnixListener::bind(&path).unwrap());
    let daemon = Daemon::start_in(directory, &["--gpus", "24GiB"]);
    assert_eq!(run_beside(&daemon.socket(), "health --json").code, 0);
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // After `stop` it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_folder_of_many_quantisations_is_answered_file_by_file_through_the_daemon_too() {
    let folder = tempfile::tempdir().unwrap();
    super::files::write_repository(folder.path());
    let mut daemon = Daemon::start(&["--gpus", "11GiB"]);
    let line = format!("fits {} --json", folder.path().display());
    let through = run_beside(&daemon.socket(), &line);
    assert!(
        through.err.starts_with("answered by the daemon"),
        "{}",
        through.err
    );

    let here = run(&format!("{line} --gpus 11GiB --local"));
    let (through, here) = (through.json(), here.json());
    assert_eq!(through["files"], here["files"]);

    assert_eq!(
        through["files"]["recommended"],
        "Q6_K/m-Q6_K-00001-of-00002.gguf"
    );
    assert_eq!(through["files"]["list"].as_array().unwrap().len(), 9);
    assert_eq!(daemon.stop(), Some(0));
}
