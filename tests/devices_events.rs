//! XIDs in the sampler.
//!
//! The sampler receives them while the driver is open, adds them to the device, and can still
//! release the driver.
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

    /// Raises an XID repeatedly until `is_seen` is true.
    ///
    /// An event from before the registration is lost, so one event may not suffice.
    async fn raise(
        &mut self,
        gpu: usize,
        xid: u64,
        is_seen: impl Fn(&Machine, &Snapshot) -> bool,
    ) -> Snapshot {
        let begun = Instant::now();
        let mut readings = self.sampler.subscribe();

        loop {
            let snapshot = self.sampler.sample(Duration::ZERO, DEADLINE).await.unwrap();
            if is_seen(self, &snapshot) {
                return Snapshot::clone(&snapshot);
            }

            assert!(begun.elapsed() < DEADLINE, "XID {xid} does not arrive");
            self.scenario.devices[gpu].events.push(Event { xid });
            self.driver.set(&self.scenario).unwrap();

            // An XID that concerns the GPU causes a reading. An application's XID is counted in the
            // meantime.
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

fn has_xid_warning(device: &Device) -> bool {
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
async fn xid_marks_gpu_until_release() {
    let no_events = profiles::t4().fault(
        "nvmlDeviceRegisterEvents",
        Fault::code(codes::NOT_SUPPORTED),
    );
    let mut machine = Machine::new([profiles::l40s(), no_events, profiles::l40s()]);
    let snapshot = machine
        .raise(2, 48, |_, snapshot| has_xid_warning(&snapshot.devices[2]))
        .await;
    assert_eq!(
        snapshot
            .devices
            .iter()
            .map(has_xid_warning)
            .collect::<Vec<_>>(),
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
    assert!(!snapshot.devices.iter().any(has_xid_warning));
    assert!(machine.count(119) > 0, "a release does not reset the count");
}

#[tokio::test]
async fn application_xid_is_only_counted() {
    let mut machine = Machine::new([profiles::h100_80()]);
    let snapshot = machine
        .raise(0, 31, |machine, _| machine.count(31) > 0)
        .await;
    assert!(!has_xid_warning(&snapshot.devices[0]));

    // This driver has a verdict of its own (no recovery needed), which takes precedence over the
    // XID.
    let snapshot = machine
        .raise(0, 95, |_, snapshot| has_xid_warning(&snapshot.devices[0]))
        .await;
    assert_eq!(reason(&snapshot.devices[0]), "usable");
}

#[tokio::test]
async fn later_gpus_and_failed_waits_recover() {
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
async fn hung_wait_delays_no_reading() {
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

    // The listening thread may not have reached its first wait yet.
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

    // The release fails, because the wait does not end.
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
        // The thread may not have reached the events yet.
        assert!(begun.elapsed() < DEADLINE, "{error}");
    }

    machine.driver.set(&machine.scenario).unwrap();
    machine
        .sampler
        .release(Duration::from_secs(60), DEADLINE)
        .await
        .unwrap();
}
