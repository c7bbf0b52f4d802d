//! The sizes of a Whisper model that determine its memory.

use super::unsupported;
use crate::engines::EngineError;
use crate::model::architecture::Architecture;
use crate::model::ctranslate2::whisper;

/// Sizes of encoder and decoder.
#[derive(Clone, Copy, Debug)]
pub(super) struct ModelSizes {
    /// Layers of the decoder.
    pub(super) decoder_layers: u64,
    /// Width of both halves.
    pub(super) width: u64,
    /// Feed-forward width.
    pub(super) feed_forward: u64,
    pub(super) encoder_heads: u64,
    pub(super) decoder_heads: u64,
    /// Positions that the encoder emits for 30 seconds.
    pub(super) positions: u64,
    /// Positions of the decoder.
    pub(super) context: u64,
    pub(super) vocabulary: u64,
}

impl ModelSizes {
    /// The sizes of `architecture`.
    pub(super) fn new(architecture: &Architecture) -> Result<Self, EngineError> {
        let missing = |what: &str| unsupported(format!("the model's {what} are unknown"));

        Ok(Self {
            decoder_layers: u64::from(architecture.layer_count()),
            width: architecture.hidden_size,
            feed_forward: architecture.intermediate_size,
            encoder_heads: whisper::encoder_heads(architecture)
                .ok_or_else(|| missing("encoder heads"))?,
            decoder_heads: architecture.heads,
            positions: architecture
                .encoder
                .ok_or_else(|| missing("encoder layers"))?
                .max_tokens,
            context: architecture
                .max_context
                .ok_or_else(|| missing("positions"))?,
            vocabulary: architecture.vocab_size,
        })
    }
}
