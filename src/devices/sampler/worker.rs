//! The sampling thread: what to do next, and doing it.

use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use hf_mem_core::device::{Device, Snapshot};

use super::telling::DeviceStatusLog;
use super::{Orders, Reading, SamplerOptions, Shared, released};
use crate::devices::error::DevicesError;
use crate::devices::nvml::{EventWatch, Fingerprint, Meaning, NvmlReader, XidEvent, all_asleep};
use crate::devices::power;

/// Waits between attempts at a driver that fails as a whole. The longest is well below two seconds,
/// so that the end of a fault is seen that soon; an attempt is one failing `nvmlInit`, and made
/// only while somebody asks.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(1);
/// What only an installation, a loaded module or a reboot cures is attempted that often for as
/// long; then seldom, but at once when the module or a library's file has changed, for which it is
/// looked at [`LAST_RETRY`] apart.
const OFTEN_FOR: Duration = Duration::from_secs(60);
const SELDOM: Duration = Duration::from_secs(60);
/// On a host whose GPU can suspend, the driver is let go after so long without a question: it keeps
/// the GPU awake.
const IDLE_WHERE_GPUS_SUSPEND: Duration = Duration::from_secs(10);
/// Waits between fresh openings for the sake of a GPU that is lost: those disturb the healthy ones.
const FIRST_REOPENING: Duration = Duration::from_secs(2);
const LAST_REOPENING: Duration = Duration::from_secs(60);

/// What the thread is to do next.
enum Next {
    Read,
    LetGo,
    End,
}

impl Shared {
    /// Says so while the orders are held: a release that is asked for from now on waits for what
    /// this may open.
    fn about_to_read(&self) -> Next {
        self.set_open(true);
        Next::Read
    }
}

/// A wait that doubles up to a limit.
struct BackOff {
    delay: Duration,
    until: Instant,
}

impl BackOff {
    fn after(previous: Option<&Self>, first: Duration, last: Duration) -> Self {
        let delay = previous.map_or(first, |previous| previous.delay.saturating_mul(2).min(last));
        Self {
            delay,
            until: Instant::now() + delay,
        }
    }
}

/// A driver that fails as a whole.
struct WorkerFailure {
    error: DevicesError,
    since: Instant,
    attempted: Instant,
    delay: Duration,
    /// When to look again.
    look: Instant,
    /// The driver's traces on the host at the last attempt.
    fingerprint: Fingerprint,
}

impl WorkerFailure {
    fn after(previous: Option<&Self>, error: DevicesError, options: &SamplerOptions) -> Self {
        let attempted = Instant::now();
        let delay = previous.map_or(FIRST_RETRY, |previous| {
            previous.delay.saturating_mul(2).min(LAST_RETRY)
        });
        let since = previous.map_or(attempted, |previous| previous.since);
        let fingerprint = Fingerprint::of_places(&options.nvml);

        Self {
            error,
            since,
            attempted,
            delay,
            look: attempted + delay,
            fingerprint,
        }
    }

    /// Whether to attempt it again at `now`.
    fn due(&mut self, options: &SamplerOptions, now: Instant) -> bool {
        if now < self.look {
            return false;
        }

        let cured_by_files = matches!(
            self.error,
            DevicesError::Library { .. }
                | DevicesError::DriverNotLoaded
                | DevicesError::VersionMismatch
        );
        if !cured_by_files
            || now.duration_since(self.since) < OFTEN_FOR
            || now.duration_since(self.attempted) >= SELDOM
            || self.fingerprint != Fingerprint::of_places(&options.nvml)
        {
            return true;
        }

        self.look = now + LAST_RETRY;
        false
    }
}

/// The thread's own state.
#[derive(Default)]
struct Worker {
    reader: Option<NvmlReader>,
    /// Listens on the reader's library; goes before it.
    events: Option<EventWatch>,
    /// Whether a GPU of this host can suspend.
    suspends: bool,
    began: Option<Instant>,
    failed: Option<WorkerFailure>,
    sick: Option<BackOff>,
    /// What the reader before the next one saw last.
    last: Vec<Device>,
    /// Whether somebody had the driver let go of, and has not been told to be over with it.
    released: bool,
    telling: DeviceStatusLog,
}

/// Serves orders until told to end.
pub(super) fn run(shared: &Arc<Shared>, options: &SamplerOptions) {
    let mut worker = Worker::default();
    loop {
        match worker.next(shared, options) {
            Next::Read => {
                let began = Instant::now();
                worker.began = Some(began);
                let outcome = worker.read(shared, options).map(Arc::new);
                shared.count_errors(&outcome);
                shared.orders().busy = None;
                shared.set_open(worker.reader.is_some());
                let reading = Arc::new(Reading { began, outcome });
                shared.readings.send_replace(Some(Arc::clone(&reading)));
                shared.heard.send_replace(Some(Arc::clone(&reading)));
                // After those who wait were served: the log may be slow.
                if let Ok(snapshot) = &reading.outcome {
                    worker.telling.reading(snapshot, Instant::now());
                }
                worker.after_reading(shared);
            }
            Next::LetGo => {
                worker.let_go(shared);
                shared.set_open(false);
            }
            Next::End => {
                worker.let_go(shared);
                shared.set_open(false);
                return;
            }
        }
    }
}

