//! Weights of a rank for any range of layers, precomputed for one tensor-parallel degree.

use std::ops::Range;

use super::resident::Residence;
use super::rule::{Classified, Part, Place, Rule, classify};
use crate::bytes::Bytes;
use crate::engines::Split;
use crate::model::architecture::{Mixer, Task};
use crate::model::tensors::{Inventory, TensorClass};

/// What of the model is not loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Omitted {
    /// Vision and audio towers (every modality's limit is 0).
    pub towers: bool,
    /// Next-token predictors (no speculative decoding).
    pub drafts: bool,
}

/// The classes of an inventory with their rules, told once.
#[derive(Clone, Debug)]
pub struct Classes<'a> {
    rows: Vec<(&'a TensorClass, Classified)>,
    /// No output head is loaded beside the embedding.
    pub tied: bool,
}

impl<'a> Classes<'a> {
    /// Classifies `inventory` for a model whose embeddings are tied if `tied` says so or no head is stored.
    pub fn new(inventory: &'a Inventory, tied: Option<bool>, task: Task) -> Self {
        let rows: Vec<_> = inventory.classes.iter().map(|class| (class, classify(class))).collect();
        let head = rows.iter().any(|(_, row)| row.place == Place::Head);
        let tied = tied == Some(true) || !head || matches!(task, Task::Encode | Task::Pool);
        Self { rows, tied }
    }
}

/// Bytes of a rank by part of the model, for one tensor-parallel degree.
#[derive(Clone, Debug, Default)]
pub struct WeightTable {
    embedding: Bytes,
    head: Bytes,
    first: Bytes,
    last: Bytes,
    everywhere: Bytes,
    towers: Bytes,
    /// `layers[n]`: bytes of layers before n, without experts under expert parallelism.
    layers: Vec<u64>,
    /// `expert[n]`: bytes of one expert in each layer before n, under expert parallelism.
    expert: Vec<u64>,
    experts: u64,
    /// What the engine computes once and keeps beside, by layer before n (MLA's absorbed projections).
    absorbed: Vec<u64>,
    tables: Bytes,
    tied: bool,
    needs_head: bool,
}

impl WeightTable {
    /// The table for one degree. `vocabulary_step`: rows are padded to a multiple of it before they are divided.
    pub fn new(classes: &Classes<'_>, residence: &Residence<'_>, vocabulary_step: u64, omitted: Omitted) -> Self {
        let architecture = residence.architecture;
        let layer_count = architecture.layer_count();
        let size = architecture.layers.len();
        let mut table = Self {
            tied: classes.tied,
            needs_head: !matches!(architecture.task, Task::Encode | Task::Pool),
            experts: architecture.experts.map_or(1, |experts| experts.count.max(1)),
            ..Self::default()
        };
        let (mut layers, mut expert) = (vec![Bytes::ZERO; size], vec![Bytes::ZERO; size]);
        let whole_layers = architecture.task == Task::EncodeDecode;
        for (class, row) in &classes.rows {
            let each = if row.rule == Rule::Vocabulary && row.part == Part::Weight {
                let rows = class.shape.first().copied().unwrap_or(1).max(architecture.vocab_size);
                let padded = Bytes::new(rows).round_up(vocabulary_step).div_ceil(residence.tensor.max(1)).get();
                residence.row_bytes(class, row) * padded
            } else {
                residence.bytes(class, row)
            };
            let all = each * class.count;
            match row.place {
                Place::Skipped => {}
                Place::Draft if omitted.drafts => {}
                // A predictor stored apart runs on the last stage.
                Place::Draft => table.last += all,
                Place::Embedding => table.embedding += all,
                Place::Head if classes.tied => {}
                Place::Head => table.head += all,
                Place::First => table.first += all,
                Place::Last => table.last += all,
                Place::Tower if omitted.towers => {}
                Place::Tower => table.towers += all,
                Place::Everywhere => table.everywhere += all,
                Place::Layers if whole_layers => table.everywhere += all,
                Place::Layers => {
                    let each = each * doubled_values(class, classes, architecture.model_type.as_str());
                    let split = row.expert && residence.expert_parallel;
                    for run in &class.layers {
                        for layer in run.first..=run.last.min(layer_count.saturating_sub(1)) {
                            let Some(slot) = usize::try_from(layer).ok().filter(|at| *at < size) else { break };
                            if split {
                                // One expert: a slice of a fused tensor, or one of the tensors.
                                expert[slot] += (each * run.each).div_ceil(table.experts);
                            } else {
                                layers[slot] += each * run.each;
                            }
                        }
                        let beyond = u64::from(run.last.saturating_add(1).saturating_sub(run.first.max(layer_count)));
                        // Layers behind the last are next-token predictors where the configuration has them; else kept.
                        if beyond > 0 && !(architecture.mtp_layers > 0 && omitted.drafts) {
                            table.last += each * run.each * beyond;
                        }
                    }
                }
            }
        }
        table.layers = prefix(layers);
        table.expert = prefix(expert);
        table.absorbed = prefix(architecture.layers.iter().map(|layer| absorbed(&layer.mixer, residence)).collect());
        let es = residence.compute.bytes();
        table.tables = architecture
            .rope
            .iter()
            .map(|rope| Bytes::product([rope.positions, rope.rotary_dim, if rope.float32 { 4 } else { es }]))
            .sum();
        table
    }

