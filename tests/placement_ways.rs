//! Placements that are small enough to check by hand.

#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

#[path = "placement_fake/mod.rs"]
mod fake;

use std::collections::BTreeMap;

use fake::{Fake, ask, gpu, host, link, with_host_memory};
use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::{DeviceKind, LinkKind};
use hf_mem_core::placement::{
    Ask, Availability, Constraints, Packing, Placement, PlacementError, Plan, Policy, Strategy,
    frontier, plan,
};
use hf_mem_core::report::answer::Verdict;
use hf_mem_core::report::problem::Reason;

/// Plans a model of 32 layers of 400 MiB, 2 GiB of other weights and at most 0.6 GiB of buffers:
/// 15.1 GiB and the context on one device.
fn plan_with(
    fake: &Fake,
    here: &Availability,
    context: u64,
    change: impl FnOnce(&mut Ask<'_>),
) -> Plan {
    let (model, parameters) = (fake.model(), BTreeMap::new());
    let mut ask = ask(fake, &model, &parameters, context);
    change(&mut ask);
    plan(&ask, here).unwrap()
}

fn places(plan: &Plan) -> Vec<&str> {
    let ranks = plan
        .recommended
        .iter()
        .flat_map(|placement| &placement.ranks);
    ranks.map(|rank| rank.device.uuid.as_str()).collect()
}

fn placement(plan: &Plan) -> &Placement {
    plan.recommended.as_ref().unwrap()
}

#[test]
fn packing_selects_device() {
    let here = host(&[80, 12, 24, 48]);
    assert_eq!(
        places(&plan_with(&Fake::default(), &here, 1024, |_| {})),
        ["GPU-02"]
    );
    let spread = plan_with(&Fake::default(), &here, 1024, |ask| {
        ask.policy.packing = Packing::Spread;
    });
    assert_eq!(places(&spread), ["GPU-00"]);
    let preferred = plan_with(&Fake::default(), &here, 1024, |ask| {
        ask.policy.prefer = vec!["card 48".into()];
    });
    assert_eq!(places(&preferred), ["GPU-03"]);
}

#[test]
fn tensor_group_stays_in_island() {
    let mut here = host(&[12, 12, 12, 12]);
    here.links = vec![
        link("GPU-00", "GPU-03", LinkKind::Fabric),
        link("GPU-01", "GPU-02", LinkKind::PcieSwitch),
    ];
    let plan = plan_with(&Fake::default(), &here, 1024, |_| {});
    assert_eq!(placement(&plan).strategy, Strategy::TensorParallel);
    assert_eq!(places(&plan), ["GPU-00", "GPU-03"]);
}

#[test]
fn tensor_group_prefers_one_kind() {
    let plan = plan_with(&Fake::default(), &host(&[12, 14, 13, 14]), 1024, |_| {});
    assert_eq!(places(&plan), ["GPU-01", "GPU-03"]);
}

#[test]
fn tensor_groups_match_islands() {
    let mut here = host(&[12; 8]);
    for (a, b) in [(0, 4), (1, 5), (2, 6), (3, 7)] {
        here.links.push(link(
            &format!("GPU-{a:02}"),
            &format!("GPU-{b:02}"),
            LinkKind::Fabric,
        ));
    }

    let plan = plan_with(&Fake::default(), &here, 1024, |ask| {
        ask.constraints = Constraints {
            tensor: Some(2),
            pipeline: Some(2),
            ..Constraints::default()
        };
    });
    assert_eq!(placement(&plan).strategy, Strategy::TensorPipelineParallel);
    let places = places(&plan);

    for group in places.chunks(2) {
        assert!(
            matches!(
                group,
                ["GPU-00", "GPU-04"]
                    | ["GPU-01", "GPU-05"]
                    | ["GPU-02", "GPU-06"]
                    | ["GPU-03", "GPU-07"]
            ),
            "{places:?}"
        );
    }
}

/// Eight cards that are all linked by NVLink.
fn board(gib: u64) -> Availability {
    let mut here = host(&[gib; 8]);
    for a in 0..8 {
        for b in a + 1..8 {
            here.links.push(link(
                &format!("GPU-{a:02}"),
                &format!("GPU-{b:02}"),
                LinkKind::Fabric,
            ));
        }
    }

    here
}

#[test]
fn nvlink_prefers_tensor_group() {
    let degrees = |fake: &Fake, here: &Availability| {
        let plan = plan_with(fake, here, 1024, |_| {});
        let split = &placement(&plan).split;
        (split.tensor, split.stages.len())
    };

    let vllm = Fake {
        processes: true,
        uneven: false,
        ..Fake::default()
    };

    // Three cards are enough in stages.
    assert_eq!(degrees(&vllm, &board(8)), (4, 1));

    // A power of two comes before a group of six; six before stages.
    let heads = Fake {
        heads: 48,
        layers: vec![560 << 20; 32],
        ..vllm.clone()
    };

    assert_eq!(degrees(&heads, &board(5)), (8, 1));
    let six = Availability {
        devices: board(5).devices.into_iter().take(6).collect(),
        ..board(5)
    };

    assert_eq!(degrees(&heads, &six), (6, 1));

    // A model that fits one card stays on one.
    assert_eq!(degrees(&vllm, &board(24)), (1, 1));

    // With one process for all devices, and without NVLink, the fewest devices come first.
    assert_eq!(
        degrees(
            &Fake {
                processes: false,
                ..vllm.clone()
            },
            &board(8)
        ),
        (1, 3)
    );

    assert_eq!(degrees(&vllm, &host(&[8; 8])), (1, 3));
}

#[test]
fn nvlink_pairs_stay_together() {
    let mut here = host(&[8, 8, 8, 8]);
    here.links = vec![
        link("GPU-00", "GPU-02", LinkKind::Fabric),
        link("GPU-01", "GPU-03", LinkKind::Fabric),
    ];

    let fake = Fake {
        processes: true,
        layers: vec![560 << 20; 32],
        ..Fake::default()
    };

    let plan = plan_with(&fake, &here, 1024, |_| {});
    assert_eq!(
        (
            placement(&plan).split.tensor,
            placement(&plan).split.stages.len()
        ),
        (2, 2)
    );

    assert_eq!(places(&plan), ["GPU-00", "GPU-02", "GPU-01", "GPU-03"]);
}

#[test]
fn layers_fill_unequal_cards() {
    let fake = Fake {
        uneven: true,
        ..Fake::default()
    };

    let plan = plan_with(&fake, &host(&[6, 13]), 1024, |_| {});
    let placement = placement(&plan);
    assert_eq!(
        (placement.strategy, placement.verdict),
        (Strategy::LayerSplit, Verdict::Fits)
    );

    let layers: Vec<u32> = placement
        .split
        .stages
        .iter()
        .map(|stage| stage.end - stage.start)
        .collect();
    assert_eq!(layers.iter().sum::<u32>(), 33, "the output layer is one");

    let slack: Vec<u64> = placement
        .ranks
        .iter()
        .map(|rank| rank.available.get() - rank.required.high.get())
        .collect();
    assert!(slack[0].abs_diff(slack[1]) < 800 << 20, "{slack:?}");
}

#[test]
fn limits_are_exact_to_block() {
    let fake = Fake::default();
    let here = host(&[24]);
    let reached = placement(&plan_with(&fake, &here, 1024, |_| {}))
        .max_context
        .unwrap();
    assert_eq!(reached % 16, 0);
    assert_eq!(
        plan_with(&fake, &here, reached, |_| {}).verdict(),
        Verdict::Fits
    );

    assert_ne!(
        plan_with(&fake, &here, reached + 1, |_| {}).verdict(),
        Verdict::Fits
    );
    let sequences = placement(&plan_with(&fake, &here, 1024, |_| {}))
        .max_sequences
        .unwrap();
    let at =
        |count| plan_with(&fake, &here, 1024, |ask| ask.asked.sequences = Some(count)).verdict();
    assert_eq!(
        (at(sequences), at(sequences + 1) == Verdict::Fits),
        (Verdict::Fits, false)
    );
}

#[test]
fn frontier_falls_and_fits() {
    let (fake, here) = (Fake::default(), host(&[12, 12, 12, 12]));
    let (model, parameters) = (fake.model(), BTreeMap::new());
    let plan = plan_with(&fake, &here, 1024, |_| {});
    let points = frontier(
        &ask(&fake, &model, &parameters, 1024),
        placement(&plan),
        None,
    )
    .unwrap();

    assert!(points.len() > 4);
    assert!(
        points
            .windows(2)
            .all(|pair| pair[0].context >= pair[1].context)
    );

    for point in points {
        let only = |ask: &mut Ask<'_>| {
            ask.asked.sequences = Some(point.sequences);
            (ask.constraints.tensor, ask.constraints.pipeline) = (Some(2), Some(1));
        };

        assert_eq!(
            plan_with(&fake, &here, point.context, only).verdict(),
            Verdict::Fits,
            "{point:?}"
        );

        assert_ne!(
            plan_with(&fake, &here, point.context + 1, only).verdict(),
            Verdict::Fits,
            "{point:?}"
        );
    }
}

