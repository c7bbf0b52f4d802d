//! Reads `config.json` into an [`Architecture`]: what each layer must remember.
//!
//! Only keys with a known meaning are used.
//!
//! `language` finds the language model's object and `families` its rules. `layers` (with `heads`,
//! `spans`, `latent`, `recurrent`, `mamba_hybrids`, `linear_attention`, `convolved`, `looped` and
//! `blocks`) derives what each layer caches, and `experts` its feed-forward. `cross_decoders` and
//! `encoders` do so for encoder-decoders. `tensor_checks` compares the result with the tensors. An
//! invalid value or an unknown family is an [`Unsupported`] that names the key.

mod blocks;
mod convolved;
mod cross_decoders;
mod defaults;
mod encoder_lengths;
mod encoders;
mod experts;
mod families;
mod fields;
mod heads;
mod ignored;
mod language;
mod latent;
mod layer_patterns;
mod layers;
mod linear_attention;
mod looped;
mod mamba_hybrids;
mod overrides;
pub mod parameters;
mod quantization;
mod recurrent;
mod rope;
mod spans;
mod sparse_latent;
mod streaming;
mod tensor_checks;
mod unlisted_family;
mod vision;

use serde_json::Value;

use self::families::{Family, FamilyKind};
use self::fields::Fields;
use self::ignored::Ignored;
use self::layers::LayerMixers;
use super::architecture::{Architecture, FeedForward, Layer, Mixer, Span, Task, Unsupported};
use super::dtype::Dtype;
use super::tensors::Inventory;

/// Reads a configuration.
///
/// `quantization` is the content of `hf_quant_config.json`, if the repository has one. `tensors`
/// may be empty if no names are known.
pub fn architecture(
    config: &Value,
    quantization: Option<&Value>,
    tensors: &Inventory,
) -> Result<Architecture, Unsupported> {
    architecture_and_warnings(config, quantization, tensors).0
}

/// Reads a configuration as [`architecture`] does, and lists the values that were ignored.
///
/// There is one warning for each value that is present but ignored because it is invalid.
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
    let inferred;

    let family = if let Some(family) = families::find(fields.model_type) {
        family
    } else {
        inferred = unlisted_family::infer_family(&fields, tensors)?;
        &inferred
    };

    let (mixed, encoder) = match family.kind {
        FamilyKind::Encoder => (encoders::encoder(&fields)?, None),
        // A T5 encoder alone, as pipelines and embedding models use it.
        FamilyKind::EncoderDecoder if fields.class.ends_with("EncoderModel") => {
            (encoders::encoder(&fields)?, None)
        }
        FamilyKind::EncoderDecoder => {
            let (layers, encoder) = encoders::encoder_decoder(&fields)?;
            (layers, Some(encoder))
        }
        FamilyKind::T5Gemma => {
            let (layers, encoder) = encoders::t5gemma(&fields)?;
            (layers, Some(encoder))
        }
        FamilyKind::CrossDecoder => {
            let (layers, encoder) = cross_decoders::cross_decoder(&fields)?;
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
        heads: max_heads(&layers).unwrap_or(0),
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
        streaming_encoder: streaming::streaming_encoder(&fields)?,
        mtp_layers: mtp_layers(&fields)?,
        quantization: quantization::quantization(&fields, quantization)?,
        notes: notes(&fields)?,
    };

    let stored = tensor_checks::stored_mtp_layers(tensors).max(tensor_checks::trailing_mtp_layers(
        tensors,
        architecture.layer_count(),
    ));
    architecture.mtp_layers = architecture.mtp_layers.max(stored);
    tensor_checks::check(&architecture, tensors)?;

    Ok(architecture)
}

fn assemble(layer: LayerMixers, after: FeedForward) -> Layer {
    Layer {
        mixer: layer.mixer,
        second_mixer: layer.second_mixer,
        feed_forward: layer.feed_forward.unwrap_or(after),
        passes: layer.passes,
    }
}

/// Returns `size * factor` rounded down, saturating at `u64::MAX`.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "sizes are below 2^32, factors positive and bounded; both are checked when read"
)]
fn floor_of(size: u64, factor: f64) -> u64 {
    (size as f64 * factor).floor() as u64
}

/// Returns V. Recurrent and pooled audio encoders have no vocabulary, and their V is 0.
fn vocabulary(fields: &Fields<'_>) -> Result<u64, Unsupported> {
    match fields.size(heads::VOCABULARY)? {
        Some(size) => Ok(size),
        // A multimodal configuration may have it at its root.
        None => match fields.inside(fields.root).size(heads::VOCABULARY)? {
            Some(size) => Ok(size),
            None => Err(fields.missing("vocab_size")),
        },
    }
}

/// Returns the largest number of query heads of any layer.
fn max_heads(layers: &[Layer]) -> Option<u64> {
    layers
        .iter()
        .flat_map(Layer::mixers)
        .filter_map(|mixer| match mixer {
            Mixer::Attention(attention) => Some(attention.heads),
            Mixer::Latent(latent) => Some(latent.heads),
            _ => None,
        })
        .max()
}

