//! The sampling thread, which owns the driver, reads the devices on request and publishes readings.
//!
//! A driver call can block in the kernel without end, and a thread that is blocked there cannot be
//! killed. So there is only one such thread. Clients wait for its next reading with their own
//! deadline and hold no lock while they wait. They get an error when the reading is late. The
//! thread is never joined.

mod device_status_log;
mod once;
mod retry;
mod shared;
mod source;
mod worker;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::watch;

pub use self::once::read_once;
use self::shared::Shared;
pub use self::source::{DeviceSource, usable};
use hf_mem_core::device::Snapshot;

use super::error::DevicesError;
use super::holders::HostRoots;
use super::nvml::{NvmlOptions, XidCount};
use super::power;

/// The options of the sampler.
#[derive(Clone, Debug)]
pub struct SamplerOptions {
    /// The options of reading the devices.
    pub nvml: NvmlOptions,
    /// The interval of readings while clients have sent requests lately.
    ///
    /// `None` reads only on request.
    pub interval: Option<Duration>,
    /// The time without a client request after which the driver is closed.
    ///
    /// A GPU can then sleep, be reset or be partitioned. `None` never closes the driver.
    pub idle_after: Option<Duration>,
    /// The age up to which the last reading is returned while the driver does not answer.
    ///
    /// It is marked stale.
    pub stale_for: Duration,
}

impl Default for SamplerOptions {
    fn default() -> Self {
        Self {
            nvml: NvmlOptions::default(),
            interval: Some(Duration::from_secs(1)),
            idle_after: Some(Duration::from_secs(300)),
            stale_for: Duration::from_secs(30),
        }
    }
}

/// One attempt at reading the devices.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The time when the attempt began. The reading includes every earlier change.
    pub began: Instant,
    /// The result of the attempt.
    pub outcome: Result<Arc<Snapshot>, DevicesError>,
}

impl Reading {
    /// Whether the reading was at most `max_age` old at `now`.
    fn is_recent(&self, max_age: Duration, now: Instant) -> bool {
        self.began
            .checked_add(max_age)
            .is_none_or(|until| until >= now)
    }
}

/// The state of the sampler, for health checks and metrics.
#[derive(Clone, Debug)]
pub struct SamplerStatus {
    /// Whether the driver's library is open.
    pub open: bool,
    /// The driver call in progress, and its duration so far.
    pub busy: Option<(&'static str, Duration)>,
    /// The time until a release ends.
    pub released: Option<Duration>,
    /// The age of the last attempt, and its error.
    pub last: Option<(Duration, Option<DevicesError>)>,
    /// The number of failed readings and of unreadable devices since the start.
    pub errors: u64,
    /// The counts of XIDs since the start.
    pub xids: Vec<XidCount>,
}

/// The handle to the sampling thread.
///
/// Dropping it asks the thread to close the driver and to stop, and does not wait.
#[derive(Debug)]
pub struct Sampler {
    shared: Arc<Shared>,
    stale_for: Duration,
    roots: HostRoots,
}

impl Sampler {
    /// Starts the thread, which reads the devices at once.
    pub fn start(options: SamplerOptions) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::new(Instant::now()));
        let (stale_for, roots) = (options.stale_for, options.nvml.roots.clone());

        let thread_shared = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("devices".to_owned())
            .spawn(move || worker::run(&thread_shared, &options))?;

