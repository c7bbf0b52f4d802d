//! Types of language models whose caches are known in transformers alone.

use crate::model::Architecture;

/// Types that vLLM 0.33 and SGLang 0.5.23 do not list, so that it is unknown what their generic
/// classes would cache.
///
/// Youtu may cache latents or whole heads. The others have states, loops, prefixes or images of
/// their own.
const UNLISTED: &[&str] = &[
    "youtu",
    "cpmant",
    "idefics",
    "inkling2_text",
    "inkling2_loop_text",
    "kosmos_2_5_text_model",
    "kyutai_speech_to_text",
    "lara_mini",
    "lfm3",
    "unlimited_ocr_text",
    "xlm",
];

/// Types that vLLM 0.33 alone lists.
const WITHOUT_SGLANG: &[&str] = &["dory", "voxtral_realtime_text"];

/// Types that SGLang 0.5.23 alone lists.
const WITHOUT_VLLM: &[&str] = &["zaya"];

/// Whether vLLM does not list the model's type.
pub(crate) fn is_unlisted_in_vllm(architecture: &Architecture) -> bool {
    let model_type = &*architecture.model_type;
    UNLISTED.contains(&model_type) || WITHOUT_VLLM.contains(&model_type)
}

/// Whether SGLang does not list the model's type.
///
/// SGLang lists Youtu (`models/deepseek_v2.py`).
pub(crate) fn is_unlisted_in_sglang(architecture: &Architecture) -> bool {
    let model_type = &*architecture.model_type;
    let is_unlisted = UNLISTED.contains(&model_type) && model_type != "youtu";
    is_unlisted || WITHOUT_SGLANG.contains(&model_type)
}
