//! Models that transformers does not load, or loads at sizes other than the stored ones.

use super::{NAME, profile_error};
use crate::engines::EngineError;
use crate::engines::profile::Profile;
use crate::engines::shared::checkpoint_checks::shown_method;
use crate::model::architecture::{Architecture, Mixer};
use crate::model::{Format, Model};

/// `quant_method`s that have a quantizer; transformers fails on others (transformers 5.23
/// `quantizers/auto.py`, `AUTO_QUANTIZATION_CONFIG_MAPPING`).
const QUANTIZERS: &[&str] = &[
    "awq",
    "bitsandbytes",
    "bitsandbytes_4bit",
    "bitsandbytes_8bit",
    "eetq",
    "gptq",
    "aqlm",
    "quanto",
    "quark",
    "fouroversix",
    "fp_quant",
    "hqq",
    "compressed-tensors",
    "fbgemm_fp8",
    "higgs",
    "torchao",
    "bitnet",
    "vptq",
    "spqr",
    "fp8",
    "nvfp4",
    "mxfp8",
    "auto-round",
    "mxfp4",
    "metal",
    "sinq",
    "gemma",
];

/// Checks that transformers loads the model at known sizes, and returns its architecture.
pub(super) fn check_model(model: &Model) -> Result<&Architecture, EngineError> {
    let architecture = model
        .architecture
        .as_ref()
        .map_err(|why| unsupported(why.to_string()))?;

    match model.format {
        Format::Gguf => {
            return Err(unsupported(
                "transformers dequantizes GGUF files while it loads them; use llama.cpp",
            ));
        }
        Format::Diffusers => {
            return Err(unsupported(
                "transformers does not run diffusers pipelines; use the diffusers engine",
            ));
        }
        Format::Ctranslate2 => {
            return Err(unsupported(
                "transformers does not read CTranslate2 files; use the ctranslate2 engine",
            ));
        }
        Format::Safetensors | Format::PytorchBin => {}
    }

    if let Some(quantization) = &architecture.quantization
        && !QUANTIZERS.contains(&&*quantization.method)
    {
        return Err(unsupported(format!(
            "transformers has no quantizer for {} checkpoints",
            shown_method(&quantization.method)
        )));
    }

    Ok(architecture)
}

/// Checks that the size of a compressed cache (DeepSeek V4) is known in this version.
pub(super) fn check_compressed(
    architecture: &Architecture,
    profile: &Profile,
) -> Result<(), EngineError> {
    let is_compressed = architecture
        .mixers(0..architecture.layer_count())
        .any(|mixer| matches!(mixer, Mixer::Latent(latent) if latent.compress_ratio.is_some()));
    let is_known = profile
        .flag("caches_compressed")
        .map_err(|error| profile_error(&error))?;

    if is_compressed && !is_known {
        return Err(unsupported(
            "the size of the compressed cache (compress_ratios) is known from version 5.23 on",
        ));
    }

    Ok(())
}

/// The `unsupported_architecture` error for this engine.
fn unsupported(why: impl Into<String>) -> EngineError {
    EngineError::Unsupported {
        engine: NAME,
        why: why.into(),
    }
}
