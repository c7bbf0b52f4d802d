//! What tensor parallelism does to a tensor, told from its name as each model family writes it.
//!
//! Sources: vLLM `model_executor/layers/linear.py` (column, row, QKV),
//! `vocab_parallel_embedding.py`, `layers/fused_moe/layer.py`, and the model files' use of them. A
//! tensor whose name is not known is taken as replicated: that can only raise the need.

use crate::model::tensors::TensorClass;

/// How a tensor is divided over tensor ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Output features divided.
    Column,
    /// Input features divided; what belongs to the output (bias, channel scales) is whole.
    Row,
    /// Keys and values: divided down to one head, then copied.
    KeyValue,
    /// Query, key and value in one tensor.
    FusedQkv,
    /// Mamba-2's input projection and convolution: heads divided, groups rounded up.
    MambaMixed,
    /// Vocabulary rows, padded and divided.
    Vocabulary,
    /// On every rank whole.
    Replicated,
}

/// On which ranks a tensor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShardPlace {
    /// In its decoder layers.
    Layers,
    /// Embedding side: the first stage.
    First,
    /// Input embedding: the first stage, and the last where it is also the output head.
    Embedding,
    /// Output head: the last stage.
    Head,
    /// Final norms: the last stage.
    Last,
    /// On every stage (towers, what is not understood).
    Everywhere,
    /// Vision or audio tower: on every stage unless it is not loaded.
    Tower,
    /// Next-token prediction: loaded for speculative decoding only.
    Draft,
    /// Not loaded at all.
    Skipped,
}

/// A tensor class with its place and rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Classified {
    /// On which ranks.
    pub place: ShardPlace,
    /// How divided there.
    pub rule: Rule,
    /// Belongs to a routed expert.
    pub expert: bool,
    /// What kind of parameter of its module it is.
    pub part: ShardPart,
}

/// What a tensor is within its module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShardPart {
    /// The weight, packed or not.
    Weight,
    /// A bias of the output.
    Bias,
    /// A scale, zero point or quantiser's table: kept as stored.
    Scale,
    /// GPTQ's group index.
    GroupIndex,
    /// A parameter that engines keep in 32 bits.
    Float32,
}

const TOWERS: &[&str] = &[
    "visual",
    "vision_tower",
    "vision_model",
    "vision_embed_tokens",
    "vision_encoder",
    "multi_modal_projector",
    "mm_projector",
    "embed_vision",
    "embed_audio",
    "audio_tower",
    "audio_encoder",
    "connector",
    "image_newline",
    "vpm",
    "resampler",
    "mlp1",
    "vision",
    "img_processor",
    "img_projection",
];
const EMBEDDINGS: &[&str] = &[
    "embed_tokens",
    "wte",
    "word_embeddings",
    "tok_embeddings",
    "embed_in",
    "embeddings",
    "embed",
    "embedding",
];
const HEADS: &[&str] = &["lm_head", "embed_out", "output", "output_layer", "head"];
const COLUMN: &[&str] = &[
    "q_proj",
    "q_b_proj",
    "kv_b_proj",
    "gate_proj",
    "up_proj",
    "gate_up_proj",
    "w1",
    "w3",
    "c_fc",
    "c_fc_0",
    "c_fc_1",
    "fc1",
    "fc_in",
    "dense_h_to_4h",
    "in_proj_qkvz",
    "in_proj_ba",
    "in_proj_qkv",
    "in_proj_z",
    "in_proj_a",
    "in_proj_b",
    "wq_b",
    "wo_a",
    "query",
    "linear_fc1",
    "dt_proj",
    "A_log",
    "D",
    "dt_bias",
    "sinks",
    "attn_sink",
    "input_linear",
    "in_proj",
    "conv1d",
    "conv",
    "g_b_proj",
    "f_b_proj",
    "b_proj",
    "q_conv1d",
    "k_conv1d",
    "v_conv1d",
    "gate",
    "up",
    "v1",
    "proj_gate",
    "wi",
];
const ROW: &[&str] = &[
    "o_proj",
    "out_proj",
    "down_proj",
    "w2",
    "c_proj",
    "dense_4h_to_h",
    "fc2",
    "fc_out",
    "wo",
    "wo_b",
    "x_proj",
    "output_linear",
    "linear_fc2",
    "dense",
    "proj",
];
const KEY_VALUE: &[&str] = &["k_proj", "v_proj", "key", "value", "wk", "wv"];
const FUSED_QKV: &[&str] = &[
    "qkv_proj",
    "query_key_value",
    "c_attn",
    "wqkv",
    "W_pack",
    "qkv",
    "Wqkv",
];
/// Modules that hold one of the above names but are on every rank whole.
const REPLICATED_PARENTS: &[&str] = &[
    "indexer",
    "compressor",
    "router",
    "patch_embed",
    "patch_embedding",
    "pooler",
];

