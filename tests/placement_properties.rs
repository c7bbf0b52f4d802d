//! Random hosts and models.
//!
//! Every placement is legal and within its bytes. The same question gives the same answer. With few
//! devices no better placement exists. More memory never turns a yes into a no.

#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

#[path = "placement_fake/mod.rs"]
mod fake;

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use fake::{Fake, ask, gpu, link, with_host_memory};
use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::{DeviceFacts, LinkKind};
use hf_mem_core::engines::component::device_sum;
use hf_mem_core::engines::{EngineRequest, Interval, Offload, PreparedEngine, Split};
use hf_mem_core::placement::{Ask, Availability, Packing, Plan, plan};
use hf_mem_core::report::answer::Verdict;
use proptest::prelude::*;

const MIB: u64 = 1 << 20;

/// Models of `layers` unequal layers, with sizes for cards of 1 to 8 GiB.
fn models(layers: Range<usize>, uneven: bool) -> impl Strategy<Value = Fake> {
    let layer = prop_oneof![Just(300_u64), 50..900_u64];
    (
        prop::collection::vec((layer, 0..600_u64), layers),
        (0..900_u64, 0..900_u64, 0..200_u64),
        prop::sample::select(vec![1_u32, 2, 3, 4, 6, 8]),
        (100..150_u64, 150..300_u64),
        (prop::bool::ANY, prop::bool::ANY),
    )
        .prop_map(
            move |(layers, (embedding, head, buffer), heads, doubt, (experts, processes))| Fake {
                experts: layers
                    .iter()
                    .map(|(_, bytes)| if experts { bytes * MIB } else { 0 })
                    .collect(),
                layers: layers.iter().map(|(bytes, _)| bytes * MIB).collect(),
                embedding: embedding * MIB,
                head: head * MIB,
                cache_per_token: 1000,
                heads,
                uneven,
                processes,
                buffer: buffer * MIB,
                doubt,
                longest: Some(100_000),
                ..Fake::default()
            },
        )
}

/// Devices of a few kinds, partly in use, with random links.
fn hosts(devices: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = Availability> {
    let sizes = prop::sample::select(vec![1_u64, 2, 3, 4, 6, 8]);
    let links = prop::sample::select(vec![
        LinkKind::Fabric,
        LinkKind::PcieSwitch,
        LinkKind::System,
    ]);

    let used = prop_oneof![Just(0_u64), 0..2000_u64];
    let links =
        prop_oneof![2 => prop::collection::vec(links, 120), 1 => Just(vec![LinkKind::Fabric; 120])];

    (prop::collection::vec((sizes, used), devices), links).prop_map(|(sizes, kinds)| {
        let device = |(at, (gib, used)): (usize, &(u64, u64))| {
            let free = Bytes::gib(*gib).less(Bytes::mib(*used)).unwrap();
            gpu(
                &format!("GPU-{at:02}"),
                &format!("card {gib}"),
                Bytes::gib(*gib),
                free,
            )
        };

        let devices: Vec<_> = sizes.iter().enumerate().map(device).collect();
        let mut links = Vec::new();
        let mut kinds = kinds.into_iter();

        for a in 0..devices.len() {
            for b in a + 1..devices.len() {
                links.extend(
                    kinds
                        .next()
                        .map(|kind| link(&format!("GPU-{a:02}"), &format!("GPU-{b:02}"), kind)),
                );
            }
        }

        Availability {
            devices,
            links,
            host: None,
        }
    })
}

fn planned(fake: &Fake, here: &Availability, change: impl Fn(&mut Ask<'_>)) -> Plan {
    let (model, parameters) = (fake.model(), BTreeMap::new());
    let mut ask = ask(fake, &model, &parameters, 1000);
    change(&mut ask);
    plan(&ask, here).unwrap()
}

fn with_prepared<T>(
    fake: &Fake,
    first: &DeviceFacts,
    then: impl FnOnce(&dyn PreparedEngine) -> T,
) -> T {
    let (model, parameters) = (fake.model(), BTreeMap::new());
    let ask = ask(fake, &model, &parameters, 1000);
    let devices = [first.clone()];

    let case = EngineRequest {
        model: &model,
        version: None,
        parameters: &parameters,
        asked: ask.asked.clone(),
        devices: &devices,
    };

    then(&*ask.engine.prepare(&case).unwrap())
}

/// Checks that the placement is legal and on distinct devices, and that its own figures hold.
fn check(fake: &Fake, here: &Availability, plan: &Plan) {
    let Some(placement) = &plan.recommended else {
        return;
    };

    let uuids: Vec<&str> = placement
        .ranks
        .iter()
        .map(|rank| rank.device.uuid.as_str())
        .collect();
    let mut distinct = uuids.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), placement.split.ranks());

    with_prepared(fake, &placement.ranks[0].device, |prepared| {
        assert_eq!(prepared.check(&placement.split), Ok(()));
        let mut worst = Verdict::Fits;

        for (number, rank) in placement.ranks.iter().enumerate() {
            let available = here
                .devices
                .iter()
                .find(|it| it.facts.uuid == rank.device.uuid)
                .unwrap();
            assert_eq!(available.available, Some(rank.available));

            let fixed = device_sum(
                &prepared
                    .fixed(&placement.split, number, &rank.device)
                    .unwrap(),
            );

            let workload = prepared.workload();
            let variable = device_sum(
                &prepared
                    .variable(&placement.split, number, &rank.device, workload)
                    .unwrap(),
            );

            let need = fixed.plus(variable);
            assert_eq!(need, rank.required);

            let verdict = if need.high <= rank.available {
                Verdict::Fits
            } else if need.likely <= rank.available {
                Verdict::Tight
            } else {
                Verdict::DoesNotFit
            };

            assert_eq!(verdict, rank.verdict);
            worst = match (worst, verdict) {
                (Verdict::DoesNotFit, _) | (_, Verdict::DoesNotFit) => Verdict::DoesNotFit,
                (Verdict::Tight, _) | (_, Verdict::Tight) => Verdict::Tight,
                _ => Verdict::Fits,
            };
        }

        if placement.host.is_none() {
            assert_eq!(worst, placement.verdict);
        }

        assert_eq!(
            placement.verdict == Verdict::Fits,
            placement.short_by() == Bytes::ZERO
        );

        // The maximum fits, and one block more does not.
        if let Some(reached) = placement.max_context.filter(|_| placement.host.is_none()) {
            let fits = |context| {
                let workload = hf_mem_core::engines::Workload {
                    context,
                    sequences: 1,
                };

                placement.ranks.iter().enumerate().all(|(number, rank)| {
                    let fixed = device_sum(
                        &prepared
                            .fixed(&placement.split, number, &rank.device)
                            .unwrap(),
                    );

                    let variable = prepared
                        .variable(&placement.split, number, &rank.device, workload)
                        .unwrap();

                    fixed.plus(device_sum(&variable)).high <= rank.available
                })
            };

            assert!(reached == 0 || fits(reached));
            assert!(reached == 100_000 || !fits(reached + 1));
        }
    });
}

