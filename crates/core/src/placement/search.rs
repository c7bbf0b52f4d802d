//! The search through every legal way: which device counts, which splits, which devices, which
//! order of them.

use std::collections::{BTreeMap, HashSet};
use std::rc::Rc;

use super::candidate::{Candidate, Wires};
use super::groups::{
    ALL_ORDERS, alike_by_uuid, arrangements, domains, island_windows, orders, windows,
};
use super::layers::LayerCosts;
use super::needs::{Legal, Needs};
use super::offload;
use super::order::{Form, Grade};
use super::pool::Pool;
use super::strategy::Strategy;
use crate::bytes::Bytes;
use crate::engines::{EngineError, IllegalSplit, PreparedEngine, Split};

/// Ways that fit and are kept, best first, for callers that place several models at once.
const KEPT: usize = 8;

/// A kind of way: the best of each is kept.
pub(super) type Way = (Strategy, u32, usize);

/// What the search found.
#[derive(Default)]
pub(super) struct Found {
    /// The best of each kind of way.
    pub(super) best: BTreeMap<Way, Candidate>,
    /// The best that fit or are tight, at most [`KEPT`].
    pub(super) fitting: Vec<Candidate>,
    /// Device counts over which no split is legal, and why.
    pub(super) illegal: Vec<(u32, IllegalSplit)>,
}

impl Found {
    /// The best of all.
    pub(super) fn first(&self) -> Option<&Candidate> {
        self.best
            .values()
            .min_by(|a, b| a.standing.cmp(&b.standing))
    }

    fn add(&mut self, candidate: Candidate, engine: &dyn PreparedEngine) {
        if candidate.standing.grade < Grade::No {
            let at = self
                .fitting
                .partition_point(|known| known.standing < candidate.standing);
            if at < KEPT {
                self.fitting.insert(at, candidate.clone());
                self.fitting.truncate(KEPT);
            }
        }

        let split = &candidate.split;
        let way = (
            Strategy::of(split, engine),
            split.tensor,
            split.stages.len(),
        );

        match self.best.get(&way) {
            Some(known) if known.standing <= candidate.standing => {}
            _ => {
                self.best.insert(way, candidate);
            }
        }
    }

    fn grade(&self) -> Grade {
        self.first().map_or(Grade::No, |best| best.standing.grade)
    }
}

/// One search.
pub(super) struct Search<'s, 'a> {
    pub(super) pool: &'s Pool<'a>,
    pub(super) needs: &'s mut Needs<'a>,
    pub(super) costs: LayerCosts,
    pub(super) found: Found,
}

impl<'s, 'a> Search<'s, 'a> {
    /// Every way of placing what `needs` asks on `pool`.
    pub(super) fn run(pool: &'s Pool<'a>, needs: &'s mut Needs<'a>) -> Result<Found, EngineError> {
        let mut search = Self {
            pool,
            needs,
            costs: LayerCosts::default(),
            found: Found::default(),
        };

        let joined: Vec<usize> = (0..pool.devices.len())
            .filter(|place| pool.joins(*place))
            .collect();
        search.alone()?;

        for count in 2..=joined.len() {
            search.together(&joined, count)?;
        }

        if search.needs.ask.constraints.offload && search.found.grade() > Grade::Fits {
            offload::search(&mut search, &joined)?;
        }

        Ok(search.found)
    }

    /// Every device by itself.
    fn alone(&mut self) -> Result<(), EngineError> {
        for place in 0..self.pool.devices.len() {
            let legal = self.legal(&[place])?;
            for (engine_order, (named, split)) in splits(&legal).iter().enumerate() {
                self.judge((Some(*named), engine_order), split, &[place])?;
            }
        }

        Ok(())
    }

