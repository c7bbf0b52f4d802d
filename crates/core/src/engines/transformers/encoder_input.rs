//! The length of the encoder's input, which a question does not state.
//!
//! Source: transformers 5.24, the encoders and processors of each model.

use crate::model::architecture::Architecture;

/// Encoders that read as many tokens as the prompt has.
///
/// Their positions are relative, so `n_positions` limits nothing (transformers `T5Attention`).
const UNBOUNDED: &[&str] = &[
    "t5",
    "mt5",
    "umt5",
    "longt5",
    "switch_transformers",
    "udop",
    "pop2piano",
];

/// Encoders that pad every recording to the longest one.
const PADDED: &[&str] = &["whisper"];

/// Encoders of speech, images or another text than the decoder's, of any length.
const OTHER_INPUT: &[&str] = &[
    "blip_text_model",
    "canary_decoder",
    "cohere_asr",
    "dia_decoder",
    "moonshine",
    "moonshine_streaming",
    "pix2struct_text_model",
    "speech-encoder-decoder",
    "speech_to_text",
    "vision-encoder-decoder",
];

/// How many tokens an encoder passes to cross-attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EncoderInput {
    /// None: the class is the decoder alone.
    Nothing,
    /// As many as the prompt has.
    Prompt,
    /// As many as the prompt has, and no more than the table of positions.
    PromptWithinPositions,
    /// Always the longest input.
    Padded,
    /// Any number up to the longest input.
    UpToLongest,
}

impl EncoderInput {
    /// The input of a model's encoder.
    pub(super) fn of(architecture: &Architecture) -> Self {
        let model_type = &*architecture.model_type;
        let class = &*architecture.class;
        if UNBOUNDED.contains(&model_type) {
            return Self::Prompt;
        }

        // The class of the decoder alone has cross-attention, but no encoder to attend to.
        if class.ends_with("ForCausalLM") {
            return Self::Nothing;
        }

        if PADDED.contains(&model_type) {
            return Self::Padded;
        }

        // SpeechT5 and SeamlessM4T have a class for each direction.
        let reads_speech = class.contains("SpeechTo");
        let reads_media = architecture.audio || architecture.vision.is_some();
        if OTHER_INPUT.contains(&model_type) || reads_speech || reads_media {
            Self::UpToLongest
        } else {
            Self::PromptWithinPositions
        }
    }

    /// The most tokens of an encoder whose longest input has `longest`, for a prompt of `tokens`.
    pub(super) fn most_tokens(self, longest: u64, tokens: u64) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::Prompt => tokens,
            Self::PromptWithinPositions => longest.min(tokens),
            Self::Padded | Self::UpToLongest => longest,
        }
    }
}