impl Worker {
    /// Waits until there is something to do.
    fn next(&mut self, shared: &Shared, options: &SamplerOptions) -> Next {
        let mut orders = shared.orders();
        loop {
            let now = Instant::now();
            if orders.stop {
                return Next::End;
            }

            if self.released && released(&orders, now).is_none() {
                self.released = false;
                orders = told_of_end(shared, orders);
                continue;
            }

            if std::mem::take(&mut orders.let_go) {
                self.released = true;
                if self.reader.is_some() {
                    return Next::LetGo;
                }
            }

            let wait = if let Some(remaining) = released(&orders, now) {
                self.released = true;
                if self.reader.is_some() {
                    return Next::LetGo;
                }
                Some(remaining)
            } else {
                let unserved = orders
                    .wanted
                    .is_some_and(|wanted| self.began.is_none_or(|began| began < wanted));
                if unserved {
                    return shared.about_to_read();
                }

                let idle_after = match options.idle_after {
                    Some(after) if self.suspends => Some(after.min(IDLE_WHERE_GPUS_SUSPEND)),
                    other => other,
                };

                let idle_in = match idle_after {
                    // A watcher is a standing question.
                    _ if shared.readings.receiver_count() > 0 => None,
                    Some(idle_after) => {
                        Some(idle_after.saturating_sub(now.duration_since(orders.asked)))
                    }
                    None => None,
                };

                if idle_in.is_some_and(|left| left.is_zero()) {
                    if self.reader.is_some() {
                        return Next::LetGo;
                    }
                    None
                } else {
                    let due = match (&self.failed, self.began, options.interval) {
                        (Some(failure), ..) => Some(failure.look),
                        (None, Some(began), Some(interval)) => began.checked_add(interval),
                        _ => None,
                    };

                    let due_in = due.map(|due| due.saturating_duration_since(now));
                    if due_in.is_some_and(|left| left.is_zero()) {
                        return shared.about_to_read();
                    }

                    [due_in, idle_in].into_iter().flatten().min()
                }
            };

            // Spurious and early wake-ups just go round again.
            orders = match wait {
                Some(wait) => match shared.changed.wait_timeout(orders, wait) {
                    Ok((orders, _)) => orders,
                    Err(poisoned) => poisoned.into_inner().0,
                },
                None => shared
                    .changed
                    .wait(orders)
                    .unwrap_or_else(std::sync::PoisonError::into_inner),
            };
        }
    }

    /// One attempt, or the last one's error where it is too early for another.
    fn read(
        &mut self,
        shared: &Arc<Shared>,
        options: &SamplerOptions,
    ) -> Result<Snapshot, DevicesError> {
        if let Some(failure) = &mut self.failed
            && !failure.due(options, Instant::now())
        {
            return Err(failure.error.clone());
        }

        let sick_long = self
            .sick
            .as_ref()
            .is_some_and(|back_off| back_off.until <= Instant::now());
        let outdated = self.reader.as_ref().is_some_and(NvmlReader::outdated);
        if outdated {
            shared.xids().settle();
        }

        if sick_long || outdated {
            self.let_go(shared);
        }

        let had_one = self.reader.is_some();
        let mut outcome = self.attempt(shared, options);
        if outcome.is_err() {
            // The old one goes first: NVML counts its inits, and the next would initialise nothing.
            self.let_go(shared);
            if had_one {
                outcome = self.attempt(shared, options);
            }
        }

        match &mut outcome {
            Ok(snapshot) => {
                self.failed = None;
                let mut xids = shared.xids();
                xids.settle_absent(&snapshot.devices);
                if let Some(reader) = &self.reader {
                    reader.mark(snapshot, &xids);
                }
            }
            Err(error) => {
                self.let_go(shared);
                self.failed = Some(WorkerFailure::after(
                    self.failed.as_ref(),
                    error.clone(),
                    options,
                ));
            }
        }

        self.sick = match &self.reader {
            Some(reader) if reader.sick() => Some(match self.sick.take() {
                Some(waiting) if !sick_long => waiting,
                previous => BackOff::after(previous.as_ref(), FIRST_REOPENING, LAST_REOPENING),
            }),
            _ => None,
        };

        outcome
    }