#[test]
fn no_states_its_reason() {
    let fake = Fake {
        least_capability: 0,
        heads: 40,
        ..Fake::default()
    };

    assert_eq!(
        plan_with(&fake, &host(&[]), 1024, |_| {}).reason,
        Reason::NoDevices
    );
    let short = plan_with(&fake, &host(&[8]), 1024, |_| {});
    assert_eq!(short.reason, Reason::InsufficientMemory);
    assert!(short.short_by > Bytes::ZERO);
    assert_eq!(placement(&short).ranks[0].short_by, short.short_by);
    let three = plan_with(&fake, &host(&[12, 12, 12]), 1024, |ask| {
        ask.constraints.tensor = Some(3);
    });
    assert_eq!(three.reason, Reason::NoLegalSplit);
    assert_eq!(three.why, "40 heads do not divide by 3");
    let four = plan_with(&fake, &host(&[12, 12, 12]), 1024, |ask| {
        ask.constraints.tensor = Some(4);
    });
    assert!(
        four.why.contains("needs 4 devices; 3 can be used together"),
        "{}",
        four.why
    );

    let old = Fake {
        least_capability: 100,
        ..fake
    };

    let vetoed = plan_with(&old, &host(&[80, 80]), 1024, |_| {});
    assert_eq!(
        (vetoed.reason, vetoed.passed_over.len()),
        (Reason::ComputeCapability, 2)
    );
    assert_eq!(vetoed.why, "card 80 is too old");
}

