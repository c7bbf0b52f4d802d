//! The owner at work: one errand, one death, one reading at a time.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::Instant;

use super::ask::GrantAsk;
use super::claim::Delivery;
use super::deaths::Deaths;
use super::errand::{Errand, Note};
use super::handle::Standing;
use super::log::Log;
use super::{AnyStorage, Devices, OfficeSettings, decide, holder};
use crate::api::Problem;
use crate::api::answer::{Answer, Verdict};
use crate::api::problem::Reason;
use crate::bytes::Bytes;
use crate::devices::Snapshot;
use crate::devices::error::DevicesError;
use crate::leases::attribution::Reading;
use crate::leases::event::Event;
use crate::leases::holder::{Ancestry, HolderError, ProcessIdentity, is_alive, watch_again};
use crate::leases::keeper::{KeepError, Keeper};
use crate::leases::lease::{Holder, Lease, QuestionSummary};
use crate::leases::ledger::{ChangeError, GrantError, GrantRequest, Granted, Release};
use crate::leases::moment::{Boottime, Now};
use crate::leases::queue::{Queue, Ticket};
use crate::leases::wire;

/// The longest sleep: the clock since boot goes on while the host sleeps, the runtime's does not.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// How soon what could not be written is tried again.
const WRITE_AGAIN: Duration = Duration::from_secs(5);

/// A reading under way: when it began, and what came of it.
type UnderWay = Pin<Box<dyn Future<Output = (Boottime, Result<Arc<Snapshot>, DevicesError>)>>>;

/// One asker.
struct Case {
    ask: GrantAsk,
    holder: Holder,
    reply: oneshot::Sender<Delivery>,
    /// What it would be told if its wait ended now.
    answer: Option<Answer>,
}

impl Case {
    fn tell(self, answer: Result<Answer, Problem>) {
        // One that hung up needs no answer.
        let _hung_up = self.reply.send(Delivery::plain(answer));
    }
}

/// What to do with a case.
enum Decision {
    /// It is answered.
    Answer(Box<Result<Answer, Problem>>),
    /// It is answered by a new lease.
    Lease(Box<Answer>, Box<Lease>),
    /// Not now.
    NotNow(Box<Answer>),
}

/// The owner.
pub(super) struct Desk {
    settings: OfficeSettings,
    keeper: Keeper<AnyStorage>,
    devices: Arc<dyn Devices>,
    queue: Queue,
    deaths: Deaths,
    log: Log,
    notes: mpsc::UnboundedSender<Note>,
    standing: watch::Sender<Standing>,
    /// Askers that no reading has been taken for yet, in order.
    new: Vec<Case>,
    /// Askers for whom the reading under way was begun.
    at_reading: Vec<Case>,
    /// Askers in line.
    in_line: HashMap<Ticket, Case>,
    /// Answers on their way: sent once the standing shows what they say.
    outbox: Vec<(oneshot::Sender<Delivery>, Delivery)>,
    /// Answers of leases with a key, to be given again.
    given: HashMap<String, Answer>,
    leased: BTreeMap<String, Bytes>,
    waits_ended: u64,
    /// The last moment that the next reading must be later than.
    before_next: Boottime,
    read_at: Instant,
}

impl Desk {
    pub(super) fn new(
        settings: OfficeSettings,
        keeper: Keeper<AnyStorage>,
        devices: Arc<dyn Devices>,
        notes: mpsc::UnboundedSender<Note>,
        events: broadcast::Sender<Event>,
        standing: watch::Sender<Standing>,
    ) -> Self {
        let queue = Queue::new(settings.most_waiting, settings.most_waiting_for_one_user);
        let log = Log::new(settings.journal.as_ref(), events);
        Self {
            settings,
            keeper,
            devices,
            queue,
            deaths: Deaths::new(),
            log,
            notes,
            standing,
            new: Vec::new(),
            at_reading: Vec::new(),
            in_line: HashMap::new(),
            outbox: Vec::new(),
            given: HashMap::new(),
            leased: BTreeMap::new(),
            waits_ended: 0,
            before_next: Boottime::BOOT,
            read_at: Instant::now(),
        }
    }

