//! Faults of the driver while the sampler runs: the right reason at once, and automatic recovery.
#![expect(clippy::unwrap_used, reason = "the helpers of tests may fail them")]

use std::time::{Duration, Instant};

use hf_mem_probe::devices::holders::HostRoots;
use hf_mem_probe::devices::nvml::NvmlOptions;
use hf_mem_probe::devices::sampler::{Sampler, SamplerOptions};
use simulated_nvml::{FakeHost, Fault, Scenario, SimulatedDriver, codes, profiles};
use tempfile::TempDir;

/// The deadline that ends a failing test.
///
/// The delays between attempts decide how soon the sampler sees the end of a fault. Unit tests
/// cover them.
const DEADLINE: Duration = Duration::from_secs(60);

struct Machine {
    _directory: TempDir,
    driver: SimulatedDriver,
    host: FakeHost,
    options: SamplerOptions,
}

fn machine(scenario: &Scenario) -> Machine {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let driver = SimulatedDriver::install(directory.path(), scenario).unwrap();
    let host = FakeHost::new(&directory.path().join("host")).unwrap();
    let nvml = NvmlOptions {
        library: Some(driver.library().to_owned()),
        roots: HostRoots::under(host.root()),
        ..NvmlOptions::default()
    };

    let options = SamplerOptions {
        nvml,
        interval: Some(Duration::from_millis(100)),
        ..SamplerOptions::default()
    };

    Machine {
        _directory: directory,
        driver,
        host,
        options,
    }
}

/// Returns the reason that a client gets now, as `fits` prints it.
async fn current_reason(sampler: &Sampler) -> String {
    match sampler.sample(Duration::ZERO, DEADLINE).await {
        Ok(snapshot) => hf_mem_probe::devices::sampler::usable(&snapshot)
            .map_or_else(|error| error.reason().to_owned(), |()| "usable".to_owned()),
        Err(error) => error.reason().to_owned(),
    }
}

/// Waits until the sampler's own readings show a usable device again, without a request.
async fn wait_for_recovery(sampler: &Sampler) -> Duration {
    let since = Instant::now();
    let mut readings = sampler.subscribe();
    let usable = readings.wait_for(|reading| {
        let reading = reading.as_ref().filter(|reading| reading.began >= since);
        reading.is_some_and(|reading| {
            reading
                .outcome
                .as_ref()
                .is_ok_and(|snapshot| hf_mem_probe::devices::sampler::usable(snapshot).is_ok())
        })
    });

    drop(
        tokio::time::timeout(DEADLINE, usable)
            .await
            .unwrap()
            .unwrap(),
    );

    since.elapsed()
}

#[tokio::test]
async fn faults_are_reported_and_end() {
    let healthy = Scenario::of([profiles::h100_80()]);
    let with_code = |code| healthy.clone().fault("*", Fault::code(code));

    let faults = [
        (
            "GPU lost",
            Scenario::of([profiles::h100_80().lost()]),
            "gpu_lost",
        ),
        (
            "reset required",
            Scenario::of([profiles::h100_80().fault("*", Fault::code(codes::RESET_REQUIRED))]),
            "reset_required",
        ),
        (
            "no permission",
            Scenario::of([profiles::h100_80().fault("*", Fault::code(codes::NO_PERMISSION))]),
            "no_permission",
        ),
        (
            "driver unloaded",
            with_code(codes::DRIVER_NOT_LOADED),
            "nvml_unavailable",
        ),
        (
            "version mismatch",
            with_code(codes::LIB_RM_VERSION_MISMATCH),
            "driver_version_mismatch",
        ),
        (
            "uninitialized",
            with_code(codes::UNINITIALIZED),
            "nvml_unavailable",
        ),
        (
            "unknown everywhere",
            with_code(codes::UNKNOWN),
            "nvml_unavailable",
        ),
        ("devices gone", Scenario::default(), "gpu_lost"),
        (
            "compute mode prohibited",
            Scenario::of([profiles::h100_80().compute_mode(2)]),
            "prohibited",
        ),
        (
            "MIG switched on",
            Scenario::of([profiles::h100_80().mig([None])]),
            "mig_without_instances",
        ),
    ];

    // The faults run concurrently, each on its own machine, because they mostly wait.
    let mut running = tokio::task::JoinSet::new();
    for (name, fault, expected) in faults {
        running.spawn(check_fault(name, healthy.clone(), fault, expected));
    }

    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
}

