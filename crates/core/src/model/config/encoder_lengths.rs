//! The most tokens that the encoder of an encoder-decoder passes to cross-attention.
//!
//! Sources: transformers 5.24, the encoder of each model file.

use super::super::architecture::Unsupported;
use super::fields::{Fields, contradiction};

/// Samples of a recording of 30 seconds at 16 kHz, for encoders whose input has no limit.
const SAMPLES: u64 = 480_000;

/// Returns the fields of the encoder of a configuration that nests both halves.
pub(super) fn nested_encoder<'a>(fields: &Fields<'a>) -> Result<Option<Fields<'a>>, Unsupported> {
    let root = fields.inside(fields.root);
    for key in ["encoder", "encoder_config"] {
        if let Some(encoder) = root.object(key)? {
            return Ok(Some(fields.inside(encoder)));
        }
    }

    Ok(None)
}

/// Returns the most tokens of the encoder's output.
///
/// Whisper states its frames, and other speech encoders the length of their positions. Text
/// encoders have as many tokens as positions. Encoders of raw audio without a limit count a
/// recording of 30 seconds.
pub(super) fn max_tokens(fields: &Fields<'_>) -> Result<u64, Unsupported> {
    match fields.model_type {
        // A position for 20 ms.
        "moonshine_streaming" => Ok(1500),
        "moonshine" => Ok(convolved(SAMPLES, &[127, 7, 3], &[64, 3, 2])),
        "canary_decoder" | "cohere_asr" => encoder_positions(fields, 5000),
        "dia_decoder" => encoder_positions(fields, 1024),
        "blip_text_model" => blip_tokens(fields),
        // Two convolutions of stride 2 precede the encoder.
        "speech_to_text" => Ok(fields
            .size(&["max_source_positions"])?
            .unwrap_or(6000)
            .div_ceil(1 << convolutions(fields)?)),
        "speecht5" if fields.class.contains("SpeechTo") => {
            Ok(fields.size(&["max_speech_positions"])?.unwrap_or(4000))
        }
        "speecht5" => Ok(fields.size(&["max_text_positions"])?.unwrap_or(450)),
        "seamless_m4t" | "seamless_m4t_v2" if fields.class.contains("SpeechTo") => {
            let stride = fields.size(&["adaptor_stride"])?.unwrap_or(8);
            let frames = fields.size(&["max_source_positions"])?.unwrap_or(4096);
            Ok(frames.div_ceil(stride).saturating_add(1))
        }
        "pix2struct_text_model" => {
            let root = fields.inside(fields.root);
            let vision = root.object("vision_config")?;
            let patches = match vision {
                Some(vision) => fields.inside(vision).size(&["seq_len"])?,
                None => None,
            };
            Ok(patches.unwrap_or(4096))
        }
        "led" => Ok(fields
            .size(&["max_encoder_position_embeddings"])?
            .unwrap_or(16384)),
        "encoder-decoder" => encoder_positions(fields, 512),
        "vision-encoder-decoder" => image_tokens(fields),
        "speech-encoder-decoder" => recording_tokens(fields),
        _ => Ok(fields
            .size(&[
                "max_source_positions",
                "max_position_embeddings",
                "n_positions",
            ])?
            .unwrap_or(512)),
    }
}

/// Returns the positions of a nested encoder; `default` if the file states none.
fn encoder_positions(fields: &Fields<'_>, default: u64) -> Result<u64, Unsupported> {
    let positions = match nested_encoder(fields)? {
        Some(encoder) => encoder.size(&["max_position_embeddings"])?,
        None => None,
    };
    Ok(positions.unwrap_or(default))
}

/// Returns the number of convolutions before the encoder of Speech2Text.
fn convolutions(fields: &Fields<'_>) -> Result<u64, Unsupported> {
    Ok(fields.size(&["num_conv_layers"])?.unwrap_or(2).min(16))
}

/// Returns the length of `samples` after convolutions without padding.
fn convolved(samples: u64, kernels: &[u64], strides: &[u64]) -> u64 {
    kernels
        .iter()
        .zip(strides)
        .fold(samples, |length, (kernel, stride)| {
            let beyond = length.saturating_sub(*kernel);
            (beyond / (*stride).max(1)).saturating_add(1)
        })
}

/// Returns the tokens of an image: its patches, and the class tokens of a ViT or DeiT.
///
/// A Swin transformer halves both sides after each stage but the last.
fn image_tokens(fields: &Fields<'_>) -> Result<u64, Unsupported> {
    let encoder = nested_encoder(fields)?.ok_or_else(|| fields.missing("encoder"))?;
    let kind = encoder.text("model_type").unwrap_or_default();
    let patch = encoder.need(&["patch_size"])?;

    let (step, more) = match kind {
        "vit" | "beit" | "dinov2" => (patch, 1),
        "deit" => (patch, 2),
        "swin" | "donut-swin" | "swinv2" => {
            let stages = encoder
                .numbers("depths")?
                .ok_or_else(|| fields.missing("encoder.depths"))?
                .len();
            let halvings = u32::try_from(stages.saturating_sub(1)).unwrap_or(32);
            (patch.saturating_mul(2_u64.saturating_pow(halvings)), 0)
        }
        other => return Err(fields.family(format!("encoder.model_type = {other}"))),
    };

    let sides = match encoder.value("image_size") {
        Some(serde_json::Value::Array(_)) => encoder.numbers("image_size")?.unwrap_or_default(),
        _ => vec![encoder.need(&["image_size"])?; 2],
    };
    let [height, width] = sides[..] else {
        let value = serde_json::Value::from(sides);
        return Err(contradiction(
            "image_size",
            &value,
            "two sides are expected",
        ));
    };

    let tokens = height
        .div_ceil(step.max(1))
        .saturating_mul(width.div_ceil(step.max(1)));
    Ok(tokens.saturating_add(more))
}

/// Returns the patches and the class token of BLIP's image.
///
/// Its other classes attend to a question, or have no decoder.
fn blip_tokens(fields: &Fields<'_>) -> Result<u64, Unsupported> {
    if !fields.class.ends_with("ForConditionalGeneration") {
        return Err(fields.family("architectures"));
    }

    let empty = super::fields::Object::new();
    let root = fields.inside(fields.root);
    let vision = root.inside(root.object("vision_config")?.unwrap_or(&empty));
    let side = vision
        .size(&["image_size"])?
        .unwrap_or(384)
        .div_ceil(vision.size(&["patch_size"])?.unwrap_or(16));
    Ok(side.saturating_mul(side).saturating_add(1))
}

/// Returns the tokens of 30 seconds of audio after the convolutions of a Wav2Vec2 encoder.
fn recording_tokens(fields: &Fields<'_>) -> Result<u64, Unsupported> {
    let encoder = nested_encoder(fields)?.ok_or_else(|| fields.missing("encoder"))?;
    let kernels = encoder
        .numbers("conv_kernel")?
        .unwrap_or_else(|| vec![10, 3, 3, 3, 3, 2, 2]);
    let strides = encoder
        .numbers("conv_stride")?
        .unwrap_or_else(|| vec![5, 2, 2, 2, 2, 2, 2]);

    Ok(convolved(SAMPLES, &kernels, &strides))
}
