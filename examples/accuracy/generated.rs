//! Models of measured rows that the folder lacks.
//!
//! Their configurations are as published, their tensors generated from their family's layout.

use hf_mem_core::model::Model;
use hf_mem_core::model::tensors::InventoryBuilder;
use serde_json::{Value, json};

use crate::hub::{add, model};

/// A described model; `None` for other repositories.
pub(crate) fn described(repo: &str) -> Option<Model> {
    let config = configuration(repo)?;
    let mut builder = InventoryBuilder::default();
    tensors(&mut builder, &config);
    Some(model(repo, &config, None, builder.finish()))
}

fn configuration(repo: &str) -> Option<Value> {
    Some(match repo {
        "mistralai/Mixtral-8x7B-Instruct-v0.1" => json!({
            "architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "hidden_size": 4096, "intermediate_size": 14336,
            "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32000,
            "num_local_experts": 8, "num_experts_per_tok": 2, "max_position_embeddings": 32768, "sliding_window": null,
            "tie_word_embeddings": false, "torch_dtype": "bfloat16", "rope_theta": 1e6
        }),
        "ibm-granite/granite-3.1-2b-instruct" => json!({
            "architectures": ["GraniteForCausalLM"], "model_type": "granite", "hidden_size": 2048, "intermediate_size": 8192,
            "num_hidden_layers": 40, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 49155,
            "max_position_embeddings": 131_072, "tie_word_embeddings": true, "torch_dtype": "bfloat16"
        }),
        "ibm-granite/granite-3.1-8b-instruct" => json!({
            "architectures": ["GraniteForCausalLM"], "model_type": "granite", "hidden_size": 4096, "intermediate_size": 12800,
            "num_hidden_layers": 40, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 49155,
            "max_position_embeddings": 131_072, "tie_word_embeddings": true, "torch_dtype": "bfloat16"
        }),
        "mistralai/Mistral-Nemo-Instruct-2407" => json!({
            "architectures": ["MistralForCausalLM"], "model_type": "mistral", "hidden_size": 5120, "intermediate_size": 14336,
            "num_hidden_layers": 40, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 131_072,
            "max_position_embeddings": 1_024_000, "sliding_window": null, "tie_word_embeddings": false, "torch_dtype": "bfloat16"
        }),
        "mistralai/Mistral-Large-Instruct-2407" => json!({
            "architectures": ["MistralForCausalLM"], "model_type": "mistral", "hidden_size": 12288, "intermediate_size": 28672,
            "num_hidden_layers": 88, "num_attention_heads": 96, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 32768,
            "max_position_embeddings": 131_072, "sliding_window": null, "tie_word_embeddings": false, "torch_dtype": "bfloat16"
        }),
        "meta-llama/Llama-2-70b-chat-hf" => json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8192, "intermediate_size": 28672,
            "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 32000,
            "max_position_embeddings": 4096, "tie_word_embeddings": false, "torch_dtype": "float16"
        }),
        "microsoft/phi-2" => json!({
            "architectures": ["PhiForCausalLM"], "model_type": "phi", "hidden_size": 2560, "intermediate_size": 10240,
            "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 51200,
            "max_position_embeddings": 2048, "partial_rotary_factor": 0.4, "tie_word_embeddings": false, "torch_dtype": "float16"
        }),
        "vonjack/Phi-3-mini-4k-instruct-LLaMAfied" => json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 3072, "intermediate_size": 8192,
            "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32064,
            "max_position_embeddings": 4096, "tie_word_embeddings": false, "torch_dtype": "bfloat16"
        }),
        "Qwen/Qwen1.5-MoE-A2.7B" => json!({
            "architectures": ["Qwen2MoeForCausalLM"], "model_type": "qwen2_moe", "hidden_size": 2048, "intermediate_size": 5632,
            "num_hidden_layers": 24, "num_attention_heads": 16, "num_key_value_heads": 16, "vocab_size": 151_936,
            "num_experts": 60, "num_experts_per_tok": 4, "moe_intermediate_size": 1408, "shared_expert_intermediate_size": 5632,
            "max_position_embeddings": 8192, "use_sliding_window": false, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
            "decoder_sparse_step": 1
        }),
        "Qwen/Qwen3-235B-A22B-FP8" => json!({
            "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_size": 4096, "intermediate_size": 12288,
            "num_hidden_layers": 94, "num_attention_heads": 64, "num_key_value_heads": 4, "head_dim": 128, "vocab_size": 151_936,
            "num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 1536, "max_position_embeddings": 40960,
            "tie_word_embeddings": false, "torch_dtype": "bfloat16", "decoder_sparse_step": 1
        }),
        "google/gemma-3-4b-it" => json!({
            "architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "torch_dtype": "bfloat16",
            "text_config": { "model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34,
                "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "vocab_size": 262_208, "sliding_window": 1024,
                "rope_scaling": { "factor": 8.0, "rope_type": "linear" }, "max_position_embeddings": 131_072 },
            "vision_config": { "model_type": "siglip_vision_model", "hidden_size": 1152, "intermediate_size": 4304,
                "num_hidden_layers": 27, "num_attention_heads": 16, "image_size": 896, "patch_size": 14 },
            "mm_tokens_per_image": 256
        }),
        _ => return None,
    })
}

