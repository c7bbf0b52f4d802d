//! The loop of the sampling thread.

use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hf_mem_core::device::{Device, Snapshot};

use super::device_status_log::DeviceStatusLog;
use super::retry::{DriverFailure, ReopenBackoff};
use super::shared::{Control, Shared};
use super::{Reading, SamplerOptions};
use crate::devices::error::DevicesError;
use crate::devices::nvml::{EventWatch, NvmlReader, XidEvent, XidMeaning, sleeping_snapshot};
use crate::devices::power;

/// The idle time after which the driver is closed on a host whose GPU can suspend.
///
/// An open driver keeps such a GPU awake.
const IDLE_WHERE_GPUS_SUSPEND: Duration = Duration::from_secs(10);

/// The next step of the thread.
enum Next {
    Read,
    Close,
    Stop,
}

impl Shared {
    /// Marks the library as open before a reading opens it.
    ///
    /// The caller holds the control state, so a release that is requested from now on waits until
    /// the library is closed.
    fn begin_read(&self) -> Next {
        self.set_open(true);
        Next::Read
    }
}

/// The state of the thread itself.
#[derive(Default)]
struct Worker {
    reader: Option<NvmlReader>,
    /// The watch on the reader's library. It is dropped before the reader.
    events: Option<EventWatch>,
    /// Whether a GPU of this host can suspend.
    can_suspend: bool,
    began: Option<Instant>,
    failure: Option<DriverFailure>,
    reopen_backoff: Option<ReopenBackoff>,
    /// The whole GPUs that the previous reader saw last.
    last: Vec<Device>,
    /// Whether the driver was released and the end of the release is not logged yet.
    released: bool,
    status_log: DeviceStatusLog,
}

/// Serves requests until the handle is dropped.
pub(super) fn run(shared: &Arc<Shared>, options: &SamplerOptions) {
    let mut worker = Worker::default();
    loop {
        match worker.next(shared, options) {
            Next::Read => {
                let began = Instant::now();
                worker.began = Some(began);
                let outcome = worker.read(shared, options).map(Arc::new);
                shared.count_errors(&outcome);
                shared.control().busy = None;
                shared.set_open(worker.reader.is_some());

                let reading = Arc::new(Reading { began, outcome });
                shared.readings.send_replace(Some(Arc::clone(&reading)));
                shared
                    .passive_readings
                    .send_replace(Some(Arc::clone(&reading)));

                // The log can be slow, so the waiting clients come first.
                if let Ok(snapshot) = &reading.outcome {
                    worker.status_log.log_changes(snapshot, Instant::now());
                }
                worker.after_reading(shared);
            }
            Next::Close => {
                worker.close(shared);
                shared.set_open(false);
            }
            Next::Stop => {
                worker.close(shared);
                shared.set_open(false);
                return;
            }
        }
    }
}

impl Worker {
    /// Waits for the next step.
    fn next(&mut self, shared: &Shared, options: &SamplerOptions) -> Next {
        let mut control = shared.control();
        loop {
            let now = Instant::now();
            if control.stop {
                return Next::Stop;
            }

            if self.released && control.release_remaining(now).is_none() {
                self.released = false;
                control = log_release_end(shared, control);
                continue;
            }

            if std::mem::take(&mut control.close_requested) {
                self.released = true;
                if self.reader.is_some() {
                    return Next::Close;
                }
            }

            let timeout = if let Some(remaining) = control.release_remaining(now) {
                self.released = true;
                if self.reader.is_some() {
                    return Next::Close;
                }
                Some(remaining)
            } else {
                let is_wanted = control
                    .reading_wanted_at
                    .is_some_and(|wanted| self.began.is_none_or(|began| began < wanted));
                if is_wanted {
                    return shared.begin_read();
                }

                let idle_in = self.idle_in(shared, &control, options, now);
                if idle_in.is_some_and(|remaining| remaining.is_zero()) {
                    if self.reader.is_some() {
                        return Next::Close;
                    }
                    None
                } else {
                    let due_in = self
                        .due_at(options)
                        .map(|due| due.saturating_duration_since(now));
                    if due_in.is_some_and(|remaining| remaining.is_zero()) {
                        return shared.begin_read();
                    }

                    [due_in, idle_in].into_iter().flatten().min()
                }
            };

            // The loop handles spurious and early wake-ups.
            control = wait_for_change(shared, control, timeout);
        }
    }

    /// Returns the time until the sampler is idle. `None` means never.
    fn idle_in(
        &self,
        shared: &Shared,
        control: &Control,
        options: &SamplerOptions,
        now: Instant,
    ) -> Option<Duration> {
        // A subscriber counts as a continuous request.
        if shared.readings.receiver_count() > 0 {
            return None;
        }

        let idle_after = match options.idle_after {
            Some(after) if self.can_suspend => after.min(IDLE_WHERE_GPUS_SUSPEND),
            other => other?,
        };

        Some(idle_after.saturating_sub(now.duration_since(control.last_request_at)))
    }

    /// Returns the time of the next reading that no request asks for.
    fn due_at(&self, options: &SamplerOptions) -> Option<Instant> {
        match (&self.failure, self.began, options.interval) {
            (Some(failure), ..) => Some(failure.next_check),
            (None, Some(began), Some(interval)) => began.checked_add(interval),
            _ => None,
        }
    }