/// Lines 1, 3 to 5 and 7 to 10, then 12 to 14 of the order, for placements that fit or are tight.
type Key = (
    (u8, (u8, u32), u8, usize),
    (usize, LinkKind, usize, LinkKind),
    i128,
    Reverse<i128>,
    Vec<String>,
);

/// Returns line 4 of the order: 0 for a device or tensor group of a power of two in one NVLink
/// island, 1 for one of another degree.
fn form(fake: &Fake, split: &Split, in_island: bool) -> u8 {
    match (fake.processes, split.ranks(), split.stages.len()) {
        (false, ..) | (_, 1, _) => 0,
        (_, ranks, 1) if in_island => u8::from(![2, 4, 8, 16].contains(&ranks)),
        _ => 2,
    }
}

fn orders(count: usize, of: usize) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new()];
    for _ in 0..count {
        all = all
            .iter()
            .flat_map(|order: &Vec<usize>| {
                (0..of)
                    .filter(|next| !order.contains(next))
                    .map(|next| [&order[..], &[next]].concat())
            })
            .collect();
    }

    all
}

/// Returns every division of `layers` layers over `stages` stages.
fn partitions(layers: u32, stages: usize, from: u32) -> Vec<Vec<Range<u32>>> {
    if stages == 1 {
        return vec![vec![from..layers]];
    }

    let last = layers.saturating_sub(u32::try_from(stages - 1).unwrap());
    (from + 1..=last)
        .flat_map(|end| {
            partitions(layers, stages - 1, end)
                .into_iter()
                .map(move |rest| std::iter::once(from..end).chain(rest).collect())
        })
        .collect()
}

/// (offload, tensor degree, stage, its layers, whether it is the last, the kind of device).
type Asked = ((u8, u32), u32, usize, Range<u32>, bool, u64);

