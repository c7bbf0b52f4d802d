//! What each rank of a split needs on each kind of device, asked of the engine once and remembered.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

use super::ask::Ask;
use super::claim::Claim;
use super::order::harm;
use super::pool::Pool;
use super::quick_hash::QuickMap;
use crate::bytes::Bytes;
use crate::device::{DeviceFacts, HostMemory};
use crate::engines::{
    DeviceSupport, EngineError, IllegalSplit, Interval, Offload, PreparedEngine, Split,
};

/// An engine prepared for each kind of device in the pool, and what it has said so far.
pub(super) struct Needs<'a> {
    /// What is asked.
    pub(super) ask: &'a Ask<'a>,
    /// Host memory, where read.
    pub(super) host: Option<HostMemory>,
    /// Whether each kind runs the model only at a cost.
    pub(super) degraded: Vec<bool>,
    /// What each kind's cost is, for the plan's warnings.
    pub(super) warnings: Vec<String>,
    prepared: Vec<Result<Box<dyn PreparedEngine + 'a>, EngineError>>,
    splits: QuickMap<(usize, u32), Rc<Legal>>,
    known: RefCell<QuickMap<RankKey, Claim>>,
    known_host: QuickMap<(usize, usize), Interval>,
    named: usize,
}

/// The splits over some number of devices, each with a number of its own, or why there are none.
pub(super) type Legal = Result<Vec<(usize, Split)>, IllegalSplit>;

/// What the need of a rank follows from (see [`PreparedEngine::fixed`]): not how the other stages
/// are cut, and of its tensor group the place only where experts are dealt to it.
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
    /// Prepares the engine for each kind of device; gives besides, by kind, why it can not run the
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
            splits: QuickMap::default(),
            known: RefCell::default(),
            known_host: QuickMap::default(),
            named: 0,
        };

        let mut vetoed = Vec::with_capacity(kinds.len());
        for facts in kinds {
            let prepared = ask.prepare(facts);
            let fitness = match &prepared {
                Ok(prepared) => prepared.device_fitness(facts),
                Err(error) => DeviceSupport::Unable(error.to_string()),
            };

            needs
                .degraded
                .push(matches!(fitness, DeviceSupport::Degraded(_)));
            vetoed.push(match fitness {
                DeviceSupport::Able => None,
                DeviceSupport::Degraded(cost) => {
                    needs.warnings.push(format!("{}: {cost}", facts.name));
                    None
                }
                DeviceSupport::Unable(why) => Some(why),
            });

            needs.prepared.push(prepared);
        }
        // An engine that refuses every kind of device refuses the question: its own words are the
        // best answer.
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

    /// The engine as prepared for a group whose first device is of kind `first`.
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

    /// The splits over `devices` devices that the constraints leave.
    pub(super) fn splits(&mut self, first: usize, devices: u32) -> Result<Rc<Legal>, EngineError> {
        if let Some(known) = self.splits.get(&(first, devices)) {
            return Ok(Rc::clone(known));
        }

        let asked = &self.ask.constraints;
        let (tensor, pipeline) = (asked.tensor, asked.pipeline);
        let wanted = |split: &Split| {
            tensor.is_none_or(|tensor| split.tensor == tensor)
                && pipeline.is_none_or(|stages| split.stages.len() == stages as usize)
                && split.ranks() == devices as usize
                && split.tensor > 0
                && split.offload == Offload::None
        };

        let legal = self.prepared(first)?.splits(devices).map(|splits| {
            let mut numbered = Vec::new();
            for split in splits.into_iter().filter(wanted) {
                numbered.push((self.named, split));
                self.named += 1;
            }
            numbered
        });
        let legal = Rc::new(legal);
        self.splits.insert((first, devices), Rc::clone(&legal));

        Ok(legal)
    }

    /// What `rank` of `split` claims on the device at `place`.
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

    /// The same on a device of `kind`, whose facts `facts` are.
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

    /// Host memory that `split` takes.
    pub(super) fn of_host(
        &mut self,
        (first, named): (usize, Option<usize>),
        split: &Split,
    ) -> Result<Interval, EngineError> {
        if let Some(known) = named.and_then(|named| self.known_host.get(&(first, named))) {
            return Ok(*known);
        }

        let prepared = self.prepared(first)?;
        let need = prepared
            .host(split, prepared.workload())?
            .iter()
            .map(|part| part.bytes)
            .sum();

        if let Some(named) = named {
            self.known_host.insert((first, named), need);
        }

        Ok(need)
    }
}
