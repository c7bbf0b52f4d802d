//! The tensors of a model, folded into classes.
//!
//! A class is all tensors whose names differ only in their numbers. A mixture of experts has 90 000
//! tensors in about forty classes. So a model takes a few kilobytes, and an engine visits forty
//! rows instead of 90 000 for each split that it tries.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde::{Deserialize, Serialize};

use super::dtype::Dtype;
use crate::bytes::Bytes;

/// How the elements of a tensor are stored.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Storage {
    /// A type of known size.
    Known(Dtype),
    /// The name of a type newer than this program. Only the header's offsets give its size.
    Unknown(Box<str>),
}

/// All tensors with one name pattern, storage and shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorClass {
    /// The folder of the component (`transformer`, `text_encoder`), empty for the root.
    pub component: Box<str>,
    /// The name with every purely numeric segment replaced by `*`:
    /// `model.layers.*.mlp.experts.*.up_proj.weight`.
    pub pattern: Box<str>,
    /// How the elements are stored.
    pub storage: Storage,
    /// The shape in the header. Packed weights have another logical shape. GGUF shapes begin with
    /// ne0.
    pub shape: Box<[u64]>,
    /// Stored bytes of one tensor.
    pub bytes_each: Bytes,
    /// The number of tensors for each value of the first number in the name, as runs of layers.
    /// Empty for names without a number.
    pub layers: Vec<LayerRun>,
    /// Number of tensors in the class.
    pub count: u64,
}

/// Layers `first..=last` with the same number of tensors of a class, for example one per expert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRun {
    /// The first layer of the run.
    pub first: u32,
    /// The last layer of the run, included.
    pub last: u32,
    /// Number of tensors of the class in each of these layers.
    pub each: u64,
}

impl TensorClass {
    /// Returns the elements of one tensor by the shape in its header.
    pub fn elements_each(&self) -> u64 {
        Bytes::product(self.shape.iter().copied()).get()
    }

    /// Returns the stored bytes of the whole class.
    pub fn bytes(&self) -> Bytes {
        self.bytes_each * self.count
    }

    /// Returns the number of tensors in `layers`, or all of them if the name has no layer.
    pub fn count_in(&self, layers: &std::ops::Range<u32>) -> u64 {
        if self.layers.is_empty() {
            return self.count;
        }

        let in_run = |run: &LayerRun| {
            let (from, to) = (
                run.first.max(layers.start),
                run.last.saturating_add(1).min(layers.end),
            );
            u64::from(to.saturating_sub(from)).saturating_mul(run.each)
        };

        self.layers.iter().map(in_run).fold(0, u64::saturating_add)
    }

    /// Returns the storage type, or `None` if it is unknown.
    pub fn dtype(&self) -> Option<Dtype> {
        match self.storage {
            Storage::Known(dtype) => Some(dtype),
            Storage::Unknown(_) => None,
        }
    }
}

/// All tensors of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// The classes, ordered by component, pattern, storage and shape.
    pub classes: Vec<TensorClass>,
}

impl Inventory {
    /// Returns the stored bytes of all tensors.
    pub fn bytes(&self) -> Bytes {
        self.classes.iter().map(TensorClass::bytes).sum()
    }

    /// Returns the number of tensors in all classes.
    pub fn tensors(&self) -> u64 {
        self.classes
            .iter()
            .map(|class| class.count)
            .fold(0, u64::saturating_add)
    }

    /// Returns the elements of all tensors by their headers. Packed weights count packing words.
    pub fn elements(&self) -> u64 {
        self.classes
            .iter()
            .map(|class| class.elements_each().saturating_mul(class.count))
            .fold(0, u64::saturating_add)
    }

    /// Returns the stored bytes by storage type, in the order of the types.
    pub fn bytes_by_storage(&self) -> BTreeMap<Storage, Bytes> {
        let mut totals = BTreeMap::new();
        for class in &self.classes {
            *totals.entry(class.storage.clone()).or_insert(Bytes::ZERO) += class.bytes();
        }

        totals
    }

    /// Returns the stored bytes by component folder.
    pub fn bytes_by_component(&self) -> BTreeMap<&str, Bytes> {
        let mut totals = BTreeMap::new();
        for class in &self.classes {
            *totals.entry(&*class.component).or_insert(Bytes::ZERO) += class.bytes();
        }

        totals
    }
}