/// Finds the best placement by trying all of them.
fn brute_force(fake: &Fake, here: &Availability, packing: Packing, offload: bool) -> Option<Key> {
    let link_of = |a: usize, b: usize| {
        let (a, b) = (
            &here.devices[a.min(b)].facts.uuid,
            &here.devices[a.max(b)].facts.uuid,
        );
        here.links
            .iter()
            .find(|link| link.a == *a && link.b == *b)
            .map_or(LinkKind::System, |link| link.kind)
    };

    let facts: Vec<&DeviceFacts> = here.devices.iter().map(|it| &it.facts).collect();
    let mut best: Option<Key> = None;

    with_prepared(fake, facts[0], |prepared| {
        let mut known: HashMap<Asked, Interval> = HashMap::new();
        for count in 1..=facts.len() {
            let Ok(splits) = prepared.splits(u32::try_from(count).unwrap()) else {
                continue;
            };

            let layers = splits[0].stages.last().unwrap().end;
            let mut offloads = vec![Offload::None];
            if offload {
                offloads.extend((1..=layers).map(|layers| Offload::Experts { layers }));
                offloads.extend((1..=layers).map(|layers| Offload::Layers { layers }));
            }

            for (order, split) in splits.iter().enumerate() {
                for offload in &offloads {
                    let divisions = if fake.uneven && split.stages.len() > 1 {
                        partitions(layers, split.stages.len(), 0)
                    } else {
                        vec![split.stages.clone()]
                    };

                    for places in orders(count, facts.len()) {
                        let groups: Vec<&[usize]> = places.chunks(split.tensor as usize).collect();
                        let mut tensor_link = LinkKind::Fabric;
                        let mut broken = 0;

                        for group in &groups {
                            let mut kinds: Vec<LinkKind> = Vec::new();
                            for (at, a) in group.iter().enumerate() {
                                kinds.extend(group[at + 1..].iter().map(|b| link_of(*a, *b)));
                            }

                            tensor_link = kinds.iter().copied().fold(tensor_link, LinkKind::max);
                            let fast = kinds
                                .iter()
                                .filter(|kind| **kind == LinkKind::Fabric)
                                .count();
                            let mixed = group
                                .iter()
                                .any(|place| facts[*place].name != facts[group[0]].name);
                            broken += usize::from(mixed || (fast > 0 && fast < kinds.len()));
                        }

                        let mut worst = tensor_link;
                        for pair in groups.windows(2) {
                            for (a, b) in pair[0].iter().zip(pair[1]) {
                                worst = worst.max(link_of(*a, *b));
                            }
                        }

                        let mut of_order: Option<(i128, Key)> = None;
                        for stages in &divisions {
                            let split = Split {
                                stages: stages.clone(),
                                offload: *offload,
                                ..split.clone()
                            };

                            if prepared.check(&split).is_err() {
                                continue;
                            }

                            let harm = match offload {
                                Offload::Experts { layers } => (1, *layers),
                                Offload::Layers { layers } => (2, *layers),
                                _ => (0, 0),
                            };

                            let (mut grade, mut leftover, mut headroom) = (0, 0, i128::MAX);
                            for (rank, place) in places.iter().enumerate() {
                                let (stage, range) = split.stage_of(rank);
                                let last = split.is_last_stage(rank);

                                let key = (
                                    harm,
                                    split.tensor,
                                    stage,
                                    range,
                                    last,
                                    facts[*place].total_bytes.get(),
                                );
                                let need = *known.entry(key).or_insert_with(|| {
                                    let fixed = device_sum(
                                        &prepared.fixed(&split, rank, facts[*place]).unwrap(),
                                    );
                                    let workload = prepared.workload();
                                    let variable = prepared
                                        .variable(&split, rank, facts[*place], workload)
                                        .unwrap();
                                    fixed.plus(device_sum(&variable))
                                });

                                let available = here.devices[*place].available.unwrap();
                                grade = grade.max(
                                    u8::from(need.high > available)
                                        + u8::from(need.likely > available),
                                );
                                let left =
                                    i128::from(available.get()) - i128::from(need.high.get());
                                leftover += left.max(0);
                                headroom = headroom.min(left);
                            }

                            let host: Interval = prepared
                                .host(&split, prepared.workload())
                                .unwrap()
                                .iter()
                                .map(|part| part.bytes)
                                .sum();
                            if here
                                .host
                                .is_some_and(|host_memory| host.high > host_memory.available_bytes)
                            {
                                grade = 2;
                            }

                            let leftover = if packing == Packing::Pack {
                                leftover
                            } else {
                                -leftover
                            };

                            let uuids = places
                                .iter()
                                .map(|place| facts[*place].uuid.clone())
                                .collect();
                            let form =
                                form(fake, &split, broken == 0 && tensor_link == LinkKind::Fabric);
                            let key: Key = (
                                (grade, harm, form, count),
                                (broken, worst, order, tensor_link),
                                leftover,
                                Reverse(headroom),
                                uuids,
                            );

                            if of_order.as_ref().is_none_or(|(known, _)| headroom > *known) {
                                of_order = Some((headroom, key));
                            }
                        }

                        if let Some((_, key)) = of_order
                            && best.as_ref().is_none_or(|known| key < *known)
                        {
                            best = Some(key);
                        }
                    }
                }
            }
        }
    });

    best
}

