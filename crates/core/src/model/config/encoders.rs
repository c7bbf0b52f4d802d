//! Encoders, which have no cache, and encoder-decoders.
//!
//! The decoder layers of the latter have self-attention and cross-attention.

use super::super::architecture::{Encoder, Mixer, Span, Unsupported};
use super::families::Spans;
use super::fields::Fields;
use super::heads::{self, Heads};
use super::layers::{LayerMixers, attention, bounded, count};

/// Returns an encoder's layers, with attention in both directions and no cache.
///
/// The same class with `is_decoder` generates, and caches every token (transformers `BertModel`).
pub(super) fn encoder(fields: &Fields<'_>) -> Result<Vec<LayerMixers>, Unsupported> {
    let heads = heads::heads(fields)?;
    let span = if fields.flag("is_decoder")? == Some(true) {
        Span::Full
    } else {
        Span::Bidirectional
    };

    if span == Span::Full && fields.flag("add_cross_attention")? == Some(true) {
        return Err(fields.family("add_cross_attention = true"));
    }

    Ok(vec![LayerMixers::from(heads.mixer(span)); count(fields)?])
}

/// Returns the decoder's layers and the facts of the encoder.
pub(super) fn encoder_decoder(
    fields: &Fields<'_>,
) -> Result<(Vec<LayerMixers>, Encoder), Unsupported> {
    let encoder_layers = bounded(
        fields,
        &[
            "encoder_layers",
            "num_encoder_layers",
            "num_layers",
            "num_hidden_layers",
            // TrOCR is the decoder alone.
            "decoder_layers",
        ],
    )?;
    let layers = match fields.size(&["decoder_layers", "num_decoder_layers"])? {
        Some(_) => bounded(fields, &["decoder_layers", "num_decoder_layers"])?,
        None => encoder_layers,
    };

    let heads = fields.need(&[
        "decoder_attention_heads",
        "num_decoder_attention_heads",
        "num_heads",
        "num_attention_heads",
    ])?;
    let dim = heads::head_dim(fields, heads)?;

    let heads = Heads {
        query: heads,
        kv: heads,
        key_dim: dim,
        value_dim: dim,
    };

    // Whisper states its frames. The others encode as many tokens as they have positions.
    let max_tokens = fields
        .size(&[
            "max_source_positions",
            "max_position_embeddings",
            "n_positions",
        ])?
        .unwrap_or(512);

    let mixer: Mixer = heads.mixer(Span::Full);
    let second_mixer = Some(heads.mixer(Span::Cross { tokens: max_tokens }));

    let encoder = Encoder {
        layers: u32::try_from(encoder_layers).unwrap_or(u32::MAX),
        max_tokens,
    };

    Ok((
        vec![
            LayerMixers {
                mixer,
                second_mixer,
                feed_forward: None,
                passes: 1,
            };
            layers
        ],
        encoder,
    ))
}

/// Returns the decoder's layers of `T5Gemma` and the facts of its encoder.
///
/// Some of the layers see a window.
///
/// Source: transformers 5.24 `models/{t5gemma,t5gemma2}/modeling_*.py`.
pub(super) fn t5gemma(fields: &Fields<'_>) -> Result<(Vec<LayerMixers>, Encoder), Unsupported> {
    let root = fields.inside(fields.root);
    let encoder = root
        .object("encoder")?
        .ok_or_else(|| fields.missing("encoder"))?;
    let mut encoder = fields.inside(encoder);
    if let Some(text) = encoder.object("text_config")? {
        encoder = fields.inside(text);
    }

    let max_tokens = encoder.need(&["max_position_embeddings"])?;
    let encoder_layers = bounded(&encoder, heads::LAYERS)?;
    let cross = heads::heads(fields)?.mixer(Span::Cross { tokens: max_tokens });

    let mut layers = attention(fields, Spans::Listed)?;
    for layer in &mut layers {
        layer.second_mixer = Some(cross.clone());
    }

    let encoder = Encoder {
        layers: u32::try_from(encoder_layers).unwrap_or(u32::MAX),
        max_tokens,
    };
    Ok((layers, encoder))
}