#[test]
fn leased_memory_gives_reason_leased() {
    let here =
        host(&[24, 12]).after_leasing(&BTreeMap::from([("GPU-00".to_owned(), Bytes::gib(10))]));
    let fake = Fake {
        heads: 1,
        ..Fake::default()
    };

    let plan = plan_with(&fake, &here, 1024, |ask| ask.constraints.pipeline = Some(1));
    assert_eq!(plan.reason, Reason::Leased);
    assert_eq!(plan.recommended.unwrap().ranks[0].leased, Bytes::gib(10));
}

#[test]
fn devices_match_unique_prefixes() {
    let mut here = host(&[24, 24]);
    here.devices
        .push(gpu("MIG-7", "slice", Bytes::gib(40), Bytes::gib(40)));
    let (fake, parameters) = (Fake::default(), BTreeMap::new());
    let model = fake.model();

    let on = |devices: &[&str]| {
        let devices = devices.iter().map(|it| (*it).to_owned()).collect();
        let constraints = Constraints {
            devices: Some(devices),
            ..Constraints::default()
        };

        plan(
            &Ask {
                constraints,
                ..ask(&fake, &model, &parameters, 1024)
            },
            &here,
        )
    };

    assert_eq!(places(&on(&["M"]).unwrap()), ["MIG-7"]);
    assert_eq!(places(&on(&["GPU-01"]).unwrap()), ["GPU-01"]);
    let unknown = on(&["GPU-9"]).unwrap_err();
    assert_eq!(
        unknown.to_string(),
        "no device 'GPU-9' on this host; available: GPU-00, GPU-01, MIG-7"
    );

    assert!(matches!(
        on(&["GPU-0"]),
        Err(PlacementError::AmbiguousDevice { .. })
    ));
    assert!(matches!(
        on(&[""]),
        Err(PlacementError::UnknownDevice { .. })
    ));
}