    fn attempt(
        &mut self,
        shared: &Arc<Shared>,
        options: &SamplerOptions,
    ) -> Result<Snapshot, DevicesError> {
        let busy = |doing| shared.orders().busy = Some((doing, Instant::now()));
        let reader = match &mut self.reader {
            Some(reader) => reader,
            empty @ None => {
                if let Some(snapshot) = all_asleep(&options.nvml) {
                    return Ok(snapshot);
                }
                busy("opening the driver's library");
                let mut reader = NvmlReader::open(&options.nvml)?;
                reader.inherit(std::mem::take(&mut self.last));
                self.suspends = power::any_suspends(&options.nvml.roots);
                let own = Arc::clone(shared);
                self.events = EventWatch::start(&reader, move |event| heard(&own, &event))
                    .inspect_err(|error| tracing::warn!(%error, "no thread to listen for XIDs on"))
                    .ok();
                empty.insert(reader)
            }
        };

        busy("reading the devices");
        reader.read()
    }

    /// What nobody needs to wait for.
    fn after_reading(&mut self, shared: &Shared) {
        let Some(reader) = &mut self.reader else {
            return;
        };

        if let Some(events) = &self.events {
            events.follow(reader.seen());
        }

        shared.orders().busy = Some(("reading how the devices are wired", Instant::now()));
        reader.refresh_wiring();
        shared.orders().busy = None;
    }

    fn let_go(&mut self, shared: &Shared) {
        let Some(reader) = self.reader.take() else {
            return;
        };

        self.last = reader.last().to_vec();
        let busy = |doing| shared.orders().busy = Some((doing, Instant::now()));
        busy("ending the wait for the driver's events");
        self.events = None;
        busy("closing the driver's library");
        drop(reader);
        shared.orders().busy = None;
    }
}

/// Says that a release is over, with nothing held that askers wait for.
fn told_of_end<'a>(
    shared: &'a Shared,
    mut orders: MutexGuard<'a, Orders>,
) -> MutexGuard<'a, Orders> {
    let by = std::mem::replace(&mut orders.released_by, tracing::Span::none());
    drop(orders);
    by.in_scope(|| {
        tracing::info!("the release of the driver is over: it is opened again when somebody asks");
    });
    shared.orders()
}

/// Takes note of an XID, and asks for a reading where it says something of the GPU.
fn heard(shared: &Shared, event: &XidEvent) {
    let count = shared.xids().add(event);
    let meaning = event.meaning();

    // One that comes again and again is told ever more seldom.
    if count.is_power_of_two() {
        let uuid = event.uuid.as_str();
        match meaning {
            Meaning::Application => {
                tracing::info!(uuid, xid = event.xid, count, "an application's XID");
            }
            Meaning::Concern => {
                tracing::warn!(uuid, xid = event.xid, count, "the driver reported an XID");
            }
            Meaning::NeedsReset => {
                tracing::error!(
                    uuid,
                    xid = event.xid,
                    count,
                    "the driver reported an XID that needs a reset of the GPU"
                );
            }
        }
    }

    if meaning != Meaning::Application {
        shared.orders().wanted = Some(Instant::now());
        shared.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::holders::HostRoots;
    use crate::devices::nvml::NvmlOptions;

    #[test]
    fn what_files_would_cure_is_tried_seldom_until_they_change() {
        let folder = tempfile::tempdir().unwrap();
        let nvml = NvmlOptions {
            roots: HostRoots::under(folder.path()),
            ..NvmlOptions::default()
        };

        let options = SamplerOptions {
            nvml,
            ..SamplerOptions::default()
        };

        let long_ago = |error: DevicesError| {
            let now = Instant::now();
            let since = now.checked_sub(Duration::from_secs(600)).unwrap();
            let attempted = now.checked_sub(Duration::from_secs(5)).unwrap();

            WorkerFailure {
                since,
                attempted,
                look: now,
                ..WorkerFailure::after(None, error, &options)
            }
        };

        let mut failure = long_ago(DevicesError::VersionMismatch);
        let look = failure.look;
        assert!(!failure.due(&options, look));

        assert_eq!(
            failure.look,
            look + LAST_RETRY,
            "looked at, and looked at again later"
        );

        std::fs::create_dir_all(folder.path().join("proc/driver/nvidia")).unwrap();
        std::fs::write(
            folder.path().join("proc/driver/nvidia/version"),
            "NVRM version: 610.10",
        )
        .unwrap();

        assert!(
            failure.due(&options, look + LAST_RETRY),
            "another module is loaded"
        );
        let mut denied = long_ago(DevicesError::NoPermission { call: "nvmlInit" });
        assert!(denied.due(&options, denied.look), "shows in no file");
    }

    #[test]
    fn the_first_attempts_follow_soon_and_within_a_second() {
        let options = SamplerOptions::default();
        let mut failure = WorkerFailure::after(None, DevicesError::VersionMismatch, &options);
        let since = failure.since;
        assert!(!failure.due(&options, failure.attempted));

        for _ in 0..8 {
            failure = WorkerFailure::after(Some(&failure), DevicesError::VersionMismatch, &options);
        }

        assert_eq!((failure.delay, failure.since), (LAST_RETRY, since));
        assert_eq!(failure.look, failure.attempted + LAST_RETRY);

        // However long the attempts took.
        failure.look = since + LAST_RETRY;
        assert!(failure.due(&options, since + LAST_RETRY));
    }
}
