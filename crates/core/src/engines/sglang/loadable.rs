//! The models that SGLang can load.

use super::{device_support, unsupported};
use crate::engines::EngineError;
use crate::engines::shared::checkpoint_checks::{
    encodes_raw_audio, is_packed_for_mlx, shown_method,
};
use crate::engines::shared::unlisted_types::is_unlisted_in_sglang;
use crate::engines::shared::unread_families::unread_by_sglang;
use crate::model::architecture::{Architecture, Mixer, Recurrent, Task};
use crate::model::{Format, Model};

/// Checks that SGLang can load the model, and returns its architecture.
pub(super) fn check_model(model: &Model) -> Result<&Architecture, EngineError> {
    if !matches!(model.format, Format::Safetensors | Format::PytorchBin) {
        return Err(unsupported(
            "only safetensors and .bin repositories are supported",
        ));
    }

    if is_packed_for_mlx(model) {
        return Err(unsupported("the weights are packed for MLX"));
    }

    let architecture = model
        .architecture
        .as_ref()
        .map_err(|why| unsupported(why.to_string()))?;
    if let Some(why) = unread_by_sglang(&architecture.model_type) {
        return Err(unsupported(format!(
            "{} ({}): {why}",
            architecture.class, architecture.root_model_type
        )));
    }

    let compressed = architecture.layers.iter().any(
        |layer| matches!(&layer.mixer, Mixer::Latent(latent) if latent.compress_ratio.is_some()),
    );
    if compressed {
        return Err(unsupported(format!(
            "the pools of {} (compress_ratios) have an unknown size",
            architecture.class
        )));
    }

    let has_own_states = architecture.is_looped()
        || architecture
            .mixers(0..architecture.layer_count())
            .any(|mixer| {
                matches!(
                    mixer,
                    Mixer::Recurrent(Recurrent::ConvStreams { .. } | Recurrent::PastInputs { .. })
                )
            });
    if has_own_states || is_unlisted_in_sglang(architecture) {
        return Err(unsupported(format!(
            "SGLang's pools for {} are not known",
            architecture.class
        )));
    }

    if let Some(quantization) = &architecture.quantization
        && !device_support::is_known_method(&quantization.method)
    {
        return Err(unsupported(format!(
            "SGLang is not known to load quant_method {}",
            shown_method(&quantization.method)
        )));
    }

    if architecture.task == Task::EncodeDecode || encodes_raw_audio(architecture) {
        return Err(unsupported(format!(
            "{} ({}) is not supported",
            architecture.class, architecture.root_model_type
        )));
    }

    Ok(architecture)
}