    /// Makes one attempt to read, or returns the last error if it is too early for another attempt.
    fn read(
        &mut self,
        shared: &Arc<Shared>,
        options: &SamplerOptions,
    ) -> Result<Snapshot, DevicesError> {
        if let Some(failure) = &mut self.failure
            && !failure.is_due(options, Instant::now())
        {
            return Err(failure.error.clone());
        }

        let reopen_due = self
            .reopen_backoff
            .as_ref()
            .is_some_and(|backoff| backoff.until <= Instant::now());
        let outdated = self.reader.as_ref().is_some_and(NvmlReader::outdated);
        if outdated {
            shared.xids().deactivate();
        }

        if reopen_due || outdated {
            self.close(shared);
        }

        let was_open = self.reader.is_some();
        let mut outcome = self.attempt(shared, options);
        if outcome.is_err() {
            // The old reader is dropped first: NVML counts its inits, and a second init would not
            // initialize again.
            self.close(shared);
            if was_open {
                outcome = self.attempt(shared, options);
            }
        }

        match &mut outcome {
            Ok(snapshot) => {
                self.failure = None;
                let mut xids = shared.xids();
                xids.deactivate_absent(&snapshot.devices);
                if let Some(reader) = &self.reader {
                    reader.mark(snapshot, &xids);
                }
            }
            Err(error) => {
                self.close(shared);
                self.failure = Some(DriverFailure::after(
                    self.failure.as_ref(),
                    error.clone(),
                    options,
                ));
            }
        }

        self.reopen_backoff = match &self.reader {
            Some(reader) if reader.needs_reopen() => Some(match self.reopen_backoff.take() {
                Some(waiting) if !reopen_due => waiting,
                previous => ReopenBackoff::after(previous.as_ref()),
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
        let reader = match &mut self.reader {
            Some(reader) => reader,
            empty @ None => {
                if let Some(snapshot) = sleeping_snapshot(&options.nvml) {
                    return Ok(snapshot);
                }

                shared.set_busy("opening the driver's library");
                let mut reader = NvmlReader::open(&options.nvml)?;
                reader.inherit(std::mem::take(&mut self.last));
                self.can_suspend = power::any_can_suspend(&options.nvml.roots);

                let events_shared = Arc::clone(shared);
                self.events = EventWatch::start(&reader, move |event| {
                    record_xid(&events_shared, &event);
                })
                .inspect_err(
                    |error| tracing::warn!(%error, "cannot start the thread that listens for XIDs"),
                )
                .ok();
                empty.insert(reader)
            }
        };

        shared.set_busy("reading the devices");
        reader.read()
    }

    /// Does the work for which no client needs to wait.
    fn after_reading(&mut self, shared: &Shared) {
        let Some(reader) = &mut self.reader else {
            return;
        };

        if let Some(events) = &self.events {
            events.follow(reader.seen());
        }

        shared.set_busy("reading the links between devices");
        reader.refresh_links();
        shared.control().busy = None;
    }

    fn close(&mut self, shared: &Shared) {
        let Some(reader) = self.reader.take() else {
            return;
        };

        self.last = reader.last().to_vec();
        shared.set_busy("ending the wait for the driver's events");
        self.events = None;
        shared.set_busy("closing the driver's library");
        drop(reader);
        shared.control().busy = None;
    }
}

fn wait_for_change<'a>(
    shared: &'a Shared,
    control: MutexGuard<'a, Control>,
    timeout: Option<Duration>,
) -> MutexGuard<'a, Control> {
    match timeout {
        Some(timeout) => {
            shared
                .changed
                .wait_timeout(control, timeout)
                .unwrap_or_else(PoisonError::into_inner)
                .0
        }
        None => shared
            .changed
            .wait(control)
            .unwrap_or_else(PoisonError::into_inner),
    }
}

/// Logs the end of a release. It unlocks the control state meanwhile, because the log can be slow.
fn log_release_end<'a>(
    shared: &'a Shared,
    mut control: MutexGuard<'a, Control>,
) -> MutexGuard<'a, Control> {
    let request = std::mem::replace(&mut control.released_by, tracing::Span::none());
    drop(control);
    request.in_scope(|| {
        tracing::info!("the release of the driver has ended: the next request opens it again");
    });
    shared.control()
}

/// Records an XID, and requests a reading if it concerns the GPU.
fn record_xid(shared: &Shared, event: &XidEvent) {
    let count = shared.xids().add(event);
    let meaning = event.meaning();

    // The more often an XID repeats, the fewer of its events are logged.
    if count.is_power_of_two() {
        log_xid(event, meaning, count);
    }

    if meaning != XidMeaning::Application {
        shared.control().reading_wanted_at = Some(Instant::now());
        shared.changed.notify_one();
    }
}

fn log_xid(event: &XidEvent, meaning: XidMeaning, count: u64) {
    let uuid = event.uuid.as_str();
    match meaning {
        XidMeaning::Application => {
            tracing::info!(
                uuid,
                xid = event.xid,
                count,
                "the driver reported an XID of an application"
            );
        }
        XidMeaning::Concern => {
            tracing::warn!(uuid, xid = event.xid, count, "the driver reported an XID");
        }
        XidMeaning::NeedsReset => {
            tracing::error!(
                uuid,
                xid = event.xid,
                count,
                "the driver reported an XID that needs a reset of the GPU"
            );
        }
    }
}
