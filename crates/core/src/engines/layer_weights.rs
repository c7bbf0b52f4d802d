//! Tensors by decoder layer, for engines that split a model by layers and copy nothing.

use std::collections::BTreeMap;
use std::ops::Range;

use super::IllegalSplit;
use crate::bytes::Bytes;
use crate::model::{Inventory, TensorClass};

/// The tensors of a model, divided into decoder layers, what precedes them and what follows.
#[derive(Clone, Debug)]
pub struct LayerWeights<'a> {
    placed: Vec<(&'a TensorClass, LayerPlace)>,
    layers: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LayerPlace {
    /// Embeddings and towers: on the stage of the first layers.
    Before,
    /// On the stage of its layer.
    Layer,
    /// Final norm and output head: on the stage of the last layers.
    After,
}

impl<'a> LayerWeights<'a> {
    /// Classifies the tensors of a model with `layers` layers.
    pub fn new(inventory: &'a Inventory, layers: u32) -> Self {
        let decoder = decoder_prefix(inventory, layers);
        let place_of = |class: &TensorClass| match (prefix(&class.pattern), decoder) {
            (Some(own), Some(decoder)) if own == decoder && class.component.is_empty() => {
                LayerPlace::Layer
            }
            (None, _) if is_output(&class.pattern) => LayerPlace::After,
            _ => LayerPlace::Before,
        };

        Self {
            placed: inventory
                .classes
                .iter()
                .map(|class| (class, place_of(class)))
                .collect(),
            layers,
        }
    }

    /// The bytes of every layer and of the tensors around the layers.
    ///
    /// `bytes_each` returns the bytes of one tensor of a class. The table serves callers that ask
    /// for many stages.
    pub fn table(&self, bytes_each: impl Fn(&TensorClass) -> Bytes) -> LayerBytes {
        let mut each = vec![Bytes::ZERO; self.layers as usize];
        let mut table = LayerBytes::default();

        for (class, place) in &self.placed {
            let bytes = bytes_each(class);
            match place {
                LayerPlace::Before => table.before += bytes * class.count,
                LayerPlace::After => table.after += bytes * class.count,
                LayerPlace::Layer if class.layers.is_empty() => {
                    table.everywhere += bytes * class.count;
                }
                LayerPlace::Layer => {
                    for run in &class.layers {
                        let end = run.last.saturating_add(1);
                        let known = run.first.min(self.layers)..end.min(self.layers);
                        for slot in each
                            .get_mut(known.start as usize..known.end as usize)
                            .into_iter()
                            .flatten()
                        {
                            *slot += bytes * run.each;
                        }

                        table.behind += bytes
                            * run.each
                            * u64::from(end.saturating_sub(run.first.max(self.layers)));
                    }
                }
            }
        }

        table.largest = each.iter().copied().max().unwrap_or(Bytes::ZERO) + table.everywhere;
        let mut sum = Bytes::ZERO;
        table.before_layer = std::iter::once(sum)
            .chain(each.into_iter().map(|bytes| {
                sum += bytes;
                sum
            }))
            .collect();

        table
    }
}

/// Bytes by layer, as [`LayerWeights::table`] sums them up.
#[derive(Clone, Debug, Default)]
pub struct LayerBytes {
    before: Bytes,
    after: Bytes,
    /// Tensors stored behind the last layer (prediction layers); they stay with the last layer.
    behind: Bytes,
    /// Decoder tensors whose layer is unknown.
    everywhere: Bytes,
    /// `before_layer[n]`: bytes of the layers before n.
    before_layer: Vec<Bytes>,
    largest: Bytes,
}

impl LayerBytes {
    /// The bytes of stage `stage` of `stages`.
    pub fn stage(&self, stages: &[Range<u32>], stage: usize) -> Bytes {
        let Some(range) = stages.get(stage) else {
            return Bytes::ZERO;
        };

        let mut sum = self.layers(range);
        if stage == 0 {
            sum += self.before;
        }

        if stage + 1 == stages.len() {
            sum += self.after;
            if range.end as usize + 1 >= self.before_layer.len() {
                sum += self.behind;
            }
        }

        sum
    }

    /// The bytes of a range of decoder layers alone.
    pub fn layers(&self, range: &Range<u32>) -> Bytes {
        let last = self.before_layer.len().saturating_sub(1);
        let bytes_before = |layer: u32| {
            self.before_layer
                .get((layer as usize).min(last))
                .copied()
                .unwrap_or(Bytes::ZERO)
        };

        bytes_before(range.end.max(range.start))
            .less(bytes_before(range.start))
            .unwrap_or(Bytes::OVERFLOW)
            + self.everywhere
    }

    /// The largest layer.
    pub fn largest_layer(&self) -> Bytes {
        self.largest
    }
}

/// Checks that `stages` hold layers 0 to `layers` in order and without gaps.
pub fn covers(stages: &[Range<u32>], layers: u32) -> Result<(), IllegalSplit> {
    let mut next = 0;
    for stage in stages {
        if stage.start != next || (stage.end <= stage.start && layers > 0) {
            return Err(IllegalSplit(format!(
                "stage {}..{} does not follow layer {next}",
                stage.start, stage.end
            )));
        }
        next = stage.end;
    }

    if next == layers {
        Ok(())
    } else {
        Err(IllegalSplit(format!(
            "{next} of {layers} layers are placed"
        )))
    }
}

/// The part of a name before its first number.
fn prefix(pattern: &str) -> Option<&str> {
    pattern.split_once('*').map(|(prefix, _)| prefix)
}

/// The prefix of the decoder's layers.
///
/// It is the prefix with the most bytes among those that reach the last layer.
fn decoder_prefix(inventory: &Inventory, layers: u32) -> Option<&str> {
    let mut sizes: BTreeMap<&str, (Bytes, u32)> = BTreeMap::new();
    for class in inventory
        .classes
        .iter()
        .filter(|class| class.component.is_empty())
    {
        let Some(prefix) = prefix(&class.pattern) else {
            continue;
        };

        let size = sizes.entry(prefix).or_default();
        size.0 += class.bytes();

        size.1 = size.1.max(
            class
                .layers
                .iter()
                .map(|run| run.last.saturating_add(1))
                .max()
                .unwrap_or(0),
        );
    }

    let reaching = sizes
        .into_iter()
        .filter(|(_, (_, reach))| layers > 0 && *reach >= layers);

    reaching
        .max_by_key(|(_, (bytes, _))| *bytes)
        .map(|(prefix, _)| prefix)
}

fn is_output(pattern: &str) -> bool {
    const OUTPUT: &[&str] = &[
        "lm_head",
        "output",
        "embed_out",
        "final",
        "norm",
        "ln_f",
        "head.",
        "score",
        "classifier",
    ];

    !pattern.contains("embed_tokens")
        && !pattern.contains("vision")
        && OUTPUT.iter().any(|word| pattern.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tensors::InventoryBuilder;
    use crate::model::{Dtype, Storage};

    #[test]
    fn stages_add_up_to_whole() {
        let mut builder = InventoryBuilder::default();
        let mut add_tensor = |name: &str, bytes| {
            builder.add(
                "",
                name,
                Storage::Known(Dtype::BF16),
                &[bytes / 2],
                Bytes::new(bytes),
            );
        };

        add_tensor("model.embed_tokens.weight", 1000);
        add_tensor("model.norm.weight", 10);
        add_tensor("lm_head.weight", 1000);
        (0..5)
            .for_each(|layer| add_tensor(&format!("model.layers.{layer}.mlp.up_proj.weight"), 100));
        (0..3).for_each(|layer| {
            add_tensor(&format!("vision_tower.layers.{layer}.up_proj.weight"), 50);
        });
        let inventory = builder.finish();
        let weights = LayerWeights::new(&inventory, 4);
        let stages = [0..1, 1..4];
        let table = weights.table(|class| class.bytes_each);
        assert_eq!(table.stage(&stages, 0), Bytes::new(1000 + 150 + 100));

        // The fifth layer is a prediction layer; it stays with the last layer.
        assert_eq!(table.stage(&stages, 1), Bytes::new(400 + 10 + 1000));
        assert_eq!(table.largest_layer(), Bytes::new(100));

        // A last stage without layers still holds the tensors after the layers.
        assert_eq!(table.stage(&[0..4, 4..4], 1), Bytes::new(100 + 10 + 1000));
        assert_eq!(table.layers(&(1..3)), Bytes::new(200));
        assert_eq!(table.stage(&stages, 2), Bytes::ZERO);
    }
}
