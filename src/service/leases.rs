//! Leases for callers: the broker, and the command that turns a question into a lease.

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

use super::ActiveConfig;
use super::planning::leasable_view;
use super::stages::log_stage;
use crate::accounts::Accounts;
use crate::api::lease::LeaseRequest;
use crate::api::peer::Caller;
use crate::config::{Config, HistoryConfig, LeasesConfig, Size, UserQuota};
use crate::devices::sampler::DeviceSource;
use crate::leases::broker;
use crate::leases::broker::{
    BrokerConfig, BrokerHandle, BrokerStatus, GrantCommand, JournalConfig, LeaseBroker,
};
use crate::leases::clock::Timestamp;
use crate::leases::journal::JournalLimits;
use crate::leases::ledger::LedgerConfig;
use crate::leases::quota::{Quota, Quotas};
use crate::leases::store::StoreError;
use crate::leases::unreadable_ledger::UnreadableLedger;

/// The shortest time between two readings that counts as a gap in the journal. Settled leases are
/// read every 5 s.
const MIN_GAP: Duration = Duration::from_secs(15);

/// The longest wait for the state folder's disk at the start. Well below the unit's
/// `TimeoutStartSec=`.
const OPEN_DEADLINE: Duration = Duration::from_secs(10);

/// The lease broker, and why it cannot grant leases if it cannot.
#[derive(Debug)]
pub struct LeaseService {
    pub(super) broker: BrokerHandle,
    pub(super) trouble: Option<String>,
    /// Whether there can be leases that this daemon does not know.
    hides_leases: bool,
    /// Whether the state folder became accessible too late to load its leases.
    opened_late: Arc<AtomicBool>,
}

impl LeaseService {
    /// Loads the leases that survived and starts the broker.
    pub(super) fn new(config: &Config, devices: Arc<DeviceSource>) -> Result<Self, Problem> {
        let proc_root = Path::new("/proc");
        let folder = &config.leases.state_directory;
        let (ledger, trouble, opened_late) =
            broker::open_in_time(folder, rules(config)?, proc_root, OPEN_DEADLINE);

        let settings = BrokerConfig {
            default_ttl: config.leases.default_ttl,
            max_waiting: config.leases.queue,
            max_waiting_per_user: config.leases.queue.div_ceil(2),
            max_wait: config.leases.max_wait,
            reading_deadline: config.devices.read_deadline,
            read_interval: config.devices.sample_interval,
            journal: trouble.is_none().then(|| journal(config)),
            ..BrokerConfig::default()
        };

        // The thread ends when its handle is dropped; it is never joined.
        let (broker, _thread) = LeaseBroker::start(settings, ledger, devices).map_err(|error| {
            Problem::new(
                Reason::Internal,
                format!("cannot start the lease broker's thread: {error}"),
            )
        })?;

        let hides_leases = trouble.as_ref().is_some_and(StoreError::hides_leases);
        Ok(Self {
            broker,
            trouble: trouble.map(|error| error.to_string()),
            hides_leases,
            opened_late,
        })
    }

    /// Checks that the broker responds, and that no restart would give it a better ledger.
    pub(super) async fn liveness(&self) -> Result<(), String> {
        if self.opened_late.load(Ordering::Relaxed) {
            return Err(
                "the state folder is accessible again, and only a restart loads its leases"
                    .to_owned(),
            );
        }

        self.broker.ping().await.map_err(|problem| problem.detail)
    }

    /// Returns an error if there can be leases that the daemon cannot read: free memory can then
    /// be leased already.
    pub(super) fn require_known(&self) -> Result<(), Problem> {
        if let (true, Some(why)) = (self.hides_leases, &self.trouble) {
            let detail = format!("cannot tell what is leased on this host's devices: {why}");
            return Err(Problem::new(Reason::Busy, detail)
                .hint("see `hf-mem-probe health`; questions about declared devices still work"));
        }

        match unreadable(&self.broker.current_status()) {
            None => Ok(()),
            Some(ledger) => {
                let detail = format!("cannot tell what is leased on this host's devices: {ledger}");
                Err(Problem::new(Reason::Busy, detail).hint(ledger.remedy()))
            }
        }
    }

    /// Returns the bytes that leases claim beyond what `snapshot` shows in use.
    pub(super) async fn claims(
        &self,
        snapshot: &Arc<Snapshot>,
    ) -> Result<BTreeMap<String, Bytes>, Problem> {
        self.require_known()?;
        let nothing_claimed = {
            let status = self.broker.current_status();
            // The claim of the last lease counts until a reading shows that its memory is free.
            status.leases == 0 && status.leased.values().all(|bytes| *bytes == Bytes::ZERO)
        };

        if nothing_claimed {
            return Ok(BTreeMap::new());
        }

        let taken_at = Timestamp::now().boottime_of(snapshot.sampled_at);
        self.broker.leased_in(Arc::clone(snapshot), taken_at).await
    }
}

/// Returns the journal's settings.
fn journal(config: &Config) -> JournalConfig {
    let HistoryConfig {
        interval,
        keep,
        max_bytes,
    } = &config.history;

    // Two files. When the newer one is full, the older one is deleted.
    let limits = JournalLimits {
        max_bytes: max_bytes.get().get() / 2,
        max_age: *keep,
    };

    let between_readings = (*interval).max(config.devices.sample_interval);
    let gap = between_readings.saturating_mul(2).max(MIN_GAP);

    JournalConfig {
        directory: config.leases.state_directory.clone(),
        limits,
        gap,
    }
}

