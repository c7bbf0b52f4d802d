//! The architecture of a Whisper model, from the shapes of its variables.
//!
//! CTranslate2's `config.json` states no sizes. Source: CTranslate2 4.8
//! `python/ctranslate2/specs/whisper_spec.py` and `src/layers/whisper.cc`.

use std::fmt::Display;

use super::{ModelBin, NEWEST_WHISPER_REVISION, WHISPER_SPEC, stored_type};
use crate::model::architecture::{
    Architecture, Attention, Encoder, FeedForward, Layer, Mixer, Span, Task,
};
use crate::model::quantization::Quantization;
use crate::model::{Dtype, Inventory, TensorClass, Unsupported};

/// The note with the heads of the encoder, which no other engine asks for.
const ENCODER_HEADS: &str = "encoder_heads=";
/// Letters of a specification's name that a message shows.
const MAX_SPEC_LETTERS: usize = 64;
/// Maximum number of layers. Published models have at most 32.
const MAX_LAYERS: u64 = 1024;

/// Reads the architecture of `model` with the tensors of `inventory`.
pub fn architecture(model: &ModelBin, inventory: &Inventory) -> Result<Architecture, Unsupported> {
    check_spec(model)?;

    let shapes = Shapes { inventory };
    let [vocabulary, width] = shapes.of("decoder.embeddings.weight")?;
    let [context, _] = shapes.of("decoder.position_encodings.encodings")?;
    let [positions, encoder_width] = shapes.of("encoder.position_encodings.encodings")?;
    let [feed_forward, _] = shapes.of("decoder.layer.*.ffn.linear_0.weight")?;
    let layers = shapes.layers("decoder.layer.*.ffn.linear_0.weight")?;
    let encoder_layers = shapes.layers("encoder.layer.*.ffn.linear_0.weight")?;
    let heads = attribute(model, "decoder/num_heads")?;
    let encoder_heads = attribute(model, "encoder/num_heads")?;

    if encoder_width != width {
        return Err(contradiction(
            "encoder/position_encodings/encodings",
            encoder_width,
            "the encoder is not as wide as the decoder",
        ));
    }

    if width == 0 || !width.is_multiple_of(heads) || !width.is_multiple_of(encoder_heads) {
        return Err(contradiction(
            "num_heads",
            heads.max(encoder_heads),
            "the heads do not divide the width",
        ));
    }

    shapes.expect("decoder.layer.*.self_attention.linear_0.weight", 3, width)?;
    shapes.expect("decoder.layer.*.attention.linear_1.weight", 2, width)?;
    shapes.expect("encoder.layer.*.self_attention.linear_0.weight", 3, width)?;

    let stored = stored_type(inventory);
    let layer = Layer {
        mixer: Mixer::Attention(attention(heads, width, Span::Full)),
        second_mixer: Some(Mixer::Attention(attention(
            heads,
            width,
            Span::Cross { tokens: positions },
        ))),
        feed_forward: FeedForward::Dense {
            width: feed_forward,
        },
        passes: 1,
    };

    Ok(Architecture {
        class: WHISPER_SPEC.to_owned(),
        model_type: "whisper".to_owned(),
        root_model_type: "whisper".to_owned(),
        task: Task::EncodeDecode,
        hidden_size: width,
        intermediate_size: feed_forward,
        vocab_size: vocabulary,
        heads,
        max_context: Some(context),
        layers: std::iter::repeat_n(layer, usize::try_from(layers).unwrap_or(usize::MAX)).collect(),
        encoder: Some(Encoder {
            layers: u32::try_from(encoder_layers).unwrap_or(u32::MAX),
            max_tokens: positions,
        }),
        experts: None,
        rope: Vec::new(),
        tied_embeddings: Some(model.aliases.contains_key("decoder/projection/weight")),
        dtype: stored.map(|stored| stored.others),
        state_dtype: None,
        vision: None,
        audio: true,
        streaming_encoder: None,
        mtp_layers: 0,
        quantization: stored
            .filter(|stored| matches!(stored.weights, Dtype::I8 | Dtype::I16))
            .map(|stored| Quantization {
                method: stored.name().to_owned(),
                bits: Some(if stored.weights == Dtype::I8 { 8 } else { 16 }),
                ..Quantization::default()
            }),
        notes: vec![format!("{ENCODER_HEADS}{encoder_heads}")],
    })
}

