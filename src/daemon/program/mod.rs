//! The real program behind the socket: models, devices, leases and the path, put together.
//!
//! Everything that waits happens here and is bounded; the answer itself is [`probe::answer`](crate::probe::answer), the
//! same that the command line runs when there is no daemon.

mod build;
mod models;
mod readings;
mod service;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::api::Problem;
use crate::api::problem::Reason;
use crate::config::Config;
use crate::daemon::log::LogControl;
use crate::daemon::{Options, Parts, boot};
use crate::metrics::Metrics;
use crate::probe::Rules;

pub use models::Models;
pub use readings::Readings;

/// The program behind the socket.
#[derive(Debug)]
pub struct Probe {
    models: Models,
    readings: Readings,
    metrics: Arc<Metrics>,
    log: LogControl,
    started: Instant,
    /// What a reload replaces as one.
    settled: Mutex<Arc<Settled>>,
}

/// What follows from the configuration and may change with it.
#[derive(Debug)]
struct Settled {
    config: Config,
    rules: Rules,
}

impl Probe {
    /// Puts the program together. Opens no driver and asks no Hub: READY waits for neither.
    pub fn new(parts: Parts, nvml: Option<PathBuf>) -> Result<Self, Problem> {
        let Parts { config, metrics, log } = parts;
        let readings = Readings::new(&config.devices, nvml)?;
        let models = Models::new(&config)?;
        let rules = build::rules(&config)?;
        Ok(Self {
            models,
            readings,
            metrics,
            log,
            started: Instant::now(),
            settled: Mutex::new(Arc::new(Settled { config, rules })),
        })
    }

    fn settled(&self) -> Arc<Settled> {
        // Replaced as a whole, so a panic elsewhere cannot have left it half changed.
        Arc::clone(&self.settled.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// `hf-mem-probe daemon`: serves until told to stop. The result is the process's exit code.
pub fn main(options: &Options, nvml: Option<PathBuf>) -> Result<u8, Problem> {
    boot(options, async |parts| Probe::new(parts, nvml))?;
    Ok(Reason::Fits.exit_code())
}
