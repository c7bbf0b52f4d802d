//! How far a placement goes: the largest context, the most sequences, and the frontier between them.
//!
//! Needs never fall when the workload grows, so each figure is found by bisection: it fits, and one more does not.

use super::ask::{Ask, PlacementError};
use super::placed::Placement;
use crate::api::answer::FrontierPoint;
use crate::bytes::Bytes;
use crate::devices::{DeviceFacts, DeviceKind, HostMemory};
use crate::engines::component::device_sum;
use crate::engines::{EngineError, Interval, Prepared, Split, Workload};

/// The longest context looked for where the model names no maximum: beyond any that is trained.
const CONTEXT_CEILING: u64 = 1 << 27;
/// The most sequences looked for: beyond any engine's own limit (vLLM's default is 1024 at the most).
const SEQUENCES_CEILING: u64 = 1 << 16;

/// A split on devices whose needs that do not change with the workload are known.
pub(super) struct Reach<'p> {
    prepared: &'p dyn Prepared,
    split: &'p Split,
    ranks: Vec<Rank<'p>>,
    host: Option<HostMemory>,
    context_ceiling: u64,
}

struct Rank<'p> {
    number: usize,
    facts: &'p DeviceFacts,
    available: Bytes,
    fixed: Interval,
}

impl<'p> Reach<'p> {
    /// `split` on `devices`, one for each rank, with what is available on each.
    pub(super) fn new(
        prepared: &'p dyn Prepared,
        split: &'p Split,
        devices: impl IntoIterator<Item = (&'p DeviceFacts, Bytes)>,
        host: Option<HostMemory>,
        longest: Option<u64>,
    ) -> Result<Self, EngineError> {
        let mut ranks = Vec::new();
        for (number, (facts, available)) in devices.into_iter().enumerate() {
            let fixed = device_sum(&prepared.fixed(split, number, facts)?);
            ranks.push(Rank { number, facts, available, fixed });
        }
        Ok(Self { prepared, split, ranks, host, context_ceiling: longest.unwrap_or(CONTEXT_CEILING).max(1) })
    }

    /// The largest context of `sequences` sequences that fits, up to `ceiling`; 0 where not even one token does.
    fn context(&self, sequences: u64, ceiling: u64) -> Result<u64, EngineError> {
        self.largest(ceiling, |context| Workload { context, sequences })
    }

    /// The largest context at one sequence; `None` where nothing grows with it.
    pub(super) fn max_context(&self) -> Result<Option<u64>, EngineError> {
        let at = |context| Workload { context, sequences: 1 };
        if self.grows(at(1), at(self.context_ceiling))? {
            return self.context(1, self.context_ceiling).map(Some);
        }
        Ok(None)
    }

    /// The most sequences of `context` tokens; `None` where nothing grows with their number.
    pub(super) fn max_sequences(&self, context: u64) -> Result<Option<u64>, EngineError> {
        let at = |sequences| Workload { context, sequences };
        if self.grows(at(1), at(SEQUENCES_CEILING))? {
            return self.largest(SEQUENCES_CEILING, at).map(Some);
        }
        Ok(None)
    }

    /// For 1, 2, 4, ... sequences the largest context of each, as long as there is one.
    fn frontier(&self) -> Result<Vec<FrontierPoint>, EngineError> {
        let mut points = Vec::new();
        let (mut sequences, mut ceiling) = (1, self.context_ceiling);
        while sequences <= SEQUENCES_CEILING {
            // More sequences never have room for a longer context.
            ceiling = self.context(sequences, ceiling)?;
            if ceiling == 0 {
                break;
            }
            points.push(FrontierPoint { sequences, context: ceiling });
            sequences *= 2;
        }
        Ok(points)
    }

    /// The largest value up to `ceiling` whose workload fits on every rank: one rank after another lowers it.
    fn largest(&self, ceiling: u64, at: impl Fn(u64) -> Workload) -> Result<u64, EngineError> {
        let mut most = ceiling;
        for rank in &self.ranks {
            most = below(most, |value| self.goes_in(rank, at(value)))?;
        }
        below(most, |value| self.host_goes_in(at(value)))
    }

    fn goes_in(&self, rank: &Rank<'_>, workload: Workload) -> Result<bool, EngineError> {
        let need = self.need(rank, workload)?;
        Ok(need.high <= rank.available && !need.high.overflowed())
    }

    fn host_goes_in(&self, workload: Workload) -> Result<bool, EngineError> {
        let Some(memory) = self.host else { return Ok(true) };
        Ok(self.unified() || self.host_need(workload)?.high <= memory.available_bytes)
    }

    fn need(&self, rank: &Rank<'_>, workload: Workload) -> Result<Interval, EngineError> {
        let variable = device_sum(&self.prepared.variable(self.split, rank.number, rank.facts, workload)?);
        let need = self.prepared.must_be_available(rank.facts, rank.fixed.plus(variable));
        Ok(if rank.facts.kind == DeviceKind::UnifiedMemory { need.plus(self.host_need(workload)?) } else { need })
    }

    fn host_need(&self, workload: Workload) -> Result<Interval, EngineError> {
        Ok(self.prepared.host(self.split, workload)?.iter().map(|part| part.bytes).sum())
    }

    fn unified(&self) -> bool {
        self.ranks.iter().any(|rank| rank.facts.kind == DeviceKind::UnifiedMemory)
    }

    fn grows(&self, from: Workload, to: Workload) -> Result<bool, EngineError> {
        for rank in &self.ranks {
            if self.need(rank, from)? != self.need(rank, to)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The largest value from 0 to `ceiling` for which `fits`, which is true of 0 and once false stays false.
fn below(ceiling: u64, mut fits: impl FnMut(u64) -> Result<bool, EngineError>) -> Result<u64, EngineError> {
    if ceiling == 0 || fits(ceiling)? {
        return Ok(ceiling);
    }
    let (mut yes, mut no) = (0, ceiling);
    while no - yes > 1 {
        let middle = yes + (no - yes) / 2;
        if fits(middle)? {
            yes = middle;
        } else {
            no = middle;
        }
    }
    Ok(yes)
}

/// For 1, 2, 4, ... sequences the largest context of each that fits on `placement` as it stands.
pub fn frontier(
    ask: &Ask<'_>,
    placement: &Placement,
    host: Option<HostMemory>,
) -> Result<Vec<FrontierPoint>, PlacementError> {
    let Some(first) = placement.ranks.first() else { return Ok(Vec::new()) };
    let prepared = ask.prepare(&first.device)?;
    let devices = placement.ranks.iter().map(|rank| (&rank.device, rank.available));
    Ok(Reach::new(&*prepared, &placement.split, devices, host, ask.longest())?.frontier()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_last_that_fits() {
        for limit in [0, 1, 2, 16, 17, 999, 1000] {
            assert_eq!(below(1000, |value| Ok(value <= limit)), Ok(limit));
        }
        assert_eq!(below(0, |_| Ok(false)), Ok(0));
    }
}
