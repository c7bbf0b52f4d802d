//! Leases for askers: the ledger's owner, and what a question needs to become a lease.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::Snapshot;
use hf_mem_core::evaluate;
use hf_mem_core::model::Model;
use hf_mem_core::report::answer::Answer;
use hf_mem_core::report::problem::Reason;
use hf_mem_core::report::{Problem, Question};
use sha2::{Digest as _, Sha256};
use tracing::Span;

use super::answers::seen;
use super::{ActiveConfig, stages};
use crate::accounts::Accounts;
use crate::api::lease::LeaseRequest;
use crate::api::peer::Caller;
use crate::config::{Config, HistoryConfig, LeasesConfig, Size, UserQuota};
use crate::devices::sampler::DeviceSource;
use crate::leases::broker;
use crate::leases::broker::{
    BrokerConfig, BrokerHandle, BrokerStatus, GrantCommand, JournalSettings, LeaseBroker,
};
use crate::leases::clock::Now;
use crate::leases::journal::Bounds;
use crate::leases::ledger::LedgerConfig;
use crate::leases::quota::{Quota, Quotas};
use crate::leases::store::StoreError;
use crate::leases::unreadable_ledger::UnreadableLedger;

/// The shortest time between two readings that leaves a gap in the record: leases that have settled
/// are read every 5 s.
const SHORTEST_GAP: Duration = Duration::from_secs(15);

/// How long the state folder's disk may take at the start. Well below the unit's TimeoutStartSec=.
const OPENING: Duration = Duration::from_secs(10);

/// The ledger's owner, and why it cannot promise anything where it cannot.
#[derive(Debug)]
pub struct LeaseService {
    pub(super) office: BrokerHandle,
    pub(super) trouble: Option<String>,
    /// Whether there may be leases that this daemon does not know of.
    blind: bool,
    /// Whether the state folder could be had after all, when it was too late to take up its leases.
    late: Arc<AtomicBool>,
}

impl LeaseService {
    /// Takes up the leases that survived, and starts their owner.
    pub(super) fn new(config: &Config, devices: Arc<DeviceSource>) -> Result<Self, Problem> {
        let proc_root = Path::new("/proc");
        let folder = &config.leases.state_directory;
        let (keeper, trouble, late) =
            broker::open_in_time(folder, rules(config)?, proc_root, OPENING);

        let settings = BrokerConfig {
            default_ttl: config.leases.default_ttl,
            most_waiting: config.leases.queue,
            most_waiting_for_one_user: config.leases.queue.div_ceil(2),
            longest_wait: config.leases.max_wait,
            reading_deadline: config.devices.read_deadline,
            read_every: config.devices.sample_interval,
            journal: trouble.is_none().then(|| journal(config)),
            ..BrokerConfig::default()
        };

        // The thread ends with the office; nobody waits for it.
        let (office, _thread) = LeaseBroker::start(settings, keeper, devices).map_err(|error| {
            Problem::new(
                Reason::Internal,
                format!("the ledger's thread cannot be started: {error}"),
            )
        })?;

        let blind = trouble.as_ref().is_some_and(StoreError::hides_leases);
        Ok(Self {
            office,
            trouble: trouble.map(|error| error.to_string()),
            blind,
            late,
        })
    }

    /// Whether the ledger's owner answers, and has the ledger that it could have.
    pub(super) async fn liveness(&self) -> Result<(), String> {
        if self.late.load(Ordering::Relaxed) {
            return Err(
                "the state folder can be had again, and only a restart takes up its leases"
                    .to_owned(),
            );
        }

        self.office.ping().await.map_err(|problem| problem.detail)
    }

    /// A problem, where there may be promises that nobody can read: free memory may then be
    /// promised already.
    pub(super) fn known(&self) -> Result<(), Problem> {
        if let (true, Some(why)) = (self.blind, &self.trouble) {
            let detail = format!("what is leased on this host's devices is not known: {why}");
            return Err(Problem::new(Reason::Busy, detail)
                .hint("see hf-mem-probe health; declared devices can be asked for"));
        }

        let blind = unread(&self.office.standing_now()).cloned();
        blind.map_or(Ok(()), |blind| {
            let detail = format!("what is leased on this host's devices is not known: {blind}");
            Err(Problem::new(Reason::Busy, detail).hint(blind.cure()))
        })
    }

