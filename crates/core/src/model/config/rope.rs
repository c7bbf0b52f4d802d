//! The rotary tables that an engine keeps, and the effect of rotary scaling on the context.
//!
//! Source: vLLM `model_executor/layers/rotary_embedding/*` (`_compute_cos_sin_cache` of each
//! class).

use super::super::architecture::{Mixer, RopeTable, Unsupported};
use super::families::Rope;
use super::fields::{Fields, Object, contradiction};
use super::layers::LayerMixers;

/// Keys of the longest configured sequence.
///
/// Source: vLLM `config/model.py`, `_get_and_verify_max_len`.
const POSITIONS: &[&str] = &[
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "model_max_length",
    "max_target_positions",
    "max_sequence_length",
    "max_seq_length",
    "seq_len",
    "n_ctx",
    "context_length",
    "max_context_length",
];

/// Rotary scaling as configured.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Scaling<'a> {
    /// `rope_type`, or `type` in older files; empty if neither is set.
    pub(super) kind: &'a str,
    factor: Option<f64>,
    original: Option<u64>,
    multimodal: bool,
    partial: Option<f64>,
}

fn scaling<'a>(
    fields: &Fields<'a>,
    object: Option<&'a Object>,
) -> Result<Scaling<'a>, Unsupported> {
    let Some(object) = object else {
        return Ok(Scaling::default());
    };

    let inside = fields.inside(object);
    Ok(Scaling {
        kind: inside
            .text("rope_type")
            .or_else(|| inside.text("type"))
            .unwrap_or_default(),
        factor: inside.factor("factor")?,
        original: inside.size(&["original_max_position_embeddings"])?,
        multimodal: inside.has("mrope_section"),
        partial: inside.factor("partial_rotary_factor")?,
    })
}

/// Reads `rope_scaling`, or `rope_parameters` (transformers 5).
///
/// Settings in the latter may be nested by layer type.
fn main_scaling<'a>(fields: &Fields<'a>) -> Result<Scaling<'a>, Unsupported> {
    let object = match fields.object("rope_scaling")? {
        Some(object) => Some(object),
        None => fields
            .object("rope_parameters")?
            .map(|object| nested(object, "full_attention").unwrap_or(object)),
    };

    scaling(fields, object)
}

fn nested<'a>(object: &'a Object, kind: &str) -> Option<&'a Object> {
    object.get(kind).and_then(serde_json::Value::as_object)
}

/// Reads the configured number of positions before scaling.
///
/// It is the minimum of all keys that are present.
fn positions(fields: &Fields<'_>) -> Result<Option<u64>, Unsupported> {
    let mut least: Option<u64> = None;

    // The default of a class is used only if no key is present, because files may use another key.
    if !POSITIONS.iter().any(|key| fields.value(key).is_some()) {
        return Ok(POSITIONS.iter().find_map(|key| fields.default(key)));
    }

    for key in POSITIONS.iter().filter(|key| fields.value(key).is_some()) {
        // Some files contain the tokenizer's 1e30 for "no limit".
        if let Some(value) = fields
            .value(key)
            .filter(|value| value.as_f64().is_some_and(|value| value > 1e9))
        {
            fields.ignore(key, value, "larger than the context of any model");
            continue;
        }
        if let Some(length) = fields.size(&[key])? {
            least = Some(least.map_or(length, |least| least.min(length)));
        }
    }

    Ok(least)
}

/// Returns the longest sequence the model is configured for.
///
/// Scaling multiplies it, except for models whose `max_position_embeddings` is already scaled:
/// llama3, longrope, yarn, mrope, and Gemma-3 (vLLM `config/model.py`, `_get_and_verify_max_len`).
pub(super) fn max_context(fields: &Fields<'_>) -> Result<Option<u64>, Unsupported> {
    let Some(positions) = positions(fields)? else {
        return Ok(None);
    };

    let scaling = main_scaling(fields)?;
    let scaled = [
        "",
        "default",
        "llama3",
        "longrope",
        "su",
        "yarn",
        "deepseek_yarn",
        "mrope",
        "proportional",
    ];

    if scaled.contains(&scaling.kind) || fields.model_type.starts_with("gemma3") {
        return Ok(Some(positions));
    }

    Ok(Some(super::floor_of(
        positions,
        scaling.factor.unwrap_or(1.0),
    )))
}