    /// Bytes of `rank` of `split`.
    pub fn bytes(&self, split: &Split, rank: usize) -> Bytes {
        let (stage, range) = split.stage_of(rank);
        let (first, last) = (stage == 0, split.is_last_stage(rank));
        let mut sum = self.everywhere
            + self.towers
            + self.tables
            + between(&self.layers, &range)
            + between(&self.absorbed, &range);
        if first {
            sum += self.embedding + self.first;
        }
        if last {
            sum += self.last;
            if self.tied && !first && self.needs_head {
                sum += self.embedding;
            }
            sum += self.head;
        }
        if split.expert_parallel {
            let (ranks, rank) = (u64::from(split.tensor.max(1)), rank as u64 % u64::from(split.tensor.max(1)));
            let local = self.experts / ranks + u64::from(rank < self.experts % ranks);
            sum += between(&self.expert, &range) * local;
        }
        sum
    }

    /// Engine-made tables (RoPE) on every rank.
    pub fn tables(&self) -> Bytes {
        self.tables
    }
}

fn prefix(each: Vec<Bytes>) -> Vec<u64> {
    let mut sum = Bytes::ZERO;
    std::iter::once(0)
        .chain(each.into_iter().map(|bytes| {
            sum += bytes;
            sum.get()
        }))
        .collect()
}

fn between(prefix: &[u64], range: &Range<u32>) -> Bytes {
    let at = |layer: u32| prefix.get((layer as usize).min(prefix.len().saturating_sub(1))).copied().unwrap_or(0);
    let (from, to) = (at(range.start), at(range.end.max(range.start)));
    if to == u64::MAX { Bytes::OVERFLOW } else { Bytes::new(to - from) }
}

/// MLA keeps W_UK^T and W_UV beside `kv_b_proj`, always in the activation dtype
/// (vLLM `layers/attention/mla_attention.py`, `process_weights_after_loading`). DeepSeek V4 has no `kv_b_proj`.
fn absorbed(mixer: &Mixer, residence: &Residence<'_>) -> Bytes {
    match mixer {
        Mixer::Latent(latent) if latent.compress_ratio.is_none() => Bytes::product([
            latent.kv_lora_rank,
            latent.heads.div_ceil(residence.tensor.max(1)),
            latent.nope_dim.saturating_add(latent.value_dim),
            residence.compute.bytes(),
        ]),
        _ => Bytes::ZERO,
    }
}

/// Gemma 4's global layers store one projection for keys and values; both slots are filled from it.
fn doubled_values(class: &TensorClass, classes: &Classes<'_>, model_type: &str) -> u64 {
    if !model_type.starts_with("gemma4") || !class.pattern.contains(".k_proj.") {
        return 1;
    }
    let first = class.layers.first().map_or(0, |run| run.first);
    let has_values = classes.rows.iter().any(|(other, row)| {
        row.place == Place::Layers
            && other.pattern.contains(".v_proj.")
            && other.layers.iter().any(|run| (run.first..=run.last).contains(&first))
    });
    if has_values { 1 } else { 2 }
}