/// Folds tensors into an [`Inventory`], one by one.
#[derive(Clone, Debug, Default)]
pub struct InventoryBuilder {
    classes: BTreeMap<ClassKey, ClassCount>,
}

/// (component, pattern, storage, shape).
type ClassKey = (Box<str>, Box<str>, Storage, Box<[u64]>);

#[derive(Clone, Debug, Default)]
struct ClassCount {
    bytes_each: Bytes,
    layers: BTreeMap<u32, u64>,
    count: u64,
}

impl InventoryBuilder {
    /// Adds one tensor of `component`, which takes `bytes` by its header.
    ///
    /// Tensors of one name pattern, storage and shape have the same size unless their header
    /// contradicts itself. The larger size wins, so that a contradiction can only raise the need.
    pub fn add(
        &mut self,
        component: &str,
        name: &str,
        storage: Storage,
        shape: &[u64],
        bytes: Bytes,
    ) {
        let (pattern, layer) = fold_name(name);
        match self
            .classes
            .entry((component.into(), pattern.into(), storage, shape.into()))
        {
            Entry::Vacant(slot) => {
                let layers = layer.map(|layer| (layer, 1)).into_iter().collect();
                slot.insert(ClassCount {
                    bytes_each: bytes,
                    layers,
                    count: 1,
                });
            }
            Entry::Occupied(slot) => {
                let class = slot.into_mut();
                class.bytes_each = class.bytes_each.max(bytes);
                class.count += 1;
                if let Some(layer) = layer {
                    *class.layers.entry(layer).or_insert(0) += 1;
                }
            }
        }
    }

    /// Returns the number of classes so far.
    pub fn classes(&self) -> usize {
        self.classes.len()
    }

    /// Adds all tensors of `other`.
    pub fn absorb(&mut self, other: Self) {
        for (key, class) in other.classes {
            match self.classes.entry(key) {
                Entry::Vacant(slot) => {
                    slot.insert(class);
                }
                Entry::Occupied(slot) => {
                    let joined = slot.into_mut();
                    joined.bytes_each = joined.bytes_each.max(class.bytes_each);
                    joined.count = joined.count.saturating_add(class.count);
                    for (layer, more) in class.layers {
                        let each = joined.layers.entry(layer).or_insert(0);
                        *each = each.saturating_add(more);
                    }
                }
            }
        }
    }

    /// Joins inventories that share no tensor, such as the parts of a split file.
    pub fn join(inventories: impl IntoIterator<Item = Inventory>) -> Inventory {
        let mut builder = Self::default();
        for class in inventories
            .into_iter()
            .flat_map(|inventory| inventory.classes)
        {
            let key = (class.component, class.pattern, class.storage, class.shape);
            let joined = builder.classes.entry(key).or_default();
            joined.bytes_each = joined.bytes_each.max(class.bytes_each);
            joined.count = joined.count.saturating_add(class.count);

            for run in class.layers {
                for layer in run.first..=run.last {
                    let each = joined.layers.entry(layer).or_insert(0);
                    *each = each.saturating_add(run.each);
                }
            }
        }

        builder.finish()
    }

    /// Returns the folded tensors.
    pub fn finish(self) -> Inventory {
        let classes = self.classes.into_iter();
        Inventory {
            classes: classes.map(|(key, count)| count.into_class(key)).collect(),
        }
    }
}

impl ClassCount {
    fn into_class(self, key: ClassKey) -> TensorClass {
        let (component, pattern, storage, shape) = key;
        TensorClass {
            component,
            pattern,
            storage,
            shape,
            bytes_each: self.bytes_each,
            layers: layer_runs(&self.layers),
            count: self.count,
        }
    }
}

/// Name endings of the two parts of a `torch.nn.utils.weight_norm` weight: (since torch 2.0,
/// before).
const WEIGHT_NORM: [(&str, &str); 2] = [
    (".parametrizations.weight.original0", ".weight_g"),
    (".parametrizations.weight.original1", ".weight_v"),
];

