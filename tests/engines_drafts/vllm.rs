//! Drafts under vLLM 0.33.0.

use std::collections::BTreeMap;
use std::sync::Arc;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::engines::{
    Component, ComponentName, LaunchDevice, LaunchPlan, Split, by_name, companions,
};
use hf_mem_core::model::tensors::InventoryBuilder;
use hf_mem_core::model::{Dtype, Model, Storage};
use serde_json::{Value, json};

use super::{draft_weights, eagle3, h100, hub_model, model, request, small_target, sum_of};

fn speculative(config: &Value) -> BTreeMap<String, Value> {
    match config {
        Value::Null => BTreeMap::new(),
        config => BTreeMap::from([("speculative_config".to_owned(), config.clone())]),
    }
}

fn components(model: &Model, config: &Value) -> Vec<Component> {
    super::components("vllm", model, &speculative(config))
}

fn refusal(model: &Model, config: &Value, version: Option<&str>) -> String {
    super::refusal("vllm", model, &speculative(config), version)
}

#[test]
fn draft_model_matches_planner() {
    let Some(target) = hub_model("meta-llama/Llama-3.1-8B-Instruct") else {
        return;
    };
    let Some(draft) = hub_model("meta-llama/Llama-3.2-1B-Instruct") else {
        return;
    };
    let both = target.clone().with_draft(Arc::new(draft));
    let config = json!({"method": "draft_model", "num_speculative_tokens": 3});
    let parts = components(&both, &config);

    // 2,471,628,800 of parameters and 16,777,472 of buffers, in 48 layers with the model's.
    let (low, likely, high) = draft_weights(&parts);
    let planned = 2_471_628_800 + 16_777_472;
    assert!(likely.abs_diff(planned) <= 512, "{likely}");
    assert!(low <= planned && planned <= high, "{low} {high}");

    // 512 blocks of 2,621,440 bytes, and the null block.
    let (_, cache, _) = sum_of(&parts, ComponentName::KvCache);
    assert_eq!(cache, 1_342_177_280 + 2_621_440);
}

#[test]
fn eagle3_head_matches_planner() {
    let Some(target) = hub_model("meta-llama/Llama-3.1-8B-Instruct") else {
        return;
    };
    let config = json!({"method": "eagle3", "num_speculative_tokens": 3});
    let own_head = 32_000 * 4096 * 2;
    let embedding = 128_256 * 4096 * 2;
    let table = 2_097_152;

    // The planner's head shares embedding and output head; its checkpoint has neither.
    for (embeds, beyond) in [(false, 0), (true, embedding)] {
        let both = target.clone().with_draft(Arc::new(eagle3(32_000, embeds)));
        let parts = components(&both, &config);
        let planned = 587_491_328 + own_head;
        assert_eq!(
            draft_weights(&parts),
            (planned, planned + table, planned + table + beyond)
        );

        let (_, cache, _) = sum_of(&parts, ComponentName::KvCache);
        assert_eq!(cache, 1_107_296_256 + 2_162_688, "33 layers");
    }

    // A head as wide as the model's may equal it.
    let both = target.with_draft(Arc::new(eagle3(128_256, false)));
    let (low, likely, high) = draft_weights(&components(&both, &config));
    let planned = 587_491_328 - 256_000 + 128_256 * 8;
    assert_eq!((low, likely), (planned, planned + table));
    assert_eq!(high, planned + table + embedding);
}

#[test]
fn head_joins_windows_of_equal_pages() {
    let Some(target) = hub_model("openai/gpt-oss-20b") else {
        return;
    };
    let settings = json!({
        "architectures": ["LlamaForCausalLMEagle3"], "model_type": "llama", "hidden_size": 2880,
        "intermediate_size": 17280, "num_hidden_layers": 1, "num_attention_heads": 64,
        "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 201_088,
        "draft_vocab_size": 32_000, "max_position_embeddings": 4096, "torch_dtype": "bfloat16"
    });
    let mut builder = InventoryBuilder::default();
    let shape = [17_280, 2880];
    builder.add(
        "",
        "midlayer.mlp.up_proj.weight",
        Storage::Known(Dtype::BF16),
        &shape,
        Dtype::BF16.stored(shape.iter().product()).unwrap(),
    );

    let head = model("owner/head", &settings, builder.finish());
    let both = target.with_draft(Arc::new(head));
    let config = json!({"method": "eagle3", "num_speculative_tokens": 3});
    let parts = components(&both, &config);

    // Groups of 12 windows and of 13 layers that keep every token: 1025 blocks.
    let (_, cache, _) = sum_of(&parts, ComponentName::KvCache);
    assert_eq!(cache, 436_633_600 + 425_984);
}

