//! The peak of one step of each part, from its shapes.
//!
//! The figures are assumed: intervals are wide, and wider for convolutions.

use super::super::Interval;
use super::pipeline::{ComponentRole, Pipeline, PipelinePart};
use super::settings::DiffusersSettings;
use crate::bytes::Bytes;

/// The peak while `part` runs for `images` images.
pub(super) fn peak(
    part: &PipelinePart,
    pipeline: &Pipeline,
    settings: &DiffusersSettings,
    images: u64,
) -> Interval {
    match part.role {
        ComponentRole::Vae => vae(part, pipeline, settings, images),
        ComponentRole::Transformer => transformer(part, pipeline, settings, images),
        ComponentRole::UNet => unet(part, pipeline, settings, images),
        ComponentRole::Other => encoder(part, pipeline, settings, images),
    }
}

/// A VAE decoder.
///
/// The peak is in AutoencoderKL's last up-block at full resolution: input, activation and output of
/// its second width (diffusers `models/autoencoders/vae.py`, `Decoder`), and cuDNN's workspace.
fn vae(
    part: &PipelinePart,
    pipeline: &Pipeline,
    settings: &DiffusersSettings,
    images: u64,
) -> Interval {
    let channels = part
        .numbers("block_out_channels")
        .get(1)
        .copied()
        .or_else(|| {
            // AutoencoderKLQwenImage and Wan: `base_dim` times the second of `dim_mult`.
            Some(
                part.number("base_dim")?
                    .saturating_mul(part.numbers("dim_mult").get(1).copied()?),
            )
        });

    let element = if pipeline.upcasts_vae {
        4
    } else {
        settings.element_bytes()
    };

    // Tiles are 512 pixels wide unless the image is smaller.
    let tile_side = |pixels: u64| {
        if settings.tiling {
            pixels.min(512)
        } else {
            pixels
        }
    };

    let images = if settings.slicing { 1 } else { images };
    let channels = channels.unwrap_or(256);

    let pixels = [
        tile_side(pipeline.width),
        tile_side(pipeline.height),
        images,
        settings.frames,
    ];
    let peak = Bytes::product(pixels) * channels * element * 3;

    // A 32-bit copy of the decoder replaces the 16-bit one.
    let upcast = if pipeline.upcasts_vae {
        part.bytes
    } else {
        Bytes::ZERO
    };

    Interval::new(
        peak.scale(2, 3),
        peak + upcast,
        peak + upcast + Bytes::gib(1).min(peak),
    )
}

/// A diffusion transformer.
///
/// Every token's query, key, value, feed-forward, their concatenation and residuals add up to about
/// 15 widths in FLUX's single blocks (diffusers `models/transformers/transformer_flux.py`).
fn transformer(
    part: &PipelinePart,
    pipeline: &Pipeline,
    settings: &DiffusersSettings,
    images: u64,
) -> Interval {
    let heads = part.number("num_attention_heads");
    let width = heads
        .zip(part.number("attention_head_dim"))
        .map(|(heads, dim)| heads.saturating_mul(dim));
    let width = width
        .or(part.number("hidden_size"))
        .or(part.number("dim"))
        .unwrap_or(4096);

    // Latents are packed or patched by 2 in all of the families covered.
    let patch = pipeline.latent_step.saturating_mul(2).max(1);
    let patches = Bytes::product([
        pipeline.width.div_ceil(patch),
        pipeline.height.div_ceil(patch),
        settings.frames,
    ]);

    let tokens = patches + Bytes::new(pipeline.text_tokens);
    let peak = tokens
        * width
        * settings.element_bytes()
        * 15
        * images
        * if pipeline.guided { 2 } else { 1 };

    Interval::new(peak.scale(1, 2), peak, peak.scale(3, 2))
}

/// A U-Net.
///
/// At the finest level a block holds its input, the skip joined to it, 32-bit copies for
/// normalization and cuDNN's workspace: about 24 widths of the first channel count.
fn unet(
    part: &PipelinePart,
    pipeline: &Pipeline,
    settings: &DiffusersSettings,
    images: u64,
) -> Interval {
    let channels = part
        .numbers("block_out_channels")
        .first()
        .copied()
        .unwrap_or(320);

    let step = pipeline.latent_step.max(1);
    let latents = Bytes::product([
        pipeline.width.div_ceil(step),
        pipeline.height.div_ceil(step),
        images,
    ]);

    let peak =
        latents * channels * settings.element_bytes() * 24 * if pipeline.guided { 2 } else { 1 };

    Interval::new(peak.scale(1, 2), peak, peak * 2)
}

/// A text encoder: two residuals and three feed-forward widths of each token, and the scores of
/// eager attention in T5.
fn encoder(
    part: &PipelinePart,
    pipeline: &Pipeline,
    settings: &DiffusersSettings,
    images: u64,
) -> Interval {
    let hidden = part
        .number("hidden_size")
        .or(part.number("d_model"))
        .unwrap_or(4096);
    let width = part
        .number("intermediate_size")
        .or(part.number("d_ff"))
        .unwrap_or(hidden.saturating_mul(4));

    let heads = part
        .number("num_attention_heads")
        .or(part.number("num_heads"))
        .unwrap_or(64);
    let tokens = Bytes::product([pipeline.text_tokens, images]);
    let linear = tokens
        * hidden
            .saturating_mul(2)
            .saturating_add(width.saturating_mul(3))
        * settings.element_bytes();

    let scores = tokens * pipeline.text_tokens * heads * settings.element_bytes().saturating_add(4);
    Interval::new(linear, linear + scores, (linear + scores) * 2)
}