/// The layout of the Llama family and its kin, experts included.
fn tensors(builder: &mut InventoryBuilder, config: &Value) {
    let text = config.get("text_config").unwrap_or(config);
    let number_of = |key: &str| text.get(key).and_then(Value::as_u64).unwrap_or(0);

    let kind = text
        .get("model_type")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let (h, v) = (number_of("hidden_size"), number_of("vocab_size"));

    let (heads, kv) = (
        number_of("num_attention_heads"),
        number_of("num_key_value_heads"),
    );
    let d = if number_of("head_dim") > 0 {
        number_of("head_dim")
    } else {
        h / heads.max(1)
    };

    let prefix = if config.get("text_config").is_some() {
        "language_model."
    } else {
        ""
    };

    let mut add_named = |name: String, shape: &[u64]| add(builder, &name, "BF16", shape);
    add_named(format!("{prefix}model.embed_tokens.weight"), &[v, h]);
    add_named(format!("{prefix}model.norm.weight"), &[h]);

    if text.get("tie_word_embeddings").and_then(Value::as_bool) == Some(false) {
        add_named("lm_head.weight".to_owned(), &[v, h]);
    }

    for layer in 0..number_of("num_hidden_layers") {
        let mut add_to_layer = |name: &str, shape: &[u64]| {
            add_named(format!("{prefix}model.layers.{layer}.{name}"), shape);
        };
        add_to_layer("input_layernorm.weight", &[h]);
        add_to_layer("post_attention_layernorm.weight", &[h]);
        add_to_layer("self_attn.q_proj.weight", &[heads * d, h]);
        add_to_layer("self_attn.k_proj.weight", &[kv * d, h]);
        add_to_layer("self_attn.v_proj.weight", &[kv * d, h]);
        add_to_layer("self_attn.o_proj.weight", &[h, heads * d]);

        feed_forward(&mut add_to_layer, text, kind);

        if kind == "gemma3_text" {
            add_to_layer("pre_feedforward_layernorm.weight", &[h]);
            add_to_layer("post_feedforward_layernorm.weight", &[h]);
            add_to_layer("self_attn.q_norm.weight", &[d]);
            add_to_layer("self_attn.k_norm.weight", &[d]);
        }
    }

    if kind == "gemma3_text" {
        siglip(&mut add_named, h);
    }
}

