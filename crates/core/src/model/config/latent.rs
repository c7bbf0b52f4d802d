//! Multi-head latent attention: DeepSeek V2, V3, V3.2, V4 and related models.
//!
//! Sources: vLLM `transformers_utils/model_arch_config_convertor.py` (`is_deepseek_mla`,
//! `get_head_size`), `layers/attention/mla_attention.py`, `layers/sparse_attn_indexer.py`,
//! `models/deepseek_v4`.

use serde_json::Value;

use super::super::architecture::{Indexer, LatentAttention, Mixer, Span, Unsupported};
use super::fields::{Fields, cut};
use super::heads::{self, Heads};
use super::layers::{LayerMixers, bounded, count};

/// Returns latent attention in each layer, or plain attention if `kv_lora_rank` is null.
pub(super) fn latent(fields: &Fields<'_>) -> Result<Vec<Mixer>, Unsupported> {
    let layers = count(fields)?;

    // DeepSeek-VL2 and DeepSeek-OCR switch it off.
    let latent = if fields.flag("use_mla")? == Some(false) {
        None
    } else {
        attention(fields)?
    };

    let Some(attention) = latent else {
        let heads = heads::heads(&Fields {
            defaults: &[],
            ..*fields
        })?;
        return Ok(vec![heads.mixer(Span::Full); layers]);
    };

    if fields.model_type == "minicpm3" {
        // This type is not in vLLM's list. vLLM caches expanded heads for it, with V padded to K's
        // size (`models/minicpm3.py`).
        let dim = attention.nope_dim.saturating_add(attention.rope_dim);
        let heads = Heads {
            query: attention.heads,
            kv: attention.heads,
            key_dim: dim,
            value_dim: dim,
        };

        return Ok(vec![heads.mixer(Span::Full); layers]);
    }

    let Some(kinds) = fields.words("indexer_types")? else {
        return Ok(vec![Mixer::Latent(attention); layers]);
    };

    if kinds.len() != layers {
        return Err(fields.length("indexer_types", kinds.len(), layers));
    }

    kinds
        .iter()
        .enumerate()
        .map(|(layer, kind)| match *kind {
            "full" => Ok(Mixer::Latent(attention.clone())),
            // GLM-5.2: a layer that shares an earlier selection has and stores no indexer.
            "shared" => Ok(Mixer::Latent(LatentAttention {
                indexer: None,
                ..attention.clone()
            })),
            other => Err(fields.unknown_entry("indexer_types", layer, other)),
        })
        .collect()
}

/// Reads the latent attention; `None` if `kv_lora_rank` is null or absent.
pub(super) fn attention(fields: &Fields<'_>) -> Result<Option<LatentAttention>, Unsupported> {
    let Some(kv_lora_rank) = fields.size(&["kv_lora_rank"])? else {
        return Ok(None);
    };

    let indexer = match fields.size(&["index_head_dim"])? {
        None => None,
        Some(head_dim) => {
            check_indexer(fields)?;
            let (heads, top_k) = (
                fields.need(&["index_n_heads"])?,
                fields.need(&["index_topk"])?,
            );
            Some(Indexer {
                head_dim,
                heads,
                top_k,
            })
        }
    };

    Ok(Some(LatentAttention {
        heads: fields.need(heads::HEADS)?,
        kv_lora_rank,
        rope_dim: rope_dim(fields)?,
        nope_dim: fields.need(&["qk_nope_head_dim"])?,
        value_dim: fields.need(&["v_head_dim"])?,
        q_lora_rank: fields.size(&["q_lora_rank"])?,
        indexer,
        compress_ratio: None,
        window: None,
    }))
}

/// Reads the rotary part of a head. Only GLM-5.3-Flash has none.
fn rope_dim(fields: &Fields<'_>) -> Result<u64, Unsupported> {
    const KEY: &[&str] = &["qk_rope_head_dim"];

    if is_pooled(fields) && fields.count(KEY)? == Some(0) {
        return Ok(0);
    }
    fields.need(KEY)
}

/// Returns whether the indexer of this type scores pools of tokens.
fn is_pooled(fields: &Fields<'_>) -> bool {
    ["glm5_next", "glm5_next_text"].contains(&fields.model_type)
}

/// Lists how transformers and vLLM keep an indexer's keys, where it is not as wide as one key in
/// the dtype of the cache.
///
/// Source: transformers 5.24 `Dots3NoteTextIndexer` and `Glm5NextTextIndexer` (keys, scores and a
/// mask in one tensor), vLLM 0.33 `models/glm5next/common/attention.py` (`tokens_per_state`).
pub(super) fn index_notes(fields: &Fields<'_>) -> Result<Vec<String>, Unsupported> {
    if ["dots3_note", "dots3_note_text"].contains(&fields.model_type) {
        return Ok(vec!["float32_index_keys=true".to_owned()]);
    }

    if !is_pooled(fields) {
        return Ok(Vec::new());
    }

    let width = fields.need(&["index_head_dim"])?;
    let packed = width.saturating_mul(2).saturating_add(1);
    let pool = fields.need(&["index_kpool"])?;
    Ok(vec![
        format!("packed_index_elements={packed}"),
        format!("index_pool={pool}"),
    ])
}

