//! A pipeline's parts, and the sizes of one call.

use super::super::EngineError;
use super::NAME;
use super::family::ModuleFamily;
use super::groups;
pub(super) use super::part::{ComponentRole, PipelinePart};
use super::phases::denoises;
use super::settings::DiffusersSettings;
use crate::bytes::Bytes;
use crate::model::{Dtype, Model};

/// A pipeline with the sizes of one call.
#[derive(Clone, Debug)]
pub(super) struct Pipeline {
    pub(super) parts: Vec<PipelinePart>,
    /// The family of the denoiser.
    pub(super) family: ModuleFamily,
    pub(super) width: u64,
    pub(super) height: u64,
    pub(super) frames: u64,
    /// Whether the result is a video.
    pub(super) makes_videos: bool,
    /// `max_sequence_length` of the call.
    pub(super) prompt_tokens: u64,
    /// Tokens of the prompt that the denoiser sees.
    pub(super) text_tokens: u64,
    /// Pixels per latent, along one side.
    pub(super) latent_step: u64,
    /// Whether each step runs on two batches, with and without the prompt.
    pub(super) guided: bool,
    /// Whether a 16-bit VAE is decoded in 32-bit floats.
    pub(super) upcasts_vae: bool,
    pub(super) assumptions: Vec<String>,
}

impl Pipeline {
    /// The parts of `model`, with sizes from the settings or its own defaults.
    pub(super) fn new(model: &Model, settings: &DiffusersSettings) -> Result<Self, EngineError> {
        let parts: Vec<PipelinePart> = model
            .components
            .iter()
            .map(|component| PipelinePart::new(model, component, settings))
            .filter(|part| part.bytes() > Bytes::ZERO)
            .collect();

        if parts.is_empty() {
            let why = "no component of the pipeline has weights".to_owned();
            return Err(EngineError::Unsupported { engine: NAME, why });
        }

        check_groups(&parts, settings)?;
        let denoiser = parts.iter().find(|part| denoises(part));
        let vae = parts.iter().find(|part| part.role == ComponentRole::Vae);
        let family = denoiser.map_or(ModuleFamily::Other, |part| {
            ModuleFamily::from_class(&part.class)
        });
        let defaults = family.defaults();

        let latent_step = family.latent_step().unwrap_or_else(|| step_of(vae));
        let (width, height) = defaults
            .size
            .unwrap_or_else(|| default_size(denoiser, latent_step));
        let prompt_tokens = settings.text_tokens.unwrap_or(defaults.text_tokens);

        // The prompt's tokens of CLIP go before those of T5.
        let text_tokens = match family {
            ModuleFamily::StableDiffusion3 => prompt_tokens.saturating_add(77),
            _ => prompt_tokens,
        };

        check_guidance(defaults.doubles, settings)?;
        let scale = settings.guidance;
        let guided = defaults.doubles && scale.is_none_or(|scale| scale > 1.0);
        let xl = denoiser.is_some_and(|part| part.word("addition_embed_type").is_some());
        let upcasts_vae =
            xl && vae.is_some_and(|vae| vae.flag("force_upcast")) && settings.dtype == Dtype::F16;

        let makes_videos = denoiser.is_some_and(|part| family.makes_videos(&part.class));
        let mut pipeline = Self {
            family,
            makes_videos,
            width: settings.width.unwrap_or(width),
            height: settings.height.unwrap_or(height),
            frames: frames(model, denoiser, (family, makes_videos), settings)?,
            prompt_tokens,
            text_tokens,
            latent_step,
            guided,
            upcasts_vae,
            assumptions: Vec::new(),
            parts,
        };

        pipeline.round_to_bin(settings);
        pipeline.assumptions = pipeline.assumptions_about(settings);
        Ok(pipeline)
    }

    /// Replaces the size of a PixArt call by the area that its pipeline rounds it to.
    fn round_to_bin(&mut self, settings: &DiffusersSettings) {
        if self.family != ModuleFamily::PixArt || !settings.bins {
            return;
        }

        let denoiser = self.parts.iter().find(|part| denoises(part));
        let (side, _) = default_size(denoiser, self.latent_step);
        (self.width, self.height) = (side, side);
    }

    /// Sentences about what the figures take for granted.
    fn assumptions_about(&self, settings: &DiffusersSettings) -> Vec<String> {
        let mut all = Vec::new();
        match self.parts.iter().find(|part| denoises(part)) {
            None => all.push(
                "no denoiser was recognized among the components: only weights and decoding \
                 are counted"
                    .to_owned(),
            ),
            Some(part) if self.family == ModuleFamily::Other => all.push(format!(
                "no formula covers the activations of {}: their interval is wide",
                part.class
            )),
            Some(_) => {}
        }

        if self.family == ModuleFamily::PixArt && settings.bins {
            all.push(
                "use_resolution_binning=true: the image has the area of the model's own size \
                 before it is resized"
                    .to_owned(),
            );
        }

        if let Some(groups) = &settings.groups {
            all.push(groups.sentence());
        }

        all
    }