#[test]
fn predictors_match_planner() {
    // (model, tokens, parameters of the predictor, bytes and blocks of a request of 8192 tokens)
    let rows = [
        (
            "Qwen/Qwen3-Next-80B-A3B-Instruct",
            2,
            3_300_942_848_u64,
            (460_062_720, 30),
        ),
        (
            "deepseek-ai/DeepSeek-V3",
            1,
            11_717_511_392,
            (585_105_408, 512),
        ),
        (
            "zai-org/GLM-4.5-Air",
            1,
            4_751_168_000,
            (1_577_058_304, 512),
        ),
    ];
    for (repo, tokens, parameters, (needed, blocks)) in rows {
        let Some(model) = hub_model(repo) else { return };
        let config = json!({"method": "mtp", "num_speculative_tokens": tokens});
        let (with, without) = (
            components(&model, &config),
            components(&model, &Value::Null),
        );

        let weights = |parts: &[Component]| sum_of(parts, ComponentName::Weights);
        let loaded = weights(&with).1 - weights(&without).1;
        // The planner holds a router in 32 bits: less than a thousandth.
        assert!(
            loaded.abs_diff(parameters) * 1000 < parameters,
            "{repo}: {loaded}"
        );

        let cache = sum_of(&with, ComponentName::KvCache).1 + sum_of(&with, ComponentName::State).1;
        assert_eq!(cache, needed + needed / blocks, "{repo}");
    }
}

