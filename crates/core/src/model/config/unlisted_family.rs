//! Rules for model types that are not listed: ordinary attention, if keys and tensors confirm it.

use serde_json::Value;

use super::super::architecture::Unsupported;
use super::super::tensors::{Inventory, TensorClass};
use super::families::{Family, FamilyKind, Rope, Spans};
use super::fields::{Fields, cut};
use super::heads;
use super::tensor_checks::{is_decoder, projection};

/// Infers the rules of a model type that is not listed.
///
/// The result is ordinary grouped-query attention. Every key that could affect the cache must be
/// known and the stored projections must be plain ones, otherwise the error names what is unknown.
pub(super) fn infer_family(
    fields: &Fields<'_>,
    tensors: &Inventory,
) -> Result<Family, Unsupported> {
    if let Some((key, value)) = fields
        .own
        .iter()
        .find(|(key, value)| is_suspicious(key, value))
    {
        return Err(fields.family(format!(
            "{} = {}",
            cut(key, 60),
            cut(&value.to_string(), 40)
        )));
    }

    let heads = heads::heads(fields)
        .map_err(|_| fields.unconfirmed("its attention heads are not stated in known keys"))?;

    if fields.value("sliding_window").is_some()
        && fields.value("layer_types").is_none()
        && fields.flag("use_sliding_window")? != Some(false)
    {
        return Err(fields.family("sliding_window without layer_types"));
    }

    let classes: Vec<&TensorClass> = tensors
        .classes
        .iter()
        .filter(|class| is_decoder(class))
        .collect();
    if classes.is_empty() {
        return Err(fields.unconfirmed("no tensor names confirm its attention"));
    }

    for class in &classes {
        if let Some(part) = class.pattern.split('.').find(|part| !is_plain_module(part)) {
            return Err(fields.unconfirmed(&format!("module {part} is not understood")));
        }
    }

    let layers = fields.need(heads::LAYERS)?;
    for (name, rows) in [
        ("q_proj", heads.query.saturating_mul(heads.key_dim)),
        ("k_proj", heads.kv.saturating_mul(heads.key_dim)),
        ("v_proj", heads.kv.saturating_mul(heads.value_dim)),
    ] {
        let matching = classes
            .iter()
            .filter(|class| projection(&class.pattern) == Some(name));
        let matching: u64 = matching
            .filter(|class| class.shape.first() == Some(&rows))
            .map(|class| class.count)
            .sum();
        if matching != layers {
            return Err(fields.unconfirmed(&format!(
                "{matching} of {layers} layers store a {name} of {rows} rows"
            )));
        }
    }

    Ok(Family {
        types: &[],
        kind: FamilyKind::Attention(Spans::Full),
        rope: Rope::Standard,
        tied: false,
    })
}

/// Returns whether a key that no rule reads could affect the cache.
fn is_suspicious(key: &str, value: &Value) -> bool {
    const KNOWN: &[&str] = &[
        "num_attention_heads",
        "num_key_value_heads",
        "num_kv_heads",
        "n_head_kv",
        "head_dim",
        "attention_bias",
        "attention_dropout",
        "attn_dropout",
        "attn_pdrop",
        "attention_probs_dropout_prob",
        "attention_multiplier",
        "attention_scale",
        "attn_implementation",
        "_attn_implementation",
        "_attn_implementation_autoset",
        "sliding_window",
        "use_sliding_window",
        "max_window_layers",
        "layer_types",
        "attention_softmax_in_fp32",
        "attn_logit_softcapping",
        "use_cache",
        "num_attention_groups",
        "attention_out_bias",
        "attention_qkv_bias",
        "attention_output_bias",
        "cache_implementation",
        "chunk_size_feed_forward",
        "is_decoder",
        "add_cross_attention",
        "query_pre_attn_scalar",
        "kv_channels",
        "attn_output_gate",
        "use_attention_gate",
        "attention_value_scale",
        "num_attention_heads_per_layer",
        "num_local_experts",
    ];

    const WORDS: &[&str] = &[
        "attn",
        "attention",
        "window",
        "ssm",
        "mamba",
        "linear_",
        "latent",
        "lora_rank",
        "kv_",
        "_kv",
        "conv",
        "state",
        "chunk",
        "compress",
        "cache",
        "recurrent",
        "rnn",
        "hybrid",
        "pattern",
        "block_config",
        "cross",
        "share",
        "sparse",
        "index",
        "memory",
        "lightning",
        "delta",
        "retention",
        "rwkv",
        "hyena",
        "yoco",
        "global_",
        "local_",
        "nope",
        "swa",
    ];

    const HARMLESS: &[&str] = &[
        "shared_expert",
        "share_expert",
        "_token_index",
        "token_id",
        "initializer",
        "shared_intermediate",
        "decoder_sparse_step",
    ];

    let is_inactive = match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Array(list) => list.is_empty(),
        Value::Object(object) => object.is_empty(),
        _ => false,
    };

    let key = key.to_ascii_lowercase();
    !is_inactive
        && !KNOWN.contains(&key.as_str())
        && !HARMLESS.iter().any(|word| key.contains(word))
        && WORDS.iter().any(|word| key.contains(word))
}

/// Returns whether the layers of an ordinary decoder have modules with this name.
fn is_plain_module(part: &str) -> bool {
    const PLAIN: &[&str] = &[
        "*",
        "model",
        "language_model",
        "layers",
        "self_attn",
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "q_norm",
        "k_norm",
        "mlp",
        "gate_proj",
        "up_proj",
        "down_proj",
        "gate_up_proj",
        "experts",
        "shared_expert",
        "shared_experts",
        "gate",
        "router",
        "shared_expert_gate",
        "block_sparse_moe",
        "w1",
        "w2",
        "w3",
        "weight",
        "bias",
        "rotary_emb",
        "inv_freq",
        "fc1",
        "fc2",
        "feed_forward",
        "weight_packed",
        "weight_scale",
        "weight_scale_inv",
        "input_scale",
        "weight_shape",
        "e_score_correction_bias",
        "qweight",
        "qzeros",
        "scales",
        "g_idx",
        "c_fc",
        "c_proj",
        "dense_h_to_4h",
        "dense_4h_to_h",
    ];

    PLAIN.contains(&part) || part.contains("norm") || part.contains("ln_")
}
