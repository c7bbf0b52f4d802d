//! Attention heads and their sizes, under every name that configurations use for them.
//!
//! The order of aliases follows vLLM `transformers_utils/model_arch_config_convertor.py`
//! (`ModelArchConfigConvertorBase`) and the `attribute_map`s of transformers' configuration
//! classes.

use serde_json::Value;

use super::super::architecture::Unsupported;
use super::fields::{Fields, contradiction};

/// Key names of L.
pub(super) const LAYERS: &[&str] = &[
    "num_hidden_layers",
    "n_layer",
    "num_layers",
    "n_layers",
    "num_transformer_layers",
    "layers",
];
/// Key names of h.
pub(super) const HIDDEN: &[&str] = &[
    "hidden_size",
    "n_embd",
    "n_embed",
    "d_model",
    "dim",
    "model_dim",
    "embed_dim",
    "emb_dim",
];
/// Key names of I.
pub(super) const INTERMEDIATE: &[&str] = &[
    "intermediate_size",
    "ffn_dim",
    "n_inner",
    "ffn_hidden_size",
    "d_ff",
];
/// Key names of H.
pub(super) const HEADS: &[&str] = &[
    "num_attention_heads",
    "n_head",
    "n_heads",
    "num_heads",
    "attention_heads",
];
/// Key names of Hk.
pub(super) const KV_HEADS: &[&str] = &[
    "n_head_kv",
    "num_kv_heads",
    "num_key_value_heads",
    "multi_query_group_num",
    "num_attention_groups",
];
/// Key names of d.
pub(super) const HEAD_DIM: &[&str] = &[
    "head_dim",
    "hidden_size_per_head",
    "kv_channels",
    "d_kv",
    "dim_head",
];
/// Key names of V.
pub(super) const VOCABULARY: &[&str] = &[
    "vocab_size",
    "padded_vocab_size",
    "n_vocab",
    "tgt_vocab_size",
];

/// The heads of one attention layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Heads {
    pub(super) query: u64,
    pub(super) kv: u64,
    pub(super) key_dim: u64,
    pub(super) value_dim: u64,
}

/// Reads the heads that all layers share.
pub(super) fn heads(fields: &Fields<'_>) -> Result<Heads, Unsupported> {
    let heads = fields.need(HEADS)?;
    let kv_heads = kv_heads(fields, heads)?;
    check_kv_heads(fields, heads, kv_heads)?;
    let key_dim = head_dim(fields, heads)?;

    // MiMo-V2 and related models have `v_head_dim` without a latent cache. DeepSeek-VL2 writes 0
    // for "not latent".
    let value_dim = fields
        .count(&["v_head_dim"])?
        .filter(|dim| *dim > 0)
        .unwrap_or(key_dim);

    Ok(Heads {
        query: heads,
        kv: kv_heads,
        key_dim,
        value_dim,
    })
}

/// Reads d. It is h / H only if no key states it.
pub(super) fn head_dim(fields: &Fields<'_>, heads: u64) -> Result<u64, Unsupported> {
    if let Some(dim) = fields.count(HEAD_DIM)?.filter(|dim| *dim > 0) {
        return Ok(dim);
    }

    let hidden = fields.need(HIDDEN)?;
    // The default configuration of GLM-4.5's class divides with a remainder (`Glm4MoeAttention`).
    let rounds_down = ["glm4_moe", "glm4v_moe_text"].contains(&fields.model_type);
    if !hidden.is_multiple_of(heads) && !rounds_down {
        let why = format!("hidden size {hidden} is not divisible by it, and head_dim is absent");
        return Err(contradiction(
            "num_attention_heads",
            &Value::from(heads),
            why,
        ));
    }

    Ok(hidden / heads)
}

fn kv_heads(fields: &Fields<'_>, heads: u64) -> Result<u64, Unsupported> {
    // DBRX and MPT have it in a nested object.
    if let Some(attention) = fields.object("attn_config")?
        && let Some(kv_heads) = fields.inside(attention).size(&["kv_n_heads"])?
    {
        return Ok(kv_heads);
    }

    match fields.model_type {
        // The key is valid only in the new decoder architecture, which the first release of the 40B
        // model called RefinedWeb (transformers `FalconConfig`, `FalconAttention`).
        "falcon" | "RefinedWeb" | "RefinedWebModel" => {
            if fields.model_type == "RefinedWeb"
                || fields.flag("new_decoder_architecture")? == Some(true)
            {
                return Ok(fields.size(KV_HEADS)?.unwrap_or(heads));
            }
            return Ok(if fields.flag("multi_query")? == Some(false) {
                heads
            } else {
                1
            });
        }
        "gpt_bigcode" if fields.flag("multi_query")? != Some(false) => return Ok(1),
        "chatglm" if fields.flag("multi_query_attention")? != Some(true) => return Ok(heads),
        _ => {}
    }

    if fields.has("multi_query") && fields.flag("multi_query")? == Some(true) {
        return Ok(1);
    }

    Ok(fields.size(KV_HEADS)?.unwrap_or(heads))
}

/// Checks that query heads share KV heads in equal groups.
pub(super) fn check_kv_heads(
    fields: &Fields<'_>,
    heads: u64,
    kv_heads: u64,
) -> Result<(), Unsupported> {
    if kv_heads > 0 && heads.is_multiple_of(kv_heads) {
        return Ok(());
    }

    let key = KV_HEADS
        .iter()
        .find(|key| fields.value(key).is_some())
        .copied()
        .unwrap_or("num_key_value_heads");

    Err(contradiction(
        key,
        &Value::from(kv_heads),
        format!("{heads} query heads are not divisible by it"),
    ))
}
