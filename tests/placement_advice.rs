//! Suggestions for models that do not fit, and several models at once.
#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

#[path = "placement_fake/mod.rs"]
mod fake;

use std::collections::BTreeMap;
use std::time::SystemTime;

use fake::{Fake, ask, gpu, host, with_host_memory};
use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::{Device, DeviceKind, HostMemory, Process, ProcessKind, Snapshot};
use hf_mem_core::placement::{
    Advice, Ask, Availability, BatchFit, Constraints, MemoryHolder, availability, fit_together,
    plan, suggestions,
};
use hf_mem_core::report::answer::Verdict;
use serde_json::Value;

fn advice(
    fake: &Fake,
    here: &Availability,
    change: impl FnOnce(&mut Ask<'_>),
    holders: &[MemoryHolder],
) -> Vec<Advice> {
    let (model, parameters) = (fake.model(), BTreeMap::new());
    let mut ask = ask(fake, &model, &parameters, 40_960);
    change(&mut ask);
    let made = plan(&ask, here).unwrap();
    suggestions(&ask, here, &made, &[], holders)
}

fn changes(advice: &[Advice]) -> Vec<&str> {
    advice.iter().map(|it| it.change.as_str()).collect()
}

/// 32 layers of 400 MiB and 2 GiB of other weights are 14.5 GiB; 40 960 tokens of 128 KiB are 5
/// GiB.
#[test]
fn smaller_context_is_suggested() {
    let fake = Fake::default();
    let found = advice(&fake, &host(&[18]), |_| {}, &[]);

    // Changes that fit come before tight ones, each group by its harm.
    assert_eq!(
        changes(&found)[..3],
        ["context=19456", "devices=2", "kv_cache_dtype=fp8"]
    );
    assert_eq!(
        found.iter().map(|it| it.verdict).collect::<Vec<_>>()[..3],
        [Verdict::Fits, Verdict::Fits, Verdict::Tight]
    );
    assert!(found[0].saves > Bytes::gib(2));

    // Asked as a question, it fits.
    let (model, parameters) = (fake.model(), BTreeMap::new());
    assert_eq!(
        plan(&ask(&fake, &model, &parameters, 19_456), &host(&[18]))
            .unwrap()
            .verdict(),
        Verdict::Fits
    );
}

#[test]
fn fewer_sequences_are_suggested() {
    let found = advice(
        &Fake::default(),
        &host(&[24]),
        |ask| ask.asked.sequences = Some(3),
        &[],
    );
    assert!(
        changes(&found).contains(&"sequences=1"),
        "{:?}",
        changes(&found)
    );
}

#[test]
fn smaller_step_is_suggested() {
    let fake = Fake {
        buffer: 3 << 30,
        doubt: (100, 100),
        ..Fake::default()
    };

    let found = advice(&fake, &host(&[21]), |_| {}, &[]);
    assert!(
        changes(&found).contains(&"max_num_batched_tokens=2048"),
        "{:?}",
        changes(&found)
    );
}

#[test]
fn lifted_constraints_are_suggested() {
    let only = |ask: &mut Ask<'_>| {
        ask.constraints = Constraints {
            devices: Some(vec!["GPU-00".into()]),
            ..Constraints::default()
        };
    };

    let found = advice(&Fake::default(), &host(&[14, 14]), only, &[]);
    assert_eq!(changes(&found), ["devices=null"]);
    assert_eq!(found[0].saves, Bytes::ZERO);
}

#[test]
fn denied_host_memory_is_suggested() {
    let fake = Fake {
        offload: true,
        uneven: true,
        heads: 1,
        ..Fake::default()
    };

    let found = advice(&fake, &with_host_memory(host(&[12]), 64), |_| {}, &[]);
    assert_eq!(changes(&found), ["devices=2", "offload=allow"]);
}

