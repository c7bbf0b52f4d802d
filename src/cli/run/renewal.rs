//! The lease of the command's process: told of while it waits in line, renewed while it is held.

use std::time::Duration;

use hf_mem_core::report::Problem;
use hf_mem_core::report::problem::Reason;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::api::client::Client;
use crate::api::lease::RenewRequest;
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
    /// Says the lease's id, once it is held.
    told: mpsc::Receiver<String>,
    stage: RenewalStage,
    /// The place in line that was last told.
    place: Option<(u64, usize)>,
    /// The trouble that was last told.
    trouble: Option<Reason>,
}

/// What there is to do.
#[derive(Debug, PartialEq, Eq)]
enum RenewalStage {
    /// Nothing, until the id comes.
    Asked,
    /// The place in line is looked up meanwhile.
    InLine,
    /// The lease of this id is renewed.
    Held(String),
    /// Nothing any more.
    Over,
}

impl Renewal {
    /// For the process `pid`, whose lease's id `told` will say.
    pub(super) fn new(
        arguments: &RunArguments,
        pid: Option<u32>,
        told: mpsc::Receiver<String>,
    ) -> Self {
        let every = (arguments.ttl / 2).max(Duration::from_millis(500));
        let client = Client::new(&arguments.connection.socket).deadline(DEADLINE);

        let stage = match (arguments.no_lease, arguments.wait.is_zero()) {
            (true, _) => RenewalStage::Over,
            (false, true) => RenewalStage::Asked,
            (false, false) => RenewalStage::InLine,
        };

        Self {
            client,
            pid,
            every,
            next: Instant::now() + LOOK,
            told,
            stage,
            place: None,
            trouble: None,
        }
    }

    /// Goes on for as long as there is something to renew. May be dropped and begun again at any
    /// time.
    pub(super) async fn run(&mut self) {
        loop {
            tokio::select! {
                Some(id) = self.told.recv() => {
                    self.stage = RenewalStage::Held(id);
                    self.next = Instant::now() + self.every;
                }
                () = due(&self.stage, self.next) => {
                    // From now on, also where this is dropped in the middle.
                    self.next = Instant::now() + LOOK.min(self.every);
                    self.step().await;
                }
            }
        }
    }

    async fn step(&mut self) {
        match &self.stage {
            // No more than a service: who cannot be told of the line now is told later.
            RenewalStage::InLine => drop(self.look().await),
            RenewalStage::Held(id) => {
                let id = id.clone();
                self.renew(&id).await;
            }
            RenewalStage::Asked | RenewalStage::Over => {}
        }
    }

    async fn renew(&mut self, id: &str) {
        let renewed = self
            .client
            .renew_lease(id, RenewRequest::default())
            .await
            .map_err(Problem::from);
        let Err(problem) = renewed else {
            self.trouble = None;
            self.next = Instant::now() + self.every;
            return;
        };

        // After a failure sooner: the daemon may be restarting.
        self.next = Instant::now() + self.every / 4;
        if self.is_lost(id, &problem).await {
            self.stage = RenewalStage::Over;
            output::remark(&format!(
                "the lease is lost: {problem}; the command goes on without one, and others may be promised its memory"
            ));
        } else if self.trouble.replace(problem.reason) != Some(problem.reason) {
            // Each kind of trouble is told once.
            output::remark(&format!(
                "the lease could not be renewed: {problem}; the command goes on, and so do renewals"
            ));
        }
    }

    /// Whether the lease that could not be renewed has ended.
    async fn is_lost(&self, id: &str, problem: &Problem) -> bool {
        match problem.reason {
            Reason::NotFound => true,
            Reason::Usage => self
                .client
                .lease(id)
                .await
                .is_ok_and(|lease| lease.reason.is_some()),
            _ => false,
        }
    }

    /// Tells the place in line. The line is by pid as the daemon numbers processes: in a
    /// container's own numbers nothing is found, and nothing told.
    async fn look(&mut self) -> Result<(), Problem> {
        let held = self.client.leases().await?;
        let waits = held
            .waiting
            .iter()
            .find(|waiting| waiting.pid.is_some() && waiting.pid == self.pid);
        let place = waits.map(|waiting| (waiting.position, held.waiting.len()));
        if let Some((position, all)) = place
            && self.place != place
        {
            output::remark(&format!(
                "waiting for memory: place {position} of {all} in line"
            ));
        }

        self.place = place.or(self.place);
        Ok(())
    }
}

/// When the next step is due: never where there is none.
async fn due(stage: &RenewalStage, next: Instant) {
    match stage {
        RenewalStage::InLine | RenewalStage::Held(_) => tokio::time::sleep_until(next).await,
        RenewalStage::Asked | RenewalStage::Over => std::future::pending().await,
    }
}
