//! The results of a search: the best placement of each kind, and the placements that fit.

use std::collections::BTreeMap;

use super::candidate::Candidate;
use super::order::Grade;
use super::strategy::Strategy;
use crate::engines::{IllegalSplit, PreparedEngine};

/// Placements that fit and are kept for callers that place several models at once.
const MAX_FITTING: usize = 8;

/// A kind of placement: strategy, tensor degree and number of stages.
pub(super) type PlacementKind = (Strategy, u32, usize);

/// The results of a search.
#[derive(Default)]
pub(super) struct Found {
    /// The best placement of each kind.
    pub(super) best: BTreeMap<PlacementKind, Candidate>,
    /// The best placements that fit or are tight, best first, at most [`MAX_FITTING`].
    pub(super) fitting: Vec<Candidate>,
    /// Numbers of devices over which no split is legal, and why.
    pub(super) illegal: Vec<(u32, IllegalSplit)>,
}

impl Found {
    /// Returns the best placement.
    pub(super) fn first(&self) -> Option<&Candidate> {
        self.best.values().min_by(|a, b| a.rank.cmp(&b.rank))
    }

    /// Adds a candidate.
    pub(super) fn add(&mut self, candidate: Candidate, engine: &dyn PreparedEngine) {
        if candidate.rank.grade < Grade::No {
            let index = self
                .fitting
                .partition_point(|known| known.rank < candidate.rank);
            if index < MAX_FITTING {
                self.fitting.insert(index, candidate.clone());
                self.fitting.truncate(MAX_FITTING);
            }
        }

        let split = &candidate.split;
        let kind = (
            Strategy::new(split, engine),
            split.tensor,
            split.stages.len(),
        );

        match self.best.get(&kind) {
            Some(known) if known.rank <= candidate.rank => {}
            _ => {
                self.best.insert(kind, candidate);
            }
        }
    }

    /// Returns the grade of the best placement.
    pub(super) fn grade(&self) -> Grade {
        self.first().map_or(Grade::No, |best| best.rank.grade)
    }
}