        Ok(Self {
            shared,
            stale_for,
            roots,
        })
    }

    /// Subscribes to the readings that other clients request.
    ///
    /// In contrast to [`Self::subscribe`], the receiver itself requests none.
    pub fn listen(&self) -> watch::Receiver<Option<Arc<Reading>>> {
        self.shared.passive_readings.subscribe()
    }

    /// Requests a reading that does not count as a client request.
    ///
    /// It does not keep the driver open. No reading is made while the driver is released, or if
    /// opening the driver could wake a sleeping GPU.
    pub fn request_background_reading(&self) {
        let closed = !self.shared.library.borrow().open;
        let states = power::states(&self.roots);
        let asleep = states.iter().filter(|state| state.asleep()).count();

        // If all GPUs sleep, the reading does not open the driver.
        if closed && asleep > 0 && asleep < states.len() {
            return;
        }

        let now = Instant::now();
        let mut control = self.shared.control();
        if control.release_remaining(now).is_some() {
            return;
        }

        control.reading_wanted_at = Some(now);
        drop(control);
        self.shared.changed.notify_one();
    }

    /// Returns the time since the last attempt at a reading began, or `None` before the first.
    pub fn last_attempt(&self) -> Option<Duration> {
        self.shared
            .readings
            .borrow()
            .as_ref()
            .map(|reading| reading.began.elapsed())
    }

    /// Subscribes to the readings. While a receiver exists, readings continue at the interval.
    ///
    /// A receiver sees the latest reading, so a slow receiver misses some readings.
    pub fn subscribe(&self) -> watch::Receiver<Option<Arc<Reading>>> {
        let receiver = self.shared.readings.subscribe();
        self.shared.control().last_request_at = Instant::now();
        self.shared.changed.notify_one();
        receiver
    }

    /// Returns a snapshot whose reading began at most `max_age` ago, within `deadline`.
    ///
    /// If the driver does not answer in time, the result is the last snapshot, marked stale. If
    /// that snapshot is too old, the result is an error. An older success never hides an error of
    /// the driver.
    pub async fn sample(
        &self,
        max_age: Duration,
        deadline: Duration,
    ) -> Result<Arc<Snapshot>, DevicesError> {
        let requested_at = Instant::now();
        let mut receiver = self.shared.readings.subscribe();
        {
            let mut control = self.shared.control();
            control.last_request_at = requested_at;

            if let Some(remaining) = control.release_remaining(requested_at) {
                return Err(DevicesError::Released { remaining });
            }

            let last = receiver.borrow_and_update().clone();
            if let Some(reading) = &last
                && let Ok(snapshot) = &reading.outcome
                && reading.is_recent(max_age, requested_at)
            {
                return Ok(Arc::clone(snapshot));
            }

            control.reading_wanted_at = Some(requested_at);
        }

        self.shared.changed.notify_one();

        // A recent error does not suffice, because the driver may have recovered since.
        let new_reading = receiver.wait_for(|reading| {
            reading.as_ref().is_some_and(|reading| {
                reading.is_recent(max_age, requested_at)
                    && (reading.outcome.is_ok() || reading.began >= requested_at)
            })
        });

        match tokio::time::timeout(deadline, new_reading).await {
            Ok(Ok(reading)) => reading.as_ref().map_or_else(
                || Err(self.overdue(requested_at)),
                |reading| reading.outcome.clone(),
            ),
            Ok(Err(_)) | Err(_) => self.stale_or_overdue(requested_at),
        }
    }

    fn stale_or_overdue(&self, requested_at: Instant) -> Result<Arc<Snapshot>, DevicesError> {
        let last = self.shared.readings.borrow().clone();
        match last {
            Some(reading) if reading.began.elapsed() <= self.stale_for => match &reading.outcome {
                Ok(snapshot) => Ok(Arc::new(Snapshot {
                    stale: true,
                    ..Snapshot::clone(snapshot)
                })),
                Err(_) => Err(self.overdue(requested_at)),
            },
            _ => Err(self.overdue(requested_at)),
        }
    }

    fn overdue(&self, requested_at: Instant) -> DevicesError {
        let (doing, since) = self
            .shared
            .control()
            .busy
            .unwrap_or(("waiting for the sampling thread", requested_at));

        DevicesError::Overdue {
            doing,
            waited: since.elapsed(),
        }
    }

    /// Returns the last snapshot, however old, without requesting another.
    pub fn last(&self) -> Option<Arc<Snapshot>> {
        self.shared
            .readings
            .borrow()
            .as_ref()
            .and_then(|reading| reading.outcome.clone().ok())
    }

    /// Releases the driver for `length`, so that a GPU can be reset or partitioned.
    ///
    /// Returns when the library is closed. Until the release ends, or until [`Self::resume`], every
    /// request fails with `nvml_released`.
    pub async fn release(&self, length: Duration, deadline: Duration) -> Result<(), DevicesError> {
        let requested_at = Instant::now();
        let mut library = self.shared.library.subscribe();
        let before = library.borrow().closings;

        {
            let mut control = self.shared.control();
            control.released_until = requested_at.checked_add(length);
            control.released_by = tracing::Span::current();
            control.close_requested = true;
        }

        self.shared.changed.notify_one();

        // A short release may have ended, and the library may be open again, before this task
        // wakes.
        let closed = library.wait_for(|library| !library.open || library.closings > before);
        match tokio::time::timeout(deadline, closed).await {
            Ok(Ok(_)) => {
                // The reset during the release may end the reported errors. The driver reports the
                // others again.
                self.shared.xids().deactivate();
                Ok(())
            }
            Ok(Err(_)) | Err(_) => Err(self.overdue(requested_at)),
        }
    }

    /// Ends a release early.
    pub fn resume(&self) {
        let mut control = self.shared.control();
        control.released_until = None;
        control.reading_wanted_at = Some(Instant::now());
        drop(control);
        self.shared.changed.notify_one();
    }

    /// Returns the state of the sampler.
    pub fn status(&self) -> SamplerStatus {
        let control = self.shared.control();
        let (busy, released) = (control.busy, control.release_remaining(Instant::now()));
        drop(control);
        let last = self.shared.readings.borrow().clone();

        SamplerStatus {
            open: self.shared.library.borrow().open,
            busy: busy.map(|(step, since)| (step, since.elapsed())),
            released,
            last: last.map(|reading| (reading.began.elapsed(), reading.outcome.clone().err())),
            errors: self.shared.errors.load(Ordering::Relaxed),
            xids: self.shared.xids().counts(),
        }
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.shared.control().stop = true;
        self.shared.changed.notify_one();
    }
}