    /// Works until told to stop, or until nobody can ask any more.
    pub(super) async fn run(mut self, mut errands: mpsc::Receiver<Errand>, mut notes: mpsc::UnboundedReceiver<Note>) {
        self.watch_restored();
        self.pass_on();
        let mut reading: Option<UnderWay> = None;
        let stopped = loop {
            if reading.is_none() && self.wants_reading() {
                reading = Some(self.begin_reading());
            }
            let wake = self.wake(reading.is_some());
            tokio::select! {
                biased;
                Some(note) = notes.recv() => self.note(note),
                Some(died) = self.deaths.next() => self.died(died),
                (taken_at, outcome) = under_way(&mut reading) => {
                    reading = None;
                    self.end_reading(taken_at, outcome);
                }
                errand = errands.recv() => match errand {
                    None => break None,
                    Some(Errand::Stop(reply)) => break Some(reply),
                    Some(errand) => {
                        self.errand(errand);
                        // All that has arrived shares one reading.
                        let mut stop = None;
                        while let Ok(next) = errands.try_recv() {
                            match next {
                                Errand::Stop(reply) => { stop = Some(reply); break; }
                                next => self.errand(next),
                            }
                        }
                        if stop.is_some() { break stop; }
                    }
                },
                () = tokio::time::sleep_until(wake) => self.on_time(),
            }
            self.pass_on();
        };
        while let Ok(note) = notes.try_recv() {
            self.note(note);
        }
        self.stop();
        if let Some(reply) = stopped {
            let _nobody_waits = reply.send(());
        }
    }

    /// Holders of leases that were taken up are watched again; those who died in between hold nothing.
    fn watch_restored(&mut self) {
        let holders: BTreeSet<_> = self.keeper.ledger().live().filter_map(|lease| lease.holder.process).collect();
        for process in holders {
            let watched = watch_again(&self.settings.proc_root, process);
            if !watched.is_ok_and(|watched| self.deaths.watch(watched).is_ok()) {
                self.keeper.holder_died(&process, Now::read());
            }
        }
    }

    fn stop(&mut self) {
        let cases =
            self.new.drain(..).chain(self.at_reading.drain(..)).chain(self.in_line.drain().map(|(_, case)| case));
        for case in cases {
            case.tell(Err(Problem::new(Reason::Busy, "the daemon is stopping").hint("ask again after its restart")));
        }
        self.keeper.flush(Now::read());
        self.pass_on();
    }

    // ---- readings -------------------------------------------------------------------------------------------------

    fn wants_reading(&self) -> bool {
        // What the last lease claimed is shown until a reading shows that it is gone.
        let somebody = self.watches();
        !self.new.is_empty() || (somebody && Instant::now() >= self.read_at)
    }

    /// Whether anything hangs on what devices hold.
    fn watches(&self) -> bool {
        !self.in_line.is_empty()
            || self.keeper.ledger().live().next().is_some()
            || self.leased.values().any(|bytes| *bytes > Bytes::ZERO)
    }

