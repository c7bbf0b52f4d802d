//! Encoders, which have no cache, and encoder-decoders.
//!
//! The decoder layers of the latter have self-attention and cross-attention.

use super::super::architecture::{Encoder, Mixer, Span, Unsupported};
use super::fields::Fields;
use super::heads::{self, Heads};
use super::layers::{LayerMixers, bounded, count};

/// Returns an encoder's layers, with attention in both directions and no cache.
pub(super) fn encoder(fields: &Fields<'_>) -> Result<Vec<LayerMixers>, Unsupported> {
    let heads = heads::heads(fields)?;
    Ok(vec![
        LayerMixers::from(heads.mixer(Span::Bidirectional));
        count(fields)?
    ])
}

/// Returns the decoder's layers and the facts of the encoder.
pub(super) fn encoder_decoder(
    fields: &Fields<'_>,
) -> Result<(Vec<LayerMixers>, Encoder), Unsupported> {
    let encoder_layers = bounded(
        fields,
        &["encoder_layers", "num_layers", "num_hidden_layers"],
    )?;
    let layers = match fields.size(&["decoder_layers", "num_decoder_layers"])? {
        Some(_) => bounded(fields, &["decoder_layers", "num_decoder_layers"])?,
        None => encoder_layers,
    };

    let heads = fields.need(&[
        "decoder_attention_heads",
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
