//! Weights of a rank for any range of layers, precomputed for one tensor-parallel degree.

use std::ops::Range;

use super::shard_size::{RopeRows, ShardContext};
use super::tensor_parallel::{Classified, Rule, ShardPart, ShardPlace, classify};
use crate::bytes::Bytes;
use crate::engines::Split;
use crate::model::architecture::{Mixer, RopeTable, Task};
use crate::model::tensors::{Inventory, TensorClass};

/// The parts of a model that are not loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Omitted {
    /// Vision and audio towers (the limit of every modality is 0).
    pub towers: bool,
    /// Next-token predictors (no speculative decoding).
    pub drafts: bool,
}

/// The classified tensors of an inventory.
#[derive(Clone, Debug)]
pub struct Classes<'a> {
    rows: Vec<(&'a TensorClass, Classified)>,
    /// Whether no output head is loaded in addition to the embedding.
    pub tied: bool,
}

impl<'a> Classes<'a> {
    /// Classifies `inventory`.
    ///
    /// Embeddings are tied if `tied` says so or no head is stored.
    pub fn new(inventory: &'a Inventory, tied: Option<bool>, task: Task) -> Self {
        let rows: Vec<_> = inventory
            .classes
            .iter()
            .map(|class| (class, classify(class)))
            .collect();
        let head = rows.iter().any(|(_, row)| row.place == ShardPlace::Head);
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
    /// `layers[n]`: bytes of the layers before n, without experts under expert parallelism.
    layers: Vec<u64>,
    /// `expert[n]`: bytes of one expert in each layer before n, under expert parallelism.
    expert: Vec<u64>,
    experts: u64,
    /// Tensors that the engine computes once and keeps (MLA's absorbed projections), by layer
    /// before n.
    absorbed: Vec<u64>,
    tables: Bytes,
    tied: bool,
    needs_head: bool,
}

impl WeightTable {
    /// The table for one degree.
    ///
    /// Vocabulary rows are padded to a multiple of `vocabulary_step` before they are divided.
    pub fn new(
        classes: &Classes<'_>,
        context: &ShardContext<'_>,
        vocabulary_step: u64,
        omitted: Omitted,
    ) -> Self {
        let architecture = context.architecture;
        let layer_count = architecture.layer_count();
        let size = architecture.layers.len();

        let mut table = Self {
            tied: classes.tied,
            needs_head: !matches!(architecture.task, Task::Encode | Task::Pool),
            experts: architecture
                .experts
                .map_or(1, |experts| experts.count.max(1)),
            ..Self::default()
        };

        let (mut layers, mut expert) = (vec![Bytes::ZERO; size], vec![Bytes::ZERO; size]);
        let whole_layers = architecture.task == Task::EncodeDecode;

        for (class, row) in &classes.rows {
            let each = tensor_bytes(class, *row, context, vocabulary_step);
            let all = each * class.count;
            match row.place {
                ShardPlace::Skipped => {}
                ShardPlace::Draft if omitted.drafts => {}
                ShardPlace::Embedding => table.embedding += all,
                ShardPlace::Head if classes.tied => {}
                ShardPlace::Head => table.head += all,
                ShardPlace::First => table.first += all,
                // A separately stored predictor runs on the last stage.
                ShardPlace::Last | ShardPlace::Draft => table.last += all,
                ShardPlace::Tower if omitted.towers => {}
                ShardPlace::Tower => table.towers += all,
                ShardPlace::Everywhere => table.everywhere += all,
                ShardPlace::Layers if whole_layers => table.everywhere += all,
                ShardPlace::Layers => {
                    let each =
                        each * doubled_values(class, classes, architecture.model_type.as_str());
                    let split = row.expert && context.expert_parallel;

                    for run in &class.layers {
                        for layer in run.first..=run.last.min(layer_count.saturating_sub(1)) {
                            let Some(slot) = usize::try_from(layer).ok().filter(|at| *at < size)
                            else {
                                break;
                            };

                            if split {
                                // An expert is a slice of a fused tensor, or one of the tensors.
                                expert[slot] += (each * run.each).div_ceil(table.experts);
                            } else {
                                layers[slot] += each * run.each;
                            }
                        }

                        let beyond = u64::from(
                            run.last
                                .saturating_add(1)
                                .saturating_sub(run.first.max(layer_count)),
                        );

                        // Layers after the last are next-token predictors if the configuration has
                        // them; otherwise they are loaded.
                        if beyond > 0 && !(architecture.mtp_layers > 0 && omitted.drafts) {
                            table.last += each * run.each * beyond;
                        }
                    }
                }
            }
        }

        table.layers = prefix_sums(layers);
        table.expert = prefix_sums(expert);

        table.absorbed = prefix_sums(
            architecture
                .layers
                .iter()
                .map(|layer| absorbed(&layer.mixer, context))
                .collect(),
        );

        table.tables = tables(context);
        table
    }

