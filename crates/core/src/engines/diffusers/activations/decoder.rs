//! The decoder of `AutoencoderKL`: a walk through its blocks, whole or in tiles.
//!
//! Source: diffusers 0.42.1 `models/autoencoders/vae.py` (`Decoder.forward`) and
//! `autoencoder_kl.py` (`decode`, `tiled_decode`).

use super::super::pipeline::{Pipeline, PipelinePart};
use super::super::settings::DiffusersSettings;
use super::convolution::LivePeak;
use super::tiles::Tiles;
use crate::bytes::Bytes;

/// Channels of an image.
const COLORS: u64 = 3;

/// The peak of decoding `images` images, in tiles with sides of `side` pixels if tiling is on;
/// `None` if the decoder has other blocks.
pub(super) fn peak(
    part: &PipelinePart,
    pipeline: &Pipeline,
    settings: &DiffusersSettings,
    (element, images): (u64, u64),
    side: u64,
) -> Option<LivePeak> {
    let channels = part.numbers("block_out_channels");
    let known = part
        .words("up_block_types")
        .iter()
        .all(|block| *block == "UpDecoderBlock2D");
    if !known || channels.is_empty() {
        return None;
    }

    let (width, height) = (pipeline.width, pipeline.height);
    let together = if settings.slicing { 1 } else { images };
    let side = side.max(pipeline.latent_step);
    let tiles = Tiles::square(side, side - side / 4);
    let tile = settings
        .tiling
        .then(|| tiles.largest(width, height))
        .flatten();
    let (wide, high) = tile.unwrap_or((width, height));

    let pixel = Bytes::product([COLORS, element]);
    let image = pixel * width * height;
    let decoding = walk(part, &channels, [wide, high, together], element)?;

    // Decoded images wait until all are decoded.
    let mut waiting = image * (images - together);
    let mut joined = Bytes::ZERO;
    if tile.is_some() {
        let pixel = pixel * together;
        joined = waiting + pixel * tiles.all(width, height).get() + image * together * 2;
        waiting += pixel * tiles.before_last_full(width, height).get();
    }

    Some(LivePeak {
        live: (decoding.live + waiting).max(joined),
        with_layouts: decoding.with_layouts + waiting,
    })
}

/// Pixels of a tile's side: the configuration's `sample_size`, if it is known.
pub(super) fn tile_side(part: &PipelinePart) -> Option<u64> {
    let sides = part.numbers("sample_size");
    part.number("sample_size").or(sides.first().copied())
}

/// The walk over `images` images of `width` by `height` pixels.
fn walk(
    part: &PipelinePart,
    channels: &[u64],
    [width, height, images]: [u64; 3],
    element: u64,
) -> Option<LivePeak> {
    let halvings = u32::try_from(channels.len().checked_sub(1)?).ok()?;
    let step = 1_u64.checked_shl(halvings)?;
    let mut area = Bytes::product([width.div_ceil(step), height.div_ceil(step), images, element]);

    let mut peak = LivePeak::default();
    let deepest = *channels.last()?;
    let blocks = part.number("layers_per_block").unwrap_or(1) + 1;

    // A convolution of the latents, if there is one, keeps its input.
    let copies = match part.switch("use_post_quant_conv") {
        Some(false) => 1,
        _ => 2,
    };
    let latents = area * part.number("latent_channels").unwrap_or(4) * copies;

    let mut sample = area * deepest;
    peak.see_residual_block(latents + sample, sample, sample);

    // Attention over the latents: norm, query, key, value, output and two sums.
    peak.see(latents + sample * 9);
    peak.see_residual_block(latents + sample * 2, sample, sample);

    for (at, channels) in channels.iter().enumerate().rev() {
        // The block's input lives until the block ends.
        let held = latents + sample;
        let output = area * *channels;
        peak.see_residual_block(held, sample, output);
        if blocks > 1 {
            peak.see_residual_block(held + output, output, output);
        }

        if at > 0 {
            sample = peak.see_upsampling(held + output, output);
            area = area * 4;
        } else {
            peak.see(latents + output * 3);
        }
    }

    Some(peak)
}
