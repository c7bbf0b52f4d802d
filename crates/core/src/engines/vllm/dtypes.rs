//! vLLM's compute dtype and cache dtype, which `auto` derives from the model and the GPU.

use std::collections::BTreeMap;

use super::refusal::{ENGINE, unsupported};
use crate::engines::shared::asked::{asked_dtype, asked_kv_cache_dtype};
use crate::engines::shared::dtype::{ComputeDtype, KvDtype};
use crate::engines::shared::parameters::Parameters;
use crate::engines::{EngineError, EngineRequest};
use crate::model::architecture::{Mixer, Task};
use crate::model::{Architecture, Dtype, Inventory};

/// Families that vLLM does not run in float16, by the start of their model type.
const UNSTABLE_IN_HALF: [&str; 3] = ["gemma2", "gemma3", "glm4"];

/// Families whose layers do not pass the cache's dtype on (vLLM 0.33 `models/falcon.py`).
///
/// Their cache has the model's dtype, whatever is asked for.
const IGNORE_CACHE_DTYPE: [&str; 3] = ["falcon", "RefinedWeb", "RefinedWebModel"];

/// Resolves the compute dtype (`config/model.py`, `_resolve_auto_dtype`).
pub(super) fn compute_dtype(
    request: &EngineRequest<'_>,
    (architecture, task): (&Architecture, Task),
    given: &Parameters,
    (capability, refuses_half): (Option<u32>, bool),
    assumptions: &mut Vec<String>,
) -> Result<ComputeDtype, EngineError> {
    let half_refused = refuses_half && is_unstable_in_half(architecture);
    if let Some(name) = asked_dtype(request, given)? {
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

    let before_sm80 = capability.is_some_and(|capability| capability < 80);
    let stored = architecture
        .dtype
        .or_else(|| dominant_dtype(&request.model.inventory));

    Ok(match stored.and_then(ComputeDtype::from_config) {
        Some(ComputeDtype::Float32) | None => {
            let pooling = matches!(task, Task::Encode | Task::Pool) && !half_refused;
            let target = if before_sm80 || pooling {
                ComputeDtype::Float16
            } else {
                ComputeDtype::Bfloat16
            };

            assumptions.push(format!(
                "dtype auto: weights stored or configured as float32 are cast to {}",
                target.name()
            ));
            target
        }
        Some(ComputeDtype::Bfloat16) if before_sm80 => {
            assumptions.push(
                "dtype auto: bfloat16 needs compute capability 8.0; vLLM falls back to float16"
                    .to_owned(),
            );
            ComputeDtype::Float16
        }
        Some(dtype) => dtype,
    })
}

/// The float type of most stored bytes.
fn dominant_dtype(inventory: &Inventory) -> Option<Dtype> {
    let mut bytes_by_dtype: BTreeMap<Dtype, u64> = BTreeMap::new();
    for class in &inventory.classes {
        if let Some(dtype) = class.dtype().filter(|dtype| dtype.is_float()) {
            let sum = bytes_by_dtype.entry(dtype).or_insert(0);
            *sum = sum.saturating_add(class.bytes().get());
        }
    }

    bytes_by_dtype
        .into_iter()
        .max_by_key(|(_, bytes)| *bytes)
        .map(|(dtype, _)| dtype)
}

/// Resolves the dtype of the KV cache, and its name as vLLM has it.
pub(super) fn kv_dtype(
    request: &EngineRequest<'_>,
    architecture: &Architecture,
    given: &Parameters,
    compute: ComputeDtype,
    capability: Option<u32>,
) -> Result<(KvDtype, String), EngineError> {
    let asked = asked_kv_cache_dtype(request, given)?;
    let sparse = architecture
        .layers
        .iter()
        .any(|layer| matches!(&layer.mixer, Mixer::Latent(latent) if latent.indexer.is_some()));

    let resolved = if IGNORE_CACHE_DTYPE.contains(&&*architecture.model_type) {
        "auto"
    } else if asked == "auto" {
        auto_kv_dtype(architecture, sparse, capability)
    } else {
        asked
    };

    let kv = KvDtype::parse(resolved, compute).ok_or_else(|| EngineError::BadParameter {
        engine: ENGINE,
        name: "kv_cache_dtype".to_owned(),
        value: asked.to_owned(),
        why: format!("known: {}", KvDtype::NAMES),
    })?;
    let name = match kv {
        KvDtype::Fp8 if sparse => "fp8_ds_mla",
        KvDtype::Nvfp4 if sparse => "nvfp4_ds_mla",
        KvDtype::Model(dtype) if resolved == "auto" => dtype.name(),
        _ => resolved,
    };

    Ok((kv, name.to_owned()))
}

/// The cache dtype for `auto`: the checkpoint's own, or FP8 for GLM's sparse models on SM10x.
fn auto_kv_dtype(architecture: &Architecture, sparse: bool, capability: Option<u32>) -> &str {
    let checkpoint = architecture
        .quantization
        .as_ref()
        .and_then(|quantization| quantization.kv_cache_dtype.as_deref());
    let sparse_glm = sparse
        && architecture.model_type.starts_with("glm")
        && capability.is_some_and(|capability| (100..120).contains(&capability));

    checkpoint.unwrap_or(if sparse_glm { "fp8" } else { "auto" })
}

/// Whether vLLM does not run the family in float16.
pub(super) fn is_unstable_in_half(architecture: &Architecture) -> bool {
    UNSTABLE_IN_HALF
        .iter()
        .any(|family| architecture.model_type.starts_with(family))
}
