//! The peak of the tensors that live while each part runs.
//!
//! The likely figure is the law of live tensors of the part's class, if a referee ran it. Above it
//! the interval holds what a GPU adds: workspaces, and copies to another layout for convolutions.
//! Other classes get wide intervals.

mod convolution;
mod decoder;
mod denoiser;
mod encoder;
mod tiles;
mod unet;
mod video_decoder;

use self::convolution::LivePeak;
use super::super::{Basis, Interval};
use super::pipeline::{ComponentRole, Pipeline, PipelinePart};
use super::settings::DiffusersSettings;
use crate::bytes::Bytes;

/// The activations of a part at their peak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StagePeak {
    pub(super) bytes: Interval,
    pub(super) basis: Basis,
}

impl StagePeak {
    /// The interval of a law without convolutions.
    ///
    /// Other releases keep up to a tenth less alive; attention kernels add workspaces.
    fn of_tokens(live: Bytes) -> Self {
        let high = live.scale(115, 100) + Bytes::mib(64);
        Self {
            bytes: Interval::new(live.scale(90, 100), live, high),
            basis: Basis::Formula,
        }
    }

    /// The interval of a law with convolutions: cuDNN may copy input and output of one to another
    /// layout, and take a workspace.
    fn of_convolutions(peak: LivePeak) -> Self {
        let workspace = Bytes::gib(1).min(peak.live);
        Self {
            bytes: Interval::new(
                peak.live.scale(90, 100),
                peak.live,
                peak.live.max(peak.with_layouts) + workspace,
            ),
            basis: Basis::Formula,
        }
    }

    /// The interval around a figure that no referee confirms: a third to three times.
    fn assumed(likely: Bytes) -> Self {
        Self {
            bytes: Interval::new(likely.scale(1, 3), likely, likely * 3),
            basis: Basis::Assumed,
        }
    }

    /// The peak with `bytes` more.
    fn plus(self, bytes: Bytes) -> Self {
        Self {
            bytes: self.bytes.plus(Interval::exact(bytes)),
            ..self
        }
    }
}

/// The peak while `part` runs for `images` images.
pub(super) fn peak(
    part: &PipelinePart,
    pipeline: &Pipeline,
    settings: &DiffusersSettings,
    images: u64,
) -> StagePeak {
    let element = settings.element_bytes();
    let batch = images.saturating_mul(if pipeline.guided { 2 } else { 1 });

    match part.role {
        ComponentRole::Vae => vae(part, pipeline, settings, images),
        ComponentRole::Transformer => denoiser::peak(part, pipeline, element, batch).map_or_else(
            || assumed_transformer(part, pipeline, element, batch),
            StagePeak::of_tokens,
        ),
        ComponentRole::UNet => unet::peak(part, pipeline, element, batch).map_or_else(
            || assumed_unet(part, pipeline, element, batch),
            StagePeak::of_convolutions,
        ),
        ComponentRole::Other if part.name.starts_with("controlnet") => {
            assumed_unet(part, pipeline, element, batch)
        }
        ComponentRole::Other => StagePeak {
            bytes: encoder::peak(part, pipeline, element),
            basis: Basis::Assumed,
        },
    }
}

/// A decoder of latents.
fn vae(
    part: &PipelinePart,
    pipeline: &Pipeline,
    settings: &DiffusersSettings,
    images: u64,
) -> StagePeak {
    let element = if pipeline.upcasts_vae {
        4
    } else {
        settings.element_bytes()
    };

    // A 32-bit copy of the decoder replaces the 16-bit one.
    let upcast = if pipeline.upcasts_vae {
        part.bytes()
    } else {
        Bytes::ZERO
    };

    let sizes = (element, images);
    let stage = if part.class == "AutoencoderKL" {
        kl_decoder(part, pipeline, settings, sizes)
    } else {
        video_decoder::peak(part, pipeline, settings, sizes).map(|(peak, is_published)| {
            if is_published {
                StagePeak::of_convolutions(peak)
            } else {
                StagePeak::assumed(peak.live)
            }
        })
    };

    stage
        .unwrap_or_else(|| assumed_vae(part, pipeline, sizes))
        .plus(upcast)
}

/// The decoder of `AutoencoderKL`.
///
/// The configuration of a first Stable Diffusion's decoder is not read, because its tensors show
/// its channels. They do not show the side of a tile, which is 256 to 768 pixels in published ones.
fn kl_decoder(
    part: &PipelinePart,
    pipeline: &Pipeline,
    settings: &DiffusersSettings,
    sizes: (u64, u64),
) -> Option<StagePeak> {
    let stage_of_side = |side: u64| {
        decoder::peak(part, pipeline, settings, sizes, side).map(StagePeak::of_convolutions)
    };

    if let Some(side) = decoder::tile_side(part) {
        return stage_of_side(side);
    }

    let whole = pipeline.width.max(pipeline.height);
    if !settings.tiling {
        return stage_of_side(whole);
    }

    let (least, likely, most) = (
        stage_of_side(256)?,
        stage_of_side(512)?,
        stage_of_side(whole)?,
    );
    Some(StagePeak {
        bytes: Interval::new(least.bytes.low, likely.bytes.likely, most.bytes.high),
        basis: Basis::Assumed,
    })
}

/// A decoder of another class: three tensors of the second width at full resolution, for every
/// frame.
fn assumed_vae(
    part: &PipelinePart,
    pipeline: &Pipeline,
    (element, images): (u64, u64),
) -> StagePeak {
    let channels = part.numbers("block_out_channels").get(1).copied();
    let channels = channels.unwrap_or(256);
    let pixels = [pipeline.width, pipeline.height, pipeline.frames, images];

    StagePeak::assumed(Bytes::product(pixels) * channels * element * 3)
}

/// A transformer of another class: about 15 tensors of the model's width for each token.
fn assumed_transformer(
    part: &PipelinePart,
    pipeline: &Pipeline,
    element: u64,
    batch: u64,
) -> StagePeak {
    let heads = part.number("num_attention_heads");
    let width = heads
        .zip(part.number("attention_head_dim"))
        .map(|(heads, dim)| heads.saturating_mul(dim));
    let width = width
        .or(part.number("hidden_size"))
        .or(part.number("dim"))
        .unwrap_or(4096);

    let tokens = pipeline.patches() + Bytes::new(pipeline.text_tokens);
    StagePeak::assumed(tokens * width * element * 15 * batch)
}

/// A U-Net with other blocks: about 24 tensors of the first width at the finest level, for every
/// frame.
fn assumed_unet(part: &PipelinePart, pipeline: &Pipeline, element: u64, batch: u64) -> StagePeak {
    let channels = part.numbers("block_out_channels");
    let channels = channels.first().copied().unwrap_or(320);
    let step = pipeline.latent_step.max(1);
    let latents = Bytes::product([
        pipeline.width.div_ceil(step),
        pipeline.height.div_ceil(step),
        pipeline.latent_frames(),
        batch,
    ]);

    StagePeak::assumed(latents * channels * element * 24)
}

#[cfg(test)]
mod tests;
