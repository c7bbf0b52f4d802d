//! The thread that listens for XIDs.
//!
//! The wait for events blocks its thread, so it has a thread apart from the one that reads memory.
//! The thread shares the open library, so you must drop [`EventWatch`] before the reader. The drop
//! waits until the thread has released the library, which takes no longer than one wait.

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

/// The duration of one round of waits over a few GPUs, in milliseconds.
///
/// The thread handles a stop request between two waits.
const ROUND_MS: u32 = 100;
/// The shortest wait for one GPU, in milliseconds.
///
/// With many GPUs a round takes longer, which avoids constant wake-ups.
const MIN_WAIT_MS: u32 = 25;
/// The shortest and the longest delay between attempts to register a GPU.
const MIN_RETRY_DELAY: Duration = Duration::from_secs(1);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(60);

/// The listening thread. Dropping it stops the thread and waits for its end.
#[derive(Debug)]
pub struct EventWatch {
    request: Arc<SharedRequest>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct SharedRequest {
    current: Mutex<EventRequest>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct EventRequest {
    gpus: Vec<String>,
    stop: bool,
}

impl SharedRequest {
    fn lock(&self) -> MutexGuard<'_, EventRequest> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EventWatch {
    /// Starts a thread that calls `on_event` for every XID of the GPUs that [`Self::follow`] names.
    pub fn start(
        reader: &NvmlReader,
        on_event: impl FnMut(XidEvent) + Send + 'static,
    ) -> std::io::Result<Self> {
        let request = Arc::new(SharedRequest::default());
        let (shared_request, nvml) = (Arc::clone(&request), reader.library());
        let thread = std::thread::Builder::new()
            .name("device-events".to_owned())
            .spawn(move || listen(&nvml, &shared_request, on_event))?;

        Ok(Self {
            request,
            thread: Some(thread),
        })
    }

    /// Listens on exactly these whole GPUs from now on. Does not block.
    pub fn follow(&self, gpus: &[String]) {
        let mut request = self.request.lock();
        if request.gpus != gpus {
            request.gpus = gpus.to_vec();
            self.request.changed.notify_one();
        }
    }
}

impl Drop for EventWatch {
    fn drop(&mut self) {
        self.request.lock().stop = true;
        self.request.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic of the listening thread must not cause a panic in this one.
            let _ = thread.join();
        }
    }
}

/// The registration of one GPU.
///
/// Each GPU has its own event set. The wrapper's register call consumes the set and frees it on any
/// error, together with all earlier registrations in it.
struct Registration<'nvml> {
    set: Option<EventSet<'nvml>>,
    /// The time of the next attempt. `None` means never, because the GPU has no events.
    retry_at: Option<Instant>,
    delay: Duration,
}

impl<'nvml> Registration<'nvml> {
    fn new() -> Self {
        Self {
            set: None,
            retry_at: Some(Instant::now()),
            delay: MIN_RETRY_DELAY,
        }
    }

    fn register_if_due(&mut self, nvml: &'nvml Nvml, uuid: &str) {
        if self.set.is_some() || self.retry_at.is_none_or(|at| at > Instant::now()) {
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
            Err(error) => self.record_failure(&error),
        }
    }

    /// Schedules the next attempt.
    ///
    /// "Not supported" means that the GPU has no events, not that it is unhealthy.
    fn record_failure(&mut self, error: &NvmlError) {
        self.set = None;
        let is_unsupported = matches!(
            error,
            NvmlError::NotSupported
                | NvmlError::FunctionNotFound
                | NvmlError::FailedToLoadSymbol(_)
        );

        self.retry_at = (!is_unsupported).then(|| Instant::now() + self.delay);
        self.delay = self.delay.saturating_mul(2).min(MAX_RETRY_DELAY);
    }
}

fn listen(nvml: &Nvml, request: &SharedRequest, mut on_event: impl FnMut(XidEvent)) {
    if nvml.lib().nvmlEventSetFree.is_err() {
        // The drop of a set would panic in the wrapper. Every NVIDIA library has the symbol.
        return;
    }

    let mut gpus: BTreeMap<String, Registration<'_>> = BTreeMap::new();
    loop {
        let wanted = {
            let request = request.lock();
            if request.stop {
                return;
            }
            request.gpus.clone()
        };

        gpus.retain(|uuid, _| wanted.contains(uuid));
        for uuid in wanted {
            gpus.entry(uuid.clone())
                .or_insert_with(Registration::new)
                .register_if_due(nvml, &uuid);
        }

        let open = gpus.values().filter(|gpu| gpu.set.is_some()).count();
        if open == 0 {
            let next_retry = gpus.values().filter_map(|gpu| gpu.retry_at).min();
            wait_for_change(request, &gpus, next_retry);
            continue;
        }

        let wait_ms = (ROUND_MS / u32::try_from(open).unwrap_or(ROUND_MS)).max(MIN_WAIT_MS);
        for (uuid, gpu) in &mut gpus {
            let Some(set) = &gpu.set else { continue };
            match set.wait(wait_ms) {
                Ok(event) => {
                    gpu.delay = MIN_RETRY_DELAY;
                    on_event(XidEvent {
                        uuid: uuid.clone(),
                        xid: xid_number(&event),
                        at: SystemTime::now(),
                    });
                }
                Err(NvmlError::Timeout) => {}
                Err(error) => gpu.record_failure(&error),
            }

            if request.lock().stop {
                return;
            }
        }
    }
}

/// Waits until the request changes or the next attempt is due. Called when no GPU is registered.
fn wait_for_change(
    shared: &SharedRequest,
    known: &BTreeMap<String, Registration<'_>>,
    next_retry: Option<Instant>,
) {
    let request = shared.lock();
    if request.stop
        || request.gpus.len() != known.len()
        || !request.gpus.iter().all(|uuid| known.contains_key(uuid))
    {
        return;
    }
    // After an early wake-up the caller's loop calls this again.
    match next_retry.map(|at| at.saturating_duration_since(Instant::now())) {
        Some(left) => drop(
            shared
                .changed
                .wait_timeout(request, left)
                .unwrap_or_else(PoisonError::into_inner),
        ),
        None => drop(
            shared
                .changed
                .wait(request)
                .unwrap_or_else(PoisonError::into_inner),
        ),
    }
}

fn xid_number(event: &EventData<'_>) -> Option<u64> {
    match event.event_data {
        Some(XidError::Value(number)) => Some(number),
        Some(XidError::Unknown) | None => None,
    }
}
