//! The limits of a placement: the largest context, the most sequences, and the frontier between
//! them.
//!
//! Needs never fall when the workload grows, so bisection finds each limit: it fits, and one more
//! does not. An engine's fixed parts can depend on the requested workload (vLLM sizes its step by
//! `max_model_len`). So each limit is asked again as a request of its own, and the search is
//! repeated with such requests if the answer differs.

use super::ask::Ask;
use super::claim::Claim;
use super::order::Grade;
use crate::bytes::Bytes;
use crate::device::{DeviceFacts, DeviceKind, HostMemory};
use crate::engines::{AskedContext, EngineError, Interval, PreparedEngine, Split, Workload};
use crate::report::answer::FrontierPoint;

/// The longest context tried if the model names no maximum: longer than any trained context.
const CONTEXT_CEILING: u64 = 1 << 27;
/// The most sequences tried: more than any engine's own limit (vLLM's default is at most 1024).
const SEQUENCES_CEILING: u64 = 1 << 16;

/// A split on devices, with the needs that do not change with the workload.
pub(super) struct WorkloadLimits<'p> {
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

impl<'p> WorkloadLimits<'p> {
    /// Computes the fixed needs of `split` on `devices`, one for each rank, with their available
    /// bytes.
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

        let context_ceiling = ask.model_max_context().unwrap_or(CONTEXT_CEILING).max(1);
        Ok(Self {
            ask,
            prepared,
            split,
            ranks,
            host,
            context_ceiling,
        })
    }

    /// Returns the largest context of `sequences` sequences that fits, up to `ceiling`; 0 if not
    /// even one token fits.
    fn context(&self, sequences: u64, ceiling: u64) -> Result<u64, EngineError> {
        self.largest(ceiling, |context| Workload { context, sequences })
    }

    /// Returns the largest context at one sequence; `None` if no need grows with it.
    pub(super) fn max_context(&self) -> Result<Option<u64>, EngineError> {
        let one_sequence = |context| Workload {
            context,
            sequences: 1,
        };

        if self.grows(one_sequence(1), one_sequence(self.context_ceiling))? {
            return self.context(1, self.context_ceiling).map(Some);
        }

        Ok(None)
    }

    /// Returns the most sequences of `context` tokens; `None` if no need grows with their number.
    pub(super) fn max_sequences(&self, context: u64) -> Result<Option<u64>, EngineError> {
        let same_context = |sequences| Workload { context, sequences };
        if self.grows(same_context(1), same_context(SEQUENCES_CEILING))? {
            return self.largest(SEQUENCES_CEILING, same_context).map(Some);
        }
        Ok(None)
    }

    /// Returns the largest context for 1, 2, 4, ... sequences, as long as one fits.
    pub(super) fn frontier(&self) -> Result<Vec<FrontierPoint>, EngineError> {
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

    /// Returns the largest value up to `ceiling` whose workload fits on every rank.
    ///
    /// The ranks lower the value in turn. The value is then asked again as a request.
    fn largest(
        &self,
        ceiling: u64,
        workload: impl Fn(u64) -> Workload,
    ) -> Result<u64, EngineError> {
        let mut most = ceiling;
        for rank in &self.ranks {
            most = largest_fitting(most, |value| self.fits_on(rank, workload(value)))?;
        }

        most = largest_fitting(most, |value| self.fits_on_host(workload(value)))?;
        let fits_as_request = |value| Ok(self.request_fits(workload(value)));

        if most > 0 && !self.request_fits(workload(most)) {
            largest_fitting(most, fits_as_request)
        } else if most < ceiling && self.request_fits(workload(most + 1)) {
            Ok(most
                + 1
                + largest_fitting(ceiling - most - 1, |more| fits_as_request(most + 1 + more))?)
        } else {
            Ok(most)
        }
    }

    /// Whether the split fits where `workload` is what was asked. What the engine refuses does not
    /// fit.
    fn request_fits(&self, workload: Workload) -> bool {
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
        let Ok(anew) = WorkloadLimits::new((&ask, &*prepared), self.split, devices, self.host)
        else {
            return false;
        };

        let workload = prepared.workload();
        anew.ranks
            .iter()
            .all(|rank| anew.fits_on(rank, workload) == Ok(true))
            && anew.fits_on_host(workload) == Ok(true)
    }

    fn fits_on(&self, rank: &Rank<'_>, workload: Workload) -> Result<bool, EngineError> {
        Ok(self.claim(rank, workload)?.grade(rank.available) == Grade::Fits)
    }

    fn fits_on_host(&self, workload: Workload) -> Result<bool, EngineError> {
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
                // A size beyond 64 bits exceeds every device. If no figure of the question causes
                // it, the model's configuration is wrong, and the error is returned.
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

/// Returns the largest value from 0 to `ceiling` for which `fits` holds. It holds for 0, and once
/// false it stays false.
fn largest_fitting(
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bisection_finds_last_fit() {
        for limit in [0, 1, 2, 16, 17, 999, 1000] {
            assert_eq!(largest_fitting(1000, |value| Ok(value <= limit)), Ok(limit));
        }
        assert_eq!(largest_fitting(0, |_| Ok(false)), Ok(0));
    }
}
