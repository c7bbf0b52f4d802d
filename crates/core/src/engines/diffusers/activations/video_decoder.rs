//! Decoders of videos: bytes of live tensors for each pixel, by class.
//!
//! Sources: diffusers 0.42.1 `models/autoencoders/autoencoder_kl_{qwenimage,wan,ltx,cogvideox,
//! hunyuan_video}.py` (`_decode`, `tiled_decode`). Every tensor at the peak is as large as the
//! frame, so that one figure for each pixel holds for all sizes; the referee's rows confirm it.

use super::super::pipeline::{Pipeline, PipelinePart};
use super::super::settings::DiffusersSettings;
use super::convolution::LivePeak;
use super::tiles::{Axis, Tiles};
use crate::bytes::Bytes;

/// Pixels of a side of a latent of CogVideoX.
const LATENT_SIDE: u64 = 8;

/// Channels of an image.
const COLORS: u64 = 3;

/// A class of decoders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decoder {
    /// Wan's, which Qwen-Image shares.
    Wan,
    Ltx,
    CogVideoX,
    HunyuanVideo,
}

/// Elements of live tensors for each pixel.
struct PerPixel {
    live: u64,
    /// Copies of a convolution's input and output to another layout.
    layouts: u64,
}

/// The peak of decoding `images` images or videos, and whether the decoder has the widths of the
/// referee's rows; `None` if the class has no rows.
pub(super) fn peak(
    part: &PipelinePart,
    pipeline: &Pipeline,
    settings: &DiffusersSettings,
    (element, images): (u64, u64),
) -> Option<(LivePeak, bool)> {
    let decoder = Decoder::of_class(&part.class)?;
    let per_pixel = decoder.per_pixel(part, pipeline, element);
    let together = if settings.slicing { 1 } else { images };
    let (width, height) = (pipeline.width, pipeline.height);

    let tiles = decoder.tiles(part);
    let tile = settings
        .tiling
        .then(|| tiles.largest(width, height))
        .flatten();
    let (wide, high) = tile.unwrap_or((width, height));
    let area = Bytes::product([wide, high, together, element]);

    // Decoded videos, and tiles of them, wait until all are decoded.
    let column = Bytes::product([pipeline.frames, COLORS, element]);
    let video = column * width * height;
    let mut waiting = video * (images - together);
    let mut whole = Bytes::ZERO;
    if tile.is_some() {
        let column = column * together;
        whole = waiting + column * tiles.all(width, height).get() + video * together * 2;
        waiting += column * tiles.before_last_full(width, height).get();
    }

    // Each frame is joined to those before it; CogVideoX joins all at the end.
    let joined = match decoder {
        Decoder::CogVideoX => Bytes::ZERO,
        _ => area * COLORS * pipeline.frames.saturating_sub(1),
    };
    let live = (area * per_pixel.live + joined + waiting).max(whole);
    let peak = LivePeak {
        live,
        with_layouts: live + area * per_pixel.layouts,
    };

    Some((peak, decoder.is_published(part)))
}

impl Decoder {
    /// The decoder of a class, if the referee ran it.
    fn of_class(class: &str) -> Option<Self> {
        Some(match class {
            "AutoencoderKLQwenImage" | "AutoencoderKLWan" => Self::Wan,
            "AutoencoderKLLTXVideo" => Self::Ltx,
            "AutoencoderKLCogVideoX" => Self::CogVideoX,
            "AutoencoderKLHunyuanVideo" => Self::HunyuanVideo,
            _ => return None,
        })
    }

    /// Whether the decoder has the published widths.
    fn is_published(self, part: &PipelinePart) -> bool {
        let channels = part.numbers("block_out_channels");
        match self {
            Self::Wan => {
                part.numbers("dim_mult") == [1, 2, 4, 4]
                    && part.number("num_res_blocks").unwrap_or(2) == 2
                    && !part.flag("is_residual")
            }
            Self::Ltx => channels == [128, 256, 512, 512] && !part.flag("timestep_conditioning"),
            Self::CogVideoX => channels == [128, 256, 256, 512],
            Self::HunyuanVideo => channels == [128, 256, 512, 512],
        }
    }

    /// The tiles of the class.
    fn tiles(self, part: &PipelinePart) -> Tiles {
        match self {
            Self::Wan | Self::HunyuanVideo => Tiles::square(256, 192),
            Self::Ltx => Tiles::square(512, 448),
            // Half of the model's own size, with overlaps of a fifth and a sixth.
            Self::CogVideoX => {
                // A tile has at least one latent.
                let half = |key: &str, default: u64| {
                    (part.number(key).unwrap_or(default) / 2).max(LATENT_SIDE)
                };
                let (width, height) = (half("sample_width", 720), half("sample_height", 480));
                Tiles {
                    wide: Axis {
                        side: width,
                        stride: width - width / 5,
                    },
                    high: Axis {
                        side: height,
                        stride: height - height / 6,
                    },
                }
            }
        }
    }

    /// Elements for each pixel.
    ///
    /// Wan's decoder takes a latent frame at a time and keeps two frames of every convolution's
    /// input in its cache; a first frame alone has none. CogVideoX's takes two or three latent
    /// frames and keeps two frames. HunyuanVideo's takes 17 frames, LTX's all.
    fn per_pixel(self, part: &PipelinePart, pipeline: &Pipeline, element: u64) -> PerPixel {
        let is_image = pipeline.latent_frames() == 1;
        let frames = pipeline.frames;

        let (live, layouts) = match self {
            Self::Wan => {
                let base = part.number("decoder_base_dim").or(part.number("base_dim"));
                let (tensors, copies) = match (is_image, element) {
                    (true, _) => (18, 4),
                    // Normalization copies 16-bit tensors to 32 bits.
                    (false, 2) => (53, 8),
                    (false, _) => (51, 8),
                };
                let base = base.unwrap_or(96);
                (base.saturating_mul(tensors), base.saturating_mul(copies))
            }
            // 50 elements of 2 bytes and 34 of 4 for each frame, 3 of which are the image's own.
            Self::Ltx if element == 2 => (
                frames.saturating_mul(47).saturating_add(26),
                frames.saturating_mul(17).saturating_add(64),
            ),
            Self::Ltx => (
                frames.saturating_mul(31).saturating_add(42),
                frames.saturating_mul(17).saturating_add(64),
            ),
            Self::CogVideoX if is_image => (5175, 512),
            Self::CogVideoX => (22_893, 512),
            Self::HunyuanVideo if is_image => (1478, 1030),
            Self::HunyuanVideo => {
                let taken = frames.min(17);
                (19_660 * taken / 17, 9250 * taken / 17)
            }
        };

        PerPixel { live, layouts }
    }
}
