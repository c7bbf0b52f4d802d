//! The state of a search: its input, its results so far, and the judgment of one split.

use std::rc::Rc;

use super::candidate::{Candidate, SplitNumber};
use super::found::Found;
use super::layers::LayerCosts;
use super::needs::{Legal, Needs};
use super::order::Grade;
use super::pool::Pool;
use super::wires::Wires;
use crate::bytes::Bytes;
use crate::engines::{EngineError, Split};

/// A search in progress.
pub(super) struct SearchState<'s, 'a> {
    /// The usable devices.
    pub(super) pool: &'s Pool<'a>,
    /// The need of each rank.
    pub(super) needs: &'s mut Needs<'a>,
    /// The results so far.
    pub(super) found: Found,
    costs: LayerCosts,
}

impl<'s, 'a> SearchState<'s, 'a> {
    /// Returns a search for what `needs` asks on `pool`, before its first candidate.
    pub(super) fn new(pool: &'s Pool<'a>, needs: &'s mut Needs<'a>) -> Self {
        Self {
            pool,
            needs,
            found: Found::default(),
            costs: LayerCosts::default(),
        }
    }

    /// Returns the bytes that each stage needs on the first device of `window`; empty for a single
    /// stage.
    pub(super) fn stage_needs(
        &self,
        split: &Split,
        window: &[usize],
    ) -> Result<Vec<i128>, EngineError> {
        let Some(&place) = window.first() else {
            return Ok(Vec::new());
        };

        let first = self.pool.first_kind(&[place]);
        let mut stage_needs = Vec::with_capacity(split.stages.len());

        if split.stages.len() > 1 {
            for stage in 0..split.stages.len() {
                let rank = stage * split.tensor.max(1) as usize;
                let claim = self.needs.of(first, split, rank, self.pool, place)?;
                stage_needs.push(i128::from(claim.need.high.get()));
            }
        }

        Ok(stage_needs)
    }

    /// Returns the legal splits over these devices, and records why there are none.
    pub(super) fn legal(&mut self, places: &[usize]) -> Result<Rc<Legal>, EngineError> {
        let Some(first) = places
            .first()
            .and_then(|place| self.pool.devices.get(*place))
        else {
            return Ok(Rc::new(Ok(Vec::new())));
        };

        let devices = u32::try_from(places.len()).unwrap_or(u32::MAX);
        let legal = self.needs.splits(first.kind, devices)?;
        if let Err(why) = &*legal
            && !self
                .found
                .illegal
                .iter()
                .any(|(known, _)| *known == devices)
        {
            self.found.illegal.push((devices, why.clone()));
        }

        Ok(legal)
    }

    /// Judges a split on certain devices and keeps the candidate; returns its grade.
    pub(super) fn judge(
        &mut self,
        number: SplitNumber,
        split: &Split,
        places: &[usize],
    ) -> Result<Grade, EngineError> {
        let candidate = self.candidate(number, split, places)?;
        let grade = candidate.rank.grade;
        self.keep(candidate)?;
        Ok(grade)
    }

    /// Adds a candidate to what was found.
    pub(super) fn keep(&mut self, candidate: Candidate) -> Result<(), EngineError> {
        let prepared = self.needs.prepared(candidate.first)?;
        self.found.add(candidate, prepared);
        Ok(())
    }

    /// Judges a split on certain devices without keeping the candidate. If the engine accepts
    /// stages of any length, the stages are divided for these devices.
    pub(super) fn candidate(
        &mut self,
        number: SplitNumber,
        split: &Split,
        places: &[usize],
    ) -> Result<Candidate, EngineError> {
        let first = self.pool.first_kind(places);
        let uneven = self.needs.prepared(first)?.uneven();
        let wires = Wires::new(self.pool, split, places);

        let divided = if uneven {
            self.costs.divide(self.needs, self.pool, split, places)?
        } else {
            None
        };

        match divided {
            Some(divided) => {
                let number = SplitNumber { id: None, ..number };
                self.needs.judge(self.pool, number, &divided, places, wires)
            }
            None => self.needs.judge(self.pool, number, split, places, wires),
        }
    }

    /// Returns the bytes available on a device.
    pub(super) fn available(&self, place: usize) -> Bytes {
        self.pool
            .devices
            .get(place)
            .map_or(Bytes::ZERO, |it| it.available)
    }
}

/// Returns the legal splits with their numbers; none if no split is legal.
pub(super) fn numbered(legal: &Legal) -> impl Iterator<Item = (SplitNumber, &Split)> {
    let splits = legal.as_ref().map_or(&[][..], Vec::as_slice);
    splits
        .iter()
        .enumerate()
        .map(|(engine_order, (id, split))| {
            let id = Some(*id);
            (SplitNumber { id, engine_order }, split)
        })
}
