//! Figures of vLLM's own planner, run without a GPU by `referees/vllm` for one H100 80 GB, 8192
//! tokens, and the API server's defaults.

use hf_mem_core::engines::{ComponentName, EngineError, PreparedEngine as _};
use hf_mem_core::model::Model;
use serde_json::{Value, json};

use super::{h100, hub, split, with_result, with_version};

const CONTEXT: u64 = 8192;

/// (release, repository, bytes needed for one sequence without the null block).
const CACHES: [(&str, &str, u64); 22] = [
    ("0.19.1", "google/gemma-3-27b-it", 4_705_484_800),
    (
        "0.19.1",
        "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16",
        103_022_592,
    ),
    ("0.19.1", "Qwen/Qwen3-Next-80B-A3B-Instruct", 254_017_536),
    (
        "0.22.1",
        "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16",
        103_022_592,
    ),
    ("0.22.1", "Qwen/Qwen3-Next-80B-A3B-Instruct", 254_017_536),
    (
        "0.26.0",
        "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16",
        103_022_592,
    ),
    ("0.26.0", "Qwen/Qwen3-Next-80B-A3B-Instruct", 254_017_536),
    (
        "0.32.0",
        "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16",
        206_045_184,
    ),
    ("0.32.0", "Qwen/Qwen3-Next-80B-A3B-Instruct", 294_125_568),
    (
        "0.33.0",
        "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16",
        206_045_184,
    ),
    ("0.33.0", "Qwen/Qwen3-Next-80B-A3B-Instruct", 339_738_624),
    ("0.33.0", "Qwen/Qwen3.5-27B", 1_035_993_088),
    ("0.33.0", "Qwen/Qwen3.5-35B-A3B", 378_798_080),
    ("0.33.0", "Qwen/Qwen3.5-122B-A10B", 674_758_656),
    ("0.33.0", "google/gemma-2-2b-it", 873_267_200),
    ("0.33.0", "google/gemma-3-27b-it", 4_705_484_800),
    ("0.33.0", "google/gemma-4-26B-A4B", 1_848_770_560),
    ("0.33.0", "nvidia/Gemma-4-31B-IT-NVFP4", 3_717_201_920),
    (
        "0.33.0",
        "meta-llama/Llama-4-Scout-17B-16E-Instruct",
        1_610_612_736,
    ),
    ("0.33.0", "deepseek-ai/DeepSeek-V3", 575_668_224),
    ("0.33.0", "openai/gpt-oss-120b", 604_569_600),
    ("0.33.0", "Qwen/Qwen3-8B", 1_207_959_552),
];

/// The tokens of a question: falcon-40b is configured for 2048.
fn context_of(model: &Model) -> u64 {
    let longest = model.architecture.as_ref().unwrap().max_context;
    longest.map_or(CONTEXT, |longest| longest.min(CONTEXT))
}

/// (release, repository, bytes of parameters and buffers).
const WEIGHTS: [(&str, &str, u64); 8] = [
    ("0.26.0", "tencent/Hunyuan-7B-Instruct", 15_076_434_432),
    ("0.33.0", "tencent/Hunyuan-7B-Instruct", 15_009_342_464),
    ("0.33.0", "Qwen/Qwen3-VL-2B-Instruct", 4_322_697_664),
    ("0.33.0", "Qwen/Qwen3-VL-4B-Instruct", 8_943_265_344),
    ("0.33.0", "Qwen/Qwen3.5-27B", 54_747_606_240),
    ("0.33.0", "tiiuae/falcon-40b", 82_606_851_008),
    ("0.33.0", "deepseek-ai/DeepSeek-V2-Lite", 31_433_940_400),
    ("0.33.0", "Qwen/Qwen3-8B", 16_391_957_056),
];

#[test]
fn caches_equal_the_planner() {
    for (version, repo, expected) in CACHES {
        let Some(model) = hub(repo) else { return };
        let split = split(&model, 1);

        let needed = with_version(Some(version), &model, context_of(&model), &[], |prepared| {
            prepared.needed_for_one(&split, 0)
        });
        assert_eq!(needed.likely.get(), expected, "{repo} at {version}");
        assert_eq!(needed.low, needed.high, "{repo} at {version}");
    }
}

#[test]
fn weights_hold_the_planner() {
    for (version, repo, expected) in WEIGHTS {
        let Some(model) = hub(repo) else { return };
        let split = split(&model, 1);

        let weights = with_version(Some(version), &model, context_of(&model), &[], |prepared| {
            let parts = prepared.fixed(&split, 0, &h100()).unwrap();
            let weights = parts
                .iter()
                .find(|part| part.name == ComponentName::Weights);
            weights.unwrap().bytes
        });
        assert!(
            (weights.low.get()..=weights.high.get()).contains(&expected),
            "{repo} at {version}: {weights:?}, the planner {expected}"
        );
    }
}

/// Before 0.32, a state at every block of a prompt would be kept.
#[test]
fn states_of_every_block_are_refused() {
    let Some(model) = hub("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16") else {
        return;
    };

    let is_refused = |version: &str, parameters: &[(&str, Value)]| {
        with_result(Some(version), &model, CONTEXT, parameters, |prepared| {
            matches!(prepared, Err(EngineError::UnsupportedParameter { .. }))
        })
    };
    let caching = ("enable_prefix_caching", json!(true));
    let all = ("mamba_cache_mode", json!("all"));
    let align = ("mamba_cache_mode", json!("align"));

    assert!(is_refused("0.26.0", std::slice::from_ref(&caching)));
    assert!(is_refused("0.30.0", std::slice::from_ref(&all)));
    assert!(!is_refused("0.26.0", &[caching, align]));
    assert!(
        !is_refused("0.26.0", std::slice::from_ref(&all)),
        "caching is off"
    );
    assert!(!is_refused("0.33.0", &[all]), "the mode is align");
}

#[test]
fn falcon_ignores_the_cache_dtype() {
    let Some(model) = hub("tiiuae/falcon-40b") else {
        return;
    };

    let split = split(&model, 1);
    let fp8 = [("kv_cache_dtype", json!("fp8"))];
    let needed = with_version(Some("0.33.0"), &model, 2048, &fp8, |prepared| {
        prepared.needed_for_one(&split, 0).likely.get()
    });
    assert_eq!(needed, 251_658_240);
}
