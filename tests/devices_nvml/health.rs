//! The conditions that make a device unusable, or cause a warning.

use std::time::Duration;

use hf_mem_probe::devices::nvml::NvmlOptions;
use hf_mem_probe::devices::sampler::read_once;
use simulated_nvml::{Fabric, Fault, Gpu, HolderKind, RemappedRows, Scenario, codes, profiles};

use super::{DEADLINE, Machine, reason, reason_of, reasons};

#[test]
fn free_device_can_be_unusable() {
    assert_eq!(reason_of(profiles::t4().compute_mode(2)), "prohibited");
    assert_eq!(reason_of(profiles::t4().compute_mode(3)), "usable");
    let held = profiles::t4()
        .compute_mode(3)
        .process(9, 100 << 20, HolderKind::Compute);
    assert_eq!(reason_of(held), "exclusive_process");

    assert_eq!(
        reason_of(profiles::t4().compute_mode(3).used(200 << 20)),
        "exclusive_process"
    );
    let desktop = profiles::t4()
        .compute_mode(3)
        .process(9, 200 << 20, HolderKind::Graphics);
    assert_eq!(reason_of(desktop), "usable");

    for (state, status, expected) in [
        (0, 0, "usable"),
        (1, 0, "fabric_not_ready"),
        (2, 0, "fabric_not_ready"),
        (3, 0, "usable"),
        (3, 999, "fabric_not_ready"),
    ] {
        assert_eq!(
            reason_of(Gpu {
                fabric: Some(Fabric { state, status }),
                ..profiles::h100_80()
            }),
            expected
        );
    }

    let with_rows = |pending, failure| Gpu {
        remapped_rows: Some(RemappedRows { pending, failure }),
        ..profiles::h100_80()
    };

    assert_eq!(reason_of(with_rows(true, false)), "usable");
    assert_eq!(reason_of(with_rows(true, true)), "row_remap_failure");

    assert_eq!(
        reason_of(Gpu {
            drained: true,
            ..profiles::h100_80()
        }),
        "drain"
    );

    assert_eq!(
        reason_of(Gpu {
            recovery_action: Some(1),
            ..profiles::h100_80()
        }),
        "reset_required"
    );
}

fn warnings(machine: &Machine) -> Vec<String> {
    machine
        .read_device()
        .warnings
        .iter()
        .map(|warning| warning.reason.to_string())
        .collect()
}

#[test]
fn minor_problems_are_warnings() {
    let pending = Gpu {
        remapped_rows: Some(RemappedRows {
            pending: true,
            failure: false,
        }),
        ..profiles::h100_80()
    };

    assert_eq!(
        warnings(&Machine::new(&Scenario::of([pending]))),
        ["row_remap_pending"]
    );
    let mut mig = profiles::h100_80();
    mig.mig.as_mut().unwrap().pending = true;

    assert_eq!(
        warnings(&Machine::new(&Scenario::of([mig]))),
        ["mig_pending"]
    );

    // The remapped rows that a GeForce reports are meaningless.
    let geforce = Gpu {
        remapped_rows: Some(RemappedRows {
            pending: true,
            failure: true,
        }),
        ..profiles::rtx_4090()
    };

    let machine = Machine::new(&Scenario::of([geforce]));
    assert_eq!(
        (warnings(&machine), reason(&machine.read_device())),
        (vec![], "usable")
    );
}

#[test]
fn mps_server_shares_exclusive_gpu() {
    let gpu = profiles::t4()
        .compute_mode(3)
        .process(11, 30 << 20, HolderKind::Compute);
    let machine = Machine::new(&Scenario::of([gpu]));
    machine
        .host
        .process(11, "nvidia-cuda-mps", 0, "/system.slice/mps.service")
        .unwrap();
    assert_eq!(reason(&machine.read_device()), "usable");
}

#[test]
fn oversized_process_list_is_unknown() {
    let burst = Gpu {
        process_burst: true,
        ..profiles::l40s()
    };
    assert_eq!(reason_of(burst.clone()), "usable");
    assert_eq!(reason_of(burst.compute_mode(3)), "exclusive_process");
}

