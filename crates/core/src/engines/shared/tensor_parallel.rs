//! The tensor-parallel rule of a tensor, by its name in each model family.
//!
//! Sources: vLLM `model_executor/layers/linear.py` (column, row, QKV),
//! `vocab_parallel_embedding.py`, `layers/fused_moe/layer.py`, and the model files that use them. A
//! tensor with an unknown name is replicated, which can only raise the need.

use super::tensor_names::{
    COLUMN, EMBEDDINGS, FUSED_QKV, HEADS, KEY_VALUE, PARAMETERS, REPLICATED_PARENTS, ROW, TOWERS,
};
use crate::model::tensors::TensorClass;

/// The division of a tensor over tensor ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Output features are divided.
    Column,
    /// Input features are divided; tensors of the output (bias, channel scales) are whole.
    Row,
    /// Keys and values are divided down to one head, then copied.
    KeyValue,
    /// Query, key and value in one tensor.
    FusedQkv,
    /// Mamba-2's input projection and convolution: heads are divided, groups rounded up.
    MambaMixed,
    /// Vocabulary rows are padded and divided.
    Vocabulary,
    /// Every rank holds the whole tensor.
    Replicated,
}

/// The ranks that hold a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShardPlace {
    /// The stage of its decoder layer.
    Layers,
    /// The first stage, on the embedding side.
    First,
    /// The first stage for the input embedding, and the last if it is also the output head.
    Embedding,
    /// The last stage, for the output head.
    Head,
    /// The last stage, for final norms.
    Last,
    /// Every stage (towers, unknown tensors).
    Everywhere,
    /// Every stage, for a vision or audio tower that is loaded.
    Tower,
    /// The last stage, for next-token prediction with speculative decoding only.
    Draft,
    /// No rank.
    Skipped,
}

/// A tensor class with its place and rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Classified {
    /// The ranks that hold it.
    pub place: ShardPlace,
    /// Its division there.
    pub rule: Rule,
    /// Whether it belongs to a routed expert.
    pub expert: bool,
    /// The kind of parameter in its module.
    pub part: ShardPart,
}

/// The kind of a tensor within its module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShardPart {
    /// The weight, packed or not.
    Weight,
    /// A bias of the output.
    Bias,
    /// A scale, zero point or quantizer's table, resident as stored.
    Scale,
    /// GPTQ's group index.
    GroupIndex,
    /// A parameter that engines keep in 32 bits.
    Float32,
}

/// Classifies a tensor by its name.
pub fn classify(class: &TensorClass) -> Classified {
    let segments: Vec<&str> = class.pattern.split('.').collect();
    let (module, parents, part) = split_name(&segments);

    let classify_as = |place, rule| Classified {
        place,
        rule,
        expert: false,
        part,
    };

    if skipped(&segments, class) {
        return classify_as(ShardPlace::Skipped, Rule::Replicated);
    }

    let draft = segments
        .iter()
        .any(|segment| *segment == "mtp" || segment.starts_with("mtp_"));
    let replicated = parents
        .iter()
        .any(|parent| REPLICATED_PARENTS.contains(parent));
    if segments.iter().any(|segment| TOWERS.contains(segment)) {
        let rule = if replicated {
            Rule::Replicated
        } else {
            tower_rule(module)
        };
        return classify_as(ShardPlace::Tower, rule);
    }

    if class.layers.is_empty() && draft {
        return classify_as(ShardPlace::Draft, Rule::Replicated);
    }

    if class.layers.is_empty() {
        return match module {
            name if HEADS.contains(&name) => classify_as(ShardPlace::Head, Rule::Vocabulary),
            name if EMBEDDINGS.contains(&name) => {
                classify_as(ShardPlace::Embedding, Rule::Vocabulary)
            }
            name if name.contains("embed") || name == "wpe" => {
                classify_as(ShardPlace::First, Rule::Replicated)
            }
            name if name.contains("norm") || name.starts_with("ln_f") => {
                classify_as(ShardPlace::Last, Rule::Replicated)
            }
            _ => classify_as(ShardPlace::Everywhere, Rule::Replicated),
        };
    }

    let expert =
        segments.contains(&"experts") || matches!(module, "input_linear" | "output_linear");
    let rule = if is_predictor_vocabulary(&class.pattern) {
        Rule::Vocabulary
    } else if replicated {
        Rule::Replicated
    } else {
        layer_rule(module, parents, expert)
    };

    Classified {
        place: if draft {
            ShardPlace::Draft
        } else {
            ShardPlace::Layers
        },
        rule,
        expert,
        part,
    }
}

/// Whether a tensor is the embedding or the output head of a next-token predictor.
///
/// They are divided as the model's are.
pub(crate) fn is_predictor_vocabulary(pattern: &str) -> bool {
    pattern.contains("layers.*.")
        && (pattern.ends_with(".embed_tokens.weight")
            || pattern.ends_with(".shared_head.head.weight"))
}

