//! A cache of what each rank of a split needs on each kind of device.
//!
//! The engine computes each figure once for a question.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

use rustc_hash::FxHashMap;

use super::ask::{Ask, Constraints};
use super::claim::Claim;
use super::order::harm;
use super::pool::Pool;
use crate::bytes::Bytes;
use crate::device::{DeviceFacts, HostMemory};
use crate::engines::{
    DeviceSupport, EngineError, IllegalSplit, Interval, Offload, PreparedEngine, Split,
};

/// An engine prepared for each kind of device in the pool, and the figures computed so far.
pub(super) struct Needs<'a> {
    /// The request.
    pub(super) ask: &'a Ask<'a>,
    /// Host memory, if read.
    pub(super) host: Option<HostMemory>,
    /// For each kind, whether it runs the model only at a cost.
    pub(super) degraded: Vec<bool>,
    /// The cost of each such kind, for the plan's warnings.
    pub(super) warnings: Vec<String>,
    prepared: Vec<Result<Box<dyn PreparedEngine + 'a>, EngineError>>,
    splits: FxHashMap<(usize, u32), Rc<Legal>>,
    known: RefCell<FxHashMap<RankKey, Claim>>,
    known_host: FxHashMap<(usize, usize), Interval>,
    next_split: usize,
}

/// The legal splits over some number of devices, each with an id, or why there are none.
pub(super) type Legal = Result<Vec<(usize, Split)>, IllegalSplit>;

/// The facts that determine the need of a rank (see [`PreparedEngine::fixed`]).
///
/// The division of the other stages is not among them. The place in the tensor group matters only
/// with expert parallelism.
#[derive(Clone, PartialEq, Eq, Hash)]
struct RankKey {
    first: usize,
    kind: usize,
    tensor: u32,
    stages: usize,
    place: Option<usize>,
    offload: (u8, u32),
    layers: Range<u32>,
    is_first: bool,
    is_last: bool,
}

impl RankKey {
    fn new((first, kind): (usize, usize), split: &Split, rank: usize) -> Self {
        let (stage, layers) = split.stage_of(rank);
        Self {
            first,
            kind,
            tensor: split.tensor,
            stages: split.stages.len(),
            place: split
                .expert_parallel
                .then(|| rank % split.tensor.max(1) as usize),
            offload: harm(split.offload),
            layers,
            is_first: stage == 0,
            is_last: split.is_last_stage(rank),
        }
    }
}

