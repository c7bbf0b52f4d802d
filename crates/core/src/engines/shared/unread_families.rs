//! Families that transformers runs, and whose caches another engine lays out by rules that are not
//! counted, or does not run at all.

/// Families with an indexer that vLLM has no class for: it does not page what transformers' class
/// keeps next to keys and values.
const WITHOUT_CLASS: &[&str] = &["axk2", "hy_v4_vl_text", "mistral_large4_text"];

/// Families of transformers whose class vLLM and SGLang can neither replace nor wrap
/// (`_supports_attention_backend`), or that were never run so.
const TRANSFORMERS_ALONE: &[&str] = &[
    "bert-generation",
    "big_bird",
    "data2vec-text",
    "ernie",
    "evolla",
    "git",
    "gpt_neox_japanese",
    "megatron-bert",
    "roberta-prelayernorm",
    "roc_bert",
    "xmod",
];

/// Families that vLLM wraps, and for which nothing confirms that SGLang does.
const VLLM_ALONE: &[&str] = &["ctrl", "doge", "modernbert-decoder"];

/// Families with a cache for each indexer, of pools or of latents of several widths.
const INDEXED: &[&str] = &[
    "dots3_note",
    "dots3_note_text",
    "glm5_next",
    "glm5_next_text",
    "hy_v4",
    "minimax_m3",
    "minimax_m3_text",
    "minimax_m3_vl",
    "minimax_m3_vl_text",
    "qwen4_exp",
    "qwen4_exp_text",
];

/// Returns why the caches of `model_type` are unknown in vLLM; `None` if they are known.
pub(crate) fn unread_by_vllm(model_type: &str) -> Option<&'static str> {
    if WITHOUT_CLASS.contains(&model_type) {
        return Some("it has no class of its own, and the size of the indexer's cache is unknown");
    }

    match model_type {
        // `models/glm5next/common/attention.py`, `Glm5NextTailCache`.
        "glm5_next" | "glm5_next_text" => {
            Some("the size of the ring that its indexer keeps for each sequence is unknown")
        }
        // `models/dots3_note/nvidia/model.py`: `Dots3NotePaddedMLAAttention`.
        "dots3_note" | "dots3_note_text" => {
            Some("the size of its latents, padded to those of its windows, is unknown")
        }
        _ if TRANSFORMERS_ALONE.contains(&model_type) => Some("only transformers runs it"),
        _ => None,
    }
}

/// Returns why the caches of `model_type` are unknown in SGLang; `None` if they are known.
pub(crate) fn unread_by_sglang(model_type: &str) -> Option<&'static str> {
    if WITHOUT_CLASS.contains(&model_type) || INDEXED.contains(&model_type) {
        Some("the size of its indexer's pool is unknown")
    } else if TRANSFORMERS_ALONE.contains(&model_type) {
        Some("only transformers runs it")
    } else if VLLM_ALONE.contains(&model_type) {
        Some("nothing confirms that SGLang runs transformers' class")
    } else {
        None
    }
}