    /// Bytes that leases claim beyond what `snapshot` shows in use.
    pub(super) async fn claims(
        &self,
        snapshot: &Arc<Snapshot>,
    ) -> Result<BTreeMap<String, Bytes>, Problem> {
        self.known()?;
        let nothing_claimed = {
            let standing = self.office.standing_now();
            // What the last lease claimed counts until a reading shows that it is gone.
            standing.leases == 0 && standing.leased.values().all(|bytes| *bytes == Bytes::ZERO)
        };

        if nothing_claimed {
            return Ok(BTreeMap::new());
        }

        let taken_at = Now::read().moment_of(snapshot.sampled_at);
        self.office.leased_in(Arc::clone(snapshot), taken_at).await
    }
}

/// The journal, as the configuration has it.
fn journal(config: &Config) -> JournalSettings {
    let HistoryConfig {
        interval,
        keep,
        max_bytes,
    } = &config.history;

    // Two files, of which the older one is dropped when the newer one is full.
    let bounds = Bounds {
        most_bytes: max_bytes.get().get() / 2,
        longest: *keep,
    };

    let between = (*interval).max(config.devices.sample_interval);
    let gap = between.saturating_mul(2).max(SHORTEST_GAP);

    JournalSettings {
        directory: config.leases.state_directory.clone(),
        bounds,
        gap,
    }
}

/// Promises that nobody can read now.
pub(super) fn unread(standing: &BrokerStatus) -> Option<&UnreadableLedger> {
    standing
        .blind
        .as_ref()
        .filter(|blind| !blind.is_over(Now::read().boottime))
}

/// The ledger's rules, as the configuration has them.
pub(super) fn rules(config: &Config) -> Result<LedgerConfig, Problem> {
    Ok(LedgerConfig {
        quotas: quotas(&config.leases, &Accounts::of_this_host())?,
        margin: config.placement.margin.get(),
        longest_ttl: config.leases.max_ttl,
        oldest_reading: config.devices.max_age,
        ..LedgerConfig::default()
    })
}

/// What each user may hold: what is said of one, and of the rest what is said of everybody.
fn quotas(config: &LeasesConfig, accounts: &Accounts) -> Result<Quotas, Problem> {
    let default = Quota {
        bytes: config.user_bytes.map(Size::get),
        leases: Some(config.user_leases),
    };

    let mut by_uid = BTreeMap::new();
    for (name, UserQuota { bytes, leases }) in &config.users {
        let refuse = |why: String| {
            Problem::new(
                Reason::BadConfiguration,
                format!("leases.users.{name}: {why}"),
            )
        };

        let uid = accounts
            .uid(name)
            .map_err(|error| refuse(error.to_string()))?;
        let quota = Quota {
            bytes: bytes.map(Size::get).or(default.bytes),
            leases: leases.or(default.leases),
        };

        if by_uid.insert(uid, quota).is_some() {
            return Err(refuse(format!(
                "the user {uid} is named before, by name or by number"
            )));
        }
    }

    Ok(Quotas { default, by_uid })
}

/// What the ledger's owner needs to decide on `request`: it plans on its own reading and against
/// its own claims.
pub(super) fn grant_ask(
    caller: &Caller,
    request: LeaseRequest,
    question: &Question,
    model: Arc<Model>,
    settled: Arc<ActiveConfig>,
) -> Result<GrantCommand, Problem> {
    let plan_question = question.clone();

    // The ledger's owner plans on its own thread: what is logged there belongs to this request all
    // the same.
    let span = Span::current();
    let leasable = evaluate::leasable(&model);
    let plan =
        move |snapshot: &Snapshot, claims: &BTreeMap<String, Bytes>| -> Result<Answer, Problem> {
            leasable.clone()?;
            let here = seen(&settled, snapshot, claims);
            span.in_scope(|| {
                let started = Instant::now();
                let answer = evaluate::answer(&plan_question, &model, &here, &settled.rules);
                stages::tell("plan", started.elapsed(), &answer, |_| "planned");
                answer
            })
        };

    Ok(GrantCommand {
        peer: caller.peer,
        request_id: caller.request_id.as_str().into(),
        ttl: request.ttl_seconds.map(Duration::from_secs),
        holder: request.holder,
        idempotency_key: request.idempotency_key,
        wait: Duration::from_secs(request.wait_seconds),
        strict: request.strict,
        model: question.model.repo.clone(),
        engine: question.engine.name.clone(),
        digest: digest(question, request.strict)?,
        candidates: question
            .constraints
            .devices
            .as_ref()
            .map(|devices| devices.iter().cloned().collect()),
        plan: Box::new(plan),
        room: None,
    })
}

