//! Models with a known configuration and no header: their rows compare everything except weights.

use hf_mem_core::model::{Inventory, Model};
use serde_json::{Value, json};

use crate::hub::model;

/// A model from its published configuration alone; `None` for other repositories.
pub(crate) fn known(repo: &str) -> Option<Model> {
    Some(model(
        repo,
        &configuration(repo)?,
        None,
        Inventory::default(),
    ))
}

fn configuration(repo: &str) -> Option<Value> {
    Some(match repo {
        "moonshotai/Kimi-VL-A3B-Instruct" => json!({
            "architectures": ["KimiVLForConditionalGeneration"], "model_type": "kimi_vl", "torch_dtype": "bfloat16",
            "text_config": {"model_type": "deepseek_v3", "hidden_size": 2048, "intermediate_size": 11264,
                "num_hidden_layers": 27, "num_attention_heads": 16, "vocab_size": 163_840, "kv_lora_rank": 512,
                "q_lora_rank": null, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128,
                "n_routed_experts": 64, "num_experts_per_tok": 6, "n_shared_experts": 2, "moe_intermediate_size": 1408,
                "first_k_dense_replace": 1, "max_position_embeddings": 131_072},
            "vision_config": {"model_type": "moonvit", "hidden_size": 1152, "intermediate_size": 4304,
                "num_hidden_layers": 27, "num_attention_heads": 16, "patch_size": 14}
        }),
        "mistralai/Mistral-Small-4-119B-2603" => json!({
            "architectures": ["Mistral3ForConditionalGeneration"], "model_type": "mistral3", "torch_dtype": "bfloat16",
            "text_config": {"model_type": "mistral4"}
        }),
        "cyankiwi/Kimi-Linear-48B-A3B-Instruct-AWQ-4bit" => json!({
            "architectures": ["KimiLinearForCausalLM"], "model_type": "kimi_linear", "torch_dtype": "bfloat16",
            "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 27, "num_attention_heads": 32,
            "vocab_size": 163_840, "kv_lora_rank": 512, "q_lora_rank": null, "qk_rope_head_dim": 64,
            "qk_nope_head_dim": 128, "v_head_dim": 128, "num_experts": 256, "num_experts_per_token": 8,
            "num_shared_experts": 1, "moe_intermediate_size": 1024, "first_k_dense_replace": 1,
            "model_max_length": 1_048_576, "linear_attn_config": {"num_heads": 32, "head_dim": 128,
                "short_conv_kernel_size": 4, "full_attn_layers": [4, 8, 12, 16, 20, 24, 27], "kda_layers":
                [1, 2, 3, 5, 6, 7, 9, 10, 11, 13, 14, 15, 17, 18, 19, 21, 22, 23, 25, 26]}
        }),
        "BAAI/bge-m3" => json!({
            "architectures": ["XLMRobertaModel"], "model_type": "xlm-roberta", "hidden_size": 1024,
            "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16, "vocab_size": 250_002,
            "max_position_embeddings": 8194, "torch_dtype": "float32"
        }),
        "nvidia/Kimi-K2-Thinking-NVFP4" => json!({
            "architectures": ["DeepseekV3ForCausalLM"], "model_type": "kimi_k2", "torch_dtype": "bfloat16",
            "hidden_size": 7168, "intermediate_size": 18432, "num_hidden_layers": 61, "num_attention_heads": 64,
            "vocab_size": 163_840, "kv_lora_rank": 512, "q_lora_rank": 1536, "qk_rope_head_dim": 64,
            "qk_nope_head_dim": 128, "v_head_dim": 128, "n_routed_experts": 384, "num_experts_per_tok": 8,
            "n_shared_experts": 1, "moe_intermediate_size": 2048, "first_k_dense_replace": 1,
            "max_position_embeddings": 262_144,
            "quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4",
                "kv_cache_scheme": {"num_bits": 8, "type": "float", "dynamic": false}}
        }),
        "Qwen/Qwen3-0.6B-FP8" => json!({
            "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072,
            "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
            "vocab_size": 151_936, "max_position_embeddings": 40960, "torch_dtype": "bfloat16",
            "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}
        }),
        "Qwen/Qwen2.5-VL-72B-Instruct" => json!({
            "architectures": ["Qwen2_5_VLForConditionalGeneration"], "model_type": "qwen2_5_vl", "hidden_size": 8192,
            "intermediate_size": 29568, "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8,
            "vocab_size": 152_064, "max_position_embeddings": 128_000, "torch_dtype": "bfloat16",
            "vision_config": {"depth": 32, "hidden_size": 1280, "intermediate_size": 3456, "num_heads": 16}
        }),
        _ => return None,
    })
}
