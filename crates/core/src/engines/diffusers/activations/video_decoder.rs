//! Decoders of videos: bytes of live tensors for each pixel, by class.
//!
//! Sources: diffusers 0.42.1 `models/autoencoders/autoencoder_kl_{qwenimage,wan}.py` (`_decode`,
//! `tiled_decode`). Every tensor at the peak is as large as the frame, so that one figure for each
//! pixel holds for all sizes; the referee's rows confirm it.

use super::super::pipeline::{Pipeline, PipelinePart};
use super::super::settings::DiffusersSettings;
use super::convolution::Peak;
use super::tiles::Tiles;
use crate::bytes::Bytes;

/// Channels of an image.
const COLORS: u64 = 3;

/// Tiles of every class here.
const TILES: Tiles = Tiles {
    side: 256,
    stride: 192,
};

/// The peak of decoding `images` images or videos; `None` if the class has no rows.
pub(super) fn peak(
    part: &PipelinePart,
    pipeline: &Pipeline,
    settings: &DiffusersSettings,
    (element, images): (u64, u64),
) -> Option<Peak> {
    let per_pixel = bytes_per_pixel(part, pipeline, element)?;
    let together = if settings.slicing { 1 } else { images };
    let (width, height) = (pipeline.width, pipeline.height);

    let is_tiled = settings.tiling && TILES.divide(width, height);
    let area = if is_tiled {
        Bytes::product([width.min(TILES.side), height.min(TILES.side), together])
    } else {
        Bytes::product([width, height, together])
    };

    // Decoded videos, and tiles of them, wait until all are decoded.
    let column = Bytes::product([pipeline.frames, COLORS, element]);
    let video = column * width * height;
    let mut waiting = video * (images - together);
    let mut whole = Bytes::ZERO;
    if is_tiled {
        let column = column * together;
        whole = waiting + column * TILES.all(width, height).get() + video * together * 2;
        waiting += column * TILES.before_last_full(width, height).get();
    }

    // Each frame is joined to those before it.
    let joined = column * area.get() * u64::from(pipeline.frames > 1);
    let live = (area * per_pixel.live + joined + waiting).max(whole);
    Some(Peak {
        live,
        with_layouts: live + area * per_pixel.layouts,
    })
}

/// Bytes of live tensors for each pixel.
struct PerPixel {
    live: u64,
    /// Copies of a convolution's input and output to another layout.
    layouts: u64,
}

/// Bytes for each pixel of a decoder in its published widths.
fn bytes_per_pixel(part: &PipelinePart, pipeline: &Pipeline, element: u64) -> Option<PerPixel> {
    match part.class.as_str() {
        "AutoencoderKLQwenImage" | "AutoencoderKLWan" => wan(part, pipeline, element),
        _ => None,
    }
}

/// Wan's decoder, which Qwen-Image shares.
///
/// A first frame alone has 18 tensors of the base width. Later ones come in fours, with two frames
/// of every convolution's input in its cache: 51 tensors, and 2 more for the normalization in 32
/// bits of a 16-bit model.
fn wan(part: &PipelinePart, pipeline: &Pipeline, element: u64) -> Option<PerPixel> {
    let is_known = part.numbers("dim_mult") == [1, 2, 4, 4]
        && part.number("num_res_blocks").unwrap_or(2) == 2
        && !part.flag("is_residual");
    if !is_known {
        return None;
    }

    let base = part.number("base_dim").unwrap_or(96);
    let (tensors, copies) = match (pipeline.latent_frames(), element) {
        (1, _) => (18, 4),
        (_, 4) => (51, 8),
        _ => (53, 8),
    };

    let width = base.saturating_mul(element);
    Some(PerPixel {
        live: width.saturating_mul(tensors),
        layouts: width.saturating_mul(copies),
    })
}
