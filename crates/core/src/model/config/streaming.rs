//! Speech encoders that keep caches of their own, because they read the recording in steps.
//!
//! Sources: transformers 5.24 `models/voxtral_realtime` (`encoder_cache`, `padding_cache`) and
//! `models/kyutai_speech_to_text` (the codec of type `mimi`).

use super::super::architecture::Unsupported;
use super::super::streaming_encoder::StreamingEncoder;
use super::fields::Fields;
use super::heads::{HIDDEN, LAYERS};

/// Reads the streaming encoder of a configuration; `None` if the model has none.
pub(super) fn streaming_encoder(
    fields: &Fields<'_>,
) -> Result<Option<StreamingEncoder>, Unsupported> {
    match fields.model_type {
        "voxtral_realtime_text" => voxtral(fields).map(Some),
        "kyutai_speech_to_text" => kyutai(fields).map(Some),
        _ => Ok(None),
    }
}

/// Reads Voxtral Realtime's encoder: windows of its positions, and the inputs of two convolutions
/// over 3 tokens, the second of stride 2.
fn voxtral(fields: &Fields<'_>) -> Result<StreamingEncoder, Unsupported> {
    let root = fields.inside(fields.root);
    let audio = root
        .object("audio_config")?
        .ok_or_else(|| fields.missing("audio_config"))?;
    let audio = fields.inside(audio);

    let hidden = audio.size(HIDDEN)?.unwrap_or(1280);
    let mels = audio.size(&["num_mel_bins"])?.unwrap_or(128);
    let heads = audio.size(&["num_attention_heads"])?.unwrap_or(32);
    // `audio_length_per_tok` counts frames, of which the second convolution keeps every other one.
    let frames = root.size(&["audio_length_per_tok"])?.unwrap_or(8);

    Ok(StreamingEncoder {
        layers: audio.size(LAYERS)?.unwrap_or(32),
        kv_heads: audio.size(&["num_key_value_heads"])?.unwrap_or(heads),
        head_dim: audio.size(&["head_dim"])?.unwrap_or(64),
        window: audio.size(&["sliding_window"])?.unwrap_or(750),
        positions_per_token: frames.div_ceil(2),
        convolved: mels.saturating_mul(2).saturating_add(hidden),
        is_codec: false,
    })
}

/// Reads the codec of Kyutai's speech-to-text, which has two positions for each token of the
/// decoder.
fn kyutai(fields: &Fields<'_>) -> Result<StreamingEncoder, Unsupported> {
    let empty = super::fields::Object::new();
    let root = fields.inside(fields.root);
    let codec = root.inside(root.object("codec_config")?.unwrap_or(&empty));
    let heads = codec.size(&["num_attention_heads"])?.unwrap_or(8);

    Ok(StreamingEncoder {
        layers: codec.size(LAYERS)?.unwrap_or(8),
        kv_heads: codec.size(&["num_key_value_heads"])?.unwrap_or(heads),
        head_dim: codec.size(&["head_dim"])?.unwrap_or(64),
        window: codec.size(&["sliding_window"])?.unwrap_or(250),
        positions_per_token: 2,
        convolved: 0,
        is_codec: true,
    })
}
