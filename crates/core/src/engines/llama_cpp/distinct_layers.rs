//! The distinct layers of a model.
//!
//! A hundred layers are two or three kinds, and planning asks for them thousands of times.

use std::ops::Range;

use crate::model::architecture::Layer;

/// A kind of layer with the number of layers of that kind.
pub(crate) type CountedLayer<'a> = (&'a Layer, u64);

/// The distinct layers of a model, and the kind of each layer.
#[derive(Clone, Debug)]
pub(crate) struct DistinctLayers<'a> {
    distinct: Vec<&'a Layer>,
    kind_of_layer: Vec<usize>,
}

impl<'a> DistinctLayers<'a> {
    /// Groups equal layers of `layers`.
    pub(crate) fn new(layers: &'a [Layer]) -> Self {
        let mut distinct: Vec<&Layer> = Vec::new();
        let mut kind_of_layer = Vec::new();
        for layer in layers {
            let known = distinct.iter().position(|kind| *kind == layer);
            kind_of_layer.push(known.unwrap_or(distinct.len()));
            if known.is_none() {
                distinct.push(layer);
            }
        }

        Self {
            distinct,
            kind_of_layer,
        }
    }

    /// The kinds in `range` with the number of layers of each; ignores layers that do not exist.
    pub(crate) fn within(&self, range: &Range<u32>) -> Vec<CountedLayer<'a>> {
        let end = (range.end as usize).min(self.kind_of_layer.len());
        let mut counts = vec![0; self.distinct.len()];
        for kind in self
            .kind_of_layer
            .get(range.start as usize..end)
            .unwrap_or(&[])
        {
            if let Some(count) = counts.get_mut(*kind) {
                *count += 1;
            }
        }

        self.distinct
            .iter()
            .copied()
            .zip(counts)
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    /// All kinds.
    pub(crate) fn all(&self) -> Vec<CountedLayer<'a>> {
        self.within(&(0..u32::MAX))
    }
}
