//! A driver call that never comes back. A test binary of its own: it counts this process's sampling
//! threads.

use std::time::Duration;

use hf_mem_probe::devices::holders::HostRoots;
use hf_mem_probe::devices::nvml::NvmlOptions;
use hf_mem_probe::devices::sampler::{Sampler, SamplerOptions};
use simulated_nvml::{FakeHost, Fault, Scenario, SimulatedDriver, profiles};

const DEADLINE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_hung_call_delays_nobody_beyond_the_deadline() {
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

    let threads = || {
        std::fs::read_dir("/proc/self/task")
            .unwrap()
            .filter_map(Result::ok)
            .filter(|task| {
                std::fs::read_to_string(task.path().join("comm"))
                    .is_ok_and(|name| name.trim() == "devices")
            })
            .count()
    };

    let before = threads();
    driver
        .set(
            &healthy
                .clone()
                .fault("nvmlDeviceGetMemoryInfo_v2", Fault::hang()),
        )
        .unwrap();

    let deadline = Duration::from_millis(100);

    // The call hangs until the scenario changes: whoever waited for it would wait for ever.
    for _ in 0..5 {
        let snapshot = sampler.sample(Duration::ZERO, deadline).await.unwrap();
        assert!(snapshot.stale, "an old reading must say so");
    }

    driver
        .until_hung("nvmlDeviceGetMemoryInfo_v2", DEADLINE)
        .unwrap();
    assert_eq!(sampler.status().busy.unwrap().0, "reading the devices");
    assert!(threads() <= before, "overdue calls must not be multiplied");
    driver.set(&healthy).unwrap();

    assert!(
        !sampler
            .sample(Duration::ZERO, DEADLINE)
            .await
            .unwrap()
            .stale
    );
}
