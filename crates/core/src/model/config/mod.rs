//! `config.json` turned into an [`Architecture`]: what each layer must remember, from keys whose
//! meaning is known.
//!
//! The path: `language` finds the language model's object, `families` its rules, `layers` (with
//! `heads`, `spans`, `latent`, `recurrent`, `hybrids`, `blocks`) what each layer keeps, `experts`
//! what follows, and `proof` holds all of it against the tensors. A key whose value cannot be
//! meant, or a family that is not understood, is an [`Unsupported`] that names it.

mod blocks;
mod defaults;
mod encoders;
mod experts;
mod families;
mod fields;
mod heads;
mod hybrids;
mod ignored;
mod language;
mod latent;
mod layers;
mod overrides;
pub mod parameters;
mod proof;
mod quantization;
mod recurrent;
mod rope;
mod spans;
mod vision;

use serde_json::Value;

use self::families::{Family, FamilyKind};
use self::fields::Fields;
use self::ignored::Ignored;
use self::layers::Mixed;
use super::architecture::{Architecture, FeedForward, Layer, Mixer, Span, Task, Unsupported};
use super::dtype::Dtype;
use super::tensors::Inventory;

/// Reads a configuration; `quantization` is the content of `hf_quant_config.json`, where the
/// repository has one, and `tensors` may be empty where no names are known.
pub fn architecture(
    config: &Value,
    quantization: Option<&Value>,
    tensors: &Inventory,
) -> Result<Architecture, Unsupported> {
    architecture_and_warnings(config, quantization, tensors).0
}

/// As [`architecture`], and a sentence for each figure that is there and not used because it cannot
/// be meant.
pub fn architecture_and_warnings(
    config: &Value,
    quantization: Option<&Value>,
    tensors: &Inventory,
) -> (Result<Architecture, Unsupported>, Vec<String>) {
    let ignored = Ignored::default();
    let architecture = read(config, quantization, tensors, &ignored);
    (architecture, ignored.into_warnings())
}

fn read(
    config: &Value,
    quantization: Option<&Value>,
    tensors: &Inventory,
    ignored: &Ignored,
) -> Result<Architecture, Unsupported> {
    if config.is_null() {
        return Err(Unsupported::NoConfiguration);
    }

    let root = config
        .as_object()
        .ok_or_else(|| fields::contradiction("config.json", config, "an object is expected"))?;
    let (fields, root_model_type) = language::locate(root, ignored)?;
    let proven;

    let family = if let Some(family) = families::find(fields.model_type) {
        family
    } else {
        proven = proof::unknown(&fields, tensors)?;
        &proven
    };

    let (mixed, encoder) = match family.kind {
        FamilyKind::Encoder => (encoders::encoder(&fields)?, None),
        // T5's encoder alone, as pipelines and embedding models use it.
        FamilyKind::EncoderDecoder if fields.class.ends_with("EncoderModel") => {
            (encoders::encoder(&fields)?, None)
        }
        FamilyKind::EncoderDecoder => {
            let (layers, encoder) = encoders::encoder_decoder(&fields)?;
            (layers, Some(encoder))
        }
        kind => (layers::layers(&fields, kind)?, None),
    };

    let hidden_size = fields.need(heads::HIDDEN)?;
    let experts = experts::experts(&fields)?;
    let feed_forwards = experts::feed_forwards(&fields, experts.as_ref(), mixed.len())?;
    let rope = rope::tables(&fields, family.rope, &mixed)?;
    let task = task(&fields, family.kind, &mixed);

    let layers: Vec<Layer> = mixed
        .into_iter()
        .zip(feed_forwards)
        .map(|(layer, after)| assemble(layer, after))
        .collect();

    let mut architecture = Architecture {
        class: fields.class.to_owned(),
        model_type: fields.model_type.to_owned(),
        root_model_type: root_model_type.to_owned(),
        task,
        hidden_size,
        intermediate_size: experts::intermediate(&fields)?,
        vocab_size: vocabulary(&fields)?,
        heads: heads_of(&layers).unwrap_or(0),
        max_context: max_context(&fields)?,
        layers,
        encoder,
        experts,
        rope,
        tied_embeddings: Some(tied(&fields, family, tensors)?),
        dtype: dtype(&fields)?,
        state_dtype: state_dtype(&fields),
        vision: vision::tower(&fields),
        audio: vision::audio(&fields),
        mtp_layers: mtp_layers(&fields)?,
        quantization: quantization::quantization(&fields, quantization)?,
        notes: notes(&fields)?,
    };

    let stored =
        proof::mtp_layers(tensors).max(proof::stored_behind(tensors, architecture.layer_count()));
    architecture.mtp_layers = architecture.mtp_layers.max(stored);
    proof::check(&architecture, tensors)?;

    Ok(architecture)
}

fn assemble(layer: Mixed, after: FeedForward) -> Layer {
    Layer {
        mixer: layer.mixer,
        beside: layer.beside,
        feed_forward: layer.feed_forward.unwrap_or(after),
    }
}

/// `size * factor`, rounded down; what leaves 64 bits becomes the largest number.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "sizes are below 2^32 and factors positive and bounded, both checked where they were read"
)]
fn floor_of(size: u64, factor: f64) -> u64 {
    (size as f64 * factor).floor() as u64
}

/// V; recurrent and pooled audio encoders have none, and theirs is 0.
fn vocabulary(fields: &Fields<'_>) -> Result<u64, Unsupported> {
    match fields.size(heads::VOCABULARY)? {
        Some(size) => Ok(size),
        // A multimodal configuration may hold it at its root.
        None => match fields.inside(fields.root).size(heads::VOCABULARY)? {
            Some(size) => Ok(size),
            None => Err(fields.missing("vocab_size")),
        },
    }
}

