//! Decoders with cross-attention to speech, to images, or to an encoder of any other family.
//!
//! Sources: transformers 5.24 `models/{canary,cohere_asr,dia,moonshine,moonshine_streaming,led,
//! nllb_moe,pix2struct,pop2piano,seamless_m4t,seamless_m4t_v2,speech_to_text,speecht5,udop}` and
//! `models/*_encoder_decoder`.

use super::super::architecture::{Encoder, Span, Unsupported};
use super::encoder_lengths::{max_tokens, nested_encoder};
use super::fields::Fields;
use super::heads::{self, Heads};
use super::layers::{LayerMixers, bounded};

/// Key names of the decoder's layers.
const DECODER_LAYERS: &[&str] = &[
    "decoder_layers",
    "num_decoder_layers",
    "decoder_num_hidden_layers",
];

/// Key names of the encoder's layers, or of both if they have the same number.
const ENCODER_LAYERS: &[&str] = &[
    "encoder_layers",
    "num_encoder_layers",
    "encoder_num_hidden_layers",
    "num_layers",
    "num_hidden_layers",
    "n_layer",
];

/// Returns the decoder's layers and the facts of the encoder.
///
/// `fields` are the decoder's if the configuration nests both halves.
pub(super) fn cross_decoder(
    fields: &Fields<'_>,
) -> Result<(Vec<LayerMixers>, Encoder), Unsupported> {
    let layers = match fields.size(DECODER_LAYERS)? {
        Some(_) => bounded(fields, DECODER_LAYERS)?,
        None => bounded(fields, ENCODER_LAYERS)?,
    };

    let heads = decoder_heads(fields)?;
    let max_tokens = max_tokens(fields)?;
    let cross = cross_heads(fields, heads)?.mixer(Span::Cross { tokens: max_tokens });
    let layer = LayerMixers {
        second_mixer: Some(cross),
        ..LayerMixers::from(heads.mixer(Span::Full))
    };

    let encoder = Encoder {
        layers: u32::try_from(encoder_layers(fields, layers)?).unwrap_or(u32::MAX),
        max_tokens,
    };
    Ok((vec![layer; layers], encoder))
}

/// Reads the number of the encoder's layers; as many as the decoder's if the file states none.
fn encoder_layers(fields: &Fields<'_>, decoder: usize) -> Result<usize, Unsupported> {
    let encoder = nested_encoder(fields)?.unwrap_or(*fields);
    match encoder.size(ENCODER_LAYERS)? {
        Some(_) => bounded(&encoder, ENCODER_LAYERS),
        None => Ok(decoder),
    }
}

/// Reads the heads of the decoder's self-attention.
fn decoder_heads(fields: &Fields<'_>) -> Result<Heads, Unsupported> {
    let query = fields.need(&[
        "decoder_attention_heads",
        "decoder_num_attention_heads",
        "num_heads",
        "num_attention_heads",
        "n_head",
    ])?;
    let kv = fields
        .size(&["num_key_value_heads", "decoder_num_key_value_heads"])?
        .unwrap_or(query);
    heads::check_kv_heads(fields, query, kv)?;
    check_encoder_heads(fields, query, kv)?;
    let dim = heads::head_dim(fields, query)?;

    Ok(Heads {
        query,
        kv,
        key_dim: dim,
        value_dim: dim,
    })
}

/// Checks that Moonshine's encoder has the heads of its decoder: the class gives both the same ones
/// (`MoonshineAttention` writes them to the configuration).
fn check_encoder_heads(fields: &Fields<'_>, query: u64, kv: u64) -> Result<(), Unsupported> {
    if fields.model_type != "moonshine" {
        return Ok(());
    }

    let encoder_query = fields.size(&["encoder_num_attention_heads"])?;
    let encoder_kv = fields.size(&["encoder_num_key_value_heads"])?;
    if encoder_query.is_none_or(|heads| heads == query)
        && encoder_kv.is_none_or(|heads| heads == kv)
    {
        return Ok(());
    }

    Err(fields.family("encoder_num_key_value_heads other than the decoder's"))
}

/// Reads the heads of cross-attention, which Dia's decoder has under keys of its own.
fn cross_heads(fields: &Fields<'_>, heads: Heads) -> Result<Heads, Unsupported> {
    if fields.model_type != "dia_decoder" {
        return Ok(heads);
    }

    let query = fields.need(&["cross_num_attention_heads"])?;
    let kv = fields.need(&["cross_num_key_value_heads"])?;
    heads::check_kv_heads(fields, query, kv)?;
    let dim = fields.need(&["cross_head_dim"])?;

    Ok(Heads {
        query,
        kv,
        key_dim: dim,
        value_dim: dim,
    })
}