fn max_context(fields: &Fields<'_>) -> Result<Option<u64>, Unsupported> {
    let longest = rope::max_context(fields)?;

    // RoBERTa's first position follows the padding index (transformers
    // `create_position_ids_from_input_ids`).
    let offset = if ["roberta", "xlm-roberta", "camembert"].contains(&fields.model_type) {
        2
    } else {
        0
    };

    Ok(longest.map(|longest| longest.saturating_sub(offset)))
}

/// Families whose class ties the head, although their files hold one (vLLM 0.33
/// `models/falcon.py`: parameters of falcon-7b and falcon-40b without a head).
const TIED_BY_CLASS: [&str; 3] = ["falcon", "RefinedWeb", "RefinedWebModel"];

/// Returns whether the head is tied.
///
/// The configuration determines it, else the class where engines follow it whatever the file
/// holds, else the tensor names, else the class.
fn tied(fields: &Fields<'_>, family: &Family, tensors: &Inventory) -> Result<bool, Unsupported> {
    for object in [fields.root, fields.own] {
        if let Some(tied) = fields.inside(object).flag("tie_word_embeddings")? {
            return Ok(tied);
        }
    }

    if TIED_BY_CLASS.contains(&fields.model_type) {
        return Ok(true);
    }
    Ok(tensor_checks::has_tied_embeddings(tensors).unwrap_or(family.tied))
}

/// Reads `dtype` or `torch_dtype`, at the root first.
///
/// An unknown name is an error, because the dtype decides the size of the cache.
fn dtype(fields: &Fields<'_>) -> Result<Option<Dtype>, Unsupported> {
    for object in [fields.root, fields.own] {
        let fields = fields.inside(object);
        for key in ["dtype", "torch_dtype"] {
            match fields.value(key) {
                None => {}
                Some(Value::String(name)) if name == "auto" => {}
                Some(value) => {
                    return value
                        .as_str()
                        .and_then(dtype_named)
                        .map(Some)
                        .ok_or_else(|| {
                            fields::contradiction(key, value, "the name of a dtype is expected")
                        });
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

/// Reads the dtype of recurrent states.
///
/// Nemotron-H and Qwen3.5 set it to 32 bits by a key of their own.
///
/// Source: vLLM `model_executor/models/config.py`.
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

fn task(fields: &Fields<'_>, kind: FamilyKind, layers: &[LayerMixers]) -> Task {
    /// Decoders that are published without their head for embedding.
    ///
    /// Other `Model` classes generate.
    const POOLED: &[&str] = &[
        "LlamaModel",
        "MistralModel",
        "Qwen2Model",
        "Qwen3Model",
        "Gemma2Model",
        "Gemma3TextModel",
    ];

    let is_pooled = [
        "Reward",
        "Classification",
        "ForEmbedding",
        "ForTextEncoding",
    ]
    .iter()
    .any(|word| fields.class.contains(word))
        || POOLED.contains(&fields.class);

    match kind {
        _ if layers.iter().all(is_bidirectional) => Task::Encode,
        FamilyKind::EncoderDecoder | FamilyKind::T5Gemma | FamilyKind::CrossDecoder => {
            Task::EncodeDecode
        }
        _ if is_pooled => Task::Pool,
        _ => Task::Generate,
    }
}

fn is_bidirectional(layer: &LayerMixers) -> bool {
    matches!(&layer.mixer, Mixer::Attention(attention) if attention.span == Span::Bidirectional)
}

/// Lists the facts that only one engine needs, as `key=value`.
fn notes(fields: &Fields<'_>) -> Result<Vec<String>, Unsupported> {
    let mut notes = Vec::new();
    if let Some(original) = rope::original_context(fields)? {
        notes.push(format!("original_max_position_embeddings={original}"));
    }

    // transformers caches the latent of this type, and vLLM the heads expanded from it.
    if fields.model_type == "minicpm3" {
        let rank = fields.need(&["kv_lora_rank"])?;
        let latent = rank.saturating_add(fields.need(&["qk_rope_head_dim"])?);
        notes.push(format!("cached_latent={latent}"));
    }

    // CPM-Ant learns a prefix of the prompt (transformers `CpmAntModel`).
    if fields.model_type == "cpmant" {
        let prefix = fields.count(&["prompt_length"])?.unwrap_or(32);
        notes.push(format!("prefix_tokens={prefix}"));
    }

    if let Some(count) = fields.size(&["zero_expert_num"])? {
        notes.push(format!("zero_expert_num={count}"));
    }

    notes.extend(latent::index_notes(fields)?);
    for key in [
        "use_sliding_window",
        "is_hybrid_swa",
        "attention_k_eq_v",
        "use_double_wide_mlp",
    ] {
        // Only flags that are on, so that an engine can search for the key without parsing.
        if fields.value(key).and_then(Value::as_bool) == Some(true) {
            notes.push(format!("{key}=true"));
        }
    }

    Ok(notes)
}

#[cfg(test)]
mod tests;
