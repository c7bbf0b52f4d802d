//! `gpus` on typical machines: as text, as JSON, and replayed from that JSON byte for byte.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::Stdio;

use simulated_nvml::{
    FakeHost, Gpu, HolderKind, NvLink, Process, Scenario, SimulatedDriver, profiles,
};
use tempfile::TempDir;

use super::daemon_process::Daemon;
use super::run::{MODEL, Outcome, program, run_with_daemon};

const GIB: u64 = 1 << 30;

/// A host with a driver.
struct Machine {
    directory: TempDir,
    /// A directory to load a library from, even if `/tmp` is mounted `noexec`.
    _drivers: TempDir,
    driver: SimulatedDriver,
    host: FakeHost,
}

impl Machine {
    fn new(scenario: &Scenario) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let drivers = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let driver = SimulatedDriver::install(drivers.path(), scenario).unwrap();
        let host = FakeHost::new(&directory.path().join("host")).unwrap();

        Self {
            directory,
            _drivers: drivers,
            driver,
            host,
        }
    }

    fn run(&self, line: &str) -> Outcome {
        let mut command = program();
        command
            .env("HF_MEM_PROBE_NVML", self.driver.library())
            .env("HF_MEM_PROBE_HOST_ROOT", self.host.root());

        command
            .args(line.split_whitespace())
            .output()
            .unwrap()
            .into()
    }

    /// Returns the output of `gpus`, after checks that apply to every machine.
    fn shown(&self, options: &str) -> String {
        let run_replayed = |written: &str, options: &str| {
            let file = self.directory.path().join("snapshot.json");
            std::fs::write(&file, written).unwrap();
            self.run(&format!("gpus --gpus {} {options}", file.display()))
                .out
        };

        let written = self.run("gpus --local --json");
        assert_eq!(written.code, 0, "{}", written.err);

        assert_eq!(
            run_replayed(&written.out, "--json"),
            written.out,
            "byte for byte"
        );

        let shown = self.run(&format!("gpus --local {options}"));
        assert_eq!((shown.code, shown.err.as_str()), (0, ""));
        assert_eq!(run_replayed(&written.out, options), shown.out);

        for line in shown.out.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }

        assert!(
            shown
                .out
                .bytes()
                .all(|byte| byte == b'\n' || !byte.is_ascii_control())
        );

        shown.out
    }
}