    fn begin_reading(&mut self) -> UnderWay {
        self.at_reading.append(&mut self.new);
        let (devices, deadline) = (Arc::clone(&self.devices), self.settings.reading_deadline);
        let before = self.before_next;
        Box::pin(async move {
            // The clock counts milliseconds, and only a later one shows what came before.
            while Now::read().boottime <= before {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let taken_at = Now::read().boottime;
            (taken_at, devices.sample(deadline).await)
        })
    }

    fn end_reading(&mut self, taken_at: Boottime, outcome: Result<Arc<Snapshot>, DevicesError>) {
        let cases = std::mem::take(&mut self.at_reading);
        let outcome = outcome.map_err(Problem::from).and_then(|snapshot| {
            // A stale one is an older reading, whatever time it is now.
            let late = || Problem::new(Reason::NvmlOverdue, "the driver does not answer in time");
            if snapshot.stale { Err(late().hint("see hf-mem-probe health")) } else { Ok(snapshot) }
        });
        match outcome {
            Ok(snapshot) => self.on_reading(&snapshot, taken_at, cases),
            Err(problem) => {
                for case in cases {
                    case.tell(Err(problem.clone()));
                }
            }
        }
        let all_settled = self.keeper.ledger().live().all(|lease| lease.state == crate::leases::lease::State::Settled);
        let every = if all_settled && self.in_line.is_empty() {
            self.settings.read_settled_every
        } else {
            self.settings.read_every
        };
        self.read_at = Instant::now() + every;
    }

    fn on_reading(&mut self, snapshot: &Arc<Snapshot>, taken_at: Boottime, cases: Vec<Case>) {
        let now = Now::read();
        let asking = cases.iter().chain(self.in_line.values()).filter_map(|case| case.holder.process);
        let ancestry = self.ancestry(snapshot, asking);
        let reading = Reading { snapshot, taken_at, ancestry: &ancestry };
        self.take_in(&reading, now);
        self.log.observe(snapshot, now.wall);
        self.serve_line(&reading);
        for case in cases {
            self.serve_new(case, &reading);
        }
        self.leased = decide::claims(self.keeper.ledger(), &reading);
    }

    fn take_in(&mut self, reading: &Reading<'_>, now: Now) {
        self.keeper.settle(reading, now);
        self.before_next = self.before_next.max(reading.taken_at);
    }

    fn ancestry(&self, snapshot: &Snapshot, asking: impl Iterator<Item = ProcessIdentity>) -> Ancestry {
        let seen = snapshot.devices.iter().flat_map(|device| &device.processes).map(|process| process.pid);
        let holders = self.keeper.ledger().live().filter_map(|lease| lease.holder.process);
        let pids: BTreeSet<u32> = seen.chain(holders.chain(asking).map(|process| process.pid)).collect();
        Ancestry::read(&self.settings.proc_root, pids)
    }

    // ---- cases ----------------------------------------------------------------------------------------------------

    fn serve_line(&mut self, reading: &Reading<'_>) {
        let tickets: Vec<Ticket> = self.queue.waiters().map(|waiter| waiter.ticket).collect();
        for ticket in tickets {
            let Some(mut case) = self.in_line.remove(&ticket) else { continue };
            if case.reply.is_closed() {
                self.queue.cancel(ticket);
                continue;
            }
            match self.decide(&case, Some(ticket), reading) {
                Decision::NotNow(answer) => {
                    case.answer = Some(*answer);
                    self.in_line.insert(ticket, case);
                }
                decision => {
                    self.queue.served(ticket);
                    self.reply(case, decision);
                }
            }
        }
    }

    fn serve_new(&mut self, mut case: Case, reading: &Reading<'_>) {
        if case.reply.is_closed() {
            return;
        }
        let decision = self.decide(&case, None, reading);
        let Decision::NotNow(answer) = decision else { return self.reply(case, decision) };
        let waits = case.ask.wait > Duration::ZERO
            && answer.verdict == Some(Verdict::DoesNotFit)
            && decide::could_ever(&case.ask.plan, reading.snapshot);
        if !waits {
            return case.tell(Ok(*answer));
        }
        let now = Now::read().boottime;
        let deadline = now.after(case.ask.wait.min(self.settings.longest_wait));
        match self.queue.join(case.ask.peer.uid, case.ask.candidates.clone(), deadline, now) {
            Ok(ticket) => {
                case.answer = Some(*answer);
                self.in_line.insert(ticket, case);
            }
            Err(full) => case.tell(Err(full.into())),
        }
    }

    fn reply(&mut self, case: Case, decision: Decision) {
        let delivery = match decision {
            Decision::Answer(answer) => Delivery::plain(*answer),
            Decision::NotNow(answer) => Delivery::plain(Ok(*answer)),
            Decision::Lease(answer, lease) => {
                if case.ask.idempotency_key.is_some() {
                    self.given.insert(lease.id.clone(), Answer::clone(&answer));
                }
                Delivery::with_lease(*answer, lease.id, self.notes.clone())
            }
        };
        self.outbox.push((case.reply, delivery));
    }

    fn decide(&mut self, case: &Case, ticket: Option<Ticket>, reading: &Reading<'_>) -> Decision {
        let (ask, now) = (&case.ask, Now::read());
        if let Some(key) = &ask.idempotency_key {
            match self.keeper.recall(ask.peer.uid, key, &ask.digest, now) {
                Ok(Some(lease)) => return Decision::Answer(Box::new(self.again(ask, &lease, reading))),
                Ok(None) => {}
                Err(error) => return Decision::Answer(Box::new(Err(error.into()))),
            }
        }
        if let Some(process) = case.holder.process
            && !is_alive(&self.settings.proc_root, &process)
        {
            return Decision::Answer(Box::new(Err(HolderError::Gone { pid: process.pid }.into())));
        }
        let claims = decide::claims(self.keeper.ledger(), reading);
        let uuids = reading.snapshot.devices.iter().map(|device| &device.facts.uuid);
        let closed: BTreeSet<String> = uuids.filter(|uuid| !self.may_take(ticket, uuid)).cloned().collect();
        let open_claims = decide::with_closed(&claims, &closed, reading.snapshot);
        let answer = match decide::run(&ask.plan, reading.snapshot, &open_claims) {
            Ok(answer) => answer,
            Err(problem) => return Decision::Answer(Box::new(Err(problem))),
        };
        if decide::is_yes(&answer) {
            return self.hold(case, answer, reading, now);
        }
        if closed.is_empty() {
            return Decision::NotNow(Box::new(answer));
        }
        // The answer for the asker is that on all devices: nothing there is closed to the model, only to its turn.
        let ahead = ticket.map_or(self.queue.len(), |ticket| self.queue.position(ticket).map_or(0, |place| place - 1));
        match decide::run(&ask.plan, reading.snapshot, &claims) {
            Ok(answer) if decide::is_yes(&answer) => Decision::NotNow(Box::new(decide::in_line(answer, ahead))),
            Ok(answer) => Decision::NotNow(Box::new(answer)),
            Err(problem) => Decision::Answer(Box::new(Err(problem))),
        }
    }

    fn may_take(&self, ticket: Option<Ticket>, uuid: &str) -> bool {
        match ticket {
            Some(ticket) => self.queue.may_take(ticket, [uuid]),
            None => self.queue.may_pass([uuid]),
        }
    }

    fn hold(&mut self, case: &Case, mut answer: Answer, reading: &Reading<'_>, now: Now) -> Decision {
        let Some(devices) = decide::promise(&answer, self.keeper.ledger(), reading) else {
            return Decision::NotNow(Box::new(decide::in_line(answer, 0)));
        };
        let ask = &case.ask;
        let request = GrantRequest {
            devices,
            ttl: ask.ttl.unwrap_or(self.settings.default_ttl),
            holder: case.holder.clone(),
            uid: ask.peer.uid,
            idempotency_key: ask.idempotency_key.clone(),
            question: QuestionSummary {
                model: ask.model.clone(),
                engine: ask.engine.clone(),
                digest: ask.digest.clone(),
            },
        };
        match self.keeper.grant(request, reading, now) {
            Ok(Granted::Now(lease)) => {
                answer.lease = self.printed(&lease, now);
                self.before_next = self.before_next.max(now.boottime);
                Decision::Lease(Box::new(answer), Box::new(lease))
            }
            Ok(Granted::Before(lease)) => Decision::Answer(Box::new(self.again(ask, &lease, reading))),
            Err(KeepError::Grant(GrantError::Insufficient { .. })) => {
                Decision::NotNow(Box::new(decide::in_line(answer, 0)))
            }
            Err(error) => Decision::Answer(Box::new(Err(error.into()))),
        }
    }

    /// The answer that a key was given before. After a restart it is worked out anew, as if nothing else were on the
    /// lease's devices.
    fn again(&self, ask: &GrantAsk, lease: &Lease, reading: &Reading<'_>) -> Result<Answer, Problem> {
        let mut answer = if let Some(answer) = self.given.get(&lease.id) {
            answer.clone()
        } else {
            let mut snapshot = reading.snapshot.clone();
            snapshot.devices.retain(|device| lease.devices.contains_key(&device.facts.uuid));
            for device in &mut snapshot.devices {
                device.free_bytes =
                    lease.devices.get(&device.facts.uuid).map(|share| share.granted_bytes + device.margin_bytes);
            }
            decide::run(&ask.plan, &snapshot, &BTreeMap::new())?
        };
        answer.lease = self.printed(lease, Now::read());
        Ok(answer)
    }

    #[expect(clippy::unused_self, reason = "reads like the rest")]
    fn printed(&self, lease: &Lease, now: Now) -> Option<serde_json::Value> {
        // A struct of plain fields: this cannot fail.
        serde_json::to_value(wire::lease(lease, now)).ok()
    }

    // ---- errands --------------------------------------------------------------------------------------------------

    fn errand(&mut self, errand: Errand) {
        let now = Now::read();
        match errand {
            Errand::Grant(ask, reply) => self.take_ask(*ask, reply),
            Errand::List(reply) => {
                self.keeper.expire(now);
                let _hung_up = reply.send(wire::leases(self.keeper.ledger(), &self.queue, now));
            }
            Errand::Get(id, reply) => {
                self.keeper.expire(now);
                let found = self.keeper.ledger().get(&id).map(|lease| wire::lease(lease, now));
                let _hung_up = reply.send(found.ok_or_else(|| ChangeError::NotFound { id }.into()));
            }
            Errand::Renew { id, uid, ttl, reply } => {
                let renewed = self.keeper.renew(&id, uid, ttl, now).map_err(Problem::from);
                let _hung_up = reply.send(renewed.map(|lease| wire::lease(&lease, now)));
            }
            Errand::Release { id, uid, reply } => {
                let released = self.keeper.release(&id, uid, now).map_err(Problem::from);
                self.freed(now);
                let _hung_up = reply.send(released.map(|released| match released {
                    Release::Done(lease) | Release::Already(lease) => wire::lease(&lease, now),
                }));
            }
            Errand::Claims(snapshot, taken_at, reply) => {
                let ancestry = self.ancestry(&snapshot, std::iter::empty());
                let reading =
                    Reading { snapshot: &snapshot, taken_at: taken_at.min(now.boottime), ancestry: &ancestry };
                let _hung_up = reply.send(decide::claims(self.keeper.ledger(), &reading));
            }
            Errand::Rules(settings, default_ttl) => {
                self.settings.default_ttl = default_ttl;
                self.keeper.set_settings(*settings);
            }
            Errand::Ping(reply) => {
                let _hung_up = reply.send(());
            }
            // Taken by the loop itself.
            Errand::Stop(_) => {}
        }
    }

    fn take_ask(&mut self, ask: GrantAsk, reply: oneshot::Sender<Delivery>) {
        let resolved = holder::resolve(&self.settings.proc_root, ask.peer, ask.holder.as_ref());
        let resolved = resolved.and_then(|(holder, process)| {
            if let Some(process) = process {
                let pid = process.identity.pid;
                let unwatchable = |error: std::io::Error| {
                    Problem::new(Reason::Internal, format!("process {pid} cannot be watched: {error}"))
                };
                self.deaths.watch(process).map_err(unwatchable)?;
            }
            Ok(holder)
        });
        match resolved {
            Ok(holder) => self.new.push(Case { ask, holder, reply, answer: None }),
            Err(problem) => {
                let _hung_up = reply.send(Delivery::plain(Err(problem)));
            }
        }
    }

    fn note(&mut self, note: Note) {
        let now = Now::read();
        match note {
            Note::Undelivered(id) => {
                // Root's hand: it was nobody's yet.
                if let Err(error) = self.keeper.release(&id, 0, now) {
                    tracing::debug!(%error, "an undelivered lease was gone already");
                }
                self.freed(now);
            }
            Note::HungUp => {
                let gone = self.in_line.iter().filter(|(_, case)| case.reply.is_closed()).map(|(ticket, _)| *ticket);
                for ticket in gone.collect::<Vec<_>>() {
                    self.in_line.remove(&ticket);
                    self.queue.cancel(ticket);
                    self.hurry();
                }
            }
        }
    }

    fn died(&mut self, process: ProcessIdentity) {
        let now = Now::read();
        self.keeper.holder_died(&process, now);
        let of_process = |case: &Case| case.holder.process == Some(process);
        let in_line: Vec<Ticket> =
            self.in_line.iter().filter(|(_, case)| of_process(case)).map(|(ticket, _)| *ticket).collect();
        for ticket in in_line {
            self.queue.cancel(ticket);
            if let Some(case) = self.in_line.remove(&ticket) {
                case.tell(Err(HolderError::Gone { pid: process.pid }.into()));
            }
        }
        self.freed(now);
    }

    /// Something was given back: those in line need not wait for the next reading's turn.
    fn freed(&mut self, now: Now) {
        self.before_next = self.before_next.max(now.boottime);
        self.hurry();
    }

    fn hurry(&mut self) {
        if self.watches() {
            self.read_at = Instant::now();
        }
    }

    fn on_time(&mut self) {
        let now = Now::read();
        let alive = self.keeper.ledger().live().count();
        self.keeper.expire(now);
        if self.keeper.ledger().live().count() < alive {
            self.freed(now);
        }
        for ticket in self.queue.give_up(now.boottime) {
            if let Some(mut case) = self.in_line.remove(&ticket) {
                let unknown = || Problem::new(Reason::Timeout, "the wait is over, and no reading was had in it");
                let answer = case.answer.take().ok_or_else(unknown);
                case.tell(answer);
                self.hurry();
            }
        }
    }

    /// When to wake if nothing happens.
    fn wake(&self, reading: bool) -> Instant {
        let (now, instant) = (Now::read().boottime, Instant::now());
        let ledger = self.keeper.ledger();
        let due = ledger.next_expiry().into_iter().chain(self.queue.next_deadline()).min();
        let mut wake = instant + due.map_or(LONGEST_SLEEP, |due| due.since(now).min(LONGEST_SLEEP));
        if !reading && self.watches() {
            wake = wake.min(self.read_at);
        }
        if self.keeper.is_behind() {
            wake = wake.min(instant + WRITE_AGAIN);
        }
        wake
    }

    /// Tells everyone what happened, and forgets what nobody needs.
    fn pass_on(&mut self) {
        let mut events = self.keeper.drain_events();
        let line = self.queue.drain_events();
        let ended = line.iter().filter(|event| matches!(event, Event::WaitEnded { .. })).count();
        self.waits_ended = self.waits_ended.saturating_add(u64::try_from(ended).unwrap_or(u64::MAX));
        events.extend(line);
        let happened = !events.is_empty();
        self.log.tell(events, Now::read().wall);
        let ledger = self.keeper.ledger();
        if happened {
            self.given.retain(|id, _| ledger.get(id).is_some_and(Lease::is_live));
        }
        let cases = self.new.iter().chain(&self.at_reading).chain(self.in_line.values());
        let needed: HashSet<ProcessIdentity> = ledger
            .live()
            .filter_map(|lease| lease.holder.process)
            .chain(cases.filter_map(|case| case.holder.process))
            .collect();
        self.deaths.keep_only(&needed);
        let mut counters = self.keeper.counters();
        counters.waits_ended = self.waits_ended;
        let standing = Standing {
            leased: self.leased.clone(),
            leases: ledger.live().count(),
            waiting: self.queue.len(),
            counters,
            behind: self.keeper.is_behind(),
        };
        self.standing.send_if_modified(|known| {
            let changed = *known != standing;
            if changed {
                *known = standing;
            }
            changed
        });
        for (reply, delivery) in self.outbox.drain(..) {
            // One that hung up gives its lease back by the delivery's own end.
            let _hung_up = reply.send(delivery);
        }
    }
}

/// The end of the reading under way; never, where there is none.
async fn under_way(reading: &mut Option<UnderWay>) -> (Boottime, Result<Arc<Snapshot>, DevicesError>) {
    match reading {
        Some(reading) => reading.await,
        None => std::future::pending().await,
    }
}