    /// The pipeline's name for the images of one call.
    pub(super) fn images_name(&self) -> &'static str {
        if self.makes_videos {
            "num_videos_per_prompt"
        } else {
            "num_images_per_prompt"
        }
    }

    /// Latent frames of the video.
    pub(super) fn latent_frames(&self) -> u64 {
        let each = self.family.frames_per_latent();
        (self.frames.saturating_sub(1) / each).saturating_add(1)
    }

    /// Patches of one image or video.
    pub(super) fn patches(&self) -> Bytes {
        let patch = self.latent_step.saturating_mul(self.family.patch()).max(1);
        Bytes::product([
            self.width.div_ceil(patch),
            self.height.div_ceil(patch),
            self.latent_frames(),
        ])
    }
}

/// Returns the frames of one image or video.
///
/// The default length of a video pipeline that no referee ran is unknown, so the question must give
/// it. Motion modules in a pipeline for images are not counted.
fn frames(
    model: &Model,
    denoiser: Option<&PipelinePart>,
    (family, makes_videos): (ModuleFamily, bool),
    settings: &DiffusersSettings,
) -> Result<u64, EngineError> {
    let moves = model
        .components
        .iter()
        .any(|component| component.name.starts_with("motion"));
    if moves {
        let why = "the pipeline's motion modules are not counted".to_owned();
        return Err(EngineError::Unsupported { engine: NAME, why });
    }

    match settings.frames {
        Some(frames) if frames > 1 && !makes_videos => Err(EngineError::BadParameter {
            engine: NAME,
            name: "num_frames".to_owned(),
            value: frames.to_string(),
            why: "this pipeline makes images".to_owned(),
        }),
        Some(frames) => Ok(frames),
        None if makes_videos && family == ModuleFamily::Other => {
            let class = denoiser.map_or("", |part| &part.class);
            Err(EngineError::Unsupported {
                engine: NAME,
                why: format!(
                    "{class} makes videos, whose default length is unknown; set num_frames, \
                     height and width"
                ),
            })
        }
        None => Ok(denoiser
            .and_then(|part| part.number("sample_frames"))
            .unwrap_or_else(|| family.defaults().frames)),
    }
}

/// Rejects `true_cfg_scale` for a pipeline whose call guides with `guidance_scale`.
fn check_guidance(doubles: bool, settings: &DiffusersSettings) -> Result<(), EngineError> {
    match settings.true_guidance {
        Some(scale) if doubles => Err(EngineError::BadParameter {
            engine: NAME,
            name: "true_cfg_scale".to_owned(),
            value: scale.to_string(),
            why: "this pipeline's call has guidance_scale instead".to_owned(),
        }),
        _ => Ok(()),
    }
}

/// Rejects group offloading of a part that cannot run so.
fn check_groups(parts: &[PipelinePart], settings: &DiffusersSettings) -> Result<(), EngineError> {
    let Some(groups) = &settings.groups else {
        return Ok(());
    };

    for part in parts.iter().filter(|part| !groups.excludes(&part.name)) {
        let is_decoder = part.role == ComponentRole::Vae;
        if let Some(why) = groups::rejection(&part.class, is_decoder, groups.kind) {
            return Err(EngineError::BadParameter {
                engine: NAME,
                name: "enable_group_offload".to_owned(),
                value: "true".to_owned(),
                why,
            });
        }
    }

    Ok(())
}

/// Pixels per latent of a decoder: each level but one halves the sides.
fn step_of(vae: Option<&PipelinePart>) -> u64 {
    let levels = vae.map_or(4, |vae| {
        vae.numbers("block_out_channels")
            .len()
            .max(vae.numbers("dim_mult").len())
    });

    1 << levels.clamp(1, 8).saturating_sub(1)
}

/// Width and height by the denoiser's configuration: `sample_size` latents, or `sample_width` by
/// `sample_height`.
fn default_size(denoiser: Option<&PipelinePart>, latent_step: u64) -> (u64, u64) {
    let number = |name: &str| denoiser.and_then(|part| part.number(name));
    let side = number("sample_size").unwrap_or(128);
    let (width, height) = (
        number("sample_width").unwrap_or(side),
        number("sample_height").unwrap_or(side),
    );

    (
        width.saturating_mul(latent_step),
        height.saturating_mul(latent_step),
    )
}
