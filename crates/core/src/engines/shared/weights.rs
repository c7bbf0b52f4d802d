//! Weights of a rank for any range of layers, precomputed for one tensor-parallel degree.

use std::ops::Range;

use super::shard_size::ShardContext;
use super::tensor_parallel::{Classified, Rule, ShardPart, ShardPlace, classify};
use crate::bytes::Bytes;
use crate::engines::Split;
use crate::model::architecture::{Mixer, RopeTable, Task};
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
    /// Classifies `inventory` for a model whose embeddings are tied if `tied` says so or no head is
    /// stored.
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
    /// `layers[n]`: bytes of layers before n, without experts under expert parallelism.
    layers: Vec<u64>,
    /// `expert[n]`: bytes of one expert in each layer before n, under expert parallelism.
    expert: Vec<u64>,
    experts: u64,
    /// What the engine computes once and keeps beside, by layer before n (MLA's absorbed
    /// projections).
    absorbed: Vec<u64>,
    tables: Bytes,
    tied: bool,
    needs_head: bool,
}

impl WeightTable {
    /// The table for one degree. `vocabulary_step`: rows are padded to a multiple of it before they
    /// are divided.
    pub fn new(
        classes: &Classes<'_>,
        residence: &ShardContext<'_>,
        vocabulary_step: u64,
        omitted: Omitted,
    ) -> Self {
        let architecture = residence.architecture;
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
            let each = if row.rule == Rule::Vocabulary && row.part == ShardPart::Weight {
                let rows = class
                    .shape
                    .first()
                    .copied()
                    .unwrap_or(1)
                    .max(architecture.vocab_size);
                let padded = Bytes::new(rows)
                    .round_up(vocabulary_step)
                    .div_ceil(residence.tensor.max(1))
                    .get();
                residence.row_bytes(class, *row) * padded
            } else {
                residence.bytes(class, *row)
            };

            let all = each * class.count;
            match row.place {
                ShardPlace::Skipped => {}
                ShardPlace::Draft if omitted.drafts => {}
                ShardPlace::Embedding => table.embedding += all,
                ShardPlace::Head if classes.tied => {}
                ShardPlace::Head => table.head += all,
                ShardPlace::First => table.first += all,
                // A predictor stored apart runs on the last stage.
                ShardPlace::Last | ShardPlace::Draft => table.last += all,
                ShardPlace::Tower if omitted.towers => {}
                ShardPlace::Tower => table.towers += all,
                ShardPlace::Everywhere => table.everywhere += all,
                ShardPlace::Layers if whole_layers => table.everywhere += all,
                ShardPlace::Layers => {
                    let each =
                        each * doubled_values(class, classes, architecture.model_type.as_str());
                    let split = row.expert && residence.expert_parallel;

                    for run in &class.layers {
                        for layer in run.first..=run.last.min(layer_count.saturating_sub(1)) {
                            let Some(slot) = usize::try_from(layer).ok().filter(|at| *at < size)
                            else {
                                break;
                            };

                            if split {
                                // One expert: a slice of a fused tensor, or one of the tensors.
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

                        // Layers behind the last are next-token predictors where the configuration
                        // has them; else kept.
                        if beyond > 0 && !(architecture.mtp_layers > 0 && omitted.drafts) {
                            table.last += each * run.each * beyond;
                        }
                    }
                }
            }
        }

        table.layers = prefix(layers);
        table.expert = prefix(expert);

        table.absorbed = prefix(
            architecture
                .layers
                .iter()
                .map(|layer| absorbed(&layer.mixer, residence))
                .collect(),
        );

        table.tables = tables(residence);
        table
    }

    /// The table of a model whose tensors have no names (pickles): `total` bytes, embeddings as
    /// configured, the rest by layer in equal shares.
    pub fn flat(total: Bytes, residence: &ShardContext<'_>) -> Self {
        let architecture = residence.architecture;
        let (tensor, es) = (residence.tensor.max(1), residence.compute.bytes());
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
            layers: prefix(vec![each; size]),
            expert: vec![0; size + 1],
            absorbed: prefix(
                architecture
                    .layers
                    .iter()
                    .map(|layer| absorbed(&layer.mixer, residence))
                    .collect(),
            ),
            tables: tables(residence),
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

    /// Bytes that `rank` of `split` holds in tensors of its decoder layers.
    pub fn of_layers(&self, split: &Split, rank: usize) -> Bytes {
        between(&self.layers, &split.stage_of(rank).1)
    }

    /// Engine-made tables (RoPE) on every rank.
    pub fn tables(&self) -> Bytes {
        self.tables
    }
}

/// RoPE tables: one for each distinct configuration, on every rank.
fn tables(residence: &ShardContext<'_>) -> Bytes {
    let es = residence.compute.bytes();
    let bytes = |rope: &RopeTable| {
        Bytes::product([
            rope.positions,
            rope.rotary_dim,
            if rope.float32 { 4 } else { es },
        ])
    };

    residence.architecture.rope.iter().map(bytes).sum()
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
    let at = |layer: u32| {
        prefix
            .get((layer as usize).min(prefix.len().saturating_sub(1)))
            .copied()
            .unwrap_or(0)
    };

    let (from, to) = (at(range.start), at(range.end.max(range.start)));
    if to == u64::MAX {
        Bytes::OVERFLOW
    } else {
        Bytes::new(to - from)
    }
}

/// MLA keeps W_UK^T and W_UV beside `kv_b_proj`, always in the activation dtype (vLLM
/// `layers/attention/mla_attention.py`, `process_weights_after_loading`). DeepSeek V4 has no
/// `kv_b_proj`.
fn absorbed(mixer: &Mixer, residence: &ShardContext<'_>) -> Bytes {
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
        let mut add = |name: &str, shape: &[u64]| {
            let bytes = Bytes::new(shape.iter().product::<u64>() * 2);
            builder.add("", name, Storage::Known(Dtype::BF16), shape, bytes);
        };

        add("model.embed_tokens.weight", &[128, 64]);
        add("model.norm.weight", &[64]);

        if !tied {
            add("lm_head.weight", &[128, 64]);
        }

        for layer in 0..4 {
            let mut at = |name: &str, shape: &[u64]| {
                add(&format!("model.layers.{layer}.{name}.weight"), shape);
            };

            at("input_layernorm", &[64]);
            at("self_attn.q_proj", &[64, 64]);
            at("self_attn.k_proj", &[32, 64]);
            at("self_attn.v_proj", &[32, 64]);
            at("self_attn.o_proj", &[64, 64]);
            at("block_sparse_moe.gate", &[6, 64]);

            for expert in 0..6 {
                at(&format!("block_sparse_moe.experts.{expert}.w1"), &[32, 64]);
                at(&format!("block_sparse_moe.experts.{expert}.w2"), &[64, 32]);
                at(&format!("block_sparse_moe.experts.{expert}.w3"), &[32, 64]);
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
        let residence = ShardContext {
            architecture,
            compute,
            online: None,
            mxfp4: None,
            tensor,
            expert_parallel,
        };

        let classes = Classes::new(inventory, architecture.tied_embeddings, architecture.task);
        WeightTable::new(
            &classes,
            &residence,
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
    fn one_rank_holds_everything_and_eight_copy_the_kv_heads() {
        let (architecture, inventory) = mixtral(false);
        let bytes = |tensor: u32| {
            table(&architecture, &inventory, u64::from(tensor), false)
                .bytes(&Split::tensor(tensor, 4), 0)
                .get()
        };

        let whole = ROPE + 2 * EMBEDDING + NORMS + 4 * (NORMS + GATE + ATTENTION + 6 * EXPERT);
        assert_eq!(bytes(1), whole);

        // Four KV heads on eight ranks: a quarter of keys and values each.
        let attention = 64 * 64 * 2 * 2 / 8 + 32 * 64 * 2 * 2 / 4;
        assert_eq!(
            bytes(8),
            ROPE + 2 * EMBEDDING / 8 + NORMS + 4 * (NORMS + GATE + attention + 6 * EXPERT / 8)
        );
    }

    #[test]
    fn tied_embeddings_are_on_both_ends_of_a_pipeline() {
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
    fn whole_experts_go_to_the_first_ranks_first() {
        let (architecture, inventory) = mixtral(false);
        let table = table(&architecture, &inventory, 4, true);

        let split = Split {
            expert_parallel: true,
            ..Split::tensor(4, 4)
        };

        // Six experts on four ranks: 2, 2, 1, 1.
        let of = |rank| table.bytes(&split, rank).get();
        assert_eq!(of(0), of(1));
        assert_eq!(of(2), of(3));
        assert_eq!(of(1) - of(2), 4 * EXPERT);
    }

    #[test]
    fn experts_int8_quantises_the_experts_alone() {
        let (architecture, inventory) = mixtral(false);
        let classes = Classes::new(&inventory, architecture.tied_embeddings, architecture.task);

        let at = |online| {
            let compute = ComputeDtype::Bfloat16;
            let residence = ShardContext {
                architecture: &architecture,
                compute,
                online,
                mxfp4: None,
                tensor: 1,
                expert_parallel: false,
            };

            let table = WeightTable::new(
                &classes,
                &residence,
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
            at(None)
                - at(crate::engines::shared::shard_size::Online::parse(
                    "experts_int8"
                )),
            saved
        );
    }

    #[test]
    fn pickles_are_shared_out_by_layer() {
        let (architecture, _) = mixtral(false);
        let residence = ShardContext {
            architecture: &architecture,
            compute: ComputeDtype::Bfloat16,
            online: None,
            mxfp4: None,
            tensor: 2,
            expert_parallel: false,
        };

        let table = WeightTable::flat(Bytes::new(2 * EMBEDDING + 8000), &residence);
        assert_eq!(
            table.bytes(&Split::tensor(2, 4), 0).get(),
            ROPE + EMBEDDING + 4000
        );
    }
}