/// Rejects unknown indexer flags.
///
/// Indexers keep changing what they store (pooled keys, shared layers).
fn check_indexer(fields: &Fields<'_>) -> Result<(), Unsupported> {
    const POOLED: &[&str] = &["index_kpool", "index_kpool_always_select_tail"];

    const KNOWN: &[&str] = &[
        "index_head_dim",
        "index_n_heads",
        "index_topk",
        "index_topk_freq",
        "index_topk_pattern",
        "index_skip_topk_offset",
        "index_share_for_mtp_iteration",
        "indexer_types",
        "indexer_rope_interleave",
    ];

    let unknown = fields.own.iter().find(|(key, value)| {
        (key.starts_with("index") || key.contains("kpool"))
            && !KNOWN.contains(&key.as_str())
            && !(is_pooled(fields) && POOLED.contains(&key.as_str()))
            && !matches!(value, Value::Null | Value::Bool(false))
    });

    match unknown {
        None => Ok(()),
        Some((key, value)) => {
            let (key, value) = (cut(key, 60), cut(&value.to_string(), 40));
            Err(fields.family(format!("{key} = {value}")))
        }
    }
}

/// Returns the blocks of LongCat-Flash: `num_layers` blocks of two attentions, both with a cache.
///
/// Source: vLLM `models/longcat_flash.py`.
pub(super) fn longcat_flash(fields: &Fields<'_>) -> Result<Vec<LayerMixers>, Unsupported> {
    let attention = attention(fields)?.ok_or_else(|| fields.missing("kv_lora_rank"))?;
    let mixer = Mixer::Latent(attention);
    Ok(vec![
        LayerMixers {
            mixer: mixer.clone(),
            second_mixer: Some(mixer),
            feed_forward: None,
            passes: 1,
        };
        bounded(fields, &["num_layers"])?
    ])
}

/// Reads `compress_ratios`, or derives it from transformers' `compress_rates`.
///
/// The latter states one rate for each word of `layer_types`; 0 means no compression (vLLM
/// `transformers_utils/deepseek_v4_utils.py`, `get_compress_ratios`).
fn compress_ratios(fields: &Fields<'_>) -> Result<Vec<u64>, Unsupported> {
    if let Some(ratios) = fields.numbers("compress_ratios")? {
        return Ok(ratios);
    }

    let (Some(rates), Some(words)) = (
        fields.object("compress_rates")?,
        fields.words("layer_types")?,
    ) else {
        return Err(fields.missing("compress_ratios"));
    };

    let rates = fields.inside(rates);
    words
        .iter()
        .enumerate()
        .map(|(layer, word)| match (rates.count(&[word])?, *word) {
            (Some(rate), _) => Ok(rate),
            (None, "sliding_attention") => Ok(0),
            (None, word) => Err(fields.unknown_entry("layer_types", layer, word)),
        })
        .collect()
}

/// Returns the layers of DeepSeek V4, which have one latent head of `head_dim`.
///
/// Each layer compresses by 4 or 128, or keeps only its window (0).
pub(super) fn deepseek_v4(fields: &Fields<'_>) -> Result<Vec<Mixer>, Unsupported> {
    let layers = count(fields)?;
    let ratios = compress_ratios(fields)?;

    // The entries of multi-token-prediction layers follow the last layer's entry.
    let mtp_layers = usize::try_from(fields.count(&["num_nextn_predict_layers"])?.unwrap_or(0))
        .unwrap_or(usize::MAX);
    if ratios.len() != layers && ratios.len() != layers.saturating_add(mtp_layers) {
        return Err(fields.length("compress_ratios", ratios.len(), layers));
    }

    let head_dim = fields.need(&["head_dim"])?;
    let rope_dim = fields.need(&["qk_rope_head_dim"])?;
    let rank = head_dim.checked_sub(rope_dim).filter(|rank| *rank > 0);
    let kv_lora_rank = rank.ok_or_else(|| {
        super::fields::contradiction(
            "qk_rope_head_dim",
            &rope_dim.into(),
            format!("head_dim is {head_dim}"),
        )
    })?;

    let indexer = Indexer {
        head_dim: fields.need(&["index_head_dim"])?,
        heads: fields.need(&["index_n_heads"])?,
        top_k: fields.need(&["index_topk"])?,
    };

    let attention = LatentAttention {
        heads: fields.need(heads::HEADS)?,
        kv_lora_rank,
        rope_dim,
        nope_dim: kv_lora_rank,
        value_dim: head_dim,
        q_lora_rank: fields.size(&["q_lora_rank"])?,
        indexer: None,
        compress_ratio: None,
        window: Some(fields.need(&["sliding_window"])?),
    };

    ratios
        .iter()
        .take(layers)
        .enumerate()
        .map(|(layer, ratio)| match ratio {
            0 | 4 | 128 => Ok(Mixer::Latent(LatentAttention {
                compress_ratio: Some(*ratio),
                indexer: (*ratio == 4).then_some(indexer),
                ..attention.clone()
            })),
            other => Err(fields.family(format!("compress_ratios[{layer}] = {other}"))),
        })
        .collect()
}