/// Tells a key used again from a key reused for another question. A strict one is another: its
/// lease is never a tight one.
fn digest(question: &Question, strict: bool) -> Result<String, Problem> {
    // Wire types can always be written; were one ever not, its key must not be taken for that of
    // another question.
    let unwritten = |error| {
        Problem::new(
            Reason::Internal,
            format!("the question cannot be written down: {error}"),
        )
    };

    let mut text = serde_json::to_vec(question).map_err(unwritten)?;
    if strict {
        text.extend_from_slice(b"strict");
    }

    Ok(Sha256::digest(text)
        .iter()
        .take(16)
        .fold(String::new(), |hex, byte| format!("{hex}{byte:02x}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::peer::Peer;
    use hf_mem_core::model::tensors::InventoryBuilder;
    use hf_mem_core::model::{Dtype, Storage};

    fn bare_model() -> Model {
        let metadata = serde_json::json!({
            "version": hf_mem_core::model::metadata::VERSION, "format": "safetensors", "gated": false,
            "identity": {"repo": "a/b", "revision": null, "commit": null, "file": null},
            "files": [], "siblings": [], "projectors": [], "tensors": [], "documents": {}, "unreadable": {},
            "components": [], "base_model": null, "gguf": null, "hub_totals": null,
            "evidence": {"kind": "every_header"}, "doubts": []
        });

        hf_mem_core::model::metadata::assemble(&serde_json::from_value(metadata).unwrap()).unwrap()
    }

    #[test]
    fn a_model_like_no_real_one_is_refused_before_it_is_planned_for() {
        let peer = Peer {
            uid: 1000,
            gid: 1000,
            pid: None,
        };

        let caller = Caller {
            peer,
            token: None,
            request_id: String::new(),
        };

        let config = Config::default();
        let rules = super::super::build::rules(&config).unwrap();
        let settled = Arc::new(ActiveConfig { config, rules });

        let here =
            crate::devices::snapshot_file::resolve("2x24GiB", std::time::SystemTime::UNIX_EPOCH)
                .unwrap()
                .snapshot;
        let planned = |names: usize| {
            let mut builder = InventoryBuilder::default();
            for name in 0..names {
                // Digits fold, letters do not.
                let name: String = name
                    .to_string()
                    .bytes()
                    .map(|digit| char::from(digit - b'0' + b'a'))
                    .collect();
                builder.add(
                    "",
                    &name,
                    Storage::Known(Dtype::BF16),
                    &[1, 1],
                    Bytes::new(2),
                );
            }

            let model = Arc::new(Model {
                inventory: builder.finish(),
                ..bare_model()
            });
            let ask = grant_ask(
                &caller,
                LeaseRequest::default(),
                &Question::default(),
                model,
                Arc::clone(&settled),
            );

            (ask.unwrap().plan)(&here, &BTreeMap::new())
        };

        assert!(planned(20).is_ok());
        let problem = planned(20_000).unwrap_err();
        assert!(
            problem.detail.contains("20000 kinds of tensors"),
            "{problem}"
        );
    }

    #[test]
    fn a_named_user_has_its_own_bounds_and_everybody_else_the_general_ones() {
        let accounts = Accounts::parse(
            "ana:x:1000:1000::/:/bin/sh\nben:x:1001:1001::/:/bin/sh\n",
            "",
        );
        let text = r#"
            user_bytes = "10GiB"
            [users]
            ana = { bytes = "320GiB" }
            1001 = { leases = 2 }
        "#;

        let config: LeasesConfig = toml::from_str(text).unwrap();
        let quotas = quotas(&config, &accounts).unwrap();

        let quota = |gib, leases| Quota {
            bytes: Some(Bytes::gib(gib)),
            leases: Some(leases),
        };

        assert_eq!(
            [1000, 1001, 1002].map(|uid| quotas.of(uid)),
            [quota(320, 64), quota(10, 2), quota(10, 64)]
        );

        let config: LeasesConfig = toml::from_str("[users]\nzoe = { leases = 1 }").unwrap();
        let problem = super::quotas(&config, &accounts).unwrap_err();
        assert_eq!(problem.reason, Reason::BadConfiguration);

        assert!(
            problem.detail.starts_with("leases.users.zoe: "),
            "{problem}"
        );
        let config: LeasesConfig =
            toml::from_str("[users]\nana = { leases = 1 }\n1000 = { leases = 2 }").unwrap();
        let problem = super::quotas(&config, &accounts).unwrap_err();
        assert!(
            problem
                .detail
                .ends_with("the user 1000 is named before, by name or by number"),
            "{problem}"
        );

        assert!(toml::from_str::<LeasesConfig>("[users]\nana = { byte = 1 }").is_err());
    }
}