    /// The table of a model whose tensors have no names (pickles).
    ///
    /// Embeddings are as configured; layers get equal shares of the other bytes in `total`.
    pub fn flat(total: Bytes, context: &ShardContext<'_>) -> Self {
        let architecture = context.architecture;
        let (tensor, es) = (context.tensor.max(1), context.compute.bytes());
        let rows = Bytes::product([architecture.vocab_size, architecture.hidden_size, es]);
        let needs_head = !matches!(architecture.task, Task::Encode | Task::Pool);
        let tied = architecture.tied_embeddings == Some(true) || !needs_head;
        let ends = if tied { rows } else { rows * 2 };
        let body = total.less(ends).unwrap_or(Bytes::OVERFLOW);
        let size = architecture.layers.len();
        let each = body
            .div_ceil(tensor)
            .div_ceil(u64::from(architecture.layer_count().max(1)));

        Self {
            embedding: rows.div_ceil(tensor),
            head: if tied {
                Bytes::ZERO
            } else {
                rows.div_ceil(tensor)
            },
            layers: prefix_sums(vec![each; size]),
            expert: vec![0; size + 1],
            absorbed: prefix_sums(
                architecture
                    .layers
                    .iter()
                    .map(|layer| absorbed(&layer.mixer, context))
                    .collect(),
            ),
            tables: tables(context),
            experts: 1,
            tied,
            needs_head,
            ..Self::default()
        }
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
            let (ranks, rank) = (
                u64::from(split.tensor.max(1)),
                rank as u64 % u64::from(split.tensor.max(1)),
            );
            let local = self.experts / ranks + u64::from(rank < self.experts % ranks);
            sum += between(&self.expert, &range) * local;
        }

        sum
    }

    /// Bytes of the decoder layers on `rank` of `split`.
    pub fn of_layers(&self, split: &Split, rank: usize) -> Bytes {
        between(&self.layers, &split.stage_of(rank).1)
    }

    /// Bytes of the projections that the engine computes once and keeps, on `rank` of `split`.
    pub fn absorbed(&self, split: &Split, rank: usize) -> Bytes {
        between(&self.absorbed, &split.stage_of(rank).1)
    }

    /// Bytes of engine-made tables (RoPE), on every rank.
    pub fn tables(&self) -> Bytes {
        self.tables
    }
}

/// Bytes of one tensor on one rank, with the rows of a vocabulary padded to `vocabulary_step`.
fn tensor_bytes(
    class: &TensorClass,
    row: Classified,
    context: &ShardContext<'_>,
    vocabulary_step: u64,
) -> Bytes {
    if row.rule != Rule::Vocabulary || row.part != ShardPart::Weight {
        return context.bytes(class, row);
    }

    let rows = class
        .shape
        .first()
        .copied()
        .unwrap_or(1)
        .max(context.architecture.vocab_size);
    let padded = Bytes::new(rows)
        .round_up(vocabulary_step)
        .div_ceil(context.tensor.max(1))
        .get();

    context.row_bytes(class, row) * padded
}

/// Bytes of the RoPE tables: one for each distinct configuration, on every rank.
fn tables(context: &ShardContext<'_>) -> Bytes {
    let RopeRows::Kept { axes } = context.rope else {
        return Bytes::ZERO;
    };
    let es = context.compute.bytes();
    let table_bytes = |rope: &RopeTable| {
        let element = if rope.float32 { 4 } else { es };
        let rows = if rope.multimodal { axes } else { 1 };
        Bytes::product([rope.positions, rows, rope.rotary_dim, element])
    };

    context.architecture.rope.iter().map(table_bytes).sum()
}

fn prefix_sums(each: Vec<Bytes>) -> Vec<u64> {
    let mut sum = Bytes::ZERO;
    std::iter::once(0)
        .chain(each.into_iter().map(|bytes| {
            sum += bytes;
            sum.get()
        }))
        .collect()
}

