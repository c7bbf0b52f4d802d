//! Families of denoisers: what their pipelines' calls default to.
//!
//! Source: diffusers 0.42.1 `pipelines/*/pipeline_*.py` (`__init__`, `__call__`).

/// A family of denoisers, by the class of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ModuleFamily {
    /// `UNet2DConditionModel` (Stable Diffusion 1, 2 and XL).
    UNet,
    /// `FluxTransformer2DModel`.
    Flux,
    /// `QwenImageTransformer2DModel`.
    QwenImage,
    /// `SD3Transformer2DModel`.
    StableDiffusion3,
    /// `PixArtTransformer2DModel`.
    PixArt,
    /// `Lumina2Transformer2DModel`.
    Lumina2,
    /// `ZImageTransformer2DModel`.
    ZImage,
    /// `WanTransformer3DModel`.
    Wan,
    /// `LTXVideoTransformer3DModel`.
    Ltx,
    /// `CogVideoXTransformer3DModel`.
    CogVideoX,
    /// `HunyuanVideoTransformer3DModel`.
    HunyuanVideo,
    /// A class that no referee ran.
    Other,
}

/// Sizes of a call that gives none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CallDefaults {
    /// Width and height in pixels; `None` if the denoiser's configuration has them.
    pub(super) size: Option<(u64, u64)>,
    pub(super) frames: u64,
    /// `max_sequence_length`, which is the prompt's length where the pipeline pads.
    pub(super) text_tokens: u64,
    /// Whether one pass runs with and without the prompt.
    pub(super) doubles: bool,
}

impl ModuleFamily {
    /// The family of the denoiser's class.
    pub(super) fn from_class(class: &str) -> Self {
        match class {
            "UNet2DConditionModel" => Self::UNet,
            "FluxTransformer2DModel" => Self::Flux,
            "QwenImageTransformer2DModel" => Self::QwenImage,
            "SD3Transformer2DModel" => Self::StableDiffusion3,
            "PixArtTransformer2DModel" => Self::PixArt,
            "Lumina2Transformer2DModel" => Self::Lumina2,
            "ZImageTransformer2DModel" => Self::ZImage,
            "WanTransformer3DModel" => Self::Wan,
            "LTXVideoTransformer3DModel" => Self::Ltx,
            "CogVideoXTransformer3DModel" => Self::CogVideoX,
            "HunyuanVideoTransformer3DModel" => Self::HunyuanVideo,
            _ => Self::Other,
        }
    }

    /// The sizes that the family's text-to-image or text-to-video pipeline has by default.
    pub(super) const fn defaults(self) -> CallDefaults {
        let (size, frames, text_tokens, doubles) = match self {
            Self::UNet => (None, 1, 77, true),
            Self::Flux => (Some((1024, 1024)), 1, 512, false),
            // Prompts are cut at so many tokens and not padded.
            Self::QwenImage => (Some((1024, 1024)), 1, 512, false),
            Self::StableDiffusion3 => (None, 1, 256, true),
            // 120 in PixArt-alpha's pipeline, 300 in PixArt-Sigma's.
            Self::PixArt => (None, 1, 300, true),
            Self::Lumina2 => (Some((1024, 1024)), 1, 256, false),
            Self::ZImage => (Some((1024, 1024)), 1, 512, true),
            Self::Wan => (Some((832, 480)), 81, 512, false),
            Self::Ltx => (Some((704, 512)), 161, 128, true),
            Self::CogVideoX => (None, 49, 226, true),
            Self::HunyuanVideo => (Some((1280, 720)), 129, 256, false),
            Self::Other => (None, 1, 512, true),
        };

        CallDefaults {
            size,
            frames,
            text_tokens,
            doubles,
        }
    }

    /// Whether the pipeline of a denoiser of this family and class makes videos.
    pub(super) fn makes_videos(self, class: &str) -> bool {
        const MARKS: [&str; 4] = ["3D", "Video", "SpatioTemporal", "Motion"];

        self.frames_per_latent() > 1
            || (self == Self::Other && MARKS.iter().any(|mark| class.contains(mark)))
    }

    /// Frames of the video behind each latent frame but the first.
    pub(super) const fn frames_per_latent(self) -> u64 {
        match self {
            Self::Wan | Self::CogVideoX | Self::HunyuanVideo => 4,
            Self::Ltx => 8,
            _ => 1,
        }
    }

    /// Pixels of a latent's side, where the decoder's levels do not say.
    pub(super) const fn latent_step(self) -> Option<u64> {
        match self {
            Self::Ltx => Some(32),
            _ => None,
        }
    }

    /// Latents of a patch's side.
    pub(super) const fn patch(self) -> u64 {
        match self {
            Self::Ltx => 1,
            _ => 2,
        }
    }
}
