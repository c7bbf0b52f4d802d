//! The different layers of a model: a range of sixty layers is most often one, two or three kinds
//! of them.

use std::ops::Range;

use crate::model::architecture::{Layer, Mixer};

/// The layers of a model, equal ones told once.
#[derive(Clone, Debug)]
pub struct LayerKinds<'a> {
    kinds: Vec<LayerKind<'a>>,
    count: u32,
}

#[derive(Clone, Debug)]
struct LayerKind<'a> {
    layer: &'a Layer,
    /// For every layer n the first layer of this kind that is not before n; up to the last there
    /// is.
    next: Vec<u32>,
    /// Layers of this kind before layer n.
    before: Vec<u32>,
}

impl<'a> LayerKinds<'a> {
    /// Tells `layers` apart.
    pub fn new(layers: &'a [Layer]) -> Self {
        let count = u32::try_from(layers.len()).unwrap_or(u32::MAX);
        let mut kinds: Vec<LayerKind<'_>> = Vec::new();
        let mut last = 0;

        for (at, layer) in (0..count).zip(layers) {
            // The kind of the layer before is the likeliest.
            let is = |kind: usize| kinds.get(kind).is_some_and(|known| known.layer == layer);
            last = if is(last) {
                last
            } else {
                (0..kinds.len())
                    .find(|kind| is(*kind))
                    .unwrap_or(kinds.len())
            };

            if last == kinds.len() {
                kinds.push(LayerKind {
                    layer,
                    next: Vec::with_capacity(layers.len()),
                    before: vec![0; at as usize + 1],
                });
            }

            for (number, kind) in kinds.iter_mut().enumerate() {
                let so_far = kind.before.last().copied().unwrap_or(0);
                kind.before.push(so_far + u32::from(number == last));
                if number == last {
                    kind.next.resize(at as usize + 1, at);
                }
            }
        }

        Self { kinds, count }
    }

    /// The layers of `range`, cut to those that there are.
    pub fn held(&self, range: &Range<u32>) -> RankLayers<'_> {
        let end = range.end.min(self.count);
        RankLayers {
            kinds: &self.kinds,
            range: range.start.min(end)..end,
        }
    }
}

/// The layers of one rank.
#[derive(Clone, Debug)]
pub struct RankLayers<'k> {
    kinds: &'k [LayerKind<'k>],
    range: Range<u32>,
}

impl<'k> RankLayers<'k> {
    /// How many there are.
    pub fn count(&self) -> u64 {
        u64::from(self.range.end - self.range.start)
    }

    /// One of each kind.
    pub fn iter(&self) -> impl Iterator<Item = &'k Layer> {
        self.placed().map(|(_, layer)| layer)
    }

    /// One of each kind, with how many there are of it.
    pub fn counted(&self) -> impl Iterator<Item = (&'k Layer, u64)> {
        let Range { start, end } = self.range;
        self.kinds.iter().filter_map(move |kind| {
            let before = |layer: u32| kind.before.get(layer as usize).copied().unwrap_or(0);
            let count = before(end).saturating_sub(before(start));
            (count > 0).then_some((kind.layer, u64::from(count)))
        })
    }

    /// The mixers, with how many there are of each.
    pub fn mixers(&self) -> impl Iterator<Item = (&'k Mixer, u64)> {
        let both = |layer: &'k Layer| layer.mixers();
        self.counted()
            .flat_map(move |(layer, count)| both(layer).map(move |mixer| (mixer, count)))
    }

    /// What `find` says of the first layer that it says anything of.
    pub fn find_map<T>(&self, find: impl Fn(&'k Layer) -> Option<T>) -> Option<T> {
        let found = self
            .placed()
            .filter_map(|(at, layer)| Some((at, find(layer)?)));
        found.min_by_key(|(at, _)| *at).map(|(_, found)| found)
    }

    /// One of each kind with its first place in the range.
    fn placed(&self) -> impl Iterator<Item = (u32, &'k Layer)> {
        let Range { start, end } = self.range;
        self.kinds.iter().filter_map(move |kind| {
            let at = *kind.next.get(start as usize)?;
            (at < end).then_some((at, kind.layer))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::architecture::FeedForward;

    #[test]
    fn every_range_holds_the_kinds_that_lie_in_it() {
        let layer = |width| Layer {
            mixer: Mixer::None,
            second_mixer: None,
            feed_forward: FeedForward::Dense { width },
        };

        let layers: Vec<Layer> = [1, 1, 2, 1, 3, 3, 2].map(layer).to_vec();
        let kinds = LayerKinds::new(&layers);

        for start in 0..9 {
            for end in 0..9 {
                let held = kinds.held(&(start..end));
                let (from, to) = ((start as usize).min(7), (end as usize).min(7));
                let plain = layers.get(from.min(to)..to).unwrap_or_default();
                assert_eq!(held.count(), plain.len() as u64);

                assert!(
                    plain
                        .iter()
                        .all(|layer| held.iter().any(|kind| kind == layer)),
                    "{start}..{end}"
                );

                assert!(
                    held.iter().all(|kind| plain.contains(kind)),
                    "{start}..{end}"
                );
                assert_eq!(held.find_map(Some), plain.first());

                for (kind, count) in held.counted() {
                    assert_eq!(
                        count,
                        plain.iter().filter(|layer| *layer == kind).count() as u64
                    );
                }

                assert_eq!(
                    held.counted().map(|(_, count)| count).sum::<u64>(),
                    held.count()
                );
                let odd = |layer: &Layer| matches!(layer.feed_forward, FeedForward::Dense { width } if width > 1);
                assert_eq!(
                    held.find_map(|layer| odd(layer).then_some(layer)),
                    plain.iter().find(|layer| odd(layer))
                );
            }
        }
    }
}