    /// Every choice of `count` of `joined` that is worth a look.
    fn together(&mut self, joined: &[usize], count: usize) -> Result<(), EngineError> {
        if joined.len() <= ALL_ORDERS {
            let mut seen = HashSet::new();
            for places in orders(joined, count) {
                let legal = self.legal(&places)?;
                for (engine_order, (named, split)) in splits(&legal).iter().enumerate() {
                    let wires = Wires::of(self.pool, split, &places);

                    // Orders of devices that nothing tells apart: the first one has the lower
                    // UUIDs.
                    let looks: Vec<_> = places
                        .iter()
                        .filter_map(|place| self.pool.devices.get(*place))
                        .map(|it| (it.kind, it.available, it.preference))
                        .collect();

                    if seen.insert((*named, wires, looks)) {
                        self.judge((Some(*named), engine_order), split, &places)?;
                    }
                }
            }

            return Ok(());
        }

        self.chosen(joined, count)
    }

    /// The roomiest `count` of all first. Only where these fit, and nothing that fits on fewer
    /// devices comes before them whatever their form, the other choices matter: whatever is less
    /// roomy fits no better.
    fn chosen(&mut self, joined: &[usize], count: usize) -> Result<(), EngineError> {
        let before = self
            .found
            .first()
            .map(|best| (best.standing.grade, best.standing.form));
        let processes = self
            .needs
            .prepared(self.kind_of(joined.first()))?
            .ranks_are_processes();
        let sample: Vec<usize> = joined.iter().copied().take(count).collect();
        let mut domains_known = None;
        let legal = self.legal(&sample)?;
        for (engine_order, (named, split)) in splits(&legal).iter().enumerate() {
            let numbered = (*named, engine_order);
            let found_before = before.is_some_and(|(grade, form)| {
                grade == Grade::Fits && form <= Form::at_best(split, processes)
            });
            let rooms = self.rooms(split, joined, found_before)?;
            let room = |place: usize| rooms.get(&place).copied().unwrap_or(i128::MIN + 1);
            let Some(roomiest) = windows(joined, count, room).into_iter().next() else {
                continue;
            };

            let grade = self.arranged(numbered, split, &roomiest, !found_before)?;
            if grade > Grade::Fits || found_before {
                continue;
            }

            let domains = domains_known.get_or_insert_with(|| domains(self.pool));
            for domain in domains.iter().filter(|domain| domain.len() >= count) {
                let mut choices = vec![windows(domain, count, room)];
                if split.tensor > 1 && split.stages.len() > 1 {
                    let groups = (split.tensor as usize, split.stages.len());
                    choices.extend(island_windows(self.pool, domain, groups, room));
                }
                for choice in choices {
                    self.while_fitting(numbered, split, choice)?;
                }
            }
        }

        Ok(())
    }

    /// Tries windows, roomiest first, up to the first that does not fit: after it none does.
    fn while_fitting(
        &mut self,
        numbered: (usize, usize),
        split: &Split,
        windows: Vec<Vec<usize>>,
    ) -> Result<(), EngineError> {
        for window in windows {
            if self.arranged(numbered, split, &window, true)? > Grade::Fits {
                break;
            }
        }
        Ok(())
    }

    /// What each device of `domain` leaves after an average rank of `split`; or, `roughly`, what it
    /// has.
    fn rooms(
        &self,
        split: &Split,
        domain: &[usize],
        roughly: bool,
    ) -> Result<BTreeMap<usize, i128>, EngineError> {
        let mut rooms = BTreeMap::new();
        let first = self.kind_of(domain.first());

        for &place in domain {
            let Some(device) = self.pool.devices.get(place) else {
                continue;
            };

            let room = if roughly {
                i128::from(device.available.get())
            } else {
                self.needs
                    .of(first, split, 0, self.pool, place)?
                    .left(device.available)
            };

            rooms.insert(place, room);
        }

        Ok(rooms)
    }

