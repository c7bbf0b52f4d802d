//! How far a placement goes: the largest context, the most sequences, and the frontier between
//! them.
//!
//! Needs never fall when the workload grows, so each figure is found by bisection: it fits, and one
//! more does not. What an engine keeps whatever the workload may still follow the workload that it
//! was asked about (vLLM sizes its step by `max_model_len`), so each figure is put back as a
//! question, and the search repeated that way where the answer differs.

use super::ask::{Ask, PlacementError};
use super::claim::Claim;
use super::order::Grade;
use super::placed::Placement;
use crate::bytes::Bytes;
use crate::device::{DeviceFacts, DeviceKind, HostMemory};
use crate::engines::{AskedContext, EngineError, Interval, PreparedEngine, Split, Workload};
use crate::report::answer::FrontierPoint;

/// The longest context looked for where the model names no maximum: beyond any that is trained.
const CONTEXT_CEILING: u64 = 1 << 27;
/// The most sequences looked for: beyond any engine's own limit (vLLM's default is 1024 at the
/// most).
const SEQUENCES_CEILING: u64 = 1 << 16;

/// A split on devices whose needs that do not change with the workload are known.
pub(super) struct Reach<'p> {
    ask: &'p Ask<'p>,
    prepared: &'p dyn PreparedEngine,
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
        (ask, prepared): (&'p Ask<'p>, &'p dyn PreparedEngine),
        split: &'p Split,
        devices: impl IntoIterator<Item = (&'p DeviceFacts, Bytes)>,
        host: Option<HostMemory>,
    ) -> Result<Self, EngineError> {
        let mut ranks = Vec::new();
        for (number, (facts, available)) in devices.into_iter().enumerate() {
            let fixed = prepared.fixed_sum(split, number, facts)?;
            ranks.push(Rank {
                number,
                facts,
                available,
                fixed,
            });
        }

        let context_ceiling = ask.longest().unwrap_or(CONTEXT_CEILING).max(1);
        Ok(Self {
            ask,
            prepared,
            split,
            ranks,
            host,
            context_ceiling,
        })
    }

    /// The largest context of `sequences` sequences that fits, up to `ceiling`; 0 where not even
    /// one token does.
    fn context(&self, sequences: u64, ceiling: u64) -> Result<u64, EngineError> {
        self.largest(ceiling, |context| Workload { context, sequences })
    }

    /// The largest context at one sequence; `None` where nothing grows with it.
    pub(super) fn max_context(&self) -> Result<Option<u64>, EngineError> {
        let at = |context| Workload {
            context,
            sequences: 1,
        };

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

            points.push(FrontierPoint {
                sequences,
                context: ceiling,
            });
            sequences *= 2;
        }

        Ok(points)
    }

    /// The largest value up to `ceiling` whose workload fits on every rank: one rank after another
    /// lowers it. The value is then put back as a question.
    fn largest(&self, ceiling: u64, at: impl Fn(u64) -> Workload) -> Result<u64, EngineError> {
        let mut most = ceiling;
        for rank in &self.ranks {
            most = below(most, |value| self.goes_in(rank, at(value)))?;
        }

        most = below(most, |value| self.host_goes_in(at(value)))?;
        let asked_anew = |value| Ok(self.fits_anew(at(value)));

        if most > 0 && !self.fits_anew(at(most)) {
            below(most, asked_anew)
        } else if most < ceiling && self.fits_anew(at(most + 1)) {
            Ok(most + 1 + below(ceiling - most - 1, |more| asked_anew(most + 1 + more))?)
        } else {
            Ok(most)
        }
    }

    /// Whether the split fits where `workload` is what was asked. What the engine refuses does not
    /// fit.
    fn fits_anew(&self, workload: Workload) -> bool {
        let mut ask = self.ask.clone();
        ask.asked.context = Some(AskedContext::Tokens(workload.context));
        ask.asked.sequences = Some(workload.sequences);
        let Some(first) = self.ranks.first() else {
            return false;
        };

        let Ok(prepared) = ask.prepare(first.facts) else {
            return false;
        };

        if prepared.check(self.split).is_err() {
            return false;
        }

        let devices = self.ranks.iter().map(|rank| (rank.facts, rank.available));
        let Ok(anew) = Reach::new((&ask, &*prepared), self.split, devices, self.host) else {
            return false;
        };

        let workload = prepared.workload();
        anew.ranks
            .iter()
            .all(|rank| anew.goes_in(rank, workload) == Ok(true))
            && anew.host_goes_in(workload) == Ok(true)
    }

    fn goes_in(&self, rank: &Rank<'_>, workload: Workload) -> Result<bool, EngineError> {
        Ok(self.claim(rank, workload)?.grade(rank.available) == Grade::Fits)
    }

    fn host_goes_in(&self, workload: Workload) -> Result<bool, EngineError> {
        let Some(memory) = self.host else {
            return Ok(true);
        };
        Ok(self.unified() || self.host_need(workload)?.high <= memory.available_bytes)
    }

    fn claim(&self, rank: &Rank<'_>, workload: Workload) -> Result<Claim, EngineError> {
        let variable =
            match self
                .prepared
                .variable_sum(self.split, rank.number, rank.facts, workload)
            {
                // More than 64 bits can count is more than any device has. Where no figure of the
                // asker's makes it so, the model's configuration cannot be right, and the error
                // stands.
                Err(EngineError::Overflow { .. }) if self.sized_by_asker() => {
                    Interval::exact(Bytes::OVERFLOW)
                }
                variable => variable?,
            };

        let need =
            self.prepared
                .must_be_available(self.split, rank.facts, rank.fixed.plus(variable));
        let share = self.prepared.share(self.split, rank.number, rank.facts);
        let claim = Claim::in_share(need, share.as_ref());

        Ok(if rank.facts.kind == DeviceKind::UnifiedMemory {
            claim.plus(self.host_need(workload)?)
        } else {
            claim
        })
    }

    fn sized_by_asker(&self) -> bool {
        let asked = &self.ask.asked;
        asked.sequences.is_some() || matches!(asked.context, Some(AskedContext::Tokens(_)))
    }

    fn host_need(&self, workload: Workload) -> Result<Interval, EngineError> {
        Ok(self
            .prepared
            .host(self.split, workload)?
            .iter()
            .map(|part| part.bytes)
            .sum())
    }

    fn unified(&self) -> bool {
        self.ranks
            .iter()
            .any(|rank| rank.facts.kind == DeviceKind::UnifiedMemory)
    }

    fn grows(&self, from: Workload, to: Workload) -> Result<bool, EngineError> {
        for rank in &self.ranks {
            if self.claim(rank, from)?.need != self.claim(rank, to)?.need {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The largest value from 0 to `ceiling` for which `fits`, which is true of 0 and once false stays
/// false.
fn below(
    ceiling: u64,
    mut fits: impl FnMut(u64) -> Result<bool, EngineError>,
) -> Result<u64, EngineError> {
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
    let Some(first) = placement.ranks.first() else {
        return Ok(Vec::new());
    };

    let mut ask = ask.clone();
    ask.asked.context = Some(AskedContext::Tokens(placement.workload.context));
    let ask = &ask;
    let prepared = ask.prepare(&first.device)?;

    let devices = placement
        .ranks
        .iter()
        .map(|rank| (&rank.device, rank.available));

    Ok(Reach::new((ask, &*prepared), &placement.split, devices, host)?.frontier()?)
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
