//! Ten thousand readings leak nothing.
//!
//! The test counts the resources of its whole process, so it has its own binary.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "the helpers of tests may fail them, and the test prints the resources"
)]

use std::fs;
use std::time::{Duration, Instant};

use hf_mem_probe::devices::holders::HostRoots;
use hf_mem_probe::devices::nvml::NvmlOptions;
use hf_mem_probe::devices::sampler::{Sampler, SamplerOptions};
use simulated_nvml::{FakeHost, Fault, HolderKind, Scenario, SimulatedDriver, codes, profiles};

const POLLS: usize = 10_000;
/// The allowed growth of memory, in KiB.
///
/// It covers the allocator's noise and some huge pages of 2 MiB, and is far below 10 000 leaks of a
/// reading.
const MAX_GROWTH_KIB: u64 = 8_192;

#[derive(Debug)]
struct Resources {
    descriptors: usize,
    threads: usize,
    resident_kib: u64,
}

fn resources() -> Resources {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let resident = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    let resident_kib = resident
        .trim()
        .strip_suffix("kB")
        .unwrap()
        .trim()
        .parse()
        .unwrap();

    Resources {
        descriptors: fs::read_dir("/proc/self/fd").unwrap().count(),
        threads: fs::read_dir("/proc/self/task").unwrap().count(),
        resident_kib,
    }
}

impl Resources {
    /// Asserts that the process holds no more now.
    ///
    /// It retries, because a file that is being read is closed soon.
    fn assert_not_exceeded(&self, event: &str) {
        let begun = Instant::now();
        let after = loop {
            let after = resources();
            let settled = after.descriptors <= self.descriptors && after.threads <= self.threads;
            if settled || begun.elapsed() > Duration::from_secs(20) {
                break after;
            }
        };

        println!("{event}: {self:?} -> {after:?}");
        assert!(after.descriptors <= self.descriptors && after.threads <= self.threads);
        assert!(after.resident_kib < self.resident_kib + MAX_GROWTH_KIB);
    }
}

#[tokio::test]
async fn many_readings_leak_nothing() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let gpu = profiles::h100_80().process(std::process::id(), 1 << 30, HolderKind::Compute);
    let healthy = Scenario::repeated(2, &gpu);
    let driver = SimulatedDriver::install(directory.path(), &healthy).unwrap();
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
    let poll = async || {
        sampler
            .sample(Duration::ZERO, Duration::from_secs(60))
            .await
    };

    for _ in 0..500 {
        poll().await.unwrap();
    }

    let before = resources();
    for _ in 0..POLLS {
        poll().await.unwrap();
    }

    before.assert_not_exceeded("10 000 polls");
    let counted = driver.statistics().unwrap();
    assert_eq!(
        (counted.inits, counted.shutdowns),
        (1, 0),
        "the library is opened once"
    );

    // Reopening after faults leaks nothing either.
    let before = resources();
    for _ in 0..50 {
        driver
            .set(
                &healthy
                    .clone()
                    .fault("nvmlDeviceGetCount_v2", Fault::code(codes::UNINITIALIZED)),
            )
            .unwrap();

        poll().await.unwrap_err();
        driver.set(&healthy).unwrap();

        sampler
            .subscribe()
            .wait_for(|reading| reading.as_ref().is_some_and(|last| last.outcome.is_ok()))
            .await
            .unwrap();
    }

    before.assert_not_exceeded("50 faults");
    let counted = driver.statistics().unwrap();
    assert_eq!(counted.inits, counted.shutdowns + 1);
}
