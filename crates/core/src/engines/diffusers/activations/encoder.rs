//! Encoders of the prompt, and other small parts.
//!
//! A pipeline encodes one prompt and repeats the result for its images. Sources: transformers
//! 5.20.2 `models/{clip,t5,qwen2_5_vl}/modeling_*.py`; diffusers 0.42.1
//! `pipelines/*/pipeline_*.py` (`encode_prompt`).

use super::super::family::ModuleFamily;
use super::super::pipeline::{Pipeline, PipelinePart};
use crate::bytes::Bytes;
use crate::engines::Interval;

/// Tokens that a CLIP encoder pads to.
const CLIP_TOKENS: u64 = 77;

/// Tokens that Qwen-Image's encoder takes at most: a template and the prompt.
const QWEN_IMAGE_TOKENS: u64 = 34 + 1024;

/// The peak of encoding one prompt.
pub(super) fn peak(part: &PipelinePart, pipeline: &Pipeline, element: u64) -> Interval {
    let stated = part.nested_number("hidden_size").or(part.number("d_model"));
    let hidden = stated.unwrap_or(4096);
    let wide = part
        .nested_number("intermediate_size")
        .or(part.number("d_ff"))
        .unwrap_or(hidden.saturating_mul(4));
    let heads = part
        .nested_number("num_attention_heads")
        .or(part.number("num_heads"))
        .unwrap_or(64);
    let layers = part.nested_number("num_hidden_layers").unwrap_or(48);
    let caches = part.nested_number("num_key_value_heads");

    let tokens = if part.class.starts_with("CLIP") {
        CLIP_TOKENS
    } else if pipeline.family == ModuleFamily::QwenImage {
        QWEN_IMAGE_TOKENS
    } else {
        pipeline.text_tokens
    };

    let of_tokens = |width: u64| Bytes::product([tokens, width, element]);
    let scores = Bytes::product([tokens, tokens, heads, element]);

    let likely = if part.class.contains("T5") {
        // Position biases of all heads live through the pass, here with their copy for the mask.
        (of_tokens(hidden) * 7 + scores * 2)
            .max(of_tokens(hidden) * 4 + of_tokens(wide) * 3 + scores)
    } else {
        // The outputs of all layers are kept, and keys and values where the model has a cache.
        let kept = of_tokens(hidden) * layers.saturating_add(1);
        let head = part
            .nested_number("head_dim")
            .unwrap_or(hidden / heads.max(1));
        let cache = of_tokens(head) * caches.unwrap_or(0) * 2 * layers;
        let layer = of_tokens(hidden) * 3 + of_tokens(wide) * 3;
        let logits = of_tokens(vocabulary(part));
        kept + cache + layer.max(logits)
    };

    // Releases of transformers with eager attention keep scores, also in 32 bits.
    let eager = scores + Bytes::product([tokens, tokens, heads, 4]);
    let low = match stated {
        Some(_) => likely.scale(1, 2),
        // The configuration's own sizes are not known.
        None => Bytes::ZERO,
    };
    Interval::new(low, likely, likely.scale(3, 2) + eager)
}

/// The width of the logits; 0 for a model without a head.
fn vocabulary(part: &PipelinePart) -> u64 {
    let has_head = ["ForConditionalGeneration", "ForCausalLM"]
        .iter()
        .any(|suffix| part.class.ends_with(suffix));

    if has_head {
        part.nested_number("vocab_size").unwrap_or(256_000)
    } else {
        0
    }
}
