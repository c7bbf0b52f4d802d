//! Multi-head latent attention: DeepSeek V2, V3, V3.2, V4 and their kin.
//!
//! Sources: vLLM `transformers_utils/model_arch_config_convertor.py` (`is_deepseek_mla`,
//! `get_head_size`), `layers/attention/mla_attention.py`, `layers/sparse_attn_indexer.py`,
//! `models/deepseek_v4`.

use serde_json::Value;

use super::super::architecture::{Indexer, LatentAttention, Mixer, Span, Unsupported};
use super::fields::Fields;
use super::heads::{self, Heads};
use super::layers::{Mixed, bounded, count};

/// Latent attention in each layer, or plain attention where `kv_lora_rank` is null.
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
        // Not in vLLM's list: it caches expanded heads, V padded to K's size (vLLM
        // `models/minicpm3.py`).
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
    // GLM-5.2: a layer that shares an earlier one's selection has no indexer, and stores none.
    let one = |(layer, kind): (usize, &&str)| match *kind {
        "full" => Ok(Mixer::Latent(attention.clone())),
        "shared" => Ok(Mixer::Latent(LatentAttention {
            indexer: None,
            ..attention.clone()
        })),
        other => Err(fields.family(format!(
            "indexer_types[{layer}] = {}",
            other.chars().take(40).collect::<String>()
        ))),
    };

    kinds.iter().enumerate().map(one).collect()
}

/// The latent attention that the keys describe; `None` where `kv_lora_rank` is null or absent.
pub(super) fn attention(fields: &Fields<'_>) -> Result<Option<LatentAttention>, Unsupported> {
    let Some(kv_lora_rank) = fields.size(&["kv_lora_rank"])? else {
        return Ok(None);
    };

    let indexer = match fields.size(&["index_head_dim"])? {
        None => None,
        Some(head_dim) => {
            known_indexer(fields)?;
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
        rope_dim: fields.need(&["qk_rope_head_dim"])?,
        nope_dim: fields.need(&["qk_nope_head_dim"])?,
        value_dim: fields.need(&["v_head_dim"])?,
        q_lora_rank: fields.size(&["q_lora_rank"])?,
        indexer,
        compress_ratio: None,
        window: None,
    }))
}

/// Indexers keep changing what they store (pooled keys, shared layers): a switch that is not known
/// refuses.
fn known_indexer(fields: &Fields<'_>) -> Result<(), Unsupported> {
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

    let is_on = |value: &Value| !matches!(value, Value::Null | Value::Bool(false));
    let switch = fields.own.iter().find(|(key, value)| {
        (key.starts_with("index") || key.contains("kpool"))
            && !KNOWN.contains(&key.as_str())
            && is_on(value)
    });

    match switch {
        None => Ok(()),
        Some((key, value)) => {
            let value: String = value.to_string().chars().take(40).collect();
            Err(fields.family(format!(
                "{} = {value}",
                key.chars().take(60).collect::<String>()
            )))
        }
    }
}

/// LongCat-Flash: `num_layers` blocks of two attentions each, both with a cache (vLLM
/// `models/longcat_flash.py`).
pub(super) fn double(fields: &Fields<'_>) -> Result<Vec<Mixed>, Unsupported> {
    let attention = attention(fields)?.ok_or_else(|| fields.missing("kv_lora_rank"))?;
    let mixer = Mixer::Latent(attention);
    Ok(vec![
        Mixed {
            mixer: mixer.clone(),
            beside: Some(mixer),
            feed_forward: None
        };
        bounded(fields, &["num_layers"])?
    ])
}

/// `compress_ratios`, or what transformers' own configurations say instead: a rate for each word of
/// `layer_types`, 0 where there is none (vLLM `transformers_utils/deepseek_v4_utils.py`,
/// `get_compress_ratios`).
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
            (None, word) => Err(fields.family(format!(
                "layer_types[{layer}] = {}",
                word.chars().take(40).collect::<String>()
            ))),
        })
        .collect()
}

/// DeepSeek V4: one latent head of `head_dim`; each layer compresses by 4 or 128 or keeps only its
/// window (0).
pub(super) fn deepseek_v4(fields: &Fields<'_>) -> Result<Vec<Mixer>, Unsupported> {
    let layers = count(fields)?;
    let ratios = compress_ratios(fields)?;

    // The multi-token-prediction layers have their entries behind the last layer's.
    let behind = usize::try_from(fields.count(&["num_nextn_predict_layers"])?.unwrap_or(0))
        .unwrap_or(usize::MAX);
    if ratios.len() != layers && ratios.len() != layers.saturating_add(behind) {
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

    let one = |(layer, ratio): (usize, &u64)| match ratio {
        0 | 4 | 128 => Ok(Mixer::Latent(LatentAttention {
            compress_ratio: Some(*ratio),
            indexer: (*ratio == 4).then_some(indexer),
            ..attention.clone()
        })),
        other => Err(fields.family(format!("compress_ratios[{layer}] = {other}"))),
    };

    ratios.iter().take(layers).enumerate().map(one).collect()
}
