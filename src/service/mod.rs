//! The program behind the socket: models, devices, leases and planning, put together.
//!
//! Everything that waits happens here and has a bound. The answer itself comes from
//! [`evaluate::answer`](hf_mem_core::evaluate::answer), which the command line also runs when there
//! is no daemon.

mod answer_cache;
mod answers;
mod background;
mod build;
mod device_monitor;
mod found_model;
mod gauges;
mod health;
mod health_log;
mod hub_settings;
mod leases;
mod models;
mod planning;
mod reload;
mod stages;
mod token_access;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant, SystemTime};

use answer_cache::AnswerCache;
use health_log::HealthLog;
use hf_mem_core::evaluate::Rules;
use hf_mem_core::report::Problem;
use hf_mem_core::report::problem::Reason;
use tokio::sync::watch;

use crate::admission::plan_pool::PlanPool;
use crate::config::Config;
use crate::daemon::log::LogControl;
use crate::daemon::{Options, Parts, boot};
use crate::files::FileThreads;
use crate::leases::broker::BrokerStatus;
use crate::lock_ignoring_poison::lock_ignoring_poison;
use crate::metrics::Metrics;

pub use build::{complete, rules as site_rules};
pub use device_monitor::DeviceMonitor;
pub use leases::LeaseService;
pub use models::Models;

/// The longest time for all files that a new configuration names. Each file has its own, shorter
/// deadline.
const SITE_DEADLINE: Duration = Duration::from_secs(60);

/// The program behind the socket.
#[derive(Debug)]
pub struct HostService {
    models: Models,
    devices: Arc<DeviceMonitor>,
    leases: LeaseService,
    metrics: Arc<Metrics>,
    log: LogControl,
    started: Instant,
    health_log: HealthLog,
    answer_cache: AnswerCache,
    plan_pool: PlanPool,
    /// Reads the files that a new configuration names.
    site_files: FileThreads,
    /// The configuration at the start.
    initial_config: Config,
    /// The configuration in force. A reload replaces it as a whole.
    active: Mutex<Arc<ActiveConfig>>,
}

/// A configuration, and the rules that follow from it.
#[derive(Debug)]
struct ActiveConfig {
    config: Config,
    rules: Rules,
}

impl HostService {
    /// Builds the program inside the runtime that will run it.
    ///
    /// It opens no driver and contacts no Hub: READY waits for neither.
    pub fn new(parts: Parts, nvml: Option<PathBuf>) -> Result<Self, Problem> {
        let Parts {
            config,
            metrics,
            log,
        } = parts;

        check(&config)?;
        let devices = Arc::new(DeviceMonitor::new(&config.devices, nvml)?);
        let leases = LeaseService::new(&config, Arc::clone(devices.source()))?;
        let interval = config.history.interval;
        if !interval.is_zero() {
            tokio::spawn(background::read(Arc::downgrade(devices.source()), interval));
        }

        tokio::spawn(notify_of_lease_changes(
            leases.broker.status(),
            Arc::downgrade(&devices),
        ));
        let models = Models::new(&config)?;
        let rules = build::rules(&config)?;

        let service = Self {
            models,
            devices,
            leases,
            metrics,
            log,
            started: Instant::now(),
            health_log: HealthLog::default(),
            answer_cache: AnswerCache::default(),
            plan_pool: PlanPool::default(),
            site_files: FileThreads::new(1, SITE_DEADLINE),
            initial_config: config.clone(),
            active: Mutex::new(Arc::new(ActiveConfig { config, rules })),
        };

        // Logs what is wrong from the start, such as a missing folder.
        service.check_health();
        Ok(service)
    }

    fn active(&self) -> Arc<ActiveConfig> {
        // Replaced as a whole, so a panic elsewhere cannot leave it half changed.
        Arc::clone(&lock_ignoring_poison(&self.active))
    }
}

/// Rejects a configuration that parses but that [`HostService::new`] would reject.
///
/// It checks engines and constants, users and groups that this host does not have, declared
/// devices, and the Hub's address. It opens nothing of the daemon's own.
pub fn check(config: &Config) -> Result<(), Problem> {
    check_parts(config).map_err(|problem| {
        let hint = problem.hint;
        Problem {
            hint,
            ..Problem::new(Reason::BadConfiguration, problem.detail)
        }
    })
}

fn check_parts(config: &Config) -> Result<(), Problem> {
    build::rules(config)?;
    leases::rules(config)?;
    hub_settings::check(config)?;

    if let Some(spec) = &config.devices.declared {
        crate::devices::snapshot_file::resolve(spec, SystemTime::now()).map_err(|error| {
            let problem = Problem::from(error);
            Problem {
                detail: format!("devices.declared: {}", problem.detail),
                ..problem
            }
        })?;
    }

    Ok(())
}

/// Wakes the watch streams, which follow the devices, when leases change.
async fn notify_of_lease_changes(
    mut status: watch::Receiver<BrokerStatus>,
    devices: Weak<DeviceMonitor>,
) {
    while status.changed().await.is_ok() {
        let Some(devices) = devices.upgrade() else {
            return;
        };
        devices.changed();
    }
}

/// Runs `hf-mem-probe daemon` until it is stopped. Returns the process's exit code.
pub fn main(options: &Options, nvml: Option<PathBuf>) -> Result<u8, Problem> {
    boot(options, async |parts| HostService::new(parts, nvml))?;
    Ok(Reason::Fits.exit_code())
}