#[expect(clippy::print_stdout, reason = "the fault table, under --nocapture")]
async fn check_fault(name: &str, healthy: Scenario, fault: Scenario, expected: &str) {
    let machine = machine(&healthy);
    let sampler = Sampler::start(machine.options.clone()).unwrap();
    assert_eq!(current_reason(&sampler).await, "usable");
    machine.driver.set(&fault).unwrap();
    let asked = Instant::now();
    assert_eq!(current_reason(&sampler).await, expected, "{name}");
    let reported_in = asked.elapsed();

    // The fault lasts until the delays between attempts have reached their maximum.
    let mut readings = sampler.subscribe();
    for _ in 0..6 {
        readings.changed().await.unwrap();
    }

    machine.driver.set(&healthy).unwrap();
    let recovered_in = wait_for_recovery(&sampler).await;
    println!(
        "{name:24} {expected:24} reported in {reported_in:>10.1?}   \
         recovered in {recovered_in:>10.1?}"
    );
    let counted = machine.driver.statistics().unwrap();
    assert_eq!(
        counted.inits,
        counted.shutdowns + 1,
        "{name}: the old library is closed before the next is opened"
    );
}

#[tokio::test]
async fn driver_installed_later_is_found() {
    let mut machine = machine(&Scenario::of([profiles::t4()]));
    let hidden = machine.driver.library().with_file_name("later.so");
    machine.options.nvml.library = Some(hidden.clone());
    let sampler = Sampler::start(machine.options.clone()).unwrap();
    assert_eq!(current_reason(&sampler).await, "nvml_unavailable");
    std::fs::rename(machine.driver.library(), hidden).unwrap();
    wait_for_recovery(&sampler).await;
}

#[tokio::test]
async fn replaced_driver_is_reopened() {
    let mut machine = machine(&Scenario::of([profiles::t4()]));

    // A reading at the interval could see the file half written and reopen the driver once more.
    machine.options.interval = None;
    let sampler = Sampler::start(machine.options.clone()).unwrap();
    assert_eq!(current_reason(&sampler).await, "usable");

    machine
        .host
        .write("proc/driver/nvidia/version", "NVRM version: 610.10\n")
        .unwrap();
    assert_eq!(current_reason(&sampler).await, "usable");
    let counted = machine.driver.statistics().unwrap();
    assert_eq!((counted.inits, counted.shutdowns), (2, 1));
}

#[tokio::test]
async fn changed_devices_need_no_restart() {
    let machine = machine(&Scenario::of([profiles::t4()]));
    let sampler = Sampler::start(machine.options.clone()).unwrap();

    let two = Scenario::of([
        profiles::t4().used(1 << 30),
        profiles::h100_80().mig([Some(profiles::h100_mig("3g.40gb", 1, 0))]),
    ]);
    assert_eq!(
        sampler
            .sample(Duration::ZERO, DEADLINE)
            .await
            .unwrap()
            .devices
            .len(),
        1
    );

    machine.driver.set(&two).unwrap();
    let snapshot = sampler.sample(Duration::ZERO, DEADLINE).await.unwrap();
    assert_eq!(snapshot.devices.len(), 3);
    assert_eq!(snapshot.devices[0].used_bytes.unwrap().get(), 1 << 30);
    let one = Scenario::of([profiles::t4()]);
    machine.driver.set(&one).unwrap();

    assert_eq!(
        sampler
            .sample(Duration::ZERO, DEADLINE)
            .await
            .unwrap()
            .devices
            .len(),
        1
    );
}

