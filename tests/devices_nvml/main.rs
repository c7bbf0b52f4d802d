//! Readings of many kinds of machines, through the real nvml-wrapper and the simulated library.
#![expect(clippy::unwrap_used, reason = "the helpers of tests may fail them")]

mod health;
mod identity;
mod links;
mod memory;
mod mig;

use std::time::Duration;

use hf_mem_core::device::{Device, Snapshot};
use hf_mem_probe::devices::holders::HostRoots;
use hf_mem_probe::devices::nvml::NvmlOptions;
use hf_mem_probe::devices::sampler::read_once;
use simulated_nvml::{FakeHost, Gpu, Scenario, SimulatedDriver};
use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_secs(20);

/// A directory with a simulated driver and a simulated host in it.
struct Machine {
    directory: TempDir,
    driver: SimulatedDriver,
    host: FakeHost,
}

impl Machine {
    fn new(scenario: &Scenario) -> Self {
        Self::without(scenario, &[])
    }

    fn without(scenario: &Scenario, symbols: &[&str]) -> Self {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let driver = SimulatedDriver::install_without(directory.path(), scenario, symbols).unwrap();
        let host = FakeHost::new(&directory.path().join("host")).unwrap();

        Self {
            directory,
            driver,
            host,
        }
    }

    fn options(&self) -> NvmlOptions {
        NvmlOptions {
            library: Some(self.driver.library().to_owned()),
            roots: HostRoots::under(self.host.root()),
            ..NvmlOptions::default()
        }
    }

    fn read(&self) -> Snapshot {
        read_once(&self.options(), DEADLINE).unwrap()
    }

    /// Reads the one device of the machine.
    fn read_device(&self) -> Device {
        let mut devices = self.read().devices;
        assert_eq!(devices.len(), 1);
        devices.remove(0)
    }
}

fn reason(device: &Device) -> &str {
    device
        .unusable
        .as_ref()
        .map_or("usable", |why| why.reason.as_str())
}

fn reason_of(gpu: Gpu) -> String {
    reason(&Machine::new(&Scenario::of([gpu])).read_device()).to_owned()
}

fn reasons(devices: &[Device]) -> Vec<&str> {
    devices.iter().map(reason).collect()
}
