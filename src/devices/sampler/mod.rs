//! One owner of the driver: a thread that reads the devices when asked and publishes what it saw.
//!
//! Driver calls may block for ever in the kernel, and a thread that blocks there cannot be killed.
//! So there is one thread and never a second; askers wait for its next reading with a deadline of
//! their own, hold no lock meanwhile, and are told when the answer is late. The thread is never
//! joined.

mod once;
mod source;
mod telling;
mod worker;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

pub use self::once::read_once;
pub use self::source::{DeviceSource, usable};
use hf_mem_core::device::{Device, Snapshot, UnusableReason};

use super::error::DevicesError;
use super::holders::HostRoots;
use super::nvml::{NvmlOptions, XidCount, XidLog};
use super::power;

/// How the sampler behaves.
#[derive(Clone, Debug)]
pub struct SamplerOptions {
    /// What is read, and where.
    pub nvml: NvmlOptions,
    /// How often to read without being asked, while anybody has asked lately; `None`: only when
    /// asked.
    pub interval: Option<Duration>,
    /// After how long without a question the driver is let go, so that a GPU can sleep, be reset or
    /// be partitioned; `None`: never.
    pub idle_after: Option<Duration>,
    /// For how long the last reading is given out, marked stale, while the driver does not answer.
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
    /// When it began: everything that happened before is in it.
    pub began: Instant,
    /// What came of it.
    pub outcome: Result<Arc<Snapshot>, DevicesError>,
}

/// What the sampler is doing, for health checks and metrics.
#[derive(Clone, Debug)]
pub struct SamplerStatus {
    /// Whether the driver's library is open.
    pub open: bool,
    /// The driver call in progress and for how long.
    pub busy: Option<(&'static str, Duration)>,
    /// How long a release still lasts.
    pub released: Option<Duration>,
    /// The age of the last attempt, and its error.
    pub last: Option<(Duration, Option<DevicesError>)>,
    /// Readings that failed as a whole and devices that could not be read, since the start.
    pub errors: u64,
    /// XIDs heard since the start.
    pub xids: Vec<XidCount>,
}

/// The handle to the sampling thread. Dropping it asks the thread to let go of the driver and end,
/// and waits for nothing.
#[derive(Debug)]
pub struct Sampler {
    shared: Arc<Shared>,
    stale_for: Duration,
    roots: HostRoots,
}

#[derive(Debug)]
struct Shared {
    orders: Mutex<Orders>,
    changed: Condvar,
    readings: watch::Sender<Option<Arc<Reading>>>,
    /// The same for those who listen and ask for nothing.
    heard: watch::Sender<Option<Arc<Reading>>>,
    /// How the driver's library is, for those who wait for its closing.
    library: watch::Sender<Library>,
    errors: AtomicU64,
    xids: Mutex<XidLog>,
}

/// How the driver's library is.
#[derive(Clone, Copy, Debug, Default)]
struct Library {
    open: bool,
    /// How often it was closed.
    closings: u64,
}

/// What askers want of the thread, and what it is at.
#[derive(Debug)]
struct Orders {
    /// A reading that began before this is too old for somebody.
    wanted: Option<Instant>,
    /// When anybody last asked.
    asked: Instant,
    released_until: Option<Instant>,
    /// Whose request that was, for the log.
    released_by: tracing::Span,
    /// Somebody waits for the library to be closed, however short the release.
    let_go: bool,
    busy: Option<(&'static str, Instant)>,
    stop: bool,
}

impl Shared {
    fn orders(&self) -> MutexGuard<'_, Orders> {
        // Nothing panics while it is held; and orders are valid at every moment.
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_open(&self, open: bool) {
        self.library.send_if_modified(|library| {
            let changed = library.open != open;
            library.open = open;
            library.closings += u64::from(changed && !open);
            changed
        });
    }

