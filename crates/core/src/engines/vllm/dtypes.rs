//! What vLLM computes in and keeps its cache in, where `auto` leaves it to the model and the GPU.

use std::collections::BTreeMap;

use super::settings::{ENGINE, unsupported};
use crate::engines::shared::dtype::{ComputeDtype, KvDtype};
use crate::engines::shared::parameters::Parameters;
use crate::engines::{EngineError, EngineRequest};
use crate::model::architecture::{Mixer, Task};
use crate::model::{Architecture, Dtype, Inventory};

/// `config/model.py`, `_resolve_auto_dtype`.
pub(super) fn compute_dtype(
    case: &EngineRequest<'_>,
    architecture: &Architecture,
    given: &Parameters,
    (capability, refuses_half): (Option<u32>, bool),
    assumptions: &mut Vec<String>,
) -> Result<ComputeDtype, EngineError> {
    let half_refused = refuses_half && unstable_in_half(architecture);
    let wanted = case
        .asked
        .dtype
        .as_deref()
        .or(given.word("dtype")?)
        .filter(|name| *name != "auto");

    if let Some(name) = wanted {
        let dtype = ComputeDtype::parse(name).ok_or_else(|| EngineError::BadParameter {
            engine: ENGINE,
            name: "dtype".to_owned(),
            value: name.to_owned(),
            why: "known: auto, bfloat16, float16, half, float32, float".to_owned(),
        })?;
        if dtype == ComputeDtype::Float16 && half_refused {
            return Err(unsupported(format!(
                "{} is numerically unstable in float16; vLLM refuses it",
                architecture.model_type
            )));
        }

        return Ok(dtype);
    }

    let sixteen = || {
        let old = capability.is_some_and(|capability| capability < 80);
        let pooling = matches!(architecture.task, Task::Encode | Task::Pool) && !half_refused;
        if old || pooling {
            ComputeDtype::Float16
        } else {
            ComputeDtype::Bfloat16
        }
    };

    let stored = architecture
        .dtype
        .or_else(|| dominant(&case.model.inventory));
    let dtype = stored.and_then(ComputeDtype::from_config);

    Ok(match dtype {
        Some(ComputeDtype::Float32) | None => {
            let target = sixteen();
            assumptions.push(format!(
                "dtype auto: weights stored or configured as float32 are cast to {}",
                target.name()
            ));
            target
        }
        Some(ComputeDtype::Bfloat16) if capability.is_some_and(|capability| capability < 80) => {
            assumptions.push(
                "dtype auto: bfloat16 needs compute capability 8.0; vLLM falls back to float16"
                    .to_owned(),
            );
            ComputeDtype::Float16
        }
        Some(dtype) => dtype,
    })
}

/// The float type that most bytes are stored in.
fn dominant(inventory: &Inventory) -> Option<Dtype> {
    let mut by: BTreeMap<Dtype, u64> = BTreeMap::new();
    for class in &inventory.classes {
        if let Some(dtype) = class.dtype().filter(|dtype| dtype.is_float()) {
            let sum = by.entry(dtype).or_insert(0);
            *sum = sum.saturating_add(class.bytes().get());
        }
    }

    by.into_iter()
        .max_by_key(|(_, bytes)| *bytes)
        .map(|(dtype, _)| dtype)
}

pub(super) fn kv_dtype(
    case: &EngineRequest<'_>,
    architecture: &Architecture,
    given: &Parameters,
    compute: ComputeDtype,
    capability: Option<u32>,
) -> Result<(KvDtype, String), EngineError> {
    let asked = case
        .asked
        .kv_cache_dtype
        .as_deref()
        .or(given.word("kv_cache_dtype")?)
        .unwrap_or("auto");

    let sparse = architecture
        .layers
        .iter()
        .any(|layer| matches!(&layer.mixer, Mixer::Latent(l) if l.indexer.is_some()));
    let settled = match asked {
        "auto" => {
            let scheme = architecture
                .quantization
                .as_ref()
                .and_then(|quantization| quantization.kv_cache_dtype.as_deref());
            // GLM's sparse models take fp8 on SM10x by default.
            let glm = sparse
                && architecture.model_type.starts_with("glm")
                && capability.is_some_and(|at| (100..120).contains(&at));
            scheme.unwrap_or(if glm { "fp8" } else { "auto" })
        }
        name => name,
    };

    let kv = KvDtype::parse(settled, compute).ok_or_else(|| EngineError::BadParameter {
        engine: ENGINE,
        name: "kv_cache_dtype".to_owned(),
        value: asked.to_owned(),
        why: format!("known: {}", KvDtype::NAMES),
    })?;
    let name = match kv {
        KvDtype::Fp8 if sparse => "fp8_ds_mla",
        KvDtype::Nvfp4 if sparse => "nvfp4_ds_mla",
        KvDtype::Model(dtype) if settled == "auto" => dtype.name(),
        _ => settled,
    };

    Ok((kv, name.to_owned()))
}

/// Families that vLLM does not run in float16.
pub(super) fn unstable_in_half(architecture: &Architecture) -> bool {
    ["gemma2", "gemma3", "glm4"]
        .iter()
        .any(|family| architecture.model_type.starts_with(family))
}
