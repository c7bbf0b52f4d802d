//! Multimodal wrappers and the language models that they nest.

/// Returns the `model_type` that a wrapper nests, for nested objects that state none.
pub(in super::super) fn inside_wrapper(root_type: &str) -> Option<&'static str> {
    let inner = match root_type {
        "gemma3" => "gemma3_text",
        "gemma3n" => "gemma3n_text",
        "gemma4" => "gemma4_text",
        "gemma4_unified" => "gemma4_unified_text",
        "shieldgemma2" => "gemma3_text",
        "llama4" => "llama4_text",
        "mllama" => "mllama_text_model",
        "llava" | "llava_next" | "llava_next_video" | "video_llava" | "vipllava" | "idefics3"
        | "smolvlm" | "deepseek_vl" | "deepseek_vl_hybrid" | "glmasr" | "janus"
        | "perception_lm" | "voxtral" => "llama",
        "llava_onevision" | "audioflamingo3" | "fast_vlm" | "got_ocr2" | "internvl"
        | "musicflamingo" | "ovis2" | "qwen2_audio" | "video_llama_3" | "vibevoice" => "qwen2",
        "fun_asr_nano" | "lighton_ocr" | "qianfan_ocr" | "qwen3_asr" => "qwen3",
        "idefics2" | "mistral3" | "pixtral" => "mistral",
        "aria" => "aria_text",
        "aya_vision" | "cohere2_vision" => "cohere2",
        "cohere_compass" => "cohere_compass_text",
        "cosmos3_edge" => "cosmos3_edge_text",
        "deepseek_ocr2" => "deepseek_ocr2_text",
        "emu3" => "emu3_text_model",
        "ernie4_5_vl_moe" => "ernie4_5_vl_moe_text",
        "exaone4_5" => "exaone4",
        "glm_ocr" => "glm_ocr_text",
        "granite_speech" | "granite_speech_plus" => "granite",
        "granite4_vision" => "granite4_vision_text",
        "granite_docling" => "granite_docling_text",
        "hunyuan_vl" => "hunyuan_vl_text",
        "hyperclovax_vision_v2" => "hyperclovax",
        "lfm2_vl" => "lfm2",
        "pix2struct" => "pix2struct_text_model",
        "voxtral_realtime" => "voxtral_realtime_text",
        "lfm3_vl" => "lfm3",
        "inkling_mm_model" => "inkling_text",
        "inkling2" => "inkling2_text",
        "inkling2_loop" => "inkling2_loop_text",
        "qwen4_exp" => "qwen4_exp_text",
        "minicpmv4_6" | "minicpmv4_7" | "minicpm_ocr" => "qwen3_5_text",
        "molmo2" => "molmo2_text",
        "muse_glimmer" => "muse_glimmer_text",
        "muse_spark" => "muse_spark_text",
        "nemotron_h_omni" => "nemotron_h",
        "paddleocr_vl" => "paddleocr_vl_text",
        "step3p7" => "step3p5",
        "paligemma" => "gemma",
        "qwen2_vl" => "qwen2_vl_text",
        "qwen2_5_vl" => "qwen2_5_vl_text",
        "qwen3_vl" => "qwen3_vl_text",
        "qwen3_vl_moe" => "qwen3_vl_moe_text",
        "qwen3_5" => "qwen3_5_text",
        "qwen3_5_moe" => "qwen3_5_moe_text",
        "glm4v" | "glm46v" | "glmga" => "glm4v_text",
        "glm4v_moe" => "glm4v_moe_text",
        "kimi_vl" | "kimi_k25" => "deepseek_v3",
        "deepseek_vl_v2" => "deepseek_v2",
        _ => return None,
    };

    Some(inner)
}