    /// Tries `window` in the orders that are worth a look, or only the likeliest of them; the best
    /// grade.
    fn arranged(
        &mut self,
        (named, engine_order): (usize, usize),
        split: &Split,
        window: &[usize],
        thorough: bool,
    ) -> Result<Grade, EngineError> {
        let wants = self.wants(split, window)?;
        let layers = split
            .stages
            .last()
            .map_or(1, |last| i128::from(last.end.max(1)));
        let mut best = Grade::No;

        for places in arrangements(self.pool, split, window, &wants, thorough) {
            let plain = alike_by_uuid(self.pool, &places);
            let same_wires =
                Wires::of(self.pool, split, &plain) == Wires::of(self.pool, split, &places);
            let places = if same_wires { plain } else { places };
            let candidate = self.weigh((Some(named), engine_order), split, &places)?;
            let standing = &candidate.standing;
            best = best.min(standing.grade);

            // Another order moves a layer or two: it does not help where more is missing.
            let hopeless = -standing.headroom.0 > 2 * i128::from(candidate.required.get()) / layers;
            self.keep(candidate)?;

            if !thorough || hopeless || split.stages.len() == 1 || best == Grade::Fits {
                break;
            }
        }

        Ok(best)
    }

    /// What each stage wants on the window's first device.
    pub(super) fn wants(&self, split: &Split, window: &[usize]) -> Result<Vec<i128>, EngineError> {
        let Some(&place) = window.first() else {
            return Ok(Vec::new());
        };

        let first = self.kind_of(Some(&place));
        let mut wants = Vec::with_capacity(split.stages.len());

        if split.stages.len() > 1 {
            for stage in 0..split.stages.len() {
                let rank = stage * split.tensor.max(1) as usize;
                let claim = self.needs.of(first, split, rank, self.pool, place)?;
                wants.push(i128::from(claim.need.high.get()));
            }
        }

        Ok(wants)
    }

    /// The legal splits over these devices, each with its number.
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

    /// Judges one split on certain devices, with its stages divided anew where the engine allows
    /// it.
    pub(super) fn judge(
        &mut self,
        (named, engine_order): (Option<usize>, usize),
        split: &Split,
        places: &[usize],
    ) -> Result<Grade, EngineError> {
        let candidate = self.weigh((named, engine_order), split, places)?;
        let grade = candidate.standing.grade;
        self.keep(candidate)?;
        Ok(grade)
    }

    fn keep(&mut self, candidate: Candidate) -> Result<(), EngineError> {
        let prepared = self.needs.prepared(candidate.first)?;
        self.found.add(candidate, prepared);
        Ok(())
    }

    /// The same without keeping it.
    pub(super) fn weigh(
        &mut self,
        (named, engine_order): (Option<usize>, usize),
        split: &Split,
        places: &[usize],
    ) -> Result<Candidate, EngineError> {
        let first = self.kind_of(places.first());
        let uneven = self.needs.prepared(first)?.uneven();
        let wires = Wires::of(self.pool, split, places);

        let divided = if uneven {
            self.costs.divide(self.needs, self.pool, split, places)?
        } else {
            None
        };

        match divided {
            Some(divided) => {
                self.needs
                    .judge(self.pool, (None, engine_order), &divided, places, wires)
            }
            None => self
                .needs
                .judge(self.pool, (named, engine_order), split, places, wires),
        }
    }

    /// The kind of a place.
    fn kind_of(&self, place: Option<&usize>) -> usize {
        place
            .and_then(|place| self.pool.devices.get(*place))
            .map_or(usize::MAX, |it| it.kind)
    }

    /// Bytes available on a place.
    pub(super) fn available(&self, place: usize) -> Bytes {
        self.pool
            .devices
            .get(place)
            .map_or(Bytes::ZERO, |it| it.available)
    }
}

/// The splits, none where none is legal.
pub(super) fn splits(legal: &Legal) -> &[(usize, Split)] {
    legal.as_ref().map_or(&[], Vec::as_slice)
}