/// Suggestions for at least 14.5 GiB on 13 GiB, with two other engines. The second one needs less.
fn other_engines(change: impl FnOnce(&mut Ask<'_>)) -> Vec<Advice> {
    let fake = Fake {
        longest: Some(40_960),
        ..Fake::default()
    };

    let heavy = Fake {
        name: "heavy",
        ..Fake::default()
    };

    let lean = Fake {
        name: "lean",
        layers: vec![100 << 20; 32],
        heads: 4,
        longest: Some(262_144),
        ..Fake::default()
    };

    let (model, parameters) = (fake.model(), BTreeMap::<String, Value>::new());
    let mut question = ask(&fake, &model, &parameters, 40_960);
    change(&mut question);
    let here = host(&[13, 13, 13]);
    let made = plan(&question, &here).unwrap();

    suggestions(&question, &here, &made, &[&heavy, &lean], &[])
}

#[test]
fn other_engine_is_planned() {
    let only = |ask: &mut Ask<'_>| ask.constraints.devices = Some(vec!["GPU-00".into()]);
    assert_eq!(
        changes(&other_engines(only)),
        ["devices=null", "engine=lean"]
    );
}

#[test]
fn other_engine_keeps_constraints() {
    // Neither 32 heads nor 4 divide by 3: another engine does not help.
    let split = |ask: &mut Ask<'_>| ask.constraints.tensor = Some(3);
    assert_eq!(changes(&other_engines(split)), ["tensor_parallel=null"]);
}

#[test]
fn other_engine_keeps_workload() {
    let without_context = |ask: &mut Ask<'_>| {
        ask.asked.context = None;
        ask.asked.sequences = Some(1);
        ask.constraints.devices = Some(vec!["GPU-00".into()]);
    };

    let found = other_engines(without_context);

    // Its own default context is 262 144.
    let engine = found
        .iter()
        .find(|it| it.change.starts_with("engine="))
        .unwrap();
    assert_eq!(engine.change, "engine=lean context=40960");
}

fn process(pid: u32, gib: u64) -> Process {
    Process {
        pid,
        used_bytes: Some(Bytes::gib(gib)),
        kind: ProcessKind::Compute,
        name: Some("vllm".into()),
        uid: Some(1000),
        user: Some("alice".into()),
        unit: Some("chat.service".into()),
        container: None,
        cgroup: None,
        start_ticks: None,
    }
}

#[test]
fn smallest_set_makes_room() {
    let mut device = Device::idle(gpu("GPU-00", "card", Bytes::gib(24), Bytes::gib(24)).facts);
    device.free_bytes = Some(Bytes::gib(4));
    device.processes = vec![process(7, 2), process(8, 17), process(9, 1)];
    let mut desktop = process(10, 1);
    desktop.kind = ProcessKind::Graphics;
    device.processes.push(desktop);

    let snapshot = Snapshot {
        source: "test".into(),
        sampled_at: SystemTime::UNIX_EPOCH,
        stale: false,
        driver_version: None,
        devices: vec![device],
        links: Vec::new(),
        host: None,
    };

    let here = availability(&snapshot, &BTreeMap::new());
    let holders = MemoryHolder::processes(&snapshot);
    assert_eq!(holders.len(), 3);
    let found = advice(&Fake::default(), &here, |_| {}, &holders);
    let room = found.last().unwrap();
    assert_eq!(room.change, "stop pid 8");
    assert_eq!(room.saves, Bytes::gib(17));

    assert!(
        room.message
            .contains("vllm (pid 8) of alice, unit chat.service"),
        "{}",
        room.message
    );
}

#[test]
fn unnamed_memory_is_a_holder() {
    let mut device = Device::idle(gpu("GPU-00", "card", Bytes::gib(24), Bytes::gib(24)).facts);
    (device.free_bytes, device.used_bytes) = (Some(Bytes::gib(4)), Some(Bytes::gib(20)));
    device.processes = vec![process(7, 2)];

    let snapshot = Snapshot {
        source: "test".into(),
        sampled_at: SystemTime::UNIX_EPOCH,
        stale: false,
        driver_version: None,
        devices: vec![device],
        links: Vec::new(),
        host: None,
    };

    let holders = MemoryHolder::processes(&snapshot);
    assert_eq!(
        holders
            .iter()
            .map(|it| it.change.as_str())
            .collect::<Vec<_>>(),
        ["stop pid 7", "free 18.00 GiB on GPU-00"]
    );

    let here = availability(&snapshot, &BTreeMap::new());
    let found = advice(&Fake::default(), &here, |_| {}, &holders);
    assert_eq!(found.last().unwrap().change, "free 18.00 GiB on GPU-00");
}

#[test]
fn common_device_counts_are_suggested() {
    let found = advice(
        &Fake {
            heads: 8,
            ..Fake::default()
        },
        &host(&[6, 6]),
        |_| {},
        &[],
    );
    assert_eq!(changes(&found), ["devices=4"]);

    assert!(
        found[0]
            .message
            .contains("with 2 more like card 6, 6.00 GiB available on each"),
        "{}",
        found[0].message
    );
}

