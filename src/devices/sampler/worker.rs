//! The sampling thread: what to do next, and doing it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{Reading, SamplerOptions, Shared, released};
use crate::devices::error::DevicesError;
use crate::devices::nvml::{NvmlReader, all_asleep};
use crate::devices::{Device, Snapshot, Unusable};

/// Waits between attempts at a driver that fails as a whole. The longest is well below two seconds, so that the end of
/// a fault is seen that soon; an attempt is one failing `nvmlInit`, and made only while somebody asks.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(1);
/// Waits between fresh openings for the sake of a GPU that is lost: those disturb the healthy ones.
const FIRST_REOPENING: Duration = Duration::from_secs(2);
const LAST_REOPENING: Duration = Duration::from_secs(60);

/// What the thread is to do next.
enum Next {
    Read,
    LetGo,
    End,
}

/// A wait that doubles up to a limit.
struct BackOff {
    delay: Duration,
    until: Instant,
}

impl BackOff {
    fn after(previous: Option<&Self>, first: Duration, last: Duration) -> Self {
        let delay = previous.map_or(first, |previous| previous.delay.saturating_mul(2).min(last));
        Self { delay, until: Instant::now() + delay }
    }
}

/// The thread's own state.
#[derive(Default)]
struct Worker {
    reader: Option<NvmlReader>,
    began: Option<Instant>,
    failed: Option<(BackOff, DevicesError)>,
    sick: Option<BackOff>,
    /// What the reader before the next one saw last.
    last: Vec<Device>,
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
                shared.orders().busy = None;
                shared.readings.send_replace(Some(Arc::new(Reading { began, outcome })));
            }
            Next::LetGo => worker.let_go(shared),
            Next::End => {
                worker.let_go(shared);
                return;
            }
        }
    }
}

impl Worker {
    /// Waits until there is something to do.
    fn next(&self, shared: &Shared, options: &SamplerOptions) -> Next {
        let mut orders = shared.orders();
        loop {
            let now = Instant::now();
            if orders.stop {
                return Next::End;
            }
            let wait = if let Some(remaining) = released(&orders, now) {
                if self.reader.is_some() {
                    return Next::LetGo;
                }
                Some(remaining)
            } else {
                let unserved = orders.wanted.is_some_and(|wanted| self.began.is_none_or(|began| began < wanted));
                if unserved {
                    return Next::Read;
                }
                let idle_in = match options.idle_after {
                    // A watcher is a standing question.
                    _ if shared.readings.receiver_count() > 0 => None,
                    Some(idle_after) => Some(idle_after.saturating_sub(now.duration_since(orders.asked))),
                    None => None,
                };
                if idle_in.is_some_and(|left| left.is_zero()) {
                    if self.reader.is_some() {
                        return Next::LetGo;
                    }
                    None
                } else {
                    let due = match (&self.failed, self.began, options.interval) {
                        (Some((back_off, _)), ..) => Some(back_off.until),
                        (None, Some(began), Some(interval)) => began.checked_add(interval),
                        _ => None,
                    };
                    let due_in = due.map(|due| due.saturating_duration_since(now));
                    if due_in.is_some_and(|left| left.is_zero()) {
                        return Next::Read;
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
                None => shared.changed.wait(orders).unwrap_or_else(std::sync::PoisonError::into_inner),
            };
        }
    }

    /// One attempt, or the last one's error where it is too early for another.
    fn read(&mut self, shared: &Shared, options: &SamplerOptions) -> Result<Snapshot, DevicesError> {
        if let Some((back_off, error)) = &self.failed
            && back_off.until > Instant::now()
        {
            return Err(error.clone());
        }
        let sick_long = self.sick.as_ref().is_some_and(|back_off| back_off.until <= Instant::now());
        if sick_long || self.reader.as_ref().is_some_and(NvmlReader::outdated) {
            self.let_go(shared);
        }
        let had_one = self.reader.is_some();
        let mut outcome = self.attempt(shared, options);
        shared.errors.fetch_add(errors(&outcome), Ordering::Relaxed);
        if outcome.is_err() {
            // The old one goes first: NVML counts its inits, and the next would initialise nothing.
            self.let_go(shared);
            if had_one {
                outcome = self.attempt(shared, options);
            }
        }
        match &outcome {
            Ok(_) => self.failed = None,
            Err(error) => {
                self.let_go(shared);
                let previous = self.failed.as_ref().map(|(back_off, _)| back_off);
                self.failed = Some((BackOff::after(previous, FIRST_RETRY, LAST_RETRY), error.clone()));
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

    fn attempt(&mut self, shared: &Shared, options: &SamplerOptions) -> Result<Snapshot, DevicesError> {
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
                shared.open.send_replace(true);
                empty.insert(reader)
            }
        };
        busy("reading the devices");
        reader.read()
    }

    fn let_go(&mut self, shared: &Shared) {
        if let Some(reader) = self.reader.take() {
            self.last = reader.last().to_vec();
            shared.orders().busy = Some(("closing the driver's library", Instant::now()));
            drop(reader);
            shared.orders().busy = None;
            shared.open.send_replace(false);
        }
    }
}

/// What the driver failed at in one attempt: the whole, or single devices.
fn errors(outcome: &Result<Snapshot, DevicesError>) -> u64 {
    outcome.as_ref().map_or(1, |snapshot| {
        let failed = |device: &&Device| device.unusable.as_ref().is_some_and(Unusable::is_fault);
        snapshot.devices.iter().filter(failed).count() as u64
    })
}
