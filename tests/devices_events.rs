//! XIDs: heard while the driver is open, told of the device, and no hindrance to letting go.
#![expect(clippy::unwrap_used, reason = "the helpers of tests may fail them")]

use std::time::{Duration, Instant};

use hf_mem_core::device::{Device, Snapshot, WarningReason};
use hf_mem_probe::devices::holders::HostRoots;
use hf_mem_probe::devices::nvml::NvmlOptions;
use hf_mem_probe::devices::sampler::{Sampler, SamplerOptions};
use simulated_nvml::{Event, FakeHost, Fault, Gpu, Scenario, SimulatedDriver, codes, profiles};
use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_secs(60);

struct Machine {
    _directory: TempDir,
    driver: SimulatedDriver,
    scenario: Scenario,
    sampler: Sampler,
}

impl Machine {
    fn new(gpus: impl IntoIterator<Item = Gpu>) -> Self {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let scenario = Scenario::of(gpus);
        let driver = SimulatedDriver::install(directory.path(), &scenario).unwrap();
        let host = FakeHost::new(&directory.path().join("host")).unwrap();
        let nvml = NvmlOptions {
            library: Some(driver.library().to_owned()),
            roots: HostRoots::under(host.root()),
            ..NvmlOptions::default()
        };

        let sampler = Sampler::start(SamplerOptions {
            nvml,
            interval: None,
            ..SamplerOptions::default()
        })
        .unwrap();

        Self {
            _directory: directory,
            driver,
            scenario,
            sampler,
        }
    }

    /// Raises an XID again and again, until `seen` is satisfied: one from before registration is
    /// not kept.
    async fn raise(
        &mut self,
        gpu: usize,
        xid: u64,
        seen: impl Fn(&Machine, &Snapshot) -> bool,
    ) -> Snapshot {
        let begun = Instant::now();
        let mut readings = self.sampler.subscribe();

        loop {
            let snapshot = self.sampler.sample(Duration::ZERO, DEADLINE).await.unwrap();
            if seen(self, &snapshot) {
                return Snapshot::clone(&snapshot);
            }

            assert!(begun.elapsed() < DEADLINE, "XID {xid} is not heard");
            self.scenario.devices[gpu].events.push(Event { xid });
            self.driver.set(&self.scenario).unwrap();

            // An XID that matters makes a reading of its own; one that does not is counted
            // meanwhile.
            readings.mark_unchanged();
            let _ = tokio::time::timeout(Duration::from_millis(20), readings.changed()).await;
        }
    }

    fn count(&self, xid: u64) -> u64 {
        self.sampler
            .status()
            .xids
            .iter()
            .filter(|it| it.xid == Some(xid))
            .map(|it| it.count)
            .sum()
    }
}

fn warned(device: &Device) -> bool {
    device
        .warnings
        .iter()
        .any(|warning| warning.reason == WarningReason::Xid)
}

fn reason(device: &Device) -> &str {
    device
        .unusable
        .as_ref()
        .map_or("usable", |why| why.reason.as_str())
}

#[tokio::test]
async fn an_xid_is_told_of_its_gpu_alone_and_a_release_settles_it() {
    let no_events = profiles::t4().fault(
        "nvmlDeviceRegisterEvents",
        Fault::code(codes::NOT_SUPPORTED),
    );
    let mut machine = Machine::new([profiles::l40s(), no_events, profiles::l40s()]);
    let snapshot = machine
        .raise(2, 48, |_, snapshot| warned(&snapshot.devices[2]))
        .await;
    assert_eq!(
        snapshot.devices.iter().map(warned).collect::<Vec<_>>(),
        [false, false, true]
    );

    assert_eq!(
        snapshot.devices.iter().map(reason).collect::<Vec<_>>(),
        ["usable"; 3]
    );
    assert!(
        snapshot.devices[2].warnings[0]
            .message
            .contains("uncorrectable memory error")
    );

    let snapshot = machine
        .raise(0, 119, |_, snapshot| snapshot.devices[0].unusable.is_some())
        .await;
    assert_eq!(reason(&snapshot.devices[0]), "reset_required");

    machine
        .sampler
        .release(Duration::from_secs(3600), DEADLINE)
        .await
        .unwrap();

    let counted = machine.driver.statistics().unwrap();
    assert_eq!(
        (counted.open_event_sets, counted.inits),
        (0, counted.shutdowns)
    );
    machine.sampler.resume();

    let snapshot = machine
        .sampler
        .sample(Duration::ZERO, DEADLINE)
        .await
        .unwrap();
    assert_eq!(
        snapshot.devices.iter().map(reason).collect::<Vec<_>>(),
        ["usable"; 3]
    );
    assert!(!snapshot.devices.iter().any(warned));
    assert!(machine.count(119) > 0, "what was counted stays counted");
}

#[tokio::test]
async fn an_applications_fault_is_counted_and_says_nothing_of_the_gpu() {
    let mut machine = Machine::new([profiles::h100_80()]);
    let snapshot = machine
        .raise(0, 31, |machine, _| machine.count(31) > 0)
        .await;
    assert!(!warned(&snapshot.devices[0]));

    // This driver gives a verdict of its own (nothing to recover from), which outranks the XID.
    let snapshot = machine
        .raise(0, 95, |_, snapshot| warned(&snapshot.devices[0]))
        .await;
    assert_eq!(reason(&snapshot.devices[0]), "usable");
}

#[tokio::test]
async fn gpus_that_come_later_are_listened_to_and_a_failed_wait_is_taken_up_again() {
    let mut machine = Machine::new([profiles::t4()]);
    machine
        .raise(0, 74, |machine, _| machine.count(74) > 0)
        .await;
    machine.scenario = Scenario::of([profiles::t4(), profiles::l40s()]);
    machine.driver.set(&machine.scenario).unwrap();
    machine
        .raise(1, 63, |machine, _| machine.count(63) > 0)
        .await;
    let wait = "nvmlEventSetWait_v2";

    machine
        .driver
        .set(
            &machine
                .scenario
                .clone()
                .fault(wait, Fault::code(codes::UNKNOWN)),
        )
        .unwrap();

    machine.driver.until_failed(wait, DEADLINE).unwrap();
    machine
        .raise(1, 64, |machine, _| machine.count(64) > 0)
        .await;
}

#[tokio::test]
async fn a_wait_that_hangs_delays_no_reading() {
    let machine = Machine::new([profiles::t4()]);
    machine
        .sampler
        .sample(Duration::ZERO, DEADLINE)
        .await
        .unwrap();

    let hung = machine
        .scenario
        .clone()
        .fault("nvmlEventSetWait_v2", Fault::hang());
    machine.driver.set(&hung).unwrap();

    // The listening thread may not have come as far as its first wait yet.
    machine
        .driver
        .until_hung("nvmlEventSetWait_v2", DEADLINE)
        .unwrap();
    for _ in 0..20 {
        assert!(
            !machine
                .sampler
                .sample(Duration::ZERO, DEADLINE)
                .await
                .unwrap()
                .stale
        );
    }
    // Whoever asks for a release learns that it did not come about.
    let begun = Instant::now();

    loop {
        let error = machine
            .sampler
            .release(Duration::from_secs(60), Duration::from_millis(300))
            .await
            .unwrap_err();
        if error.to_string().contains("events") {
            break;
        }
        // It may not have come as far as the events yet.
        assert!(begun.elapsed() < DEADLINE, "{error}");
    }

    machine.driver.set(&machine.scenario).unwrap();
    machine
        .sampler
        .release(Duration::from_secs(60), DEADLINE)
        .await
        .unwrap();
}