#[test]
fn faulty_gpu_leaves_others_usable() {
    let handle = "nvmlDeviceGetHandleByIndex_v2";
    let faulty = [
        (profiles::l40s().lost(), "gpu_lost"),
        (
            profiles::l40s().fault(handle, Fault::code(codes::UNKNOWN)),
            "gpu_lost",
        ),
        (
            profiles::l40s().fault(handle, Fault::code(codes::NO_PERMISSION)),
            "no_permission",
        ),
        (
            profiles::l40s().fault(handle, Fault::code(codes::OPERATING_SYSTEM)),
            "no_permission",
        ),
        (
            profiles::l40s().fault("*", Fault::code(codes::RESET_REQUIRED)),
            "reset_required",
        ),
        (
            profiles::l40s().fault(
                "nvmlDeviceGetMemoryInfo_v2",
                Fault::code(codes::GPU_IS_LOST),
            ),
            "gpu_lost",
        ),
        (
            profiles::l40s().fault("nvmlDeviceGetComputeMode", Fault::code(codes::UNKNOWN)),
            "memory_unreadable",
        ),
    ];

    for (gpu, expected) in faulty {
        let devices = Machine::new(&Scenario::of([profiles::l40s(), gpu, profiles::l40s()]))
            .read()
            .devices;
        assert_eq!(reasons(&devices), ["usable", expected, "usable"]);
        assert!(devices[2].free_bytes.is_some());
    }
}

#[test]
fn sleeping_gpu_is_not_woken() {
    let machine = Machine::new(&Scenario::of([profiles::rtx_4090(), profiles::l40s()]));
    machine
        .host
        .gpu(
            "0000:01:00.0",
            "NVIDIA GeForce RTX 4090",
            "GPU-00000000-0000-4000-8000-000000000000",
            "suspended",
        )
        .unwrap();

    let device = machine.read_device();
    assert_eq!(
        (reason(&device), device.facts.name.as_str()),
        ("asleep", "NVIDIA GeForce RTX 4090")
    );

    assert_eq!(
        machine.driver.statistics().unwrap().inits,
        0,
        "the library is not opened"
    );

    machine
        .host
        .gpu("0000:02:00.0", "NVIDIA L40S", "GPU-x", "active")
        .unwrap();
    let devices = machine.read().devices;
    assert_eq!(reasons(&devices), ["asleep", "usable"]);

    assert_eq!(
        machine
            .driver
            .statistics()
            .unwrap()
            .calls
            .get("nvmlDeviceGetHandleByIndex_v2"),
        None
    );
}

#[test]
fn driver_failures_have_reasons() {
    let failing_init =
        |code| Scenario::of([profiles::t4()]).fault("nvmlInit_v2", Fault::code(code));
    let cases = [
        (failing_init(codes::DRIVER_NOT_LOADED), "nvml_unavailable"),
        (
            failing_init(codes::LIB_RM_VERSION_MISMATCH),
            "driver_version_mismatch",
        ),
        (failing_init(codes::NO_PERMISSION), "no_permission"),
        (failing_init(codes::UNKNOWN), "nvml_unavailable"),
        (Scenario::default(), "no_devices"),
    ];

    for (scenario, expected) in cases {
        let machine = Machine::new(&scenario);
        let error = read_once(&machine.options(), DEADLINE).unwrap_err();
        assert_eq!(error.reason(), expected, "{error}");
        let counted = machine.driver.statistics().unwrap();
        assert_eq!(counted.inits, counted.shutdowns);
    }

    let machine = Machine::new(&Scenario::default());
    for wrong in ["absent.so", "scenario.json"] {
        let library = Some(machine.directory.path().join(wrong));
        let error = read_once(
            &NvmlOptions {
                library,
                ..machine.options()
            },
            DEADLINE,
        )
        .unwrap_err();

        assert_eq!(error.reason(), "nvml_unavailable");
        assert!(error.to_string().contains(wrong), "{error}");
    }

    let machine = Machine::without(&Scenario::of([profiles::t4()]), &["nvmlShutdown"]);
    assert_eq!(
        read_once(&machine.options(), DEADLINE)
            .unwrap_err()
            .reason(),
        "nvml_unavailable"
    );
}

#[test]
fn hung_driver_ends_at_deadline() {
    let hung = Scenario::of([profiles::t4()]).fault("nvmlDeviceGetCount_v2", Fault::hang());
    let machine = Machine::new(&hung);
    let error = read_once(&machine.options(), Duration::from_millis(50)).unwrap_err();
    assert_eq!(error.reason(), "nvml_overdue");
    machine.driver.set(&Scenario::of([profiles::t4()])).unwrap();
}
