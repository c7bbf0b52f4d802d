//! The distinct layers of a model.
//!
//! A range of sixty layers usually has one, two or three kinds.

use std::ops::Range;

use crate::model::architecture::{Layer, Mixer};

/// The layers of a model, grouped by equality.
#[derive(Clone, Debug)]
pub struct LayerKinds<'a> {
    kinds: Vec<LayerKind<'a>>,
    count: u32,
}

#[derive(Clone, Debug)]
struct LayerKind<'a> {
    layer: &'a Layer,
    /// For every layer n, the first layer of this kind at or after n; ends at the kind's last
    /// layer.
    next: Vec<u32>,
    /// The number of layers of this kind before layer n.
    before: Vec<u32>,
}

impl LayerKind<'_> {
    fn count_before(&self, layer: u32) -> u32 {
        self.before.get(layer as usize).copied().unwrap_or(0)
    }
}

impl<'a> LayerKinds<'a> {
    /// Groups equal layers of `layers`.
    pub fn new(layers: &'a [Layer]) -> Self {
        let count = u32::try_from(layers.len()).unwrap_or(u32::MAX);
        let mut kinds: Vec<LayerKind<'_>> = Vec::new();
        let mut last = 0;

        for (at, layer) in (0..count).zip(layers) {
            // The kind of the previous layer is the likeliest.
            if kinds.get(last).is_none_or(|kind| kind.layer != layer) {
                last = kinds
                    .iter()
                    .position(|kind| kind.layer == layer)
                    .unwrap_or(kinds.len());
            }

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

    /// The layers of `range` that exist.
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
    /// The number of layers.
    pub fn count(&self) -> u64 {
        u64::from(self.range.end - self.range.start)
    }

    /// Returns a layer of each kind.
    pub fn iter(&self) -> impl Iterator<Item = &'k Layer> {
        self.placed().map(|(_, layer)| layer)
    }

    /// Returns a layer of each kind with the number of layers of that kind.
    pub fn counted(&self) -> impl Iterator<Item = (&'k Layer, u64)> {
        let Range { start, end } = self.range;
        self.kinds.iter().filter_map(move |kind| {
            let count = kind
                .count_before(end)
                .saturating_sub(kind.count_before(start));
            (count > 0).then_some((kind.layer, u64::from(count)))
        })
    }

    /// Returns the mixers with the number of each.
    pub fn mixers(&self) -> impl Iterator<Item = (&'k Mixer, u64)> {
        let both = |layer: &'k Layer| layer.mixers();
        self.counted()
            .flat_map(move |(layer, count)| both(layer).map(move |mixer| (mixer, count)))
    }

    /// Returns the first result of `find`, in the order of the layers.
    pub fn find_map<T>(&self, find: impl Fn(&'k Layer) -> Option<T>) -> Option<T> {
        let found = self
            .placed()
            .filter_map(|(at, layer)| Some((at, find(layer)?)));
        found.min_by_key(|(at, _)| *at).map(|(_, found)| found)
    }

    /// Returns a layer of each kind with its first index in the range.
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
    fn ranges_hold_exactly_their_kinds() {
        let layer_of_width = |width| Layer {
            mixer: Mixer::None,
            second_mixer: None,
            feed_forward: FeedForward::Dense { width },
            passes: 1,
        };

        let layers: Vec<Layer> = [1, 1, 2, 1, 3, 3, 2].map(layer_of_width).to_vec();
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
                let is_odd = |layer: &Layer| layer.feed_forward != FeedForward::Dense { width: 1 };
                assert_eq!(
                    held.find_map(|layer| is_odd(layer).then_some(layer)),
                    plain.iter().find(|layer| is_odd(layer))
                );
            }
        }
    }
}