#[test]
fn ngrams_load_no_weights() {
    let Some(target) = hub_model("meta-llama/Llama-3.1-8B-Instruct") else {
        return;
    };
    let config = json!({"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 4});
    let (with, without) = (
        components(&target, &config),
        components(&target, &Value::Null),
    );

    for name in [ComponentName::Weights, ComponentName::KvCache] {
        assert_eq!(sum_of(&with, name), sum_of(&without, name));
    }
    assert_eq!(
        sum_of(&with, ComponentName::KvCache).1,
        1_073_741_824 + 2_097_152
    );

    // The tokens of 1024 sequences of 8192, and a score for each 256 of them.
    let runtime = |parts: &[Component]| sum_of(parts, ComponentName::Runtime).1;
    let lookup = 1024 * 8192 * 4 + 1024 * 32 * 8;
    assert_eq!(runtime(&with), runtime(&without) + lookup);

    let graphs = |parts: &[Component]| sum_of(parts, ComponentName::Graphs);
    assert_eq!(graphs(&with).2, graphs(&without).2 * 2);

    let activations = |parts: &[Component]| sum_of(parts, ComponentName::Activations);
    assert!(
        activations(&with).2 > activations(&without).2,
        "rows of logits"
    );
}

#[test]
fn uncounted_drafts_are_refused() {
    let target = small_target();
    let draft = Arc::new(eagle3(32_000, true));
    let eagle = json!({"method": "eagle3", "num_speculative_tokens": 3});
    let both = target.clone().with_draft(Arc::clone(&draft));

    for (model, config, version, why) in [
        (
            &target,
            json!({"method": "eagle3", "num_speculative_tokens": 3}),
            None,
            "name its draft with --draft",
        ),
        (
            &target,
            json!({"method": "suffix", "num_speculative_tokens": 3}),
            None,
            "method is not counted",
        ),
        (
            &target,
            json!({"method": "mtp"}),
            None,
            "no prediction layers of its own",
        ),
        (
            &target,
            json!({"method": "ngram"}),
            None,
            "number of tokens",
        ),
        (
            &both,
            json!({"method": "ngram", "num_speculative_tokens": 3}),
            None,
            "loads no draft",
        ),
        (&both, json!({"method": "eagle3"}), None, "number of tokens"),
        (
            &both,
            json!({"method": "eagle3", "num_speculative_tokens": 3, "model": "other/head"}),
            None,
            "not the draft that is named",
        ),
        (
            &both,
            json!({"method": "eagle3", "draft_sample_method": "probabilistic"}),
            None,
            "draft_sample_method is not counted",
        ),
        (&both, eagle.clone(), Some("0.32"), "0.33 and later"),
        (&both, json!([1]), None, "must be an object"),
    ] {
        let refused = refusal(model, &config, version);
        assert!(refused.contains(why), "{config}: {refused}");
    }

    let mut window = eagle3(32_000, true);
    if let Ok(architecture) = &mut window.architecture {
        "WindowedEagle3".clone_into(&mut architecture.class);
    }
    let refused = refusal(&target.with_draft(Arc::new(window)), &eagle, None);
    assert!(refused.contains("loading as EAGLE is unknown"), "{refused}");
}

#[test]
fn launch_line_names_the_draft() {
    let Some(target) = hub_model("meta-llama/Llama-3.1-8B-Instruct") else {
        return;
    };
    let both = target.with_draft(Arc::new(eagle3(32_000, true)));
    let parameters = BTreeMap::from([("num_speculative_tokens".to_owned(), json!(3))]);
    let devices = [h100()];
    let engine = by_name("vllm").unwrap();
    let prepared = companions::prepare(engine, &request(&both, &parameters, &devices)).unwrap();

    let device = LaunchDevice {
        facts: &devices[0],
        available: Bytes::gib(79),
        required: Bytes::gib(40),
        free: None,
    };
    let split = Split::single(32);
    let launch = prepared.launch(&LaunchPlan {
        split: &split,
        workload: prepared.workload(),
        devices: &[device],
    });

    let line = launch.args.join(" ");
    let config = json!({"method": "eagle3", "num_speculative_tokens": 3,
        "model": "yuhuili/EAGLE3-LLaMA3.1-Instruct-8B"});
    let flag = format!("--speculative-config {config}");
    assert!(line.contains(&flag), "{line}");

    let staged = Split {
        stages: vec![0..16, 16..32],
        ..split
    };
    assert!(
        prepared
            .check(&staged)
            .unwrap_err()
            .to_string()
            .contains("one pipeline stage")
    );
}

#[test]
fn draft_of_other_vocabulary_is_refused() {
    let Some(draft) = hub_model("Qwen/Qwen3-8B") else {
        return;
    };
    let both = small_target().with_draft(Arc::new(draft));
    let config = json!({"method": "draft_model", "num_speculative_tokens": 3});
    let refused = refusal(&both, &config, None);
    assert!(refused.contains("in its vocabulary"), "{refused}");
}

/// The predictor's embedding and head are divided as the model's, and shared with them.
#[test]
fn predictor_divides_its_vocabulary() {
    let Some(target) = hub_model("zai-org/GLM-4.5-Air") else {
        return;
    };
    let growth = |tensor: u32| {
        let weights = |config: &Value| {
            let parts = super::split_components("vllm", &target, &speculative(config), tensor);
            sum_of(&parts, ComponentName::Weights).1
        };
        let with = json!({"method": "mtp", "num_speculative_tokens": 1});
        (weights(&with) - weights(&Value::Null)) * u64::from(tensor)
    };

    let (whole, divided) = (growth(1), growth(8));
    assert!(divided >= whole, "{divided} {whole}");
    assert!(divided < whole + (1 << 30), "{divided} {whole}");
}

/// An EAGLE-3 head reads hidden states of the model's width from three of its layers.
#[test]
fn head_keeps_states_of_three_layers() {
    let Some(target) = hub_model("meta-llama/Llama-3.1-8B-Instruct") else {
        return;
    };
    let config = json!({"method": "eagle3", "num_speculative_tokens": 3});
    let both = target.clone().with_draft(Arc::new(eagle3(32_000, false)));
    let (_, alone, _) = sum_of(
        &components(&target, &Value::Null),
        ComponentName::Activations,
    );
    let (_, likely, high) = sum_of(&components(&both, &config), ComponentName::Activations);

    let states = 8192 * 4096 * 2 * 3;
    assert!(likely >= alone + states, "{likely} {alone}");
    assert!(high >= alone + states * 2, "{high}");
}

#[test]
fn contradictory_drafts_are_rejected() {
    let both = small_target().with_draft(Arc::new(small_target()));
    for (config, says) in [
        (json!({"num_speculative_tokens": 257}), "more than 256"),
        (
            json!({"num_speculative_tokens": 3, "revision": "abc"}),
            "its revision",
        ),
        (
            json!({"num_speculative_tokens": 3, "model": 5}),
            "not the draft that is named",
        ),
    ] {
        let why = refusal(&both, &config, None);
        assert!(why.contains(says), "{config}: {why}");
    }

    let alone = BTreeMap::from([("num_speculative_tokens".to_owned(), json!(1_000_000_000))]);
    let why = super::refusal("vllm", &both, &alone, None);
    assert!(why.contains("more than 256"), "{why}");
}
