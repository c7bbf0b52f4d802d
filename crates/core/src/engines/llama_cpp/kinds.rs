//! A model's layers by kind: a hundred layers are two or three kinds, and planning asks for them
//! thousands of times.

use std::ops::Range;

use crate::model::architecture::Layer;

/// So many layers of one kind.
pub(crate) type CountedTensors<'a> = (&'a Layer, u64);

/// The distinct layers of a model and which layer is which.
#[derive(Clone, Debug)]
pub(crate) struct Kinds<'a> {
    distinct: Vec<&'a Layer>,
    of_layer: Vec<usize>,
}

impl<'a> Kinds<'a> {
    /// Sorts `layers`.
    pub(crate) fn new(layers: &'a [Layer]) -> Self {
        let mut distinct: Vec<&Layer> = Vec::new();
        let mut of_layer = Vec::new();
        for layer in layers {
            let known = distinct.iter().position(|kind| *kind == layer);
            of_layer.push(known.unwrap_or(distinct.len()));
            if known.is_none() {
                distinct.push(layer);
            }
        }

        Self { distinct, of_layer }
    }

    /// The kinds in `range` and how many layers are of each; layers that do not exist are left out.
    pub(crate) fn within(&self, range: &Range<u32>) -> Vec<CountedTensors<'a>> {
        let end = (range.end as usize).min(self.of_layer.len());
        let mut counts = vec![0; self.distinct.len()];
        for kind in self.of_layer.get(range.start as usize..end).unwrap_or(&[]) {
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
    pub(crate) fn all(&self) -> Vec<CountedTensors<'a>> {
        self.within(&(0..u32::MAX))
    }
}
