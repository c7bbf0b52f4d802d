//! Rows that need an exception: faulty figures, missing releases, models under other names.

use serde_json::{Value, json};

/// Rows whose own figures are wrong: (part of their id or model, reason).
pub(super) const FAULTS: &[(&str, &str)] = &[
    (
        "zephyr-7b-alpha.Q8_0.gguf",
        "GGUF weights materialize after the line is printed",
    ),
    (
        "composed granite 4.2-3b",
        "loads 1.87 times its bytes on disk, unexplained in its source",
    ),
];

/// Rows without a release: (model, release, evidence).
pub(super) const RELEASES: &[(&str, &str, &str)] = &[
    (
        "meta-llama/Llama-3.1-8B-Instruct",
        "0.6",
        "whole-length prefill in the profile by its notes: before 0.8",
    ),
    (
        "meta-llama/Meta-Llama-3-8B",
        "0.6",
        "a development build of December 2024 by its source",
    ),
    (
        "openai/gpt-oss-120b",
        "0.13",
        "4.54 GiB needed at 1024 tokens a step: synchronous scheduling, before 0.14",
    ),
];

/// Misleading figures of rows: (part of the model, figure, reason).
pub(super) const MISLEADING: &[(&str, &str, &str)] = &[
    (
        "meta-llama/Meta-Llama-3-8B ",
        "non-torch",
        "that build counted the CUDA context",
    ),
    (
        "Qwen3-Coder-30B",
        "needed",
        "24 GiB is quoted for all 48 layers, each stage holds a part",
    ),
    (
        "Qwen3-235B-A22B-FP8",
        "capacity",
        "SGLang's row of these GPUs gives our 48,128 bytes a token: bytes of one rank, \
         blocks of the fullest",
    ),
    (
        "cyankiwi/Kimi-Linear",
        "capacity",
        "no release is named: the rule before 0.21 gives the logged tokens within 0.5 %, \
         today's 3.8 times as many",
    ),
    (
        "qwen3.6-27b-autoround",
        "capacity",
        "equals ours with prefix caching, which hybrids had to opt in to at that release; the row \
         states no flag",
    ),
    (
        "minimax-m2.7",
        "capacity",
        "bytes of one of two hosts with unified memory, blocks of the fuller one",
    ),
    (
        "Maverick",
        "weights",
        "ROCm pads expert weights by 128 columns; AMD is not covered",
    ),
    (
        "lukealonso/GLM-5.1",
        "weights",
        "another checkpoint of the same architecture is used",
    ),
    (
        "minimax-m2.7",
        "weights",
        "another checkpoint of the same architecture is used",
    ),
    (
        "Qwen3.6-27B",
        "weights",
        "another checkpoint of the same architecture is used",
    ),
];

/// Why a row's figure is misleading.
pub(super) fn misleading(label: &str, figure: &str) -> Option<&'static str> {
    MISLEADING
        .iter()
        .find(|(part, name, _)| label.contains(part) && *name == figure)
        .map(|(_, _, why)| *why)
}

/// The folder's name of a model that a row names otherwise, and changes to config.json.
pub(super) fn stand_in(name: &str) -> Option<(&'static str, Value)> {
    Some(match name {
        "meta-llama/Meta-Llama-3-8B-Instruct"
        | "meta-llama/Meta-Llama-3-8B"
        | "neuralmagic/Meta-Llama-3-8B-Instruct-FP8" => (
            "meta-llama/Llama-3.1-8B-Instruct",
            json!({"max_position_embeddings": 8192, "rope_scaling": null}),
        ),
        "deepseek-ai/DeepSeek-V2-Lite-Chat" => ("deepseek-ai/DeepSeek-V2-Lite", json!({})),
        "deepseek-ai/DeepSeek-V3-0324" => ("deepseek-ai/DeepSeek-V3", json!({})),
        "google/gemma-2-9b-it" => ("google/gemma-2-9b", json!({})),
        "meta-llama/Llama-2-7b-chat-hf" | "Llama-2-7B" => ("meta-llama/Llama-2-7b-hf", json!({})),
        "Qwen/Qwen2.5-7B" => ("Qwen/Qwen2.5-7B-Instruct", json!({})),
        "Qwen/Qwen3.6-35B-A3B" => ("Qwen/Qwen3.5-35B-A3B", json!({})),
        "mistralai/Mistral-7B-Instruct-v0.1"
        | "meetkai/functionary-small-v2.4"
        | "castorini/rank_zephyr_7b_v1_full" => ("mistralai/Mistral-7B-Instruct-v0.2", json!({})),
        "lukealonso/GLM-5.1-NVFP4-MTP" => ("nvidia/GLM-5-NVFP4", json!({})),
        "Qwen/Qwen3-Coder-30B-A3B-Instruct-FP8" => (
            "Qwen/Qwen3-30B-A3B-FP8",
            json!({"max_position_embeddings": 262_144}),
        ),
        "glm4-chat (GLM-4-9B-Chat)" => ("zai-org/glm-4-9b", json!({"seq_length": 131_072})),
        "minimax-m2.7-awq" => ("MiniMaxAI/MiniMax-M2.5", json!({})),
        "Qwen3.6-27B-AutoRound"
        | "Qwen/Qwen3.6-27B-FP8"
        | "qwen3.6-27b-autoround (Qwen3.6-27B AutoRound INT4)" => ("Qwen/Qwen3.5-27B", json!({})),
        "DeepSeek-V4-Flash" => ("deepseek-ai/DeepSeek-V4-Flash", json!({})),
        "redhatai/Llama-3.3-70B-Instruct-quantized.w8a8" => {
            ("meta-llama/Llama-3.1-70B-Instruct", json!({}))
        }
        "RedHatAI/Meta-Llama-3.1-8B-Instruct-quantized.w8a8" => {
            ("meta-llama/Llama-3.1-8B-Instruct", json!({}))
        }
        _ => return None,
    })
}