fn layer_rule(module: &str, parents: &[&str], expert: bool) -> Rule {
    // A router is a linear layer named `gate` next to the experts. Inside them, `gate` is a
    // projection.
    if module == "gate" && !expert {
        return Rule::Replicated;
    }
    // Mamba-2 is `mixer` in its own family and Nemotron-H, and `mamba` in Bamba, Falcon-H1, Granite
    // 4 and Zamba2.
    if matches!(module, "in_proj" | "conv1d") && matches!(parents.last(), Some(&"mixer" | &"mamba"))
    {
        return Rule::MambaMixed;
    }
    // Qwen-1 names gate and up `w1` and `w2`; either way they are divided and have no bias.
    match module {
        name if KEY_VALUE.contains(&name) && !expert => Rule::KeyValue,
        name if FUSED_QKV.contains(&name) => Rule::FusedQkv,
        name if COLUMN.contains(&name) => Rule::Column,
        // BERT's feed-forward: `intermediate.dense` is a column, `output.dense` a row layer.
        "dense" if parents.last() == Some(&"intermediate") => Rule::Column,
        name if ROW.contains(&name) => Rule::Row,
        _ => Rule::Replicated,
    }
}

fn tower_rule(module: &str) -> Rule {
    match module {
        "k_proj" | "v_proj" | "qkv" | "qkv_proj" | "wqkv" | "q_proj" => Rule::Column,
        "linear_1" | "linear_2" | "input_proj" => Rule::Replicated,
        name if COLUMN.contains(&name) => Rule::Column,
        name if ROW.contains(&name) => Rule::Row,
        _ => Rule::Replicated,
    }
}

/// Splits a name into (module, its parents, the kind of parameter).
fn split_name<'s>(segments: &'s [&'s str]) -> (&'s str, &'s [&'s str], ShardPart) {
    let part = segments.last().copied().map_or(ShardPart::Weight, part_of);
    let mut parts = segments;

    // bitsandbytes names its tables below the weight: `q_proj.weight.absmax`.
    if let Some(at) = parts
        .iter()
        .position(|segment| *segment == "weight" || *segment == "qweight")
    {
        parts = &parts[..=at];
    }

    match parts {
        [before @ .., last] if PARAMETERS.contains(last) => {
            let before = match before {
                // Gemma 4's towers wrap each projection: `q_proj.linear.weight`.
                [inner @ .., "linear" | "layer" | "conv"]
                    if inner.last().is_some_and(|name| *name != "*") =>
                {
                    inner
                }
                [inner @ .., "*"] => inner,
                other => other,
            };
            before
                .split_last()
                .map_or(("", before, part), |(module, parents)| {
                    (*module, parents, part)
                })
        }
        [parents @ .., last] => {
            let module = ["_blocks", "_scales", "_bias", "_weight"]
                .iter()
                .find_map(|end| last.strip_suffix(end));
            // `dt_bias` is a parameter of its own, not a bias of `dt`.
            let module = module.filter(|_| !last.starts_with("dt_")).unwrap_or(last);
            (module, parents, part)
        }
        [] => ("", parts, part),
    }
}

fn part_of(last: &str) -> ShardPart {
    match last {
        "A_log" | "D" | "dt_bias" | "e_score_correction_bias" => ShardPart::Float32,
        "g_idx" | "weight_g_idx" => ShardPart::GroupIndex,
        "bias" => ShardPart::Bias,
        "layer_scalar" | "per_expert_scale" | "router_scale" => ShardPart::Weight,
        name if name.ends_with("_bias") => ShardPart::Bias,
        name if name.contains("scale")
            || name.contains("zero")
            || name.contains("absmax")
            || name.contains("quant_") =>
        {
            ShardPart::Scale
        }
        "biases" | "weight_shape" => ShardPart::Scale,
        name if name.starts_with("bitsandbytes") => ShardPart::Scale,
        _ => ShardPart::Weight,
    }
}