/// Returns the ledger that cannot be read now, if there is one.
pub(super) fn unreadable(status: &BrokerStatus) -> Option<&UnreadableLedger> {
    status
        .unreadable
        .as_ref()
        .filter(|ledger| !ledger.is_over(Timestamp::now().boottime))
}

/// Returns the ledger's rules.
pub(super) fn rules(config: &Config) -> Result<LedgerConfig, Problem> {
    Ok(LedgerConfig {
        quotas: quotas(&config.leases, &Accounts::of_this_host())?,
        margin: config.placement.margin.get(),
        max_ttl: config.leases.max_ttl,
        max_reading_age: config.devices.max_age,
        ..LedgerConfig::default()
    })
}

/// Returns each user's quota: the user's own settings, completed by those of all users.
fn quotas(config: &LeasesConfig, accounts: &Accounts) -> Result<Quotas, Problem> {
    let default = Quota {
        bytes: config.user_bytes.map(Size::get),
        leases: Some(config.user_leases),
    };

    let mut by_uid = BTreeMap::new();
    for (name, UserQuota { bytes, leases }) in &config.users {
        let uid = accounts
            .uid(name)
            .map_err(|error| bad_quota(name, error.reason(), &error))?;
        let quota = Quota {
            bytes: bytes.map(Size::get).or(default.bytes),
            leases: leases.or(default.leases),
        };

        if by_uid.insert(uid, quota).is_some() {
            let why = format!("user {uid} is listed twice, by name and by number");
            return Err(bad_quota(name, Reason::BadConfiguration, &why));
        }
    }

    Ok(Quotas { default, by_uid })
}

fn bad_quota(user: &str, reason: Reason, why: &dyn std::fmt::Display) -> Problem {
    Problem::new(reason, format!("leases.users.{user}: {why}"))
}

/// Returns the command with which the broker decides on `request`. The broker plans on its own
/// reading and against its own claims.
pub(super) fn grant_command(
    caller: &Caller,
    request: LeaseRequest,
    question: &Question,
    model: Arc<Model>,
    active: Arc<ActiveConfig>,
) -> Result<GrantCommand, Problem> {
    let plan_question = question.clone();

    // The broker plans on its own thread. Its log lines belong to this request all the same.
    let span = Span::current();
    let leasable = evaluate::check_complexity(&model);
    let plan =
        move |snapshot: &Snapshot, claims: &BTreeMap<String, Bytes>| -> Result<Answer, Problem> {
            leasable.clone()?;
            let host = leasable_view(&active, snapshot, claims);
            span.in_scope(|| {
                let started = Instant::now();
                let answer = evaluate::answer(&plan_question, &model, &host, &active.rules);
                log_stage("plan", started.elapsed(), &answer, |_| "planned");
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

/// Returns a digest that tells a repeated request from a key that is reused for another question.
/// A strict question differs from one that is not: its lease is never a tight one.
fn digest(question: &Question, strict: bool) -> Result<String, Problem> {
    // Wire types can always be serialized. If one ever cannot, its key must not match that of
    // another question.
    let mut text = serde_json::to_vec(question).map_err(|error| {
        Problem::new(
            Reason::Internal,
            format!("cannot serialize the question: {error}"),
        )
    })?;
    if strict {
        text.extend_from_slice(b"strict");
    }

    Ok(crate::hex::encode(&Sha256::digest(text).as_slice()[..16]))
}

#[cfg(test)]
mod tests {
    use hf_mem_core::model::tensors::InventoryBuilder;
    use hf_mem_core::model::{Dtype, Storage};

    use super::*;
    use crate::api::peer::Peer;

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

    /// A model whose tensors have `names` different names.
    fn model_with_names(names: usize) -> Arc<Model> {
        let mut builder = InventoryBuilder::default();
        for name in 0..names {
            // Digits would be folded into one name, letters are not.
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

        Arc::new(Model {
            inventory: builder.finish(),
            ..bare_model()
        })
    }

    fn plan_lease(model: Arc<Model>) -> Result<Answer, Problem> {
        let caller = Caller {
            peer: Peer {
                uid: 1000,
                gid: 1000,
                pid: None,
            },
            token: None,
            request_id: String::new(),
        };

        let config = Config::default();
        let rules = super::super::build::rules(&config).unwrap();
        let active = Arc::new(ActiveConfig { config, rules });
        let (request, question) = (LeaseRequest::default(), Question::default());
        let command = grant_command(&caller, request, &question, model, active).unwrap();

        let host =
            crate::devices::snapshot_file::resolve("2x24GiB", std::time::SystemTime::UNIX_EPOCH)
                .unwrap()
                .snapshot;
        (command.plan)(&host, &BTreeMap::new())
    }

    #[test]
    fn implausible_models_get_no_lease() {
        assert!(plan_lease(model_with_names(20)).is_ok());
        let problem = plan_lease(model_with_names(20_000)).unwrap_err();
        assert!(
            problem.detail.contains("20000 kinds of tensors"),
            "{problem}"
        );
    }

    #[test]
    fn user_quotas_override_the_default() {
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

        for (uid, gib, leases) in [(1000, 320, 64), (1001, 10, 2), (1002, 10, 64)] {
            let expected = Quota {
                bytes: Some(Bytes::gib(gib)),
                leases: Some(leases),
            };
            assert_eq!(quotas.of(uid), expected, "{uid}");
        }

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
                .ends_with("user 1000 is listed twice, by name and by number"),
            "{problem}"
        );

        assert!(toml::from_str::<LeasesConfig>("[users]\nana = { byte = 1 }").is_err());
    }
}