/// Returns the context that longrope models run with unless a longer one is requested.
///
/// Long factors degrade short prompts (vLLM `config/model.py`).
pub(super) fn original_context(fields: &Fields<'_>) -> Result<Option<u64>, Unsupported> {
    let scaling = main_scaling(fields)?;
    if !["longrope", "su"].contains(&scaling.kind) {
        return Ok(None);
    }

    Ok(scaling
        .original
        .or(fields.size(&["original_max_position_embeddings"])?))
}

/// Returns the distinct tables of the model.
pub(super) fn tables(
    fields: &Fields<'_>,
    rope: Rope,
    layers: &[LayerMixers],
) -> Result<Vec<RopeTable>, Unsupported> {
    let Some(dim) = head_dim(layers) else {
        return Ok(Vec::new());
    };

    let Some(positions) = positions(fields)? else {
        return Ok(Vec::new());
    };

    let position_type = fields.text("position_embedding_type");
    let has_no_rope = fields.flag("alibi")? == Some(true)
        // ModernBERT's configurations name a type that its class ignores.
        || (rope != Rope::GlobalAndLocal
            && matches!(position_type, Some("nope" | "alibi" | "absolute")))
        || fields.flag("use_mem_rope")? == Some(false)
        || is_baichuan_alibi(fields)?;
    if has_no_rope {
        return Ok(Vec::new());
    }

    let scaling = main_scaling(fields)?;
    let rotary_dim = rotary_dim(fields, &scaling, dim)?;
    let length = length(fields, &scaling, positions)?;
    let mut tables = match rope {
        Rope::Absent => Vec::new(),
        Rope::Multimodal => vec![multimodal_table(length, rotary_dim)],
        Rope::Standard if scaling.multimodal => vec![multimodal_table(length, rotary_dim)],
        Rope::Standard => vec![table(length, rotary_dim)],
        Rope::GlobalAndLocal => vec![table(length, rotary_dim), table(positions, rotary_dim)],
        Rope::Proportional => {
            let global = fields.size(&["global_head_dim"])?.unwrap_or(dim);
            let local = fields.size(&["head_dim"])?.unwrap_or(dim);
            vec![table(positions, global), table(positions, local)]
        }
        // Window-only layers have one table. Compressed layers have another one, with a different
        // base and scaling.
        Rope::Compressed => vec![
            RopeTable {
                positions: length,
                multimodal: false,
                rotary_dim,
                float32: true,
            },
            RopeTable {
                positions,
                multimodal: false,
                rotary_dim,
                float32: true,
            },
        ],
    };

    if rope == Rope::Proportional {
        tables.dedup();
    }

    if rope == Rope::Standard && has_second_base(fields, &scaling)? {
        tables.push(table(positions, rotary_dim));
    }

    Ok(tables)
}

/// Returns whether a Baichuan model uses ALiBi.
///
/// The 13B models do, and only their size shows it (vLLM `models/baichuan.py`).
fn is_baichuan_alibi(fields: &Fields<'_>) -> Result<bool, Unsupported> {
    Ok(fields.model_type == "baichuan" && fields.size(&["hidden_size"])? != Some(4096))
}

/// Returns a table in the model's dtype.
fn table(positions: u64, rotary_dim: u64) -> RopeTable {
    RopeTable {
        positions,
        multimodal: false,
        rotary_dim,
        float32: false,
    }
}