fn between(prefix: &[u64], range: &Range<u32>) -> Bytes {
    let sum_before = |layer: u32| {
        prefix
            .get((layer as usize).min(prefix.len().saturating_sub(1)))
            .copied()
            .unwrap_or(0)
    };

    let (from, to) = (
        sum_before(range.start),
        sum_before(range.end.max(range.start)),
    );
    if to == u64::MAX {
        Bytes::OVERFLOW
    } else {
        Bytes::new(to - from)
    }
}

/// Bytes of MLA's absorbed projections of one layer.
///
/// MLA keeps W_UK^T and W_UV in addition to `kv_b_proj`, always in the activation dtype (vLLM
/// `layers/attention/mla_attention.py`, `process_weights_after_loading`). DeepSeek V4 has no
/// `kv_b_proj`.
fn absorbed(mixer: &Mixer, context: &ShardContext<'_>) -> Bytes {
    match mixer {
        Mixer::Latent(latent) if latent.compress_ratio.is_none() => Bytes::product([
            latent.kv_lora_rank,
            latent.heads.div_ceil(context.tensor.max(1)),
            latent.nope_dim.saturating_add(latent.value_dim),
            context.compute.bytes(),
        ]),
        _ => Bytes::ZERO,
    }
}

/// How many resident tensors one stored tensor fills.
///
/// Gemma 4's global layers store one projection for keys and values and fill both from it.
fn doubled_values(class: &TensorClass, classes: &Classes<'_>, model_type: &str) -> u64 {
    if !model_type.starts_with("gemma4") || !class.pattern.contains(".k_proj.") {
        return 1;
    }

    let first = class.layers.first().map_or(0, |run| run.first);
    let has_values = classes.rows.iter().any(|(other, row)| {
        row.place == ShardPlace::Layers
            && other.pattern.contains(".v_proj.")
            && other
                .layers
                .iter()
                .any(|run| (run.first..=run.last).contains(&first))
    });

    if has_values { 1 } else { 2 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engines::Offload;
    use crate::engines::shared::dtype::ComputeDtype;
    use crate::model::architecture::Architecture;
    use crate::model::config;
    use crate::model::tensors::InventoryBuilder;
    use crate::model::{Dtype, Storage};

    fn mixtral(tied: bool) -> (Architecture, Inventory) {
        let mut builder = InventoryBuilder::default();
        let mut add_tensor = |name: &str, shape: &[u64]| {
            let bytes = Bytes::new(shape.iter().product::<u64>() * 2);
            builder.add("", name, Storage::Known(Dtype::BF16), shape, bytes);
        };

        add_tensor("model.embed_tokens.weight", &[128, 64]);
        add_tensor("model.norm.weight", &[64]);

        if !tied {
            add_tensor("lm_head.weight", &[128, 64]);
        }

        for layer in 0..4 {
            let mut add_to_layer = |name: &str, shape: &[u64]| {
                add_tensor(&format!("model.layers.{layer}.{name}.weight"), shape);
            };

            add_to_layer("input_layernorm", &[64]);
            add_to_layer("self_attn.q_proj", &[64, 64]);
            add_to_layer("self_attn.k_proj", &[32, 64]);
            add_to_layer("self_attn.v_proj", &[32, 64]);
            add_to_layer("self_attn.o_proj", &[64, 64]);
            add_to_layer("block_sparse_moe.gate", &[6, 64]);

            for expert in 0..6 {
                add_to_layer(&format!("block_sparse_moe.experts.{expert}.w1"), &[32, 64]);
                add_to_layer(&format!("block_sparse_moe.experts.{expert}.w2"), &[64, 32]);
                add_to_layer(&format!("block_sparse_moe.experts.{expert}.w3"), &[32, 64]);
            }
        }

        let inventory = builder.finish();
        let config = serde_json::json!({
            "architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "hidden_size": 64, "intermediate_size": 32,
            "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 8, "vocab_size": 128,
            "num_local_experts": 6, "num_experts_per_tok": 2, "max_position_embeddings": 16, "torch_dtype": "bfloat16",
            "tie_word_embeddings": tied
        });

        (
            config::architecture(&config, None, &inventory).unwrap(),
            inventory,
        )
    }

    fn table(
        architecture: &Architecture,
        inventory: &Inventory,
        tensor: u64,
        expert_parallel: bool,
    ) -> WeightTable {
        let compute = ComputeDtype::Bfloat16;
        let context = ShardContext {
            architecture,
            compute,
            online: None,
            mxfp4: None,
            rope: RopeRows::FOUR_AXES,
            tensor,
            expert_parallel,
        };

        let classes = Classes::new(inventory, architecture.tied_embeddings, architecture.task);
        WeightTable::new(
            &classes,
            &context,
            64,
            Omitted {
                towers: false,
                drafts: true,
            },
        )
    }

    const ROPE: u64 = 16 * 8 * 2;
    const EMBEDDING: u64 = 128 * 64 * 2;
    const NORMS: u64 = 64 * 2;
    const GATE: u64 = 6 * 64 * 2;
    const ATTENTION: u64 = (64 * 64 * 2 + 32 * 64 * 2) * 2;
    const EXPERT: u64 = 3 * 32 * 64 * 2;

    #[test]
    fn eight_ranks_copy_kv_heads() {
        let (architecture, inventory) = mixtral(false);
        let bytes_on = |tensor: u32| {
            table(&architecture, &inventory, u64::from(tensor), false)
                .bytes(&Split::tensor(tensor, 4), 0)
                .get()
        };

        let whole = ROPE + 2 * EMBEDDING + NORMS + 4 * (NORMS + GATE + ATTENTION + 6 * EXPERT);
        assert_eq!(bytes_on(1), whole);

        // Four KV heads on eight ranks: a quarter of keys and values each.
        let attention = 64 * 64 * 2 * 2 / 8 + 32 * 64 * 2 * 2 / 4;
        assert_eq!(
            bytes_on(8),
            ROPE + 2 * EMBEDDING / 8 + NORMS + 4 * (NORMS + GATE + attention + 6 * EXPERT / 8)
        );
    }

    #[test]
    fn tied_embeddings_are_on_both_ends() {
        let (architecture, inventory) = mixtral(true);
        let table = table(&architecture, &inventory, 1, false);

        let split = Split {
            tensor: 1,
            stages: vec![0..1, 1..4],
            expert_parallel: false,
            offload: Offload::None,
        };

        let layer = NORMS + GATE + ATTENTION + 6 * EXPERT;
        assert_eq!(table.bytes(&split, 0).get(), ROPE + EMBEDDING + layer);

        assert_eq!(
            table.bytes(&split, 1).get(),
            ROPE + EMBEDDING + NORMS + 3 * layer
        );
        assert_eq!(
            table.bytes(&Split::single(4), 0).get(),
            ROPE + EMBEDDING + NORMS + 4 * layer
        );
    }

    #[test]
    fn first_ranks_hold_more_experts() {
        let (architecture, inventory) = mixtral(false);
        let table = table(&architecture, &inventory, 4, true);

        let split = Split {
            expert_parallel: true,
            ..Split::tensor(4, 4)
        };

        // Four ranks hold 2, 2, 1 and 1 of six experts.
        let bytes_of = |rank| table.bytes(&split, rank).get();
        assert_eq!(bytes_of(0), bytes_of(1));
        assert_eq!(bytes_of(2), bytes_of(3));
        assert_eq!(bytes_of(1) - bytes_of(2), 4 * EXPERT);
    }

    #[test]
    fn experts_int8_quantizes_only_experts() {
        let (architecture, inventory) = mixtral(false);
        let classes = Classes::new(&inventory, architecture.tied_embeddings, architecture.task);

        let bytes_with = |online| {
            let compute = ComputeDtype::Bfloat16;
            let context = ShardContext {
                architecture: &architecture,
                compute,
                online,
                mxfp4: None,
                rope: RopeRows::FOUR_AXES,
                tensor: 1,
                expert_parallel: false,
            };

            let table = WeightTable::new(
                &classes,
                &context,
                64,
                Omitted {
                    towers: false,
                    drafts: true,
                },
            );

            table.bytes(&Split::single(4), 0).get()
        };

        // Four bytes of scale for each output row: 32 + 32 + 64 rows an expert.
        let saved = 4 * 6 * (EXPERT / 2 - 4 * (32 + 32 + 64));
        assert_eq!(
            bytes_with(None)
                - bytes_with(crate::engines::shared::shard_size::Online::parse(
                    "experts_int8"
                )),
            saved
        );
    }

    #[test]
    fn pickles_are_divided_by_layer() {
        let (architecture, _) = mixtral(false);
        let context = ShardContext {
            architecture: &architecture,
            compute: ComputeDtype::Bfloat16,
            online: None,
            mxfp4: None,
            rope: RopeRows::FOUR_AXES,
            tensor: 2,
            expert_parallel: false,
        };

        let table = WeightTable::flat(Bytes::new(2 * EMBEDDING + 8000), &context);
        assert_eq!(
            table.bytes(&Split::tensor(2, 4), 0).get(),
            ROPE + EMBEDDING + 4000
        );
    }
}
