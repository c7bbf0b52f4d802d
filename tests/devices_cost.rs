//! The time that a snapshot takes.
//!
//! It asserts nothing, because times on a busy machine prove nothing. Run it with
//! `cargo test --release --test devices_cost -- --ignored --nocapture`.
#![expect(clippy::unwrap_used, reason = "the helpers of tests may fail them")]

use std::time::{Duration, Instant};

use hf_mem_probe::devices::holders::HostRoots;
use hf_mem_probe::devices::nvml::{NvmlOptions, NvmlReader};
use simulated_nvml::{FakeHost, HolderKind, Scenario, SimulatedDriver, profiles};

const PASSES: usize = 501;

#[test]
#[ignore = "measures times and asserts nothing"]
fn snapshot_time_is_printed() {
    for gpus in [1, 8, 64] {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let mut scenario = Scenario::repeated(gpus, &profiles::h100_80()).nvswitch(18);
        let host = FakeHost::new(&directory.path().join("host")).unwrap();
        for (pid, gpu) in (1000..).zip(&mut scenario.devices) {
            *gpu = gpu.clone().process(pid, 60 << 30, HolderKind::Compute);
            host.process(pid, "vllm", 1000, "/system.slice/vllm.service")
                .unwrap();
        }

        let driver = SimulatedDriver::install(directory.path(), &scenario).unwrap();
        let options = NvmlOptions {
            library: Some(driver.library().to_owned()),
            roots: HostRoots::under(host.root()),
            ..NvmlOptions::default()
        };

        let began = Instant::now();
        let mut reader = NvmlReader::open(&options).unwrap();
        let opened = began.elapsed();
        let first = timed_read(&mut reader);
        let mut times: Vec<Duration> = (0..PASSES).map(|_| timed_read(&mut reader)).collect();
        times.sort();
        let (median, worst) = (times[PASSES / 2], times[PASSES - 1]);
        println!(
            "{gpus:2} GPUs: open {opened:?}, first {first:?}, then median {median:?}, worst {worst:?}"
        );
    }
}

fn timed_read(reader: &mut NvmlReader) -> Duration {
    let began = Instant::now();
    reader.read().unwrap();
    began.elapsed()
}
