//! Ten thousand readings leak nothing. Alone in its file, since it counts what the whole process
//! holds.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "the helpers of tests may fail them, and what was held is worth seeing"
)]

use std::fs;
use std::time::{Duration, Instant};

use hf_mem_probe::devices::holders::HostRoots;
use hf_mem_probe::devices::nvml::NvmlOptions;
use hf_mem_probe::devices::sampler::{Sampler, SamplerOptions};
use simulated_nvml::{FakeHost, Fault, HolderKind, Scenario, SimulatedDriver, codes, profiles};

const POLLS: usize = 10_000;
/// What memory may grow by, in KiB: the allocator's noise and some huge pages of 2 MiB, and far
/// below 10 000 leaks of a reading.
const GROWTH_KIB: u64 = 8_192;

#[derive(Debug)]
struct Held {
    descriptors: usize,
    threads: usize,
    resident_kib: u64,
}

fn held() -> Held {
    let count = |folder: &str| fs::read_dir(folder).unwrap().count();
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

    Held {
        descriptors: count("/proc/self/fd"),
        threads: count("/proc/self/task"),
        resident_kib,
    }
}

impl Held {
    /// Asserts that no more is held now. A file that just now is read is closed in a moment.
    fn is_not_outgrown(&self, what: &str) {
        let begun = Instant::now();
        let after = loop {
            let after = held();
            let settled = after.descriptors <= self.descriptors && after.threads <= self.threads;
            if settled || begun.elapsed() > Duration::from_secs(20) {
                break after;
            }
        };

        println!("{what}: {self:?} -> {after:?}");
        assert!(after.descriptors <= self.descriptors && after.threads <= self.threads);
        assert!(after.resident_kib < self.resident_kib + GROWTH_KIB);
    }
}

#[tokio::test]
async fn ten_thousand_polls_leak_nothing() {
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

    let before = held();
    for _ in 0..POLLS {
        poll().await.unwrap();
    }

    before.is_not_outgrown("10 000 polls");
    let counted = driver.statistics().unwrap();
    assert_eq!(
        (counted.inits, counted.shutdowns),
        (1, 0),
        "one library for all of them"
    );

    // Opening again after faults leaks nothing either.
    let before = held();
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

    before.is_not_outgrown("50 faults");
    let counted = driver.statistics().unwrap();
    assert_eq!(counted.inits, counted.shutdowns + 1);
}
