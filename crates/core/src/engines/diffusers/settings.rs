//! Parameters by diffusers' own names, and the dtype that components are loaded in.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::compute_dtype::{dtype_name, model_dtype};
use super::super::{EngineError, EngineRequest};
use super::NAME;
pub(super) use super::group_settings::{GroupKind, GroupOffload};
use super::pipeline::Pipeline;
use crate::engines::shared::parameter_names::ParameterList;
use crate::engines::shared::parameters::Parameters;
use crate::model::Dtype;

/// diffusers' parameters by name.
static PARAMETERS: ParameterList =
    ParameterList::new(NAME, include_str!("../profiles/parameters/diffusers.toml"));

/// The requested settings.
#[derive(Clone, Debug)]
pub(super) struct DiffusersSettings {
    pub(super) dtype: Dtype,
    pub(super) width: Option<u64>,
    pub(super) height: Option<u64>,
    /// Images or videos of one call.
    pub(super) images: u64,
    /// `guidance_scale`, if given.
    pub(super) guidance: Option<f64>,
    /// `true_cfg_scale`, if given.
    pub(super) true_guidance: Option<f64>,
    pub(super) text_tokens: Option<u64>,
    pub(super) frames: Option<u64>,
    pub(super) slicing: bool,
    pub(super) tiling: bool,
    /// Whether a pipeline with bins of sizes rounds to them.
    pub(super) bins: bool,
    /// Group offloading, if the question enables it.
    pub(super) groups: Option<GroupOffload>,
    pub(super) assumptions: Vec<String>,
}

impl DiffusersSettings {
    pub(super) fn new(request: &EngineRequest<'_>) -> Result<Self, EngineError> {
        let given = Parameters::new(&PARAMETERS, request.version, request.parameters)?;
        let stored = model_dtype(request.model.format, &request.model.inventory, None);
        let mut assumptions = Vec::new();
        let dtype = dtype(request, stored, &mut assumptions)?;

        let image_side = |name: &str| -> Result<Option<u64>, EngineError> {
            match given.size(name)? {
                Some(pixels) if pixels % 8 != 0 || pixels > 65_536 => {
                    Err(given.bad(name, "a multiple of 8 of at most 65536 is expected"))
                }
                pixels => Ok(pixels),
            }
        };

        Ok(Self {
            dtype,
            width: image_side("width")?,
            height: image_side("height")?,
            images: images(&given, request.asked.sequences)?,
            guidance: given.number("guidance_scale")?,
            true_guidance: given.number("true_cfg_scale")?,
            text_tokens: given.size("max_sequence_length")?,
            frames: given.size("num_frames")?,
            slicing: given.flag("enable_vae_slicing")?.unwrap_or(false),
            tiling: given.flag("enable_vae_tiling")?.unwrap_or(false),
            bins: given.flag("use_resolution_binning")?.unwrap_or(true),
            groups: GroupOffload::new(&given)?,
            assumptions,
        })
    }

    pub(super) fn element_bytes(&self) -> u64 {
        self.dtype.block().1
    }

    pub(super) fn parameters(&self, pipeline: &Pipeline) -> BTreeMap<String, Value> {
        let mut all = BTreeMap::from([
            ("torch_dtype".to_owned(), json!(dtype_name(self.dtype))),
            ("width".to_owned(), json!(pipeline.width)),
            ("height".to_owned(), json!(pipeline.height)),
            (pipeline.images_name().to_owned(), json!(self.images)),
            ("guidance_scale".to_owned(), json!(self.guidance)),
            (
                "max_sequence_length".to_owned(),
                json!(pipeline.prompt_tokens),
            ),
            ("num_frames".to_owned(), json!(pipeline.frames)),
            ("enable_vae_slicing".to_owned(), json!(self.slicing)),
            ("enable_vae_tiling".to_owned(), json!(self.tiling)),
        ]);

        if !self.bins {
            all.insert("use_resolution_binning".to_owned(), json!(false));
        }
        if let Some(scale) = self.true_guidance {
            all.insert("true_cfg_scale".to_owned(), json!(scale));
        }
        if let Some(groups) = &self.groups {
            all.extend(groups.parameters());
        }

        all
    }
}

/// The images or videos of one call. Every name that the question gives must say the same.
fn images(given: &Parameters, sequences: Option<u64>) -> Result<u64, EngineError> {
    let mut agreed = sequences;
    for name in ["num_images_per_prompt", "num_videos_per_prompt"] {
        match (given.size(name)?, agreed) {
            (Some(images), Some(other)) if images != other => {
                let why = format!("the question also asks for {other}; give one of them");
                return Err(given.bad(name, &why));
            }
            (Some(images), _) => agreed = Some(images),
            (None, _) => {}
        }
    }

    Ok(agreed.unwrap_or(1))
}

/// The dtype of loading.
fn dtype(
    request: &EngineRequest<'_>,
    stored: Dtype,
    assumptions: &mut Vec<String>,
) -> Result<Dtype, EngineError> {
    match request.asked.dtype.as_deref() {
        None | Some("auto") => {
            let name = dtype_name(stored);
            assumptions.push(format!(
                "torch_dtype={name}, as stored; without it diffusers loads in float32"
            ));
            Ok(stored)
        }
        Some("bfloat16" | "bf16") => Ok(Dtype::BF16),
        Some("float16" | "half" | "fp16") => Ok(Dtype::F16),
        Some("float32" | "float" | "fp32") => Ok(Dtype::F32),
        Some(other) => Err(EngineError::BadParameter {
            engine: NAME,
            name: "torch_dtype".to_owned(),
            value: other.to_owned(),
            why: "auto, bfloat16, float16 or float32 is expected".to_owned(),
        }),
    }
}