    fn xids(&self) -> MutexGuard<'_, XidLog> {
        self.xids.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count_errors(&self, outcome: &Result<Arc<Snapshot>, DevicesError>) {
        let unread = |device: &&Device| {
            device.free_bytes.is_none()
                && device
                    .unusable
                    .as_ref()
                    .is_none_or(|why| why.reason != UnusableReason::Asleep)
        };

        let count = outcome
            .as_ref()
            .map_or(1, |snapshot| snapshot.devices.iter().filter(unread).count());
        self.errors
            .fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl Sampler {
    /// Starts the thread, which reads at once.
    pub fn start(options: SamplerOptions) -> std::io::Result<Self> {
        let now = Instant::now();
        let shared = Arc::new(Shared {
            orders: Mutex::new(Orders {
                wanted: Some(now),
                asked: now,
                released_until: None,
                released_by: tracing::Span::none(),
                let_go: false,
                busy: None,
                stop: false,
            }),
            changed: Condvar::new(),
            readings: watch::Sender::new(None),
            heard: watch::Sender::new(None),
            library: watch::Sender::default(),
            errors: AtomicU64::new(0),
            xids: Mutex::default(),
        });

        let (stale_for, roots) = (options.stale_for, options.nvml.roots.clone());
        let own = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("devices".to_owned())
            .spawn(move || worker::run(&own, &options))?;

        Ok(Self {
            shared,
            stale_for,
            roots,
        })
    }

    /// The readings that others ask for. In contrast to [`Self::subscribe`] a receiver asks for
    /// none.
    pub fn listen(&self) -> watch::Receiver<Option<Arc<Reading>>> {
        self.shared.heard.subscribe()
    }

    /// Asks for a reading that is no question: the driver is closed as if it had not been asked
    /// for. None is made while the driver is released, or where opening it could wake a GPU that
    /// sleeps.
    pub fn look(&self) {
        let closed = !self.shared.library.borrow().open;
        let states = power::states(&self.roots);
        let asleep = states.iter().filter(|state| state.asleep()).count();

        // Where all of them sleep the driver is not opened at all.
        if closed && asleep > 0 && asleep < states.len() {
            return;
        }

        let now = Instant::now();
        let mut orders = self.shared.orders();
        if released(&orders, now).is_some() {
            return;
        }

        orders.wanted = Some(now);
        drop(orders);
        self.shared.changed.notify_one();
    }

    /// How long ago the last attempt at a reading began; `None`: none was made yet.
    pub fn last_attempt(&self) -> Option<Duration> {
        self.shared
            .readings
            .borrow()
            .as_ref()
            .map(|reading| reading.began.elapsed())
    }

    /// The latest reading, and that it changed: whoever is slower than the readings misses some.
    /// While a receiver lives, readings go on at the interval.
    pub fn subscribe(&self) -> watch::Receiver<Option<Arc<Reading>>> {
        let receiver = self.shared.readings.subscribe();
        self.shared.orders().asked = Instant::now();
        self.shared.changed.notify_one();
        receiver
    }

    /// A snapshot whose reading began at most `max_age` ago, within `deadline`.
    ///
    /// When the driver does not answer in time: the last snapshot, marked stale, as long as it is
    /// not too old; then an error. A driver that fails is never covered up by an older success.
    pub async fn sample(
        &self,
        max_age: Duration,
        deadline: Duration,
    ) -> Result<Arc<Snapshot>, DevicesError> {
        let asked = Instant::now();
        let recent = move |reading: &Option<Arc<Reading>>| {
            reading.as_ref().is_some_and(|reading| {
                reading
                    .began
                    .checked_add(max_age)
                    .is_none_or(|until| until >= asked)
            })
        };

        let mut receiver = self.shared.readings.subscribe();
        {
            let mut orders = self.shared.orders();
            orders.asked = asked;

            if let Some(remaining) = released(&orders, asked) {
                return Err(DevicesError::Released { remaining });
            }

            let last = receiver.borrow_and_update().clone();
            match last.as_ref().map(|reading| &reading.outcome) {
                Some(Ok(snapshot)) if recent(&last) => return Ok(Arc::clone(snapshot)),
                _ => {}
            }

            orders.wanted = Some(asked);
        }

        self.shared.changed.notify_one();

        // An error that is just recent does not do: the driver may have come back since.
        let good_enough = move |reading: &Option<Arc<Reading>>| {
            recent(reading)
                && reading
                    .as_ref()
                    .is_some_and(|reading| reading.outcome.is_ok() || reading.began >= asked)
        };

        match tokio::time::timeout(deadline, receiver.wait_for(good_enough)).await {
            Ok(Ok(reading)) => reading.as_ref().map_or_else(
                || Err(self.overdue(asked)),
                |reading| reading.outcome.clone(),
            ),
            Ok(Err(_)) | Err(_) => self.late(asked),
        }
    }

    fn late(&self, asked: Instant) -> Result<Arc<Snapshot>, DevicesError> {
        let last = self.shared.readings.borrow().clone();
        match last {
            Some(reading) if reading.began.elapsed() <= self.stale_for => match &reading.outcome {
                Ok(snapshot) => Ok(Arc::new(Snapshot {
                    stale: true,
                    ..Snapshot::clone(snapshot)
                })),
                Err(_) => Err(self.overdue(asked)),
            },
            _ => Err(self.overdue(asked)),
        }
    }

    fn overdue(&self, asked: Instant) -> DevicesError {
        let (doing, since) = self
            .shared
            .orders()
            .busy
            .unwrap_or(("waiting for its turn", asked));

        DevicesError::Overdue {
            doing,
            waited: since.elapsed(),
        }
    }

    /// The last snapshot, however old, without asking for another.
    pub fn last(&self) -> Option<Arc<Snapshot>> {
        self.shared
            .readings
            .borrow()
            .as_ref()
            .and_then(|reading| reading.outcome.clone().ok())
    }

    /// Lets go of the driver for `length`, so that a GPU can be reset or partitioned; returns when
    /// the library is closed. Until the window ends, or [`Self::resume`], every question is
    /// answered with `nvml_released`.
    pub async fn release(&self, length: Duration, deadline: Duration) -> Result<(), DevicesError> {
        let asked = Instant::now();
        let mut library = self.shared.library.subscribe();
        let before = library.borrow().closings;

        {
            let mut orders = self.shared.orders();
            orders.released_until = asked.checked_add(length);
            orders.released_by = tracing::Span::current();
            orders.let_go = true;
        }

        self.shared.changed.notify_one();

        // A short release may be over, and the library open again, before this is woken.
        let closed = library.wait_for(|library| !library.open || library.closings > before);
        match tokio::time::timeout(deadline, closed).await {
            Ok(Ok(_)) => {
                // What was heard until now may be cured by what the window is for; what stays wrong
                // is heard again.
                self.shared.xids().settle();
                Ok(())
            }
            Ok(Err(_)) | Err(_) => Err(self.overdue(asked)),
        }
    }

    /// Ends a release early.
    pub fn resume(&self) {
        let mut orders = self.shared.orders();
        orders.released_until = None;
        orders.wanted = Some(Instant::now());
        drop(orders);
        self.shared.changed.notify_one();
    }

    /// What it is doing.
    pub fn status(&self) -> SamplerStatus {
        let orders = self.shared.orders();
        let (busy, released) = (orders.busy, released(&orders, Instant::now()));
        drop(orders);
        let last = self.shared.readings.borrow().clone();

        SamplerStatus {
            open: self.shared.library.borrow().open,
            busy: busy.map(|(doing, since)| (doing, since.elapsed())),
            released,
            last: last.map(|reading| (reading.began.elapsed(), reading.outcome.clone().err())),
            errors: self.shared.errors.load(Ordering::Relaxed),
            xids: self.shared.xids().counts(),
        }
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.shared.orders().stop = true;
        self.shared.changed.notify_one();
    }
}

/// How long a release still lasts at `now`.
fn released(orders: &Orders, now: Instant) -> Option<Duration> {
    orders
        .released_until
        .and_then(|until| until.checked_duration_since(now))
        .filter(|left| !left.is_zero())
}
