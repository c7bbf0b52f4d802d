//! Group offloading: the weights that are on the device while a part runs.
//!
//! Source: diffusers 0.42.1 `hooks/group_offloading.py` (`_apply_group_offloading_block_level`,
//! `_apply_group_offloading_leaf_level`, `GroupOffloadingHook.pre_forward`, `ModuleGroup`).

use std::collections::BTreeMap;

use super::super::Interval;
use super::settings::{GroupKind, GroupOffload};
use crate::bytes::Bytes;
use crate::model::TensorClass;

/// Blocks of a list beyond which the whole list counts as one group.
const MOST_BLOCKS: u32 = 4096;

/// Decoders whose submodules are divided, so that `decode` loads them.
const DIVIDED_DECODERS: [&str; 2] = ["AutoencoderKL", "AutoencoderKLWan"];

/// Classes that reject group offloading (`_supports_group_offloading = False`).
const REJECTING: [&str; 10] = [
    "AutoencoderKLMiniMaxH3Audio",
    "AutoencoderKLKVAEAudio",
    "AutoencoderOobleck",
    "AutoencoderSAME",
    "ConsistencyDecoderVAE",
    "Cosmos3AVAEAudioTokenizer",
    "DiTTransformer2DModel",
    "HunyuanDiT2DModel",
    "LongCatAudioDiTVae",
    "VQModel",
];

/// The weights of a part by the groups that move together.
#[derive(Clone, Debug, Default)]
pub(super) struct Divided {
    /// The whole part.
    whole: Bytes,
    /// Weights of lists of blocks, each by the block's number.
    lists: BTreeMap<String, BTreeMap<u32, Bytes>>,
    /// Weights outside of lists that are on the device while the part runs.
    unmatched: Bytes,
    /// The largest module's own weights.
    largest_leaf: Bytes,
    /// The own weights of the largest module of another kind, which may come next.
    second_leaf: Bytes,
    /// The part's own weights, which no submodule has.
    own: Bytes,
    /// Bytes of host memory if each tensor is pinned: torch rounds each up to a power of two.
    pinned: Bytes,
}

/// Why group offloading cannot run a part of `class`; `None` if it can.
pub(super) fn rejection(class: &str, is_decoder: bool, kind: GroupKind) -> Option<String> {
    if REJECTING.contains(&class) {
        return Some(format!("{class} does not support group offloading"));
    }

    let undivided = is_decoder && !DIVIDED_DECODERS.contains(&class);
    if undivided && matches!(kind, GroupKind::Blocks { .. }) {
        return Some(format!(
            "{class} loads its blocks in forward, and pipelines call decode: name it in \
             exclude_modules, or ask for offload_type=leaf_level"
        ));
    }

    None
}

impl Divided {
    /// The groups of a part of `class` with `classes` of tensors and their bytes as loaded.
    pub(super) fn new(class: &str, classes: &[(&TensorClass, Bytes)]) -> Self {
        // A decoder's call runs neither its encoder nor its first convolution.
        let prefix = if DIVIDED_DECODERS.contains(&class) {
            "decoder."
        } else {
            ""
        };

        let mut divided = Self::default();
        let mut leaves: BTreeMap<&str, BTreeMap<&str, Bytes>> = BTreeMap::new();

        for (class, bytes) in classes {
            let (module, tensor) = class
                .pattern
                .rsplit_once('.')
                .unwrap_or(("", &class.pattern));
            divided.whole += *bytes * class.count;
            divided.pinned += power_of_two(*bytes) * class.count;

            if module.is_empty() {
                divided.own += *bytes * class.count;
            } else {
                let largest = leaves.entry(module).or_default().entry(tensor).or_default();
                *largest = (*largest).max(*bytes);
            }

            if let Some(name) = class.pattern.strip_prefix(prefix) {
                divided.add(name, class, *bytes);
            }
        }

        let mut sizes: Vec<Bytes> = leaves
            .values()
            .map(|tensors| tensors.values().copied().sum())
            .collect();
        sizes.sort_unstable_by(|one, other| other.cmp(one));
        divided.largest_leaf = sizes.first().copied().unwrap_or(Bytes::ZERO);
        divided.second_leaf = sizes.get(1).copied().unwrap_or(Bytes::ZERO);
        divided
    }

    /// Adds a class of tensors to its list of blocks, or to what is outside of lists.
    fn add(&mut self, name: &str, class: &TensorClass, bytes: Bytes) {
        let mut segments = name.split('.');
        let list = segments.next().unwrap_or_default();
        let numbered = segments.next() == Some("*");
        let is_small = class.layers.iter().all(|run| run.last < MOST_BLOCKS);

        if !numbered || !is_small || class.layers.is_empty() {
            self.unmatched += bytes * class.count;
            return;
        }

        let blocks = self.lists.entry(list.to_owned()).or_default();
        for run in &class.layers {
            for block in run.first..=run.last {
                *blocks.entry(block).or_default() += bytes * run.each;
            }
        }
    }

