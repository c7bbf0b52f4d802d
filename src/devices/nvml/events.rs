//! Listening for XIDs on a thread of its own.
//!
//! The wait for events blocks its thread, so it is never done on the one that reads memory. The
//! thread shares the open library; [`EventWatch`] must be dropped before the reader is, and its
//! drop waits until the thread has let go, which takes no longer than one wait.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::event::EventData;
use nvml_wrapper::{EventSet, Nvml};

use super::reader::NvmlReader;
use super::xid::XidEvent;

/// How long one round over a few GPUs blocks. A request to end is heard between two of them.
const ROUND_MS: u32 = 100;
/// The least that one GPU is waited for: with many, a round takes longer rather than waking all the
/// time.
const LEAST_WAIT_MS: u32 = 25;
/// Waits between attempts at registering a GPU that failed.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);

/// The listening thread. Dropping it ends the thread and waits for that.
#[derive(Debug)]
pub struct EventWatch {
    wishes: Arc<Wishes>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Wishes {
    now: Mutex<EventRequest>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct EventRequest {
    gpus: Vec<String>,
    stop: bool,
}

impl Wishes {
    fn now(&self) -> MutexGuard<'_, EventRequest> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EventWatch {
    /// Starts a thread that hands `tell` every XID of the GPUs that [`Self::follow`] names.
    pub fn start(
        reader: &NvmlReader,
        tell: impl FnMut(XidEvent) + Send + 'static,
    ) -> std::io::Result<Self> {
        let wishes = Arc::new(Wishes::default());
        let (own, nvml) = (Arc::clone(&wishes), reader.library());
        let run = move || listen(&nvml, &own, tell);
        let thread = std::thread::Builder::new()
            .name("device-events".to_owned())
            .spawn(run)?;

        Ok(Self {
            wishes,
            thread: Some(thread),
        })
    }

    /// Listens on these whole GPUs from now on, and on no others. Waits for nothing.
    pub fn follow(&self, gpus: &[String]) {
        let mut wish = self.wishes.now();
        if wish.gpus != gpus {
            wish.gpus = gpus.to_vec();
            self.wishes.changed.notify_one();
        }
    }
}

impl Drop for EventWatch {
    fn drop(&mut self) {
        self.wishes.now().stop = true;
        self.wishes.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic over there is no reason for one here.
            let _ = thread.join();
        }
    }
}

/// One GPU's registration. A set per GPU, because the wrapper's registering consumes the set and
/// frees it on any error, and with it all that was registered before.
struct Registration<'nvml> {
    set: Option<EventSet<'nvml>>,
    /// When to try again; `None`: never, the GPU has no events.
    again: Option<Instant>,
    delay: Duration,
}

impl<'nvml> Registration<'nvml> {
    fn due() -> Self {
        Self {
            set: None,
            again: Some(Instant::now()),
            delay: FIRST_RETRY,
        }
    }

    fn try_again(&mut self, nvml: &'nvml Nvml, uuid: &str) {
        if self.set.is_some() || self.again.is_none_or(|at| at > Instant::now()) {
            return;
        }

        let registered = nvml.device_by_uuid(uuid).and_then(|device| {
            let set = nvml.create_event_set()?;
            device
                .register_events(EventTypes::CRITICAL_XID_ERROR, set)
                .map_err(|failed| failed.error)
        });

        match registered {
            Ok(set) => self.set = Some(set),
            Err(error) => self.failed(&error),
        }
    }

    /// "Not supported" means no events, not an unhealthy GPU.
    fn failed(&mut self, error: &NvmlError) {
        self.set = None;
        let never = matches!(
            error,
            NvmlError::NotSupported
                | NvmlError::FunctionNotFound
                | NvmlError::FailedToLoadSymbol(_)
        );

        self.again = (!never).then(|| Instant::now() + self.delay);
        self.delay = self.delay.saturating_mul(2).min(LAST_RETRY);
    }
}

fn listen(nvml: &Nvml, wishes: &Wishes, mut tell: impl FnMut(XidEvent)) {
    if nvml.lib().nvmlEventSetFree.is_err() {
        // Dropping a set would panic inside the wrapper. No library of NVIDIA's lacks it.
        return;
    }

    let mut gpus: BTreeMap<String, Registration<'_>> = BTreeMap::new();
    loop {
        let wanted = {
            let wish = wishes.now();
            if wish.stop {
                return;
            }
            wish.gpus.clone()
        };

        gpus.retain(|uuid, _| wanted.contains(uuid));
        for uuid in wanted {
            gpus.entry(uuid.clone())
                .or_insert_with(Registration::due)
                .try_again(nvml, &uuid);
        }

        let open = gpus.values().filter(|gpu| gpu.set.is_some()).count();
        if open == 0 {
            let next = gpus.values().filter_map(|gpu| gpu.again).min();
            rest(wishes, &gpus, next);
            continue;
        }

        let each = (ROUND_MS / u32::try_from(open).unwrap_or(ROUND_MS)).max(LEAST_WAIT_MS);
        for (uuid, gpu) in &mut gpus {
            let Some(set) = &gpu.set else { continue };
            match set.wait(each) {
                Ok(event) => {
                    gpu.delay = FIRST_RETRY;
                    tell(XidEvent {
                        uuid: uuid.clone(),
                        xid: number(&event),
                        at: SystemTime::now(),
                    });
                }
                Err(NvmlError::Timeout) => {}
                Err(error) => gpu.failed(&error),
            }

            if wishes.now().stop {
                return;
            }
        }
    }
}

/// Without any GPU to listen on: until there is one, it is time to try one again, or the end.
fn rest(wishes: &Wishes, known: &BTreeMap<String, Registration<'_>>, next: Option<Instant>) {
    let wish = wishes.now();
    if wish.stop
        || wish.gpus.len() != known.len()
        || !wish.gpus.iter().all(|uuid| known.contains_key(uuid))
    {
        return;
    }
    // Waking early just goes round again.
    match next.map(|at| at.saturating_duration_since(Instant::now())) {
        Some(left) => drop(
            wishes
                .changed
                .wait_timeout(wish, left)
                .unwrap_or_else(PoisonError::into_inner),
        ),
        None => drop(
            wishes
                .changed
                .wait(wish)
                .unwrap_or_else(PoisonError::into_inner),
        ),
    }
}

fn number(event: &EventData<'_>) -> Option<u64> {
    match event.event_data {
        Some(XidError::Value(number)) => Some(number),
        Some(XidError::Unknown) | None => None,
    }
}
