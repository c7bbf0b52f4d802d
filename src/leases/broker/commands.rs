//! What is brought to the owner.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::Snapshot;
use hf_mem_core::report::Problem;
use hf_mem_core::report::lease::LeaseAnswer;
use tokio::sync::oneshot;

use super::attributed_event::RequestId;
use super::grant_command::GrantCommand;
use super::pending_reply::PendingReply;
use crate::api::lease::LeasesAnswer;
use crate::api::peer::Caller;
use crate::leases::clock::Boottime;
use crate::leases::ledger::LedgerConfig;

/// Something to do, and where the answer goes.
#[derive(Debug)]
pub(super) enum BrokerCommand {
    Grant(Box<GrantCommand>, oneshot::Sender<PendingReply>),
    List(oneshot::Sender<LeasesAnswer>),
    Get(String, oneshot::Sender<Result<LeaseAnswer, Problem>>),
    Change(Change),
    Claims(
        Arc<Snapshot>,
        Boottime,
        oneshot::Sender<BTreeMap<String, Bytes>>,
    ),
    Rules(Box<LedgerConfig>, Duration),
    Ping(oneshot::Sender<()>),
    Stop(oneshot::Sender<()>),
}

/// Who wants something done to a lease.
#[derive(Debug)]
pub(super) struct By {
    pub(super) uid: u32,
    pub(super) request_id: RequestId,
}

impl From<&Caller> for By {
    fn from(caller: &Caller) -> Self {
        Self {
            uid: caller.peer.uid,
            request_id: caller.request_id.as_str().into(),
        }
    }
}

/// A lease to be changed.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) id: String,
    pub(super) by: By,
    pub(super) whereto: LeaseChange,
    pub(super) reply: oneshot::Sender<Result<LeaseAnswer, Problem>>,
}

/// Which way it is changed.
#[derive(Debug)]
pub(super) enum LeaseChange {
    /// Renewed, for so long.
    Longer(Option<Duration>),
    /// Given back.
    End,
}

/// Something to know; never refused and never waited for.
#[derive(Debug)]
pub(super) enum BrokerNotice {
    /// A lease reached an asker.
    Taken(String),
    /// An asker hung up before a lease reached it.
    Undelivered(String),
    /// An asker hung up while it waited.
    HungUp,
}