impl<'a> Needs<'a> {
    /// Prepares the engine for each kind of device. Also returns, by kind, why it cannot run the
    /// model.
    pub(super) fn new(
        ask: &'a Ask<'a>,
        kinds: &[&'a DeviceFacts],
        host: Option<HostMemory>,
    ) -> Result<(Self, Vec<Option<String>>), EngineError> {
        let mut needs = Self {
            ask,
            host,
            degraded: Vec::with_capacity(kinds.len()),
            warnings: Vec::new(),
            prepared: Vec::with_capacity(kinds.len()),
            splits: FxHashMap::default(),
            known: RefCell::default(),
            known_host: FxHashMap::default(),
            next_split: 0,
        };

        let mut vetoed = Vec::with_capacity(kinds.len());
        for facts in kinds {
            let prepared = ask.prepare(facts);
            let support = match &prepared {
                Ok(prepared) => prepared.device_fitness(facts),
                Err(error) => DeviceSupport::Unable(error.to_string()),
            };

            needs
                .degraded
                .push(matches!(support, DeviceSupport::Degraded(_)));
            vetoed.push(match support {
                DeviceSupport::Able => None,
                DeviceSupport::Degraded(cost) => {
                    needs.warnings.push(format!("{}: {cost}", facts.name));
                    None
                }
                DeviceSupport::Unable(why) => Some(why),
            });

            needs.prepared.push(prepared);
        }

        // If the engine rejects every kind of device, its own error is the best answer.
        if !needs.prepared.is_empty() && needs.prepared.iter().all(Result::is_err) {
            if let Some(Err(error)) = needs.prepared.into_iter().next() {
                return Err(error);
            }
            return Err(EngineError::Unsupported {
                engine: ask.engine.name(),
                why: "it could not be prepared".into(),
            });
        }

        Ok((needs, vetoed))
    }

    /// Returns the engine as prepared for a group whose first device is of kind `first`.
    pub(super) fn prepared(&self, first: usize) -> Result<&(dyn PreparedEngine + 'a), EngineError> {
        match self.prepared.get(first) {
            Some(Ok(prepared)) => Ok(&**prepared),
            Some(Err(error)) => Err(error.clone()),
            None => Err(EngineError::Unsupported {
                engine: self.ask.engine.name(),
                why: "no device".into(),
            }),
        }
    }

    /// Returns the legal splits over `devices` devices that satisfy the constraints.
    pub(super) fn splits(&mut self, first: usize, devices: u32) -> Result<Rc<Legal>, EngineError> {
        if let Some(known) = self.splits.get(&(first, devices)) {
            return Ok(Rc::clone(known));
        }

        let constraints = &self.ask.constraints;
        let legal = self.prepared(first)?.splits(devices).map(|splits| {
            let mut numbered = Vec::new();
            let allowed = splits
                .into_iter()
                .filter(|split| satisfies(split, constraints, devices));
            for split in allowed {
                numbered.push((self.next_split, split));
                self.next_split += 1;
            }
            numbered
        });
        let legal = Rc::new(legal);
        self.splits.insert((first, devices), Rc::clone(&legal));

        Ok(legal)
    }

    /// Returns what `rank` of `split` claims on the device at `place`.
    pub(super) fn of(
        &self,
        first: usize,
        split: &Split,
        rank: usize,
        pool: &Pool<'_>,
        place: usize,
    ) -> Result<Claim, EngineError> {
        match pool.devices.get(place) {
            Some(device) => self.of_kind((first, device.kind), split, rank, &device.source.facts),
            None => Ok(Claim::of_need(Interval::exact(Bytes::OVERFLOW))),
        }
    }

    /// Returns what `rank` of `split` claims on a device of `kind` with `facts`.
    pub(super) fn of_kind(
        &self,
        (first, kind): (usize, usize),
        split: &Split,
        rank: usize,
        facts: &DeviceFacts,
    ) -> Result<Claim, EngineError> {
        let key = RankKey::new((first, kind), split, rank);
        if let Some(known) = self.known.borrow().get(&key) {
            return Ok(*known);
        }

        let prepared = self.prepared(first)?;
        let claim = Claim::new(prepared, split, rank, facts, prepared.workload())?;
        self.known.borrow_mut().insert(key, claim);

        Ok(claim)
    }

    /// Returns the host memory that `split` needs.
    pub(super) fn of_host(
        &mut self,
        (first, split_id): (usize, Option<usize>),
        split: &Split,
    ) -> Result<Interval, EngineError> {
        if let Some(known) = split_id.and_then(|id| self.known_host.get(&(first, id))) {
            return Ok(*known);
        }

        let prepared = self.prepared(first)?;
        let need = prepared
            .host(split, prepared.workload())?
            .iter()
            .map(|part| part.bytes)
            .sum();

        if let Some(id) = split_id {
            self.known_host.insert((first, id), need);
        }

        Ok(need)
    }
}

/// Whether a split over `devices` devices satisfies the constraints and keeps all of it on devices.
fn satisfies(split: &Split, constraints: &Constraints, devices: u32) -> bool {
    constraints
        .tensor
        .is_none_or(|tensor| split.tensor == tensor)
        && constraints
            .pipeline
            .is_none_or(|stages| split.stages.len() == stages as usize)
        && split.ranks() == devices as usize
        && split.tensor > 0
        && split.offload == Offload::None
}
