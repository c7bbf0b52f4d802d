//! Looped layers and Inkling's convolutions, against the planner of vLLM 0.33.0 on an H100.

use serde_json::{Value, json};

use super::*;
use crate::device::DeviceFacts;
use crate::engines::{AskedContext, AskedWorkload, Split, sample};
use crate::model::Inventory;

/// The planner's figures for one configuration.
struct LoopedPlan {
    config: Value,
    context: u64,
    bytes_per_block: u64,
    groups: u64,
    needed_bytes: u64,
}

fn hrm_text() -> LoopedPlan {
    LoopedPlan {
        config: json!({"model_type": "hrm_text", "architectures": ["HrmTextForCausalLM"],
            "vocab_size": 512, "hidden_size": 1536, "intermediate_size": 4096,
            "num_attention_heads": 12, "head_dim": 128, "num_hidden_layers": 72,
            "num_layers_per_stack": 9, "H_cycles": 2, "L_cycles": 3,
            "max_position_embeddings": 2048, "torch_dtype": "bfloat16"}),
        context: 2048,
        bytes_per_block: 7_077_888,
        groups: 1,
        needed_bytes: 905_969_664,
    }
}

/// Dory in blocks, of which 20 layers run twice.
fn dory(mode: &str, bytes_per_block: u64, needed_bytes: u64) -> LoopedPlan {
    let period = [
        "sliding_attention",
        "mlp",
        "sliding_attention",
        "mlp",
        "sliding_attention",
        "mlp",
        "full_attention",
        "mlp",
    ];
    let words: Vec<&str> = period.into_iter().cycle().take(72).collect();

    LoopedPlan {
        config: json!({"model_type": "dory", "architectures": ["DoryForCausalLM"],
            "vocab_size": 512, "hidden_size": 256, "intermediate_size": 512,
            "num_attention_heads": 16, "num_key_value_heads": 4, "head_dim": 256,
            "sliding_window": 1024, "num_hidden_layers": 72, "n_input_layers": 16,
            "n_recurrent_layers": 40, "n_output_layers": 16, "n_recurrent_loops": 2,
            "layer_types": words, "max_position_embeddings": 8192,
            "recurrent_kv_cache_mode": mode, "torch_dtype": "bfloat16"}),
        context: 8192,
        bytes_per_block,
        groups: 4,
        needed_bytes,
    }
}

/// Inkling, of which all but each sixth layer slides.
///
/// `sizes` are the layers, the hidden size, the query heads, and the KV heads of sliding layers.
/// The other layers have 8 KV heads.
fn inkling(sizes: [u64; 4], bytes_per_block: u64, needed_bytes: u64) -> LoopedPlan {
    let [layers, hidden_size, heads, kv_heads] = sizes;
    let local: Vec<u64> = (0..layers).filter(|layer| (layer + 1) % 6 != 0).collect();
    LoopedPlan {
        config: json!({"model_type": "inkling_mm_model",
            "architectures": ["InklingForConditionalGeneration"], "torch_dtype": "bfloat16",
            "text_config": {"model_type": "inkling_text", "vocab_size": 1024,
            "hidden_size": hidden_size, "intermediate_size": 512, "moe_intermediate_size": 256,
            "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": 8,
            "head_dim": 128, "swa_num_attention_heads": heads,
            "swa_num_key_value_heads": kv_heads, "swa_head_dim": 128, "sliding_window_size": 512,
            "conv_kernel_size": 4, "n_routed_experts": 8, "num_experts_per_tok": 2,
            "n_shared_experts": 1, "max_position_embeddings": 8192, "local_layer_ids": local}}),
        context: 8192,
        bytes_per_block,
        groups: 12,
        needed_bytes,
    }
}

#[test]
fn pages_equal_planner() {
    for planned in [
        hrm_text(),
        dory("per_loop", 917_504, 1_881_800_704),
        dory("last_loop", 589_824, 1_209_729_024),
        inkling([18, 2048, 16, 8], 196_608, 3_022_061_568),
        inkling([12, 3072, 32, 16], 262_144, 3_693_871_104),
        inkling([12, 6144, 64, 16], 262_144, 3_962_306_560),
    ] {
        let model = sample::model(&planned.config, Inventory::default());
        let layers = model.architecture.as_ref().unwrap().layer_count();
        let device = DeviceFacts {
            compute_capability: Some((9, 0)),
            ..sample::device()
        };
        let parameters = BTreeMap::from([("max_num_batched_tokens".to_owned(), json!(8192))]);

        let engine = Vllm::with_profiles(Vllm::profiles().unwrap());
        let prepared = engine
            .prepare(&EngineRequest {
                model: &model,
                version: None,
                parameters: &parameters,
                asked: AskedWorkload {
                    context: Some(AskedContext::Tokens(planned.context)),
                    ..AskedWorkload::default()
                },
                devices: std::slice::from_ref(&device),
            })
            .unwrap();

        let pages = prepared.pages(&Split::single(layers));
        let block = pages.bytes_per_block(prepared.cache_layers(), &(0..layers));
        let blocks = pages.blocks(prepared.cache_layers(), planned.context);
        assert_eq!(
            (block.get(), pages.groups(), (block * blocks.total()).get()),
            (
                planned.bytes_per_block,
                planned.groups,
                planned.needed_bytes
            ),
            "{}",
            planned.config
        );
    }
}