#[test]
fn unknown_host_memory_is_suggested() {
    let fake = Fake {
        offload: true,
        uneven: true,
        heads: 1,
        ..Fake::default()
    };

    let here = host(&[12]);
    let found = advice(&fake, &here, |ask| ask.constraints.offload = true, &[]);
    let named = found
        .iter()
        .find(|it| it.change.starts_with("host_memory_bytes="))
        .unwrap();
    let need: u64 = named.change.split_once('=').unwrap().1.parse().unwrap();

    let verdict_with = |bytes| {
        let (model, parameters) = (fake.model(), BTreeMap::new());
        let mut ask = ask(&fake, &model, &parameters, 40_960);
        ask.constraints.offload = true;
        let mut here = here.clone();
        here.host = Some(HostMemory {
            total_bytes: Bytes::new(bytes),
            available_bytes: Bytes::new(bytes),
        });

        plan(&ask, &here).unwrap().verdict()
    };

    assert_eq!(
        (verdict_with(need), named.verdict),
        (Verdict::Fits, Verdict::Fits)
    );
}

#[test]
fn leases_make_room_too() {
    let leased = BTreeMap::from([("GPU-00".to_owned(), Bytes::gib(10))]);
    let here = host(&[24]).after_leasing(&leased);
    let found = advice(
        &Fake::default(),
        &here,
        |_| {},
        &[MemoryHolder::lease("7f3a", "bob", leased)],
    );

    assert_eq!(found.last().unwrap().change, "release lease 7f3a");
}

#[test]
fn fitting_model_gets_no_suggestions() {
    assert_eq!(advice(&Fake::default(), &host(&[80]), |_| {}, &[]), []);
}

/// Plans models of these GiB at once; each also needs a third of a GiB and the context.
fn at_once(gib: &[u64], here: &Availability) -> BatchFit {
    let fakes: Vec<Fake> = gib
        .iter()
        .map(|gib| Fake {
            layers: vec![gib << 26; 16],
            experts: vec![0; 16],
            embedding: 0,
            head: 0,
            heads: 1,
            buffer: 1 << 20,
            cache_per_token: 16,
            ..Fake::default()
        })
        .collect();
    let models: Vec<_> = fakes.iter().map(Fake::model).collect();
    let parameters = BTreeMap::new();

    let asks: Vec<Ask<'_>> = fakes
        .iter()
        .zip(&models)
        .map(|(fake, model)| {
            let mut ask = ask(fake, model, &parameters, 1024);
            ask.constraints.pipeline = Some(1);
            ask
        })
        .collect();

    fit_together(&asks, here).unwrap()
}

fn devices(together: &BatchFit) -> Vec<&str> {
    together
        .plans
        .iter()
        .map(|plan| {
            plan.recommended.as_ref().unwrap().ranks[0]
                .device
                .uuid
                .as_str()
        })
        .collect()
}

#[test]
fn several_models_share_devices() {
    let together = at_once(&[3, 14, 6], &host(&[24, 12]));
    assert_eq!(
        (together.verdict, devices(&together)),
        (Verdict::Fits, vec!["GPU-01", "GPU-00", "GPU-00"])
    );

    for plan in &together.plans {
        for rank in &plan.recommended.as_ref().unwrap().ranks {
            assert!(rank.required.high <= rank.available);
        }
    }
}

#[test]
fn mig_instance_takes_one_model() {
    let mut here = host(&[12, 10]);
    here.devices[0].facts.kind = DeviceKind::MigInstance;
    here.devices[1].facts.kind = DeviceKind::MigInstance;
    let together = at_once(&[8, 9], &here);
    assert_eq!(
        (together.verdict, devices(&together).len()),
        (Verdict::Fits, 2)
    );
    assert_ne!(devices(&together)[0], devices(&together)[1]);
}

#[test]
fn failed_choice_is_reverted() {
    // Packed in order, 5 goes to the 7 GiB, 4 and 3 to the 10 GiB, and the second 3 has no room.
    let together = at_once(&[5, 4, 3, 3], &host(&[10, 7]));
    assert_eq!(
        (together.verdict, devices(&together)),
        (Verdict::Fits, vec!["GPU-00", "GPU-00", "GPU-01", "GPU-01"])
    );
}

#[test]
fn batch_fits_all_or_nothing() {
    let together = at_once(&[20, 20], &host(&[24]));
    assert_eq!(
        (together.verdict, together.gave_up),
        (Verdict::DoesNotFit, false)
    );

    assert_eq!(
        together
            .plans
            .iter()
            .filter(|plan| plan.verdict() == Verdict::Fits)
            .count(),
        1
    );
}