#[tokio::test]
async fn stale_readings_expire() {
    let healthy = Scenario::of([profiles::h100_80()]);
    let mut machine = machine(&healthy);
    machine.options.stale_for = Duration::ZERO;
    let sampler = Sampler::start(machine.options.clone()).unwrap();
    assert_eq!(current_reason(&sampler).await, "usable");

    machine
        .driver
        .set(
            &healthy
                .clone()
                .fault("nvmlDeviceGetCount_v2", Fault::hang()),
        )
        .unwrap();

    let error = sampler
        .sample(Duration::ZERO, Duration::from_millis(50))
        .await
        .unwrap_err();
    assert_eq!(error.reason(), "nvml_overdue");
    machine.driver.set(&healthy).unwrap();
}

#[tokio::test]
async fn hung_init_is_reported() {
    let healthy = Scenario::of([profiles::h100_80()]);
    let machine = machine(&healthy.clone().fault("nvmlInit_v2", Fault::hang()));
    let sampler = Sampler::start(machine.options.clone()).unwrap();
    machine.driver.until_hung("nvmlInit_v2", DEADLINE).unwrap();

    let error = sampler
        .sample(Duration::ZERO, Duration::from_millis(50))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("opening"), "{error}");
    machine.driver.set(&healthy).unwrap();
    wait_for_recovery(&sampler).await;
}

#[tokio::test]
async fn slow_driver_is_awaited() {
    let machine = machine(&Scenario::of([profiles::t4()]).fault("nvmlInit_v2", Fault::slow(200)));
    let sampler = Sampler::start(machine.options.clone()).unwrap();
    assert_eq!(current_reason(&sampler).await, "usable");
}

#[tokio::test]
async fn release_closes_and_resume_reopens() {
    let machine = machine(&Scenario::of([profiles::t4()]));
    let sampler = Sampler::start(machine.options.clone()).unwrap();
    assert_eq!(current_reason(&sampler).await, "usable");

    sampler
        .release(Duration::from_secs(3600), DEADLINE)
        .await
        .unwrap();
    let counted = machine.driver.statistics().unwrap();
    assert_eq!(counted.inits, counted.shutdowns);
    assert_eq!(current_reason(&sampler).await, "nvml_released");
    assert!(sampler.status().released.is_some());
    sampler.resume();
    assert_eq!(current_reason(&sampler).await, "usable");

    // A release of no length ends before a client sees it, but it closes the library all the same.
    let before = machine.driver.statistics().unwrap().shutdowns;
    sampler.release(Duration::ZERO, DEADLINE).await.unwrap();
    assert_eq!(machine.driver.statistics().unwrap().shutdowns, before + 1);
    wait_for_recovery(&sampler).await;
}

#[tokio::test]
async fn release_waits_for_begun_open() {
    let slow = Scenario::of([profiles::t4()]).fault("nvmlInit_v2", Fault::slow(300));
    let machine = machine(&slow);
    let sampler = Sampler::start(machine.options.clone()).unwrap();
    while sampler.status().busy.is_none() {
        tokio::task::yield_now().await;
    }

    sampler
        .release(Duration::from_secs(3600), DEADLINE)
        .await
        .unwrap();
    let counted = machine.driver.statistics().unwrap();
    assert_eq!((counted.inits, counted.shutdowns), (1, 1));
}

#[tokio::test]
async fn idle_driver_is_closed() {
    let mut machine = machine(&Scenario::of([profiles::t4()]));
    machine.options.idle_after = Some(Duration::from_millis(200));
    let sampler = Sampler::start(machine.options.clone()).unwrap();
    assert_eq!(current_reason(&sampler).await, "usable");
    let asked = Instant::now();
    while sampler.status().open {
        assert!(asked.elapsed() < DEADLINE);
        tokio::task::yield_now().await;
    }
    // On a slow machine the driver may already have been closed before the request.
    let counted = machine.driver.statistics().unwrap();

    assert_eq!(counted.inits, counted.shutdowns);
    assert!(counted.inits > 0);
    assert_eq!(current_reason(&sampler).await, "usable");
}