/// Whether a tensor is not loaded: training buffers, and tables that engines recompute.
fn skipped(segments: &[&str], class: &TensorClass) -> bool {
    let last = segments.last().copied().unwrap_or_default();
    let mask = last == "bias"
        && class.shape.len() > 2
        && class.shape.iter().filter(|side| **side > 1).count() == 2
        && segments
            .iter()
            .rev()
            .nth(1)
            .is_some_and(|module| matches!(*module, "attn" | "attention"));
    mask || last == "masked_bias" || last == "inv_freq"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::Bytes;
    use crate::model::tensors::InventoryBuilder;
    use crate::model::{Dtype, Storage};

    fn rule_of(name: &str, shape: &[u64]) -> (ShardPlace, Rule, bool, ShardPart) {
        let mut builder = InventoryBuilder::default();
        builder.add("", name, Storage::Known(Dtype::BF16), shape, Bytes::new(2));
        let classified = classify(&builder.finish().classes[0]);

        (
            classified.place,
            classified.rule,
            classified.expert,
            classified.part,
        )
    }

    #[test]
    fn names_map_to_rules() {
        use {Rule::*, ShardPart::*, ShardPlace::*};

        for (name, expected) in [
            (
                "model.layers.0.self_attn.q_proj.weight",
                (Layers, Column, false, Weight),
            ),
            (
                "model.layers.0.self_attn.k_proj.bias",
                (Layers, KeyValue, false, Bias),
            ),
            (
                "model.layers.0.self_attn.kv_a_proj_with_mqa.weight",
                (Layers, Replicated, false, Weight),
            ),
            (
                "model.layers.0.self_attn.indexer.wq_b.weight_scale_inv",
                (Layers, Replicated, false, Scale),
            ),
            (
                "model.layers.3.mlp.experts.7.down_proj.weight_scale_inv",
                (Layers, Row, true, Scale),
            ),
            (
                "model.layers.3.mlp.experts.gate_up_proj_blocks",
                (Layers, Column, true, Weight),
            ),
            (
                "model.layers.3.mlp.experts.down_proj_bias",
                (Layers, Row, true, Bias),
            ),
            (
                "model.layers.3.mlp.shared_experts.up_proj.weight",
                (Layers, Column, false, Weight),
            ),
            (
                "model.layers.3.mlp.gate.weight",
                (Layers, Replicated, false, Weight),
            ),
            (
                "model.layers.3.mlp.gate.e_score_correction_bias",
                (Layers, Replicated, false, Float32),
            ),
            (
                "layers.3.ffn.experts.7.w2.scale",
                (Layers, Row, true, Scale),
            ),
            (
                "model.layers.0.linear_attn.in_proj_qkvz.weight",
                (Layers, Column, false, Weight),
            ),
            (
                "model.layers.0.linear_attn.A_log",
                (Layers, Column, false, Float32),
            ),
            (
                "model.layers.0.linear_attn.dt_bias",
                (Layers, Column, false, Float32),
            ),
            (
                "backbone.layers.0.mixer.in_proj.weight",
                (Layers, MambaMixed, false, Weight),
            ),
            (
                "model.layers.0.mamba.in_proj.weight",
                (Layers, MambaMixed, false, Weight),
            ),
            (
                "model.layers.0.mamba.conv1d.bias",
                (Layers, MambaMixed, false, Bias),
            ),
            (
                "model.layers.0.conv.conv.weight",
                (Layers, Column, false, Weight),
            ),
            (
                "transformer.h.0.attn.c_attn.weight",
                (Layers, FusedQkv, false, Weight),
            ),
            (
                "encoder.layer.0.intermediate.dense.weight",
                (Layers, Column, false, Weight),
            ),
            (
                "encoder.layer.0.output.dense.bias",
                (Layers, Row, false, Bias),
            ),
            (
                "model.layers.0.block_sparse_moe.router.layer.weight",
                (Layers, Replicated, false, Weight),
            ),
            (
                "model.layers.0.block_sparse_moe.input_linear.weight",
                (Layers, Column, true, Weight),
            ),
            (
                "model.layers.0.self_attn.q_proj.weight.absmax",
                (Layers, Column, false, Scale),
            ),
            (
                "model.embed_tokens.weight",
                (Embedding, Vocabulary, false, Weight),
            ),
            (
                "transformer.word_embeddings.weight",
                (Embedding, Vocabulary, false, Weight),
            ),
            ("output.weight", (Head, Vocabulary, false, Weight)),
            ("model.norm.weight", (Last, Replicated, false, Weight)),
            ("wpe.weight", (First, Replicated, false, Weight)),
            ("score.weight", (Everywhere, Replicated, false, Weight)),
            (
                "model.visual.blocks.3.attn.qkv.weight",
                (Tower, Column, false, Weight),
            ),
            (
                "model.visual.patch_embed.proj.weight",
                (Tower, Replicated, false, Weight),
            ),
            (
                "model.vision_tower.encoder.layers.0.self_attn.o_proj.linear.weight",
                (Tower, Row, false, Weight),
            ),
            (
                "mtp.layers.0.self_attn.q_proj.weight",
                (Draft, Column, false, Weight),
            ),
            ("mtp.norm.weight", (Draft, Replicated, false, Weight)),
            (
                "transformer.rotary_pos_emb.inv_freq",
                (Skipped, Replicated, false, Weight),
            ),
        ] {
            assert_eq!(rule_of(name, &[4, 4]), expected, "{name}");
        }

        assert_eq!(rule_of("h.0.attn.bias", &[1, 1, 1024, 1024]).0, Skipped);
        assert_eq!(rule_of("h.0.attn.c_attn.bias", &[2304]).0, Layers);
    }
}
