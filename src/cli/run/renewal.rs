//! The lease of the command's process: told of while it waits in line, renewed while it is held.

use std::time::Duration;

use tokio::time::Instant;

use crate::api::Problem;
use crate::api::client::Client;
use crate::api::lease::{Holder, RenewRequest};
use crate::api::problem::Reason;
use crate::cli::arguments::RunArguments;
use crate::cli::output;

/// How long a renewal may take; the next try is not far.
const DEADLINE: Duration = Duration::from_secs(5);
/// How often the place in line is looked up.
const LOOK: Duration = Duration::from_secs(1);

/// Renews the lease that the command's process holds, twice in its time to live.
pub(super) struct Renewal {
    client: Client,
    pid: Option<u32>,
    every: Duration,
    next: Instant,
    lease: Option<String>,
    /// The place in line that was last told.
    place: Option<(u64, usize)>,
    /// The trouble that was last told.
    trouble: Option<Reason>,
}

impl Renewal {
    pub(super) fn new(arguments: &RunArguments, pid: Option<u32>) -> Self {
        let every = (arguments.ttl / 2).max(Duration::from_millis(500));
        let client = Client::new(&arguments.connection.socket).deadline(DEADLINE);
        let pid = pid.filter(|_| !arguments.no_lease);
        let first = if arguments.wait.is_zero() { every } else { LOOK.min(every) };
        let next = Instant::now() + first;
        Self { client, pid, every, next, lease: None, place: None, trouble: None }
    }

    /// Goes on for as long as there is something to renew. May be dropped and begun again at any time.
    pub(super) async fn run(&mut self) {
        loop {
            match self.pid {
                Some(_) => tokio::time::sleep_until(self.next).await,
                None => std::future::pending().await,
            }
            let done = self.step().await;
            // After a failure sooner: the daemon may be restarting.
            let wait = match done {
                Ok(()) if self.lease.is_none() => LOOK.min(self.every),
                Ok(()) => self.every,
                Err(_) => self.every / 4,
            };
            self.next = Instant::now() + wait;
            match done {
                Ok(()) => self.trouble = None,
                Err(problem) => self.say(&problem),
            }
        }
    }

    /// Each kind of trouble is told once.
    fn say(&mut self, problem: &Problem) {
        if self.lease.is_some() && self.trouble.replace(problem.reason) != Some(problem.reason) {
            output::remark(&format!("the lease could not be renewed: {problem}; the command goes on"));
        }
    }

    async fn step(&mut self) -> Result<(), Problem> {
        if self.lease.is_none() {
            self.look().await?;
        }
        let Some(id) = &self.lease else { return Ok(()) };
        self.client.renew_lease(id, RenewRequest::default()).await?;
        Ok(())
    }

    /// Finds the lease, or the place in line.
    async fn look(&mut self) -> Result<(), Problem> {
        let held = self.client.leases().await?;
        let of_command = |holder: &Holder| matches!(holder, Holder::Pid(pid) if Some(*pid) == self.pid);
        self.lease = held.leases.iter().find(|lease| of_command(&lease.holder)).map(|lease| lease.id.clone());
        let all = held.waiting.len();
        let waits = held.waiting.iter().find(|waiting| waiting.pid.is_some() && waiting.pid == self.pid);
        let place = waits.map(|waiting| (waiting.position, all)).filter(|_| self.lease.is_none());
        if let Some((position, all)) = place
            && self.place != place
        {
            output::remark(&format!("waiting for memory: place {position} of {all} in line"));
        }
        self.place = place.or(self.place);
        Ok(())
    }
}