fn heads_of(layers: &[Layer]) -> Option<u64> {
    let mixers = layers
        .iter()
        .flat_map(|layer| std::iter::once(&layer.mixer).chain(layer.beside.as_ref()));

    mixers
        .filter_map(|mixer| match mixer {
            Mixer::Attention(attention) => Some(attention.heads),
            Mixer::Latent(latent) => Some(latent.heads),
            _ => None,
        })
        .max()
}

fn max_context(fields: &Fields<'_>) -> Result<Option<u64>, Unsupported> {
    let longest = rope::max_context(fields)?;

    // RoBERTa's first position is behind the padding index (transformers
    // `create_position_ids_from_input_ids`).
    let offset = if ["roberta", "xlm-roberta", "camembert"].contains(&fields.model_type) {
        2
    } else {
        0
    };

    Ok(longest.map(|longest| longest.saturating_sub(offset)))
}

/// What the configuration says, else what the names show, else the class.
fn tied(fields: &Fields<'_>, family: &Family, tensors: &Inventory) -> Result<bool, Unsupported> {
    for object in [fields.root, fields.own] {
        if let Some(tied) = fields.inside(object).flag("tie_word_embeddings")? {
            return Ok(tied);
        }
    }
    Ok(proof::tied(tensors).unwrap_or(family.tied))
}

/// `dtype` or `torch_dtype`, of the root first. A name that no dtype has is refused: it decides the
/// size of the cache.
fn dtype(fields: &Fields<'_>) -> Result<Option<Dtype>, Unsupported> {
    for object in [fields.root, fields.own] {
        let fields = fields.inside(object);
        for key in ["dtype", "torch_dtype"] {
            match fields.value(key) {
                None => {}
                Some(Value::String(name)) if name == "auto" => {}
                Some(value) => {
                    let known = value.as_str().and_then(dtype_named);
                    let refusal =
                        || fields::contradiction(key, value, "the name of a dtype is expected");
                    return known.map(Some).ok_or_else(refusal);
                }
            }
        }
    }

    Ok(None)
}

fn dtype_named(name: &str) -> Option<Dtype> {
    match name.strip_prefix("torch.").unwrap_or(name) {
        "bfloat16" => Some(Dtype::BF16),
        "float16" | "half" => Some(Dtype::F16),
        "float32" | "float" => Some(Dtype::F32),
        "float64" | "double" => Some(Dtype::F64),
        "float8_e4m3fn" => Some(Dtype::F8E4M3),
        _ => None,
    }
}

/// vLLM `model_executor/models/config.py`: Nemotron-H and Qwen3.5 keep recurrent states in 32 bits
/// by their own key.
fn state_dtype(fields: &Fields<'_>) -> Option<Dtype> {
    let named = fields
        .text("mamba_ssm_cache_dtype")
        .or_else(|| fields.text("mamba_ssm_dtype"))
        .and_then(dtype_named);
    named.or((fields.model_type == "nemotron_h").then_some(Dtype::F32))
}

fn mtp_layers(fields: &Fields<'_>) -> Result<u32, Unsupported> {
    let stated = match fields.count(&[
        "num_nextn_predict_layers",
        "mtp_num_hidden_layers",
        "num_mtp_layers",
    ])? {
        Some(layers) => layers,
        None if fields.flag("use_mtp")? == Some(false) => 0,
        None => {
            let modules = fields.count(&["num_mtp_modules"])?.unwrap_or(0);
            modules.saturating_mul(fields.size(&["mtp_transformer_layers"])?.unwrap_or(1))
        }
    };

    u32::try_from(stated)
        .ok()
        .filter(|layers| *layers <= 256)
        .ok_or_else(|| {
            fields::contradiction(
                "num_nextn_predict_layers",
                &stated.into(),
                "no model has more than 256",
            )
        })
}

fn task(fields: &Fields<'_>, kind: FamilyKind, layers: &[Mixed]) -> Task {
    /// Decoders that are published without their head for embedding; others' `Model` classes
    /// generate.
    const POOLED: &[&str] = &[
        "LlamaModel",
        "MistralModel",
        "Qwen2Model",
        "Qwen3Model",
        "Gemma2Model",
        "Gemma3TextModel",
    ];

    let pools = [
        "Reward",
        "Classification",
        "ForEmbedding",
        "ForTextEncoding",
    ]
    .iter()
    .any(|word| fields.class.contains(word));

    let keeps = |layer: &Mixed| !matches!(&layer.mixer, Mixer::Attention(attention) if attention.span == Span::Bidirectional);
    match kind {
        FamilyKind::Encoder => Task::Encode,
        _ if !layers.iter().any(keeps) => Task::Encode,
        FamilyKind::EncoderDecoder => Task::EncodeDecode,
        _ if pools || POOLED.contains(&fields.class) => Task::Pool,
        _ => Task::Generate,
    }
}

/// Facts that one engine needs and no other, as `key=value`.
fn notes(fields: &Fields<'_>) -> Result<Vec<String>, Unsupported> {
    let mut notes = Vec::new();
    if let Some(original) = rope::original_context(fields)? {
        notes.push(format!("original_max_position_embeddings={original}"));
    }

    for key in [
        "use_sliding_window",
        "is_hybrid_swa",
        "attention_k_eq_v",
        "use_double_wide_mlp",
    ] {
        // Only what is on: an engine that looks for the word need not parse it.
        if fields.value(key).and_then(Value::as_bool) == Some(true) {
            notes.push(format!("{key}=true"));
        }
    }

    Ok(notes)
}

#[cfg(test)]
mod dialects;
#[cfg(test)]
mod tests;