/// The feed-forward of one layer, by model type.
fn feed_forward(add_to_layer: &mut impl FnMut(&str, &[u64]), text: &Value, kind: &str) {
    let number_of = |key: &str| text.get(key).and_then(Value::as_u64).unwrap_or(0);
    let (h, i) = (number_of("hidden_size"), number_of("intermediate_size"));

    match kind {
        "mixtral" => {
            add_to_layer("block_sparse_moe.gate.weight", &[8, h]);
            for expert in 0..8 {
                add_to_layer(
                    &format!("block_sparse_moe.experts.{expert}.w1.weight"),
                    &[i, h],
                );
                add_to_layer(
                    &format!("block_sparse_moe.experts.{expert}.w2.weight"),
                    &[h, i],
                );
                add_to_layer(
                    &format!("block_sparse_moe.experts.{expert}.w3.weight"),
                    &[i, h],
                );
            }
        }
        "qwen2_moe" | "qwen3_moe" => {
            let (experts, width, shared) = (
                number_of("num_experts"),
                number_of("moe_intermediate_size"),
                number_of("shared_expert_intermediate_size"),
            );
            add_to_layer("mlp.gate.weight", &[experts, h]);

            for expert in 0..experts {
                add_to_layer(
                    &format!("mlp.experts.{expert}.gate_proj.weight"),
                    &[width, h],
                );
                add_to_layer(&format!("mlp.experts.{expert}.up_proj.weight"), &[width, h]);

                add_to_layer(
                    &format!("mlp.experts.{expert}.down_proj.weight"),
                    &[h, width],
                );
            }

            if shared > 0 {
                for part in ["q", "k", "v"] {
                    add_to_layer(&format!("self_attn.{part}_proj.bias"), &[h]);
                }
                add_to_layer("mlp.shared_expert_gate.weight", &[1, h]);
                add_to_layer("mlp.shared_expert.gate_proj.weight", &[shared, h]);
                add_to_layer("mlp.shared_expert.up_proj.weight", &[shared, h]);
                add_to_layer("mlp.shared_expert.down_proj.weight", &[h, shared]);
            }
        }
        "phi" => {
            add_to_layer("mlp.fc1.weight", &[i, h]);
            add_to_layer("mlp.fc1.bias", &[i]);
            add_to_layer("mlp.fc2.weight", &[h, i]);
            add_to_layer("mlp.fc2.bias", &[h]);
            for part in ["q_proj", "k_proj", "v_proj", "o_proj"] {
                add_to_layer(&format!("self_attn.{part}.bias"), &[h]);
            }
        }
        _ => {
            add_to_layer("mlp.gate_proj.weight", &[i, h]);
            add_to_layer("mlp.up_proj.weight", &[i, h]);
            add_to_layer("mlp.down_proj.weight", &[h, i]);
        }
    }
}

/// The tower of Gemma 3: SigLIP So400m at 896 pixels.
fn siglip(put: &mut impl FnMut(String, &[u64]), text_width: u64) {
    let (h, i) = (1152, 4304);
    let tower = "vision_tower.vision_model";

    put(
        "multi_modal_projector.mm_input_projection_weight".to_owned(),
        &[h, text_width],
    );
    put(
        format!("{tower}.embeddings.patch_embedding.weight"),
        &[h, 3, 14, 14],
    );

    put(
        format!("{tower}.embeddings.position_embedding.weight"),
        &[4096, h],
    );

    for layer in 0..27 {
        let mut add_linear = |name: &str, shape: &[u64]| {
            put(
                format!("{tower}.encoder.layers.{layer}.{name}.weight"),
                shape,
            );
            put(
                format!("{tower}.encoder.layers.{layer}.{name}.bias"),
                &shape[..1],
            );
        };

        add_linear("layer_norm1", &[h]);
        add_linear("layer_norm2", &[h]);
        add_linear("mlp.fc1", &[i, h]);
        add_linear("mlp.fc2", &[h, i]);

        for part in ["q_proj", "k_proj", "v_proj", "out_proj"] {
            add_linear(&format!("self_attn.{part}"), &[h, h]);
        }
    }
}
