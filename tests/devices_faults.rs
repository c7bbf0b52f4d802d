//! Faults of the driver while it is being sampled: the right reason at once, and recovery by
//! itself.
#![expect(clippy::unwrap_used, reason = "the helpers of tests may fail them")]

use std::time::{Duration, Instant};

use hf_mem_probe::devices::holders::HostRoots;
use hf_mem_probe::devices::nvml::NvmlOptions;
use hf_mem_probe::devices::sampler::{Sampler, SamplerOptions};
use simulated_nvml::{FakeHost, Fault, Scenario, SimulatedDriver, codes, profiles};
use tempfile::TempDir;

/// How soon the end of a fault is seen hangs on the waits between attempts, which are tested beside
/// their code; this only ends a test that fails.
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

/// What an asker is told now: `fits` would print this word.
async fn told(sampler: &Sampler) -> String {
    match sampler.sample(Duration::ZERO, DEADLINE).await {
        Ok(snapshot) => hf_mem_probe::devices::sampler::usable(&snapshot)
            .map_or_else(|error| error.reason().to_owned(), |()| "usable".to_owned()),
        Err(error) => error.reason().to_owned(),
    }
}

/// Waits, by the sampler's own readings and no question of ours, until it sees a usable device
/// again.
async fn recovery(sampler: &Sampler) -> Duration {
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
async fn each_fault_is_named_at_once_and_its_end_is_seen() {
    let healthy = Scenario::of([profiles::h100_80()]);
    let all = |code| healthy.clone().fault("*", Fault::code(code));

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
            all(codes::DRIVER_NOT_LOADED),
            "nvml_unavailable",
        ),
        (
            "version mismatch",
            all(codes::LIB_RM_VERSION_MISMATCH),
            "driver_version_mismatch",
        ),
        (
            "uninitialised",
            all(codes::UNINITIALIZED),
            "nvml_unavailable",
        ),
        (
            "unknown everywhere",
            all(codes::UNKNOWN),
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

    // Side by side, each on a machine of its own: most of the time is waiting.
    let mut running = tokio::task::JoinSet::new();
    for (name, fault, expected) in faults {
        running.spawn(one_fault(name, healthy.clone(), fault, expected));
    }

    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
}

#[expect(clippy::print_stdout, reason = "the fault table, under --nocapture")]
async fn one_fault(name: &str, healthy: Scenario, fault: Scenario, expected: &str) {
    let machine = machine(&healthy);
    let sampler = Sampler::start(machine.options.clone()).unwrap();
    assert_eq!(told(&sampler).await, "usable");
    machine.driver.set(&fault).unwrap();
    let asked = Instant::now();
    assert_eq!(told(&sampler).await, expected, "{name}");
    let named_in = asked.elapsed();

    // The fault lasts long enough for the waits between attempts to have grown to their longest.
    let mut readings = sampler.subscribe();
    for _ in 0..6 {
        readings.changed().await.unwrap();
    }

    machine.driver.set(&healthy).unwrap();
    let recovered_in = recovery(&sampler).await;
    println!(
        "{name:24} {expected:24} named in {named_in:>10.1?}   recovered in {recovered_in:>10.1?}"
    );
    let counted = machine.driver.statistics().unwrap();
    assert_eq!(
        counted.inits,
        counted.shutdowns + 1,
        "{name}: the old library goes before the next is opened"
    );
}

#[tokio::test]
async fn a_driver_installed_later_is_found() {
    let mut machine = machine(&Scenario::of([profiles::t4()]));
    let hidden = machine.driver.library().with_file_name("later.so");
    machine.options.nvml.library = Some(hidden.clone());
    let sampler = Sampler::start(machine.options.clone()).unwrap();
    assert_eq!(told(&sampler).await, "nvml_unavailable");
    std::fs::rename(machine.driver.library(), hidden).unwrap();
    recovery(&sampler).await;
}

#[tokio::test]
async fn a_driver_exchanged_under_us_is_opened_anew() {
    let mut machine = machine(&Scenario::of([profiles::t4()]));

    // A reading of the sampler's own could see the file half written, and open once more.
    machine.options.interval = None;
    let sampler = Sampler::start(machine.options.clone()).unwrap();
    assert_eq!(told(&sampler).await, "usable");

    machine
        .host
        .write("proc/driver/nvidia/version", "NVRM version: 610.10\n")
        .unwrap();
    assert_eq!(told(&sampler).await, "usable");
    let counted = machine.driver.statistics().unwrap();
    assert_eq!((counted.inits, counted.shutdowns), (2, 1));
}

#[tokio::test]
async fn devices_come_go_and_change_without_a_restart() {
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
async fn stale_readings_are_not_given_out_for_ever() {
    let healthy = Scenario::of([profiles::h100_80()]);
    let mut machine = machine(&healthy);
    machine.options.stale_for = Duration::ZERO;
    let sampler = Sampler::start(machine.options.clone()).unwrap();
    assert_eq!(told(&sampler).await, "usable");

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
async fn a_hung_init_is_said_to_be_one() {
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
    recovery(&sampler).await;
}

#[tokio::test]
async fn a_slow_driver_is_waited_for() {
    let machine = machine(&Scenario::of([profiles::t4()]).fault("nvmlInit_v2", Fault::slow(200)));
    let sampler = Sampler::start(machine.options.clone()).unwrap();
    assert_eq!(told(&sampler).await, "usable");
}

#[tokio::test]
async fn a_release_lets_go_and_comes_back() {
    let machine = machine(&Scenario::of([profiles::t4()]));
    let sampler = Sampler::start(machine.options.clone()).unwrap();
    assert_eq!(told(&sampler).await, "usable");

    sampler
        .release(Duration::from_secs(3600), DEADLINE)
        .await
        .unwrap();
    let counted = machine.driver.statistics().unwrap();
    assert_eq!(counted.inits, counted.shutdowns);
    assert_eq!(told(&sampler).await, "nvml_released");
    assert!(sampler.status().released.is_some());
    sampler.resume();
    assert_eq!(told(&sampler).await, "usable");

    // However short it is: it is over before it could be seen, and the library was let go of all
    // the same.
    let before = machine.driver.statistics().unwrap().shutdowns;
    sampler.release(Duration::ZERO, DEADLINE).await.unwrap();
    assert_eq!(machine.driver.statistics().unwrap().shutdowns, before + 1);
    recovery(&sampler).await;
}

#[tokio::test]
async fn a_release_waits_for_an_opening_that_has_begun() {
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
async fn the_driver_is_let_go_when_nobody_asks() {
    let mut machine = machine(&Scenario::of([profiles::t4()]));
    machine.options.idle_after = Some(Duration::from_millis(200));
    let sampler = Sampler::start(machine.options.clone()).unwrap();
    assert_eq!(told(&sampler).await, "usable");
    let asked = Instant::now();
    while sampler.status().open {
        assert!(asked.elapsed() < DEADLINE);
        tokio::task::yield_now().await;
    }
    // On a slow machine it was let go before the question already.
    let counted = machine.driver.statistics().unwrap();

    assert_eq!(counted.inits, counted.shutdowns);
    assert!(counted.inits > 0);
    assert_eq!(told(&sampler).await, "usable");
}