macro_rules! shows {
    ($($name:ident $options:literal $machine:expr;)+) => {
        $(#[test] fn $name() { insta::assert_snapshot!($machine.shown($options)); })+
    };
}

shows! {
    h100_split_by_mig "" h100_mig();
    a100_with_and_without_mig "" a100_mixed();
    exclusive_process "" exclusive();
    mps_clients "" mps();
    unified_memory "" gb10();
    laptop_asleep "" laptop();
    one_lost "--topology" lost();
    desktop_4090 "" desktop();
    unequal_24_and_12 "--topology" unequal();
    sixty_four "" Machine::new(&Scenario::repeated(64, &profiles::h200()).nvswitch(18));
    vgpu_guest "" Machine::new(&Scenario::of([profiles::vgpu_8().used(GIB)]));
    grace_with_page_cache "" grace();
    several_kinds "--topology" cards();
}

fn h100_mig() -> Machine {
    let mut three = profiles::h100_mig("3g.40gb", 1, 0);
    three.memory.used_bytes = 17 * GIB;

    three.processes = vec![Process {
        pid: 4121,
        used_bytes: Some(17 * GIB),
        kinds: vec![HolderKind::Compute],
    }];

    let slots = [
        three,
        profiles::h100_mig("2g.20gb", 3, 0),
        profiles::h100_mig("2g.20gb", 5, 0),
    ]
    .map(Some);
    let machine = Machine::new(&Scenario::of([profiles::h100_80()
        .mig(slots)
        .used(59 << 20)]));
    let pod = "4f1e2d3c_0a1b_4c5d_8e9f_001122334455";
    let cgroup = format!(
        "/kubepods.slice/kubepods-pod{pod}.slice/cri-containerd-{}.scope",
        "5a".repeat(32)
    );
    machine
        .host
        .process(4121, "VLLM::EngineCor", 1000, &cgroup)
        .unwrap();

    machine
}

fn a100_mixed() -> Machine {
    let mut mixed = Scenario::of([
        profiles::a100_80().mig([None, None]),
        profiles::a100_80().process(900, 30 * GIB, HolderKind::Compute),
        profiles::a100_80(),
    ]);
    mixed.devices[2].mig.as_mut().unwrap().pending = true;
    let machine = Machine::new(&mixed);
    machine
        .host
        .process(
            900,
            "python3",
            1000,
            &format!("/system.slice/docker-{}.scope", "c0".repeat(32)),
        )
        .unwrap();

    machine
}

fn exclusive() -> Machine {
    let held = profiles::l40s()
        .compute_mode(3)
        .process(77, 9 * GIB, HolderKind::Compute);
    let machine = Machine::new(&Scenario::of([
        held,
        profiles::l40s().compute_mode(3),
        profiles::l40s().compute_mode(2),
    ]));

    machine
        .host
        .process(77, "ollama", 0, "/system.slice/ollama.service")
        .unwrap();

    machine
}

fn mps() -> Machine {
    let gpu = profiles::l4()
        .compute_mode(3)
        .process(50, 30 << 20, HolderKind::Compute)
        .process(60, 4 * GIB, HolderKind::Mps)
        .process(61, 5 * GIB, HolderKind::Mps);
    let machine = Machine::new(&Scenario::of([gpu]));
    machine
        .host
        .process(50, "nvidia-cuda-mps", 0, "/system.slice/mps.service")
        .unwrap();

    machine
        .host
        .process(
            60,
            "python",
            1000,
            "/user.slice/user-1000.slice/session-3.scope",
        )
        .unwrap();

    machine
}

fn gb10() -> Machine {
    let mut gpu = profiles::gb10();
    gpu.processes = vec![Process {
        pid: 8,
        used_bytes: Some(6 * GIB),
        kinds: vec![HolderKind::Compute],
    }];

    let machine = Machine::new(&Scenario::of([gpu]));
    machine
        .host
        .process(
            8,
            "llama-server",
            1000,
            "/user.slice/user-1000.slice/session-1.scope",
        )
        .unwrap();

    machine
}

fn laptop() -> Machine {
    let machine = Machine::new(&Scenario::of([profiles::rtx_4090()]));
    let uuid = "GPU-11111111-2222-4333-8444-555555555555";

    machine
        .host
        .gpu(
            "0000:01:00.0",
            "NVIDIA GeForce RTX 4070 Laptop GPU",
            uuid,
            "suspended",
        )
        .unwrap();

    machine
}

fn lost() -> Machine {
    Machine::new(
        &Scenario::of([profiles::b200(), profiles::b200().lost(), profiles::b200()]).nvswitch(18),
    )
}

fn desktop() -> Machine {
    let gpu = Gpu {
        display_active: true,
        ..profiles::rtx_4090()
    }
    .process(1200, 350 << 20, HolderKind::Graphics)
    .process(1300, 246 << 20, HolderKind::Graphics)
    .process(1400, 3 * GIB, HolderKind::Compute);
    let machine = Machine::new(&Scenario::of([gpu]));
    let session = "/user.slice/user-1000.slice/user@1000.service";

    machine
        .host
        .process(1200, "Xorg", 0, "/system.slice/gdm.service")
        .unwrap();
    machine
        .host
        .process(
            1300,
            "gnome-shell",
            1000,
            &format!("{session}/session.slice/org.gnome.Shell.service"),
        )
        .unwrap();

    // A process chooses its own name, which can have terminal escape sequences.
    machine
        .host
        .process(
            1400,
            "evil\u{1b}[2J",
            1000,
            &format!("{session}/app.slice/evil.scope"),
        )
        .unwrap();

    machine
}

fn unequal() -> Machine {
    let mut twelve = profiles::rtx_4090();
    "NVIDIA GeForce RTX 3060".clone_into(&mut twelve.name);

    (
        twelve.memory.total_bytes,
        twelve.compute_capability,
        twelve.cores,
    ) = (12 * GIB, (8, 6), Some(3_584));

    let mut scenario = Scenario::of([profiles::rtx_4090().used(2 * GIB), twelve]);
    scenario.ancestors = vec![(0, 1, 30)];

    Machine::new(&scenario)
}

fn grace() -> Machine {
    let machine = Machine::new(&Scenario::of([profiles::gh200().used(12 * GIB)]));
    machine
        .host
        .write(
            "sys/devices/system/node/node4/meminfo",
            "Node 4 FilePages: 11534336 kB\n",
        )
        .unwrap();

    machine
}

/// Returns cards of several kinds: two are bridged, one has many processes.
fn cards() -> Machine {
    let busy = (0..12).fold(profiles::t4(), |gpu, pid| {
        gpu.process(100 + pid, 512 << 20, HolderKind::Compute)
    });
    let mut scenario = Scenario::of([
        profiles::rtx_pro_6000(),
        profiles::a100_80(),
        profiles::a100_80(),
        busy,
    ]);

    let bus_ids: Vec<_> = scenario
        .devices
        .iter()
        .map(|gpu| gpu.pci_bus_id.clone())
        .collect();

    let bridge_to = |to: &str| NvLink {
        remote_type: 0,
        remote_pci_bus_id: to.to_owned(),
    };

    scenario.devices[1].links = vec![bridge_to(&bus_ids[2]); 12];
    scenario.devices[2].links = vec![bridge_to(&bus_ids[1]); 12];
    scenario.ancestors = vec![(0, 1, 20), (0, 2, 40), (1, 3, 10)];

    Machine::new(&scenario)
}

#[test]
fn answer_repeats_device_warnings() {
    let outcome = grace().run(&format!("fits {MODEL} --local --json"));
    let answer = outcome.json();
    let warnings = answer["warnings"].as_array().unwrap();
    assert!(
        warnings
            .iter()
            .any(|it| it.as_str().unwrap().contains("page cache")),
        "{warnings:?}"
    );
}

#[test]
fn reason_is_of_chosen_devices() {
    let machine = Machine::new(&Scenario::of([
        profiles::b200().lost(),
        profiles::l40s().compute_mode(2),
    ]));
    let reason_on = |on: &str| {
        let outcome = machine.run(&format!("fits {MODEL} --local --json {on}"));
        (
            outcome.code,
            outcome.json()["reason"].as_str().unwrap().to_owned(),
        )
    };

    assert_eq!(reason_on(""), (4, "gpu_lost".to_owned()));
    assert_eq!(
        reason_on("--on GPU-00000000-0000-4000-8000-000000000001"),
        (4, "prohibited".to_owned())
    );
}

#[test]
fn missing_gpu_and_driver_differ() {
    let none = Machine::new(&Scenario::default());
    let without_gpu = none.run("gpus --local");
    assert_eq!((without_gpu.code, without_gpu.out.as_str()), (4, ""));
    insta::assert_snapshot!("no_gpu", without_gpu.err);

    let without_driver = program()
        .args(["gpus", "--local", "--nvml", "/opt/absent/libnvidia-ml.so.1"])
        .output()
        .unwrap();
    let without_driver = Outcome::from(without_driver);
    assert_eq!(without_driver.code, 4);
    insta::assert_snapshot!("no_driver", without_driver.err);
}

#[test]
fn eight_h100_with_processes_and_leases() {
    let mut scenario = Scenario::repeated(8, &profiles::h100_80()).nvswitch(18);
    for (pid, gpu) in (4000..).zip(scenario.devices.iter_mut().take(4)) {
        *gpu = gpu.clone().process(pid, 70 * GIB, HolderKind::Compute);
    }

    let machine = Machine::new(&scenario);
    for pid in 4000..4004 {
        machine
            .host
            .process(pid, "VLLM::Worker_TP", 1000, "/system.slice/vllm.service")
            .unwrap();
    }

    let library: PathBuf = machine.driver.library().to_owned();
    let daemon = Daemon::start_in(machine.directory, &["--nvml", library.to_str().unwrap()]);

    for device in 4..6 {
        let on = format!("--on GPU-00000000-0000-4000-8000-{device:012x}");
        let ask = format!(
            "fits {MODEL} --engine reference --context 8192 --reserve --holder nightly-{device} {on}"
        );
        let lease = run_with_daemon(&daemon.socket(), &ask);
        assert_eq!(lease.code, 0, "{}", lease.err);
    }

    let shown = run_with_daemon(&daemon.socket(), "gpus --topology");
    insta::assert_snapshot!(shown.out);
    let written = run_with_daemon(&daemon.socket(), "gpus --json").out;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("snapshot.json");
    std::fs::write(&file, &written).unwrap();
    let replay = format!("gpus --gpus {}", file.display());
    assert_eq!(
        run_with_daemon(&daemon.socket(), &format!("{replay} --json")).out,
        written,
        "leases and all"
    );

    assert_eq!(
        run_with_daemon(&daemon.socket(), &format!("{replay} --topology")).out,
        shown.out
    );

    // A piped watch prints one object per line, and ends when the pipe closes.
    let mut watch = program();
    watch
        .env("HF_MEM_PROBE_SOCKET", daemon.socket())
        .args(["gpus", "--watch"])
        .stdout(Stdio::piped());
    let mut watch = watch.spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    for _ in 0..2 {
        let line: serde_json::Value =
            serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(line["devices"].as_array().map(Vec::len), Some(8));
    }

    drop(lines);
    assert_eq!(watch.wait().unwrap().code(), Some(0));
}

#[test]
fn watch_reads_without_daemon() {
    let machine = Machine::new(&Scenario::of([profiles::t4()]));
    let mut command = program();
    command
        .env("HF_MEM_PROBE_NVML", machine.driver.library())
        .env("HF_MEM_PROBE_HOST_ROOT", machine.host.root());

    let mut watch = command
        .args(["gpus", "--watch"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let line = lines.next().unwrap().unwrap();
    assert!(line.contains("\"Tesla T4\""), "{line}");

    machine
        .driver
        .set(&Scenario::of([profiles::t4().lost()]))
        .unwrap();
    assert!(lines.any(|line| line.unwrap().contains("gpu_lost")));
    drop(lines);
    assert_eq!(watch.wait().unwrap().code(), Some(0));
}