/// Checks that the plan recommends what brute force finds best.
fn check_optimal(fake: &Fake, here: &Availability, packing: Packing, offload: bool) {
    let plan = planned(fake, here, |ask| {
        ask.policy.packing = packing;
        ask.constraints.offload = offload;
    });
    check(fake, here, &plan);
    let best = brute_force(fake, here, packing, offload);

    let grade = plan
        .recommended
        .as_ref()
        .map(|placement| match placement.verdict {
            Verdict::Fits => 0,
            Verdict::Tight => 1,
            _ => 2,
        });
    assert_eq!(grade, best.as_ref().map(|key| key.0.0));
    let (Some(placement), Some(best)) = (&plan.recommended, best) else {
        return;
    };

    if best.0.0 == 0 {
        let uuids: Vec<String> = placement
            .ranks
            .iter()
            .map(|rank| rank.device.uuid.clone())
            .collect();

        let headroom = placement
            .ranks
            .iter()
            .map(|rank| rank.available.get() - rank.required.high.get())
            .min();

        let harm = match placement.split.offload {
            Offload::Experts { layers } => (1, layers),
            Offload::Layers { layers } => (2, layers),
            _ => (0, 0),
        };

        assert_eq!(
            (harm, &uuids),
            (best.0.1, &best.4),
            "best {best:?}, recommended {placement:?}"
        );

        assert_eq!(i128::from(headroom.unwrap()), best.3.0);
    }
}

fn cases(count: u32) -> ProptestConfig {
    ProptestConfig {
        cases: count,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

fn packings() -> impl Strategy<Value = Packing> {
    prop::sample::select(vec![Packing::Pack, Packing::Spread])
}

proptest! {
    #![proptest_config(cases(4400))]
    #[test]
    fn equal_shares_are_optimal(fake in models(2..9, false), here in hosts(1..=4), packing in packings()) {
        check_optimal(&fake, &here, packing, false);
    }
}

proptest! {
    #![proptest_config(cases(2300))]
    #[test]
    fn uneven_stages_are_optimal(
        fake in models(2..7, true), here in hosts(1..=3), packing in packings()
    ) {
        check_optimal(&fake, &here, packing, false);
    }
}

proptest! {
    #![proptest_config(cases(300))]
    #[test]
    fn four_unequal_devices_are_optimal(
        fake in models(3..6, true), here in hosts(4..=4), packing in packings()
    ) {
        check_optimal(&fake, &here, packing, false);
    }
}

proptest! {
    #![proptest_config(cases(900))]
    #[test]
    fn offload_is_minimal(
        fake in models(2..5, true), here in hosts(1..=2), memory in 0..6_u64, packing in packings()
    ) {
        let fake = Fake { offload: true, ..fake };
        check_optimal(&fake, &with_host_memory(here, memory), packing, true);
    }
}

proptest! {
    #![proptest_config(cases(1600))]
    #[test]
    fn more_memory_never_hurts(
        fake in models(2..12, false), uneven in prop::bool::ANY, here in hosts(1..=8), which in 0..8_usize,
        more in 0..3000_u64
    ) {
        let fake = Fake { uneven, ..fake };
        let before = planned(&fake, &here, |_| {});
        check(&fake, &here, &before);
        let which = which % here.devices.len();
        let freed = BTreeMap::from([(here.devices[which].facts.uuid.clone(), Bytes::mib(more))]);
        let after = planned(&fake, &here.clone().after_freeing(&freed), |_| {});

        let rank = |plan: &Plan| match plan.verdict() {
            Verdict::Fits => 0,
            Verdict::Tight => 1,
            _ => 2,
        };

        prop_assert!(rank(&after) <= rank(&before), "{before:?} became {after:?}");
    }
}

proptest! {
    #![proptest_config(cases(600))]
    #[test]
    fn large_hosts_get_legal_placements(
        fake in models(8..40, false), uneven in prop::bool::ANY, here in hosts(5..=16), packing in packings()
    ) {
        let fake = Fake { uneven, ..fake };
        let policy = |ask: &mut Ask<'_>| ask.policy.packing = packing;
        let plan = planned(&fake, &here, policy);
        check(&fake, &here, &plan);
        let again = planned(&fake, &here, policy);
        prop_assert_eq!(plan, again);
    }
}
