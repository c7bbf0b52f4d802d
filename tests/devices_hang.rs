//! A driver call that never returns.
//!
//! The test counts the sampling threads of its process, so it has its own binary.

use std::time::Duration;

use hf_mem_probe::devices::holders::HostRoots;
use hf_mem_probe::devices::nvml::NvmlOptions;
use hf_mem_probe::devices::sampler::{Sampler, SamplerOptions};
use simulated_nvml::{FakeHost, Fault, Scenario, SimulatedDriver, profiles};

const DEADLINE: Duration = Duration::from_secs(60);

fn sampling_threads() -> usize {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else {
        return 0;
    };

    tasks
        .filter_map(Result::ok)
        .filter(|task| {
            std::fs::read_to_string(task.path().join("comm"))
                .is_ok_and(|name| name.trim() == "devices")
        })
        .count()
}

#[tokio::test]
async fn hung_call_respects_deadlines() {
    let healthy = Scenario::of([profiles::h100_80()]);
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let driver = SimulatedDriver::install(directory.path(), &healthy).unwrap();
    let host = FakeHost::new(&directory.path().join("host")).unwrap();
    let nvml = NvmlOptions {
        library: Some(driver.library().to_owned()),
        roots: HostRoots::under(host.root()),
        ..NvmlOptions::default()
    };

    let interval = Some(Duration::from_millis(100));
    let sampler = Sampler::start(SamplerOptions {
        nvml,
        interval,
        ..SamplerOptions::default()
    })
    .unwrap();

    assert!(
        !sampler
            .sample(Duration::ZERO, DEADLINE)
            .await
            .unwrap()
            .stale
    );

    let before = sampling_threads();
    driver
        .set(
            &healthy
                .clone()
                .fault("nvmlDeviceGetMemoryInfo_v2", Fault::hang()),
        )
        .unwrap();

    let deadline = Duration::from_millis(100);

    // The call hangs until the scenario changes, so a client without a deadline would not return.
    for _ in 0..5 {
        let snapshot = sampler.sample(Duration::ZERO, deadline).await.unwrap();
        assert!(snapshot.stale, "an old reading must be marked stale");
    }

    driver
        .until_hung("nvmlDeviceGetMemoryInfo_v2", DEADLINE)
        .unwrap();
    assert!(before > 0, "the sampling thread is listed");
    assert_eq!(sampler.status().busy.unwrap().0, "reading the devices");
    assert!(
        sampling_threads() <= before,
        "overdue calls must not start more threads"
    );
    driver.set(&healthy).unwrap();

    assert!(
        !sampler
            .sample(Duration::ZERO, DEADLINE)
            .await
            .unwrap()
            .stale
    );
}