/// The last segments that are parameters of the module before them.
const PARAMETERS: &[&str] = &[
    "weight",
    "bias",
    "qweight",
    "qzeros",
    "scales",
    "g_idx",
    "weight_scale",
    "weight_scale_inv",
    "weight_scale_2",
    "input_scale",
    "weight_packed",
    "weight_shape",
    "weight_zero_point",
    "weight_g_idx",
    "weight_global_scale",
    "input_global_scale",
    "scale",
    "scale_inv",
    "biases",
    "weight_scale_inverse",
    "k_scale",
    "v_scale",
    "e_score_correction_bias",
];

/// Place and rule of a class.
pub fn classify(class: &TensorClass) -> Classified {
    let segments: Vec<&str> = class.pattern.split('.').collect();
    let (module, parents, part) = split_name(&segments);

    let with = |place, rule| Classified {
        place,
        rule,
        expert: false,
        part,
    };

    if skipped(&segments, class) {
        return with(ShardPlace::Skipped, Rule::Replicated);
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
        return with(ShardPlace::Tower, rule);
    }

    if class.layers.is_empty() && draft {
        return with(ShardPlace::Draft, Rule::Replicated);
    }

    if class.layers.is_empty() {
        return match module {
            name if HEADS.contains(&name) => with(ShardPlace::Head, Rule::Vocabulary),
            name if EMBEDDINGS.contains(&name) => with(ShardPlace::Embedding, Rule::Vocabulary),
            name if name.contains("embed") || name == "wpe" => {
                with(ShardPlace::First, Rule::Replicated)
            }
            name if name.contains("norm") || name.starts_with("ln_f") => {
                with(ShardPlace::Last, Rule::Replicated)
            }
            _ => with(ShardPlace::Everywhere, Rule::Replicated),
        };
    }

    let expert =
        segments.contains(&"experts") || matches!(module, "input_linear" | "output_linear");
    let rule = if replicated {
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

fn layer_rule(module: &str, parents: &[&str], expert: bool) -> Rule {
    // A router is a linear layer called `gate` beside the experts; inside them `gate` is a
    // projection.
    if module == "gate" && !expert {
        return Rule::Replicated;
    }
    // Mamba-2 is `mixer` in its own family and Nemotron-H, `mamba` in Bamba, Falcon-H1, Granite 4
    // and Zamba2.
    if matches!(module, "in_proj" | "conv1d") && matches!(parents.last(), Some(&"mixer" | &"mamba"))
    {
        return Rule::MambaMixed;
    }
    // Qwen-1 calls gate and up `w1` and `w2`; either way it is divided, and it has no bias.
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

/// (module, what stands before it, which parameter of it).
fn split_name<'s>(segments: &'s [&'s str]) -> (&'s str, &'s [&'s str], ShardPart) {
    let numeric_free = |parts: &'s [&'s str]| match parts {
        [before @ .., "*"] => before,
        other => other,
    };

    let part = segments.last().copied().map_or(ShardPart::Weight, part_of);
    let mut parts = segments;

    // bitsandbytes hangs its tables below the weight: `q_proj.weight.absmax`.
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
                other => numeric_free(other),
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

/// Buffers of training, tables that engines compute anew.
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
    fn families_names_find_their_rules() {
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