    /// The whole part's weights.
    pub(super) fn whole(&self) -> Bytes {
        self.whole
    }

    /// The largest module's own weights, and those of the part that no submodule has.
    pub(super) fn largest_leaf(&self) -> Bytes {
        self.own + self.largest_leaf
    }

    /// Weights on the device while the part runs.
    pub(super) fn on_device(&self, groups: &GroupOffload) -> Interval {
        match groups.kind {
            GroupKind::Blocks { per_group } => self.blocks_on_device(groups, per_group),
            GroupKind::Leaves => self.leaves_on_device(groups),
        }
    }

    /// The largest group of blocks with what is outside of lists; two groups with a stream, which
    /// loads the next one while one runs.
    fn blocks_on_device(&self, groups: &GroupOffload, per_group: u64) -> Interval {
        let lists: Vec<Vec<Bytes>> = self
            .lists
            .values()
            .map(|blocks| group_sizes(blocks, per_group))
            .collect();

        let held = if groups.streamed() { 2 } else { 1 };
        let inside = lists
            .iter()
            .flat_map(|list| list.windows(held.min(list.len().max(1))))
            .map(|window| window.iter().copied().sum())
            .max()
            .unwrap_or(Bytes::ZERO);

        let between = if groups.streamed() {
            between_lists(&lists)
        } else {
            Bytes::ZERO
        };

        // Lists that take turns could have any two groups next to each other.
        let largest = lists.iter().filter_map(|list| list.iter().max()).max();
        let across = largest.copied().unwrap_or(Bytes::ZERO) * u64::from(groups.streamed());
        let likely = (self.unmatched + inside.max(between)).min(self.whole);
        let at_most = if groups.recorded() {
            self.whole
        } else {
            (likely + across).min(self.whole)
        };

        // The peak of activations may come while the smallest group is there.
        let smallest = lists.iter().flatten().min().copied();
        let least = self.unmatched + smallest.unwrap_or(Bytes::ZERO);
        Interval::new(least, likely, at_most)
    }

    /// The largest module, and with a stream the next one, which at most is as large.
    fn leaves_on_device(&self, groups: &GroupOffload) -> Interval {
        // The peak of activations may come while no large module is there.
        let one = self.largest_leaf();
        if !groups.streamed() {
            return Interval::new(self.own, one, one);
        }

        let likely = (one + self.second_leaf).min(self.whole);
        let at_most = if groups.recorded() {
            self.whole
        } else {
            (one + self.largest_leaf).min(self.whole)
        };
        Interval::new(self.own, likely, at_most)
    }

    /// Host memory for the part's weights while it is offloaded.
    pub(super) fn on_host(&self, groups: &GroupOffload) -> Interval {
        if groups.is_on_disk() {
            // The files are written after all weights were loaded.
            return Interval::new(self.on_device(groups).low, self.whole, self.whole);
        }

        if groups.pins_all() {
            return Interval::new(self.whole, self.pinned, self.pinned + self.whole);
        }

        let on_the_fly = if groups.streamed() {
            self.on_device(groups).high * 2
        } else {
            Bytes::ZERO
        };
        Interval::new(self.whole, self.whole, self.whole + on_the_fly)
    }
}

/// The largest pair of a list's last group and the first group of another list, which loads ahead.
fn between_lists(lists: &[Vec<Bytes>]) -> Bytes {
    let mut largest = Bytes::ZERO;
    for (at, list) in lists.iter().enumerate() {
        for (other_at, other) in lists.iter().enumerate() {
            if let (true, Some(last), Some(first)) = (at != other_at, list.last(), other.first()) {
                largest = largest.max(*last + *first);
            }
        }
    }

    largest
}

/// Sizes of the groups of a list of blocks.
fn group_sizes(blocks: &BTreeMap<u32, Bytes>, per_group: u64) -> Vec<Bytes> {
    let mut groups: BTreeMap<u64, Bytes> = BTreeMap::new();
    for (block, bytes) in blocks {
        *groups
            .entry(u64::from(*block) / per_group.max(1))
            .or_default() += *bytes;
    }

    groups.into_values().collect()
}

/// The power of two at or above `bytes`.
fn power_of_two(bytes: Bytes) -> Bytes {
    bytes
        .get()
        .checked_next_power_of_two()
        .map_or(Bytes::OVERFLOW, Bytes::new)
}
