//! The lease broker: the one thread that owns the ledger. It handles commands one by one, so that
//! it decides and records a lease in one step.
//!
//! [`LeaseBroker::start`] returns a handle that you can clone. The broker decides a grant on a
//! reading that began after the command arrived. Commands that arrive during a reading share the
//! next one. The command carries its plan: a closure that the broker runs against that reading and
//! the claims at that time.
//!
//! The broker has its own thread, because writing the ledger waits for the disk and a plan
//! computes, and neither may block the sockets. It reads devices through [`Devices`] and never
//! calls the driver itself.

mod actor;
mod commands;
mod decide;
mod devices;
mod event_log;
mod grant_command;
mod handle;
mod open;
mod problem;
mod process_watcher;
mod reply;
mod resolve_holder;
mod stuck_detector;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, watch};

pub use self::devices::{Devices, Sampling};
pub use self::event_log::{JournalConfig, RequestId};
pub use self::grant_command::{GrantCommand, Plan};
pub use self::handle::{BrokerHandle, BrokerStatus};
pub use self::open::{open, open_in_time};

use self::actor::{BrokerActor, BrokerChannels};
use self::stuck_detector::StuckDetector;
use crate::leases::clock::Timestamp;
use crate::leases::durable_ledger::DurableLedger;
use crate::leases::store::LedgerStorage;

/// Storage for the ledger, of any kind.
pub type AnyStorage = Box<dyn LedgerStorage + Send>;

/// The broker's settings; those of the ledger are in [`crate::leases::ledger::LedgerConfig`].
#[derive(Clone, Debug)]
pub struct BrokerConfig {
    /// The time to live of a lease if the client names none.
    pub default_ttl: Duration,
    /// The most grants that wait at once.
    pub max_waiting: usize,
    /// The most grants of one user that wait at once.
    pub max_waiting_per_user: usize,
    /// The longest wait.
    pub max_wait: Duration,
    /// How long a reading may take.
    pub reading_deadline: Duration,
    /// How often devices are read while a grant waits or a lease has not settled.
    pub read_interval: Duration,
    /// How often devices are read while all leases have settled. Without leases and waiting grants
    /// the broker does not read them.
    pub settled_read_interval: Duration,
    /// How long the broker decides grants on one reading, or applies changes, before it handles
    /// other commands. It never interrupts a plan.
    pub max_round: Duration,
    /// How long one step may take before the broker counts as stuck: a step writes to the disk, and
    /// a disk may hang.
    pub stuck_after: Duration,
    /// The root of the process file system.
    pub proc_root: PathBuf,
    /// The journal; `None`: the daemon keeps none.
    pub journal: Option<JournalConfig>,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            default_ttl: Duration::from_secs(120),
            max_waiting: 32,
            max_waiting_per_user: 16,
            max_wait: Duration::from_secs(3600),
            reading_deadline: Duration::from_secs(5),
            read_interval: Duration::from_secs(1),
            settled_read_interval: Duration::from_secs(5),
            max_round: Duration::from_millis(100),
            // A plan over the maximum number of devices takes seconds.
            stuck_after: Duration::from_secs(10),
            proc_root: PathBuf::from("/proc"),
            journal: None,
        }
    }
}

/// The capacity of the command channel.
const COMMAND_CAPACITY: usize = 256;
/// How many events a slow subscriber may be behind before it loses some.
const EVENT_CAPACITY: usize = 1024;

/// Starts the broker: the thread that alone owns the ledger. [`BrokerHandle`] is the way to it.
#[derive(Debug)]
pub struct LeaseBroker;

impl LeaseBroker {
    /// Starts the broker's thread. It ends with [`BrokerHandle::stop`], or when the last handle is
    /// dropped.
    pub fn start(
        config: BrokerConfig,
        ledger: DurableLedger<AnyStorage>,
        devices: Arc<dyn Devices>,
    ) -> std::io::Result<(BrokerHandle, JoinHandle<()>)> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (command_sender, commands) = mpsc::channel(COMMAND_CAPACITY);
        let (notice_sender, notices) = mpsc::unbounded_channel();
        let (events, _) = broadcast::channel(EVENT_CAPACITY);

        // Restored leases count before the broker's first step.
        let (status, status_receiver) = watch::channel(BrokerStatus {
            leases: ledger.ledger().live().count(),
            unreadable: ledger.unreadable(Timestamp::now()).cloned(),
            ..BrokerStatus::default()
        });

        let stuck_detector = StuckDetector::default();
        let handle = BrokerHandle {
            commands: command_sender,
            notices: notice_sender.downgrade(),
            events: events.downgrade(),
            status: status_receiver,
            stuck_detector: stuck_detector.clone(),
            stuck_after: config.stuck_after,
        };

        let run_broker = move || {
            let channels = BrokerChannels {
                notices: notice_sender,
                events,
                status,
            };

            runtime.block_on(async move {
                let actor = BrokerActor::new(config, ledger, devices, channels);
                actor.run(commands, notices, stuck_detector).await;
            });
        };

        let thread = std::thread::Builder::new()
            .name("leases".to_owned())
            .spawn(run_broker)?;

        Ok((handle, thread))
    }
}
