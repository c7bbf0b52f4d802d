//! The ledger's one owner: a thread that takes errands one by one, so that deciding and recording
//! are one step.
//!
//! [`LeaseBroker::start`] gives a handle that may be cloned. A grant is decided on a reading that
//! began after it was asked for; all that is asked while a reading is under way shares the next
//! one. The plan itself is the asker's: a closure that the owner runs against that reading and the
//! claims of that moment.
//!
//! The owner has a thread of its own, because writing the ledger down waits for the disk and a plan
//! computes: neither may hold up the sockets. It waits for devices through [`Devices`] and never
//! calls the driver itself.

mod actor;
mod attributed_event;
mod commands;
mod decide;
mod devices;
mod event_log;
mod event_rate_limiter;
mod grant_command;
mod handle;
mod log_line;
mod open;
mod pending_reply;
mod problem;
mod process_watcher;
mod resolve_holder;
mod stuck_detector;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, watch};

pub use self::attributed_event::RequestId;
pub use self::devices::{Devices, Sampling};
pub use self::event_log::JournalSettings;
pub use self::grant_command::{GrantCommand, Plan};
pub use self::handle::{BrokerHandle, BrokerStatus};
pub use self::open::{open, open_in_time};

use crate::leases::clock::Now;
use crate::leases::durable_ledger::DurableLedger;
use crate::leases::store::LedgerStorage;

/// Where a ledger is kept, whatever it is.
pub type AnyStorage = Box<dyn LedgerStorage + Send>;

/// The office's own rules; those of the ledger are in [`crate::leases::ledger::LedgerConfig`].
#[derive(Clone, Debug)]
pub struct BrokerConfig {
    /// Time to live of a lease that names none.
    pub default_ttl: Duration,
    /// The most that may wait at once.
    pub most_waiting: usize,
    /// The most of one user that may wait at once.
    pub most_waiting_for_one_user: usize,
    /// The longest wait.
    pub longest_wait: Duration,
    /// How long a reading may take.
    pub reading_deadline: Duration,
    /// How often devices are read while somebody waits or a lease has not settled.
    pub read_every: Duration,
    /// How often they are read while all leases have settled. Without leases and waiters they are
    /// not read at all.
    pub read_settled_every: Duration,
    /// How long the owner plans and promises on one reading before it hears others; one asker's
    /// plan is never cut.
    pub longest_round: Duration,
    /// How long one step of the owner may take before it counts as stuck: writing waits for the
    /// disk, and a disk may hang.
    pub stuck_after: Duration,
    /// Where processes are looked up.
    pub proc_root: PathBuf,
    /// The journal; `None`: there is none.
    pub journal: Option<JournalSettings>,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            default_ttl: Duration::from_secs(120),
            most_waiting: 32,
            most_waiting_for_one_user: 16,
            longest_wait: Duration::from_secs(3600),
            reading_deadline: Duration::from_secs(5),
            read_every: Duration::from_secs(1),
            read_settled_every: Duration::from_secs(5),
            longest_round: Duration::from_millis(100),
            // A plan over the most devices takes seconds.
            stuck_after: Duration::from_secs(10),
            proc_root: PathBuf::from("/proc"),
            journal: None,
        }
    }
}

/// Errands that may be under way to the owner.
const ERRANDS: usize = 256;
/// Events that a slow listener may be behind before it loses some.
const EVENTS: usize = 1024;

/// The owner of the ledger, to be started.
#[derive(Debug)]
pub struct LeaseBroker;

impl LeaseBroker {
    /// Starts the owner's thread. It ends by [`BrokerHandle::stop`], or when the last handle is
    /// gone.
    pub fn start(
        settings: BrokerConfig,
        keeper: DurableLedger<AnyStorage>,
        devices: Arc<dyn Devices>,
    ) -> std::io::Result<(BrokerHandle, JoinHandle<()>)> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (errands, errands_in) = mpsc::channel(ERRANDS);
        let (notes, notes_in) = mpsc::unbounded_channel();
        let (events, _) = broadcast::channel(EVENTS);

        // What was taken up counts before the owner's first step.
        let (leases, blind) = (
            keeper.ledger().live().count(),
            keeper.blind(Now::read()).cloned(),
        );
        let (standing, standing_out) = watch::channel(BrokerStatus {
            leases,
            blind,
            ..BrokerStatus::default()
        });

        let step = stuck_detector::StuckDetector::default();
        let handle = BrokerHandle::new(
            errands,
            notes.downgrade(),
            events.downgrade(),
            standing_out,
            (step.clone(), settings.stuck_after),
        );

        let owner = move || {
            runtime.block_on(async move {
                let desk = actor::BrokerActor::new(
                    settings,
                    keeper,
                    devices,
                    (notes, events, standing),
                    step,
                );
                desk.run(errands_in, notes_in).await;
            });
        };

        let thread = std::thread::Builder::new()
            .name("leases".to_owned())
            .spawn(owner)?;

        Ok((handle, thread))
    }
}