/// The attention heads of the encoder of `architecture`.
pub fn encoder_heads(architecture: &Architecture) -> Option<u64> {
    let notes = &architecture.notes;
    notes
        .iter()
        .find_map(|note| note.strip_prefix(ENCODER_HEADS)?.parse().ok())
}

/// Checks that the specification is Whisper's, in a revision that is understood.
fn check_spec(model: &ModelBin) -> Result<(), Unsupported> {
    let why = if model.spec != WHISPER_SPEC {
        format!(
            "CTranslate2 has this specification for {}, and only Whisper models are counted",
            kind_of_spec(&model.spec)
        )
    } else if model.revision > NEWEST_WHISPER_REVISION {
        format!(
            "its revision {} is newer than {NEWEST_WHISPER_REVISION}, the newest that is \
             understood",
            model.revision
        )
    } else {
        return Ok(());
    };

    // Anyone may have written the name.
    let letters = model.spec.chars().filter(char::is_ascii_alphanumeric);
    Err(Unsupported::Unconfirmed {
        class: letters.take(MAX_SPEC_LETTERS).collect(),
        model_type: "CTranslate2".to_owned(),
        why,
    })
}

/// The models of a specification (CTranslate2 `src/models/model_factory.cc`).
fn kind_of_spec(spec: &str) -> &'static str {
    match spec {
        "TransformerSpec" | "TransformerBase" | "TransformerBig" => "translation models",
        "TransformerDecoderSpec" => "language models",
        "TransformerEncoderSpec" => "text encoders",
        "Wav2Vec2Spec" | "Wav2Vec2BertSpec" => "speech recognition without a decoder",
        _ => "other models",
    }
}

/// The shapes of the variables, each the same in all layers.
struct Shapes<'i> {
    inventory: &'i Inventory,
}

impl Shapes<'_> {
    /// The only class with `pattern`.
    fn class(&self, pattern: &str) -> Result<&TensorClass, Unsupported> {
        let mut classes = self
            .inventory
            .classes
            .iter()
            .filter(|class| &*class.pattern == pattern);

        match (classes.next(), classes.next()) {
            (Some(class), None) => Ok(class),
            (None, _) => Err(missing(pattern)),
            (Some(class), Some(_)) => Err(contradiction(
                pattern,
                class.count,
                "its layers have different shapes",
            )),
        }
    }

    /// The sizes of the matrix with `pattern`.
    fn of(&self, pattern: &str) -> Result<[u64; 2], Unsupported> {
        let class = self.class(pattern)?;
        <[u64; 2]>::try_from(&*class.shape)
            .map_err(|_| contradiction(pattern, class.shape.len() as u64, "it is no matrix"))
    }

    /// The number of layers with `pattern`.
    fn layers(&self, pattern: &str) -> Result<u64, Unsupported> {
        match self.class(pattern)?.count {
            count if (1..=MAX_LAYERS).contains(&count) => Ok(count),
            count => Err(contradiction(pattern, count, "no model has so many layers")),
        }
    }

    /// Checks that the matrix with `pattern` has `times * width` rows of `width`.
    fn expect(&self, pattern: &str, times: u64, width: u64) -> Result<(), Unsupported> {
        let [rows, columns] = self.of(pattern)?;
        if width.checked_mul(times) == Some(rows) && columns == width {
            return Ok(());
        }

        Err(contradiction(
            pattern,
            rows,
            "its rows are not those of as many key heads as query heads",
        ))
    }
}

/// A whole number of the model that is at least 1.
fn attribute(model: &ModelBin, name: &str) -> Result<u64, Unsupported> {
    let value = model.attributes.get(name).ok_or_else(|| missing(name))?;
    u64::try_from(*value)
        .ok()
        .filter(|value| *value > 0)
        .ok_or_else(|| contradiction(name, *value, "it must be at least 1"))
}

const fn attention(heads: u64, width: u64, span: Span) -> Attention {
    // The caller checks that heads is not 0 and divides the width.
    let head = match width.checked_div(heads) {
        Some(head) => head,
        None => 0,
    };

    Attention {
        heads,
        kv_heads: heads,
        key_dim: head,
        value_dim: head,
        span,
        shares_cache: false,
    }
}

fn missing(key: &str) -> Unsupported {
    Unsupported::Missing {
        class: WHISPER_SPEC.to_owned(),
        key: key.to_owned(),
    }
}

fn contradiction(key: &str, value: impl Display, why: &str) -> Unsupported {
    Unsupported::Contradiction {
        key: key.to_owned(),
        value: value.to_string(),
        why: why.to_owned(),
    }
}
