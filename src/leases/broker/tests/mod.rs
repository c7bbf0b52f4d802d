//! The broker with fake devices and plans.

mod faults;
mod keys;
mod lifecycle;
mod queueing;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::Snapshot;
use hf_mem_core::placement::Strategy;
use hf_mem_core::report::answer::{DeviceShare, PlacementAnswer, Verdict};
use hf_mem_core::report::lease::Holder;
use hf_mem_core::report::lease::{EndReason, State};
use hf_mem_core::report::problem::Reason;
use hf_mem_core::report::{Answer, Problem};

use super::*;
use crate::api::peer::{Caller, Peer};
use crate::leases::event::Event;
use crate::leases::ledger::{Ledger, LedgerConfig};
use crate::leases::store::{NoStore, StoreError};

const A: &str = "GPU-a";

/// Devices whose memory the test sets.
struct FakeDevices(Mutex<Snapshot>);

impl FakeDevices {
    fn new(gib: u64) -> Arc<Self> {
        Arc::new(Self(Mutex::new(crate::leases::testing::snapshot(&[(
            A, gib,
        )]))))
    }

    fn set_free(&self, gib: u64) {
        self.0.lock().unwrap().devices[0].free_bytes = Some(Bytes::gib(gib));
    }
}

impl Devices for FakeDevices {
    fn sample(&self, _deadline: Duration) -> Sampling<'_> {
        Box::pin(async { Ok(Arc::new(self.0.lock().unwrap().clone())) })
    }

    fn readings(&self) -> Option<watch::Receiver<Option<Arc<crate::devices::sampler::Reading>>>> {
        None
    }
}

/// Storage that accepts everything and keeps nothing.
struct Memory;

impl LedgerStorage for Memory {
    fn save(&mut self, _saved: &crate::leases::ledger::Saved) -> Result<(), StoreError> {
        Ok(())
    }
}

fn durable_ledger(storage: AnyStorage) -> DurableLedger<AnyStorage> {
    DurableLedger::new(Ledger::new(LedgerConfig::default(), "boot", 7), storage)
}

fn config() -> BrokerConfig {
    BrokerConfig {
        read_interval: Duration::from_millis(5),
        max_waiting: 4,
        ..BrokerConfig::default()
    }
}

fn start_broker(fake: &Arc<FakeDevices>) -> BrokerHandle {
    let devices: Arc<dyn Devices> = Arc::clone(fake) as _;
    LeaseBroker::start(config(), durable_ledger(Box::new(Memory)), devices)
        .unwrap()
        .0
}

fn peer() -> Peer {
    Peer {
        uid: rustix::process::getuid().as_raw(),
        gid: 0,
        pid: Some(std::process::id()),
    }
}

fn caller() -> Caller {
    Caller {
        peer: peer(),
        token: None,
        request_id: "another-request".to_owned(),
    }
}

fn stranger() -> Caller {
    let peer = peer();
    Caller {
        peer: Peer {
            uid: peer.uid.wrapping_add(4321),
            ..peer
        },
        ..caller()
    }
}

/// A plan for `gib` GiB on the one device.
fn plan(gib: u64) -> Plan {
    plan_taking(gib, None)
}

/// A plan for `gib` GiB on the one device. The engine takes all of the driver's free memory except
/// `left` GiB.
fn plan_taking(gib: u64, left: Option<u64>) -> Plan {
    Box::new(move |snapshot, claims| {
        let device = &snapshot.devices[0];
        let claimed = claims.get(A).copied().unwrap_or(Bytes::ZERO);
        let available = device.free_bytes.and_then(|free| free.less(claimed));
        let required = Bytes::gib(gib);
        let fits = available.is_some_and(|available| available >= required);

        let share = DeviceShare {
            uuid: A.to_owned(),
            index: 0,
            name: String::new(),
            total_bytes: device.facts.total_bytes.get(),
            free_bytes: device.free_bytes.map(Bytes::get),
            leased_bytes: claimed.get(),
            available_bytes: available.map(Bytes::get),
            required_bytes: required.get(),
            short_by_bytes: Some(0),
            takes_bytes: left
                .and_then(|left| Some(device.free_bytes?.less(Bytes::gib(left))?.get())),
            layers: (0, 1),
            components: Vec::new(),
        };

        Ok(Answer {
            verdict: Some(if fits {
                Verdict::Fits
            } else {
                Verdict::DoesNotFit
            }),
            reason: Some(
                if fits {
                    Reason::Fits
                } else {
                    Reason::InsufficientMemory
                }
                .into(),
            ),
            placement: Some(PlacementAnswer {
                strategy: Strategy::Single.into(),
                tensor_parallel: 1,
                pipeline_parallel: 1,
                devices: vec![share],
                host: None,
                max_context: None,
                max_sequences: None,
                kv_cache_tokens: None,
                kv_cache_low_tokens: None,
                max_concurrency: None,
                launch: None,
            }),
            ..Answer::default()
        })
    })
}

fn grant_command(gib: u64) -> GrantCommand {
    GrantCommand {
        peer: peer(),
        request_id: "request".into(),
        ttl: None,
        holder: Some(Holder::Name("test".to_owned())),
        idempotency_key: None,
        wait: Duration::ZERO,
        strict: false,
        model: "owner/name".to_owned(),
        engine: None,
        digest: format!("{gib}"),
        candidates: None,
        plan: plan(gib),
        room: None,
    }
}

fn waiting(gib: u64) -> GrantCommand {
    GrantCommand {
        wait: Duration::from_secs(600),
        ..grant_command(gib)
    }
}

fn lease_id(answer: &Answer) -> String {
    answer.lease.as_ref().unwrap().id.clone()
}

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(test)
}