/// Replaces each purely numeric dot segment by `*`, and returns the first of the numbers.
///
/// A parameter that torch has two names for has one pattern.
fn fold_name(name: &str) -> (String, Option<u32>) {
    let mut layer = None;
    let mut pattern = String::with_capacity(name.len());
    for segment in name.split('.') {
        if !pattern.is_empty() {
            pattern.push('.');
        }
        match segment.parse::<u32>() {
            Ok(number) if segment.bytes().all(|byte| byte.is_ascii_digit()) => {
                layer = layer.or(Some(number));
                pattern.push('*');
            }
            _ => pattern.push_str(segment),
        }
    }

    for (newer, older) in WEIGHT_NORM {
        if let Some(module) = pattern.strip_suffix(newer) {
            pattern.truncate(module.len());
            pattern.push_str(older);
            break;
        }
    }

    (pattern, layer)
}

/// Joins neighboring layers with equal counts.
fn layer_runs(layers: &BTreeMap<u32, u64>) -> Vec<LayerRun> {
    let mut runs: Vec<LayerRun> = Vec::new();
    for (&layer, &each) in layers {
        match runs.last_mut() {
            Some(run) if run.each == each && run.last.checked_add(1) == Some(layer) => {
                run.last = layer;
            }
            _ => runs.push(LayerRun {
                first: layer,
                last: layer,
                each,
            }),
        }
    }

    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn experts() -> Inventory {
        let mut builder = InventoryBuilder::default();
        for layer in 3..10 {
            for expert in 0..4 {
                let name = format!("model.layers.{layer}.mlp.experts.{expert}.up_proj.weight");
                builder.add(
                    "",
                    &name,
                    Storage::Known(Dtype::BF16),
                    &[8, 2],
                    Bytes::new(32),
                );
            }
        }

        builder.add(
            "",
            "lm_head.weight",
            Storage::Known(Dtype::F32),
            &[5],
            Bytes::new(20),
        );

        builder.finish()
    }

    #[test]
    fn layers_and_experts_share_a_class() {
        let inventory = experts();
        assert_eq!(inventory.classes.len(), 2);
        let class = &inventory.classes[1];
        assert_eq!(
            &*class.pattern,
            "model.layers.*.mlp.experts.*.up_proj.weight"
        );

        assert_eq!(
            class.layers,
            [LayerRun {
                first: 3,
                last: 9,
                each: 4
            }]
        );

        assert_eq!(class.count_in(&(0..5)), 8);
        assert_eq!(inventory.bytes(), Bytes::new(7 * 4 * 32 + 20));
        assert_eq!(inventory.tensors(), 29);
        assert_eq!(inventory.elements(), 7 * 4 * 16 + 5);
    }

    #[test]
    fn absorbed_parts_equal_the_whole() {
        let (mut whole, mut parts) = (
            InventoryBuilder::default(),
            [InventoryBuilder::default(), InventoryBuilder::default()],
        );
        for tensor in 0..20_u32 {
            let name = format!("layers.{}.experts.{tensor}.w", tensor / 4);
            let (part, bytes) = (tensor as usize % 2, Bytes::new(8 + u64::from(tensor)));
            whole.add("", &name, Storage::Unknown("x".into()), &[8], bytes);
            parts[part].add("", &name, Storage::Unknown("x".into()), &[8], bytes);
        }

        let [mut first, second] = parts;
        first.absorb(second);
        assert_eq!((first.classes(), first.finish()), (1, whole.finish()));
    }

    #[test]
    fn unnumbered_name_counts_in_every_range() {
        assert_eq!(experts().classes[0].count_in(&(100..101)), 1);
    }

    #[test]
    fn weight_norm_names_fold_into_one() {
        for (part, older) in [("original0", "weight_g"), ("original1", "weight_v")] {
            let (newer, older) = (
                format!("conv.3.parametrizations.weight.{part}"),
                format!("conv.3.{older}"),
            );
            assert_eq!(fold_name(&newer), fold_name(&older));
        }

        assert_eq!(
            fold_name("a.parametrizations.weight.original").0,
            "a.parametrizations.weight.original"
        );
    }

    #[test]
    fn only_whole_numeric_segments_fold() {
        assert_eq!(
            fold_name("text_encoder_2.layer.11.w"),
            ("text_encoder_2.layer.*.w".into(), Some(11))
        );
        assert_eq!(fold_name("block.+1.w"), ("block.+1.w".into(), None));
    }
}