#[test]
fn model_never_spans_mig_instances() {
    let mut here = host(&[12, 12]);
    for device in &mut here.devices {
        device.facts.kind = DeviceKind::MigInstance;
    }

    let plan = plan_with(&Fake::default(), &here, 1024, |_| {});
    assert_eq!(
        (plan.reason, places(&plan).len()),
        (Reason::InsufficientMemory, 1)
    );
}

#[test]
fn experts_offload_before_layers() {
    let fake = Fake {
        layers: vec![100 << 20; 32],
        experts: vec![700 << 20; 32],
        uneven: true,
        offload: true,
        ..Fake::default()
    };

    let here = with_host_memory(host(&[16]), 64);
    assert_eq!(
        plan_with(&fake, &here, 1024, |_| {}).reason,
        Reason::InsufficientMemory
    );
    let allowed = plan_with(&fake, &here, 1024, |ask| ask.constraints.offload = true);
    let way = placement(&allowed);
    assert_eq!(
        (way.strategy, way.verdict),
        (Strategy::ExpertOffload, Verdict::Fits)
    );
    assert_eq!(way.host.as_ref().unwrap().verdict, Verdict::Fits);
    let full = with_host_memory(host(&[16]), 4);
    assert_eq!(
        plan_with(&fake, &full, 1024, |ask| ask.constraints.offload = true).reason,
        Reason::InsufficientMemory
    );
    let unread = plan_with(&fake, &host(&[16]), 1024, |ask| {
        ask.constraints.offload = true;
    });
    assert_eq!(
        unread.reason,
        Reason::InsufficientMemory,
        "host memory that was not read is not used"
    );
}

#[test]
fn unified_memory_counts_once() {
    let fake = Fake {
        offload: true,
        uneven: true,
        ..Fake::default()
    };

    let mut here = with_host_memory(host(&[12]), 64);
    here.devices[0].facts.kind = DeviceKind::UnifiedMemory;
    let plan = plan_with(&fake, &here, 1024, |ask| ask.constraints.offload = true);
    assert_eq!(plan.reason, Reason::InsufficientMemory);
}

#[test]
fn likely_fit_is_tight() {
    let fake = Fake {
        doubt: (100, 400),
        ..Fake::default()
    };

    let plan = plan_with(&fake, &host(&[16]), 1024, |_| {});
    assert_eq!(
        (plan.verdict(), plan.reason),
        (Verdict::Tight, Reason::Fits)
    );
    assert_eq!(placement(&plan).ranks[0].verdict, Verdict::Tight);
}

#[test]
fn policy_defaults_to_packing() {
    assert_eq!(Policy::default().packing, Packing::Pack);
}

#[test]
fn tightest_device_keeps_most_room() {
    let fake = Fake {
        layers: vec![1087 << 20, 490 << 20, 572 << 20],
        experts: vec![0; 3],
        embedding: 0,
        head: 109 << 20,
        cache_per_token: 1000,
        uneven: true,
        buffer: 83 << 20,
        doubt: (100, 180),
        ..Fake::default()
    };

    let mut here = host(&[1, 2, 2]);
    here.devices[2] = gpu("GPU-02", "card 2", Bytes::gib(2), Bytes::new(1_622_147_072));
    let plan = plan_with(&fake, &here, 1000, |_| {});
    let left = placement(&plan)
        .ranks
        .iter()
        .map(|rank| rank.available.get() - rank.required.high.get())
        .min();

    assert_eq!(
        (places(&plan), left),
        (vec!["GPU-01", "GPU-00", "GPU-02"], Some(76_964_110))
    );
}