/// Returns a table in the model's dtype for positions with several axes.
fn multimodal_table(positions: u64, rotary_dim: u64) -> RopeTable {
    RopeTable {
        multimodal: true,
        ..table(positions, rotary_dim)
    }
}

/// Returns whether windowed layers need a table of their own, for another base or without scaling.
///
/// MiMo-V2 has `swa_rope_theta`, ModernBERT `local_rope_theta` and Step-3.5 a list of bases;
/// OLMo-3's sliding layers are unscaled.
fn has_second_base(fields: &Fields<'_>, scaling: &Scaling<'_>) -> Result<bool, Unsupported> {
    let listed = match fields.value("rope_theta") {
        Some(serde_json::Value::Array(_)) => fields
            .list("rope_theta")?
            .is_some_and(|bases| bases.iter().any(|base| Some(base) != bases.first())),
        _ => false,
    };

    let named = ["swa_rope_theta", "local_rope_theta", "rope_local_base_freq"]
        .iter()
        .any(|key| fields.value(key).is_some());

    Ok(listed || named || (fields.model_type == "olmo3" && !scaling.kind.is_empty()))
}

/// Returns the number of rows of the main table.
fn length(fields: &Fields<'_>, scaling: &Scaling<'_>, positions: u64) -> Result<u64, Unsupported> {
    let original = scaling
        .original
        .or(fields.size(&["original_max_position_embeddings"])?);
    let length = match scaling.kind {
        "linear" => super::floor_of(positions, scaling.factor.unwrap_or(1.0)),
        "yarn" | "deepseek_yarn" => {
            super::floor_of(original.unwrap_or(positions), scaling.factor.unwrap_or(1.0))
        }
        // Short and long factors have one table each.
        "longrope" | "su" => positions.saturating_add(original.unwrap_or(positions)),
        _ => positions,
    };

    if length > 1 << 32 {
        return Err(contradiction(
            "rope_scaling",
            &length.into(),
            "more than 2^32 positions",
        ));
    }

    Ok(length)
}

/// Returns the largest rotated head: the rotary part of latent attention, otherwise the key head.
fn head_dim(layers: &[LayerMixers]) -> Option<u64> {
    let mixers = layers.iter().flat_map(LayerMixers::mixers);

    mixers
        .filter_map(|mixer| match mixer {
            Mixer::Attention(attention) => Some(attention.key_dim),
            Mixer::Latent(latent) => Some(latent.rope_dim),
            _ => None,
        })
        .max()
}

fn rotary_dim(fields: &Fields<'_>, scaling: &Scaling<'_>, dim: u64) -> Result<u64, Unsupported> {
    if fields.value("kv_lora_rank").is_some()
        || ["compress_ratios", "compress_rates"]
            .iter()
            .any(|key| fields.value(key).is_some())
    {
        return Ok(dim);
    }

    if let Some(rotary_dim) = fields.size(&["rotary_dim"])? {
        return Ok(rotary_dim);
    }

    let partial = match scaling.partial {
        Some(partial) => Some(partial),
        None => match fields.factor("partial_rotary_factor")? {
            Some(partial) => Some(partial),
            None => fields.factor("rotary_pct")?,
        },
    };

    let partial = partial.or_else(|| rotated_part(fields.model_type));
    Ok(partial.map_or(dim, |partial| super::floor_of(dim, partial.min(1.0))))
}

/// Returns the part of the head that a class rotates if no key states it.
///
/// Source: transformers `configuration_*.py`; for ChatGLM vLLM `models/chatglm.py`.
fn rotated_part(model_type: &str) -> Option<f64> {
    match model_type {
        "chatglm" | "glm" | "glm4" | "glm4_moe" | "glm4v_moe_text" | "phi" | "nemotron"
        | "persimmon" => Some(0.5),
        "qwen3_next" | "qwen3_5_text" | "qwen3_5_moe_text" | "gpt_neox" | "stablelm" => Some(0.25),
        "mimo_v2_flash" => Some(0.334),
        _ => None,
    }
}
