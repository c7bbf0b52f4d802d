//! The messages to the broker: commands and notices.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::Snapshot;
use hf_mem_core::report::Problem;
use hf_mem_core::report::lease::LeaseAnswer;
use tokio::sync::oneshot;

use super::event_log::RequestId;
use super::grant_command::GrantCommand;
use super::reply::Reply;
use crate::api::lease::LeasesAnswer;
use crate::api::peer::Caller;
use crate::leases::clock::Boottime;
use crate::leases::ledger::LedgerConfig;

/// A command, and where its reply goes.
#[derive(Debug)]
pub(super) enum BrokerCommand {
    Grant(Box<GrantCommand>, oneshot::Sender<Reply>),
    List(oneshot::Sender<LeasesAnswer>),
    Get(String, oneshot::Sender<Result<LeaseAnswer, Problem>>),
    Change(Change),
    Claims(
        Arc<Snapshot>,
        Boottime,
        oneshot::Sender<BTreeMap<String, Bytes>>,
    ),
    SetRules(Box<LedgerConfig>, Duration),
    Ping(oneshot::Sender<()>),
    Stop(oneshot::Sender<()>),
}

/// The user and the request that change a lease.
#[derive(Debug)]
pub(super) struct ChangedBy {
    pub(super) uid: u32,
    pub(super) request_id: RequestId,
}

impl From<&Caller> for ChangedBy {
    fn from(caller: &Caller) -> Self {
        Self {
            uid: caller.peer.uid,
            request_id: caller.request_id.as_str().into(),
        }
    }
}

/// A renewal or a release.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) id: String,
    pub(super) by: ChangedBy,
    pub(super) action: LeaseChange,
    pub(super) reply_to: oneshot::Sender<Result<LeaseAnswer, Problem>>,
}

/// How to change a lease.
#[derive(Debug)]
pub(super) enum LeaseChange {
    /// Renew it, for this time to live or for its own.
    Renew(Option<Duration>),
    Release,
}

/// Something that the broker learns; it is never refused and has no reply.
#[derive(Debug)]
pub(super) enum BrokerNotice {
    /// A client has received the lease.
    Received(String),
    /// A client disconnected before it received the lease.
    Undelivered(String),
    /// A client disconnected while it waited.
    Disconnected,
}
