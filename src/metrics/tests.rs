//! Tests of the metrics page.

use super::*;

#[test]
fn control_characters_are_escaped_in_labels() {
    let metrics = Metrics::default();
    let hostile = "a\x1b[2J\r\nb\u{9b}\"\\é";
    let named = DeviceFigures {
        name: hostile.to_owned(),
        ..device("GPU-\x07", None)
    };

    metrics.set_devices(&[named], None);
    metrics.set_xids(&[XidCount {
        uuid: "GPU-\x07".to_owned(),
        xid: None,
        count: 1,
    }]);

    for text in [metrics.open_metrics(), metrics.classic_text()] {
        let unescaped = text.replace('\n', "").contains(char::is_control);
        assert!(!unescaped, "{text:?}");
        let name = r#"name="a\\u{1b}[2J\\u{d}\\u{a}b\\u{9b}\"\\é""#;
        assert!(
            text.contains(name) && text.contains(r#"uuid="GPU-\\u{7}""#),
            "{text}"
        );
    }
}

fn device(uuid: &str, free: Option<Bytes>) -> DeviceFigures {
    DeviceFigures {
        uuid: uuid.to_owned(),
        name: "L4".to_owned(),
        total: Bytes::gib(24),
        free,
        available: free,
        leased: Some(Bytes::ZERO),
        unusable: None,
        part_of_gpu: false,
    }
}

fn unusable_device(uuid: &str, reason: &str) -> DeviceFigures {
    DeviceFigures {
        unusable: Some(reason.to_owned()),
        ..device(uuid, None)
    }
}

#[test]
fn open_metrics_has_every_family() {
    let metrics = Metrics::default();
    metrics.question("fits", "fits");
    metrics.took(Stage::Request, Duration::from_micros(40));
    metrics.set_hub_requests(HubOutcome::Ok, 1);
    metrics.set_nvml_errors(3);
    metrics.model_lookup(CacheResult::Disk);

    metrics.set_devices(
        &[device("GPU-1", Some(Bytes::gib(20)))],
        Some(Duration::from_millis(500)),
    );
    let xids = [Some(79), None].map(|xid| XidCount {
        uuid: "GPU-1".to_owned(),
        xid,
        count: 3,
    });

    metrics.set_xids(&xids);
    metrics.set_xids(&xids);
    let text = metrics.open_metrics();

    for line in [
        "hf_mem_probe_device_xids_total{uuid=\"GPU-1\",xid=\"79\"} 3",
        "hf_mem_probe_device_xids_total{uuid=\"GPU-1\",xid=\"unknown\"} 3",
        "hf_mem_probe_questions_total{verdict=\"fits\",reason=\"fits\"} 1",
        "hf_mem_probe_latency_seconds_bucket{le=\"0.00005\",stage=\"request\"} 1",
        "hf_mem_probe_hub_requests_total{outcome=\"ok\"} 1",
        "hf_mem_probe_model_lookups_total{result=\"disk\"} 1",
        "hf_mem_probe_nvml_errors_total 3",
        "hf_mem_probe_device_free_bytes{uuid=\"GPU-1\",name=\"L4\"} 21474836480",
        "hf_mem_probe_sampler_age_seconds 0.5",
        "hf_mem_probe_build_info{version=\"",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }

    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn unknown_values_and_lost_devices_are_absent() {
    let metrics = Metrics::default();
    metrics.set_devices(
        &[device("GPU-1", None), device("GPU-2", Some(Bytes::gib(1)))],
        None,
    );

    assert!(
        !metrics
            .open_metrics()
            .contains("device_free_bytes{uuid=\"GPU-1\"")
    );

    assert!(
        metrics
            .open_metrics()
            .contains("device_total_bytes{uuid=\"GPU-1\"")
    );

    assert!(metrics.open_metrics().contains("sampler_age_seconds NaN"));
    metrics.set_devices(&[device("GPU-1", None)], None);
    let left = metrics.open_metrics();
    let gone = left
        .lines()
        .filter(|line| line.contains("GPU-2") && !line.contains("device_xids_total"));
    assert_eq!(
        gone.collect::<Vec<_>>(),
        Vec::<&str>::new(),
        "a counter stays, a gauge does not"
    );
}

#[test]
fn known_series_exist_from_the_start() {
    let metrics = Metrics::default();
    let before = metrics.open_metrics();

    for line in [
        "hf_mem_probe_degraded{part=\"devices\"} 0",
        "hf_mem_probe_degraded{part=\"leases\"} 0",
        "hf_mem_probe_connections_refused_total{why=\"browser\"} 0",
        "hf_mem_probe_connections_refused_total{why=\"user_connections\"} 0",
        "hf_mem_probe_devices_unusable{reason=\"gpu_lost\"} 0",
        "hf_mem_probe_hub_requests_total{outcome=\"unreachable\"} 0",
        "hf_mem_probe_model_lookups_total{result=\"miss\"} 0",
        "hf_mem_probe_lease_events_total{event=\"store_failure\"} 0",
    ] {
        assert!(before.contains(line), "{line} in\n{before}");
    }

    metrics.set_degraded(DaemonPart::Hub, true);
    metrics.refused(Refusal::Bodies);

    let part = DeviceFigures {
        part_of_gpu: true,
        ..device("GPU-4", None)
    };

    metrics.set_devices(
        &[
            device("GPU-1", None),
            unusable_device("GPU-2", "gpu_lost"),
            unusable_device("GPU-3", "a new word"),
            part,
        ],
        None,
    );

    metrics.set_lease_events(&Counters {
        granted: 3,
        ..Counters::default()
    });
    let after = metrics.open_metrics();

    for line in [
        "hf_mem_probe_degraded{part=\"hub\"} 1",
        "hf_mem_probe_degraded{part=\"cache\"} 0",
        "hf_mem_probe_connections_refused_total{why=\"bodies\"} 1",
        "hf_mem_probe_device_usable{uuid=\"GPU-1\",name=\"L4\"} 1",
        "hf_mem_probe_device_usable{uuid=\"GPU-2\",name=\"L4\"} 0",
        "hf_mem_probe_devices_unusable{reason=\"gpu_lost\"} 1",
        "hf_mem_probe_devices_unusable{reason=\"other\"} 1",
        "hf_mem_probe_device_xids_total{uuid=\"GPU-1\",xid=\"79\"} 0",
        "hf_mem_probe_lease_events_total{event=\"granted\"} 3",
    ] {
        assert!(after.contains(line), "{line} in\n{after}");
    }

    assert!(
        !after.contains("{uuid=\"GPU-4\",xid="),
        "the driver reports XIDs for whole GPUs"
    );
    metrics.set_devices(&[device("GPU-1", None)], None);

    assert!(
        metrics
            .open_metrics()
            .contains("hf_mem_probe_devices_unusable{reason=\"gpu_lost\"} 0")
    );
}
