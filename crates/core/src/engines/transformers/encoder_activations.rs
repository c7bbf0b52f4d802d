//! The peak of an encoder whose input a question does not state: its longest input.
//!
//! The figures are assumed from shapes and not fitted to readings. Sources: transformers 5.24
//! `models/parakeet` (`ParakeetEncoderSubsamplingConv2D`, the encoder of Canary and Cohere's
//! speech recognition), `models/moonshine`, `models/speecht5`.

use super::encoder_input::EncoderInput;
use crate::bytes::Bytes;
use crate::model::architecture::Architecture;

/// Bytes of the encoder's widest step for its longest input.
///
/// A convolution over the spectrum or the samples is wider than any layer: its output, the
/// activation's and a copy. Attention with relative positions has scores for each pair.
pub(super) fn longest_input(architecture: &Architecture, sequences: u64, element: u64) -> Bytes {
    let Some(encoder) = architecture.encoder else {
        return Bytes::ZERO;
    };
    if EncoderInput::of(architecture) != EncoderInput::UpToLongest {
        return Bytes::ZERO;
    }

    let positions = encoder.max_tokens;
    let hidden = architecture.hidden_size;
    let (width, scores) = match &*architecture.model_type {
        // Four half-sized frames of 64 bins for each position, in 256 channels.
        "canary_decoder" | "cohere_asr" => (
            4 * 64 * 256 * 3,
            positions.saturating_mul(architecture.heads.saturating_mul(3)),
        ),
        // A position is 320 samples, of which the convolution keeps a fifth, in 512 channels.
        "speech-encoder-decoder" | "speecht5" => (64 * 512 * 3, 0),
        // A position is six outputs of the first convolution.
        "moonshine" => (hidden.saturating_mul(6 * 3), 0),
        _ => (hidden.saturating_mul(12), 0),
    };

    Bytes::product([sequences, positions, width.saturating_add(scores), element])
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::model::{Inventory, config};

    fn peak(config: &Value) -> u64 {
        let architecture = config::architecture(config, None, &Inventory::default()).unwrap();
        longest_input(&architecture, 1, 2).get()
    }

    #[test]
    fn convolutions_exceed_layers() {
        let decoder = json!({"hidden_size": 1024, "num_hidden_layers": 8, "vocab_size": 16384,
            "num_attention_heads": 8, "head_dim": 128, "intermediate_size": 4096});
        let canary = json!({"model_type": "canary", "decoder_config": decoder,
            "architectures": ["CanaryForConditionalGeneration"],
            "encoder_config": {"max_position_embeddings": 5000}});
        assert_eq!(peak(&canary), 5000 * (4 * 64 * 256 * 3 + 5000 * 8 * 3) * 2);

        let text = json!({"model_type": "bart", "architectures": ["BartForConditionalGeneration"]});
        assert_eq!(peak(&text), 0);
    }
}
