//! Checks of a checkpoint that several engines make before they load it.

use crate::model::{Architecture, Model};

/// The longest part of an unknown `quant_method` that an error shows, in characters.
const MAX_METHOD_CHARACTERS: usize = 40;

/// Encoders of raw audio that neither vLLM nor SGLang runs.
const RAW_AUDIO_ENCODERS: [&str; 4] = ["hubert", "wav2vec2", "wavlm", "unispeech"];

/// Whether the weights are packed for MLX: only MLX stores biases of quantized groups.
pub(crate) fn is_packed_for_mlx(model: &Model) -> bool {
    model
        .inventory
        .classes
        .iter()
        .any(|class| class.pattern.ends_with(".biases"))
}

/// Whether the model encodes raw audio.
pub(crate) fn encodes_raw_audio(architecture: &Architecture) -> bool {
    RAW_AUDIO_ENCODERS.contains(&&*architecture.root_model_type)
}

/// A `quant_method` as errors show it: a checkpoint can name anything, so long names are cut.
pub(crate) fn shown_method(method: &str) -> String {
    method.chars().take(MAX_METHOD_CHARACTERS).collect()
}
