//! The real program behind the socket: models, devices, leases and the path, put together.
//!
//! Everything that waits happens here and is bounded; the answer itself is
//! [`probe::answer`](hf_mem_core::evaluate::answer), the same that the command line runs when there
//! is no daemon.

mod answer_cache;
mod answers;
mod background;
mod build;
mod device_monitor;
mod health;
mod health_log;
mod leases;
mod models;
mod stages;
mod token_access;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
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
use crate::metrics::Metrics;

pub use build::{complete, rules as site_rules};
pub use device_monitor::DeviceMonitor;
pub use leases::LeaseService;
pub use models::Models;

/// How long all files that a new configuration names may take: each of them has its own, shorter
/// deadline.
const SITE_DEADLINE: Duration = Duration::from_secs(60);

/// The program behind the socket.
#[derive(Debug)]
pub struct HostService {
    models: Models,
    readings: Arc<DeviceMonitor>,
    promises: LeaseService,
    metrics: Arc<Metrics>,
    log: LogControl,
    started: Instant,
    turns: HealthLog,
    remembered: AnswerCache,
    workbench: PlanPool,
    /// Reads what a new configuration names.
    site_files: FileThreads,
    /// The configuration at the start.
    built: Config,
    /// What a reload replaces as one.
    settled: Mutex<Arc<ActiveConfig>>,
}

/// What follows from the configuration and may change with it.
#[derive(Debug)]
struct ActiveConfig {
    config: Config,
    rules: Rules,
}

impl HostService {
    /// Puts the program together, inside the runtime that will run it. Opens no driver and asks no
    /// Hub: READY waits for neither.
    pub fn new(parts: Parts, nvml: Option<PathBuf>) -> Result<Self, Problem> {
        let Parts {
            config,
            metrics,
            log,
        } = parts;

        check(&config)?;
        let readings = Arc::new(DeviceMonitor::new(&config.devices, nvml)?);
        let promises = LeaseService::new(&config, Arc::clone(readings.source()))?;
        let interval = config.history.interval;
        if !interval.is_zero() {
            tokio::spawn(background::read(
                Arc::downgrade(readings.source()),
                interval,
            ));
        }

        tokio::spawn(tell_of_leases(
            promises.office.standing(),
            Arc::downgrade(&readings),
        ));
        let models = Models::new(&config)?;
        let rules = build::rules(&config)?;

        let probe = Self {
            models,
            readings,
            promises,
            metrics,
            log,
            started: Instant::now(),
            turns: HealthLog::default(),
            remembered: AnswerCache::default(),
            workbench: PlanPool::default(),
            site_files: FileThreads::new(1, SITE_DEADLINE),
            built: config.clone(),
            settled: Mutex::new(Arc::new(ActiveConfig { config, rules })),
        };

        // What is wrong from the start, such as a folder that is not there.
        probe.look();
        Ok(probe)
    }

    fn settled(&self) -> Arc<ActiveConfig> {
        // Replaced as a whole, so a panic elsewhere cannot have left it half changed.
        Arc::clone(&self.settled.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Refuses what [`HostService::new`] would refuse of a configuration although it can be read:
/// engines and constants, users and groups that this host does not have, declared devices, the
/// Hub's address. Opens nothing of the daemon's own.
pub fn check(config: &Config) -> Result<(), Problem> {
    let checked = || {
        build::rules(config)?;
        leases::rules(config)?;
        models::check(config)?;

        if let Some(spec) = &config.devices.declared {
            let of_key = |problem: Problem| Problem {
                detail: format!("devices.declared: {}", problem.detail),
                ..problem
            };
            crate::devices::snapshot_file::resolve(spec, SystemTime::now())
                .map_err(|error| of_key(error.into()))?;
        }

        Ok(())
    };

    checked().map_err(|problem: Problem| {
        let hint = problem.hint;
        Problem {
            hint,
            ..Problem::new(Reason::BadConfiguration, problem.detail)
        }
    })
}

/// Whoever watches the devices hears of leases too.
async fn tell_of_leases(
    mut standing: watch::Receiver<BrokerStatus>,
    readings: Weak<DeviceMonitor>,
) {
    while standing.changed().await.is_ok() {
        let Some(readings) = readings.upgrade() else {
            return;
        };
        readings.changed();
    }
}

/// `hf-mem-probe daemon`: serves until told to stop. The result is the process's exit code.
pub fn main(options: &Options, nvml: Option<PathBuf>) -> Result<u8, Problem> {
    boot(options, async |parts| HostService::new(parts, nvml))?;
    Ok(Reason::Fits.exit_code())
}
