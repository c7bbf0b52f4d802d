//! Drafts under vLLM against the figures of vLLM's own planner (`referees/vllm`, release 0.33.0).
//!
//! Models come from the metadata folder `../shared/hub`; without it, a test prints that it skips.
#![expect(clippy::unwrap_used, reason = "the helpers of tests may fail them")]
#![allow(clippy::print_stdout, reason = "prints what it skips")]

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::{DeviceFacts, DeviceKind};
use hf_mem_core::engines::{
    AskedContext, AskedWorkload, Component, ComponentName, EngineRequest, EngineVersion,
    LaunchDevice, LaunchPlan, Split, by_name, companions,
};
use hf_mem_core::model::tensors::InventoryBuilder;
use hf_mem_core::model::{Dtype, Format, Inventory, Model, Storage, config};
use serde_json::{Value, json};

fn h100() -> DeviceFacts {
    DeviceFacts {
        uuid: "GPU-0".to_owned(),
        index: 0,
        name: "NVIDIA H100 80GB HBM3".to_owned(),
        kind: DeviceKind::Gpu,
        total_bytes: Bytes::new(85_520_809_984),
        reserved_bytes: None,
        compute_capability: Some((9, 0)),
        multiprocessors: Some(132),
        parent_uuid: None,
        pci_bus_id: None,
        numa_node: None,
    }
}

fn model(repo: &str, settings: &Value, inventory: Inventory) -> Model {
    let architecture = config::architecture(settings, None, &inventory);
    Model::bare(repo, Format::Safetensors, architecture, inventory)
}

fn hub_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/hub/models")
}

/// Returns a model of the metadata folder; `None` without the folder.
fn hub_model(repo: &str) -> Option<Model> {
    let folder = hub_folder().join(repo);
    let Ok(settings) = std::fs::read(folder.join("config.json")) else {
        println!("skipped: no metadata of {repo}");
        return None;
    };

    let mut text = String::new();
    let file = std::fs::File::open(folder.join("tensors.json.gz")).unwrap();
    flate2::read::GzDecoder::new(file)
        .read_to_string(&mut text)
        .unwrap();

    let rows: Vec<(String, String, String, Vec<u64>)> = serde_json::from_str(&text).unwrap();
    let mut builder = InventoryBuilder::default();
    for (_, name, dtype, shape) in &rows {
        let dtype = Dtype::from_safetensors(dtype).unwrap();
        let bytes = dtype.stored(shape.iter().product()).unwrap();
        builder.add("", name, Storage::Known(dtype), shape, bytes);
    }

    let settings = serde_json::from_slice(&settings).unwrap();
    Some(model(repo, &settings, builder.finish()))
}

/// An EAGLE-3 head for Llama 3.1 8B, with a head of its own for `draft_vocabulary` tokens and, if
/// `embeds`, an embedding.
fn eagle3(draft_vocabulary: u64, embeds: bool) -> Model {
    let settings = json!({
        "architectures": ["LlamaForCausalLMEagle3"], "model_type": "llama", "hidden_size": 4096,
        "intermediate_size": 14336, "num_hidden_layers": 1, "num_attention_heads": 32,
        "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 128_256,
        "draft_vocab_size": draft_vocabulary, "max_position_embeddings": 2048,
        "rope_theta": 500_000.0, "torch_dtype": "bfloat16", "tie_word_embeddings": false
    });

    let mut tensors: Vec<(&str, Dtype, Vec<u64>)> = vec![
        (
            "midlayer.self_attn.q_proj.weight",
            Dtype::BF16,
            vec![4096, 8192],
        ),
        (
            "midlayer.self_attn.k_proj.weight",
            Dtype::BF16,
            vec![1024, 8192],
        ),
        (
            "midlayer.self_attn.v_proj.weight",
            Dtype::BF16,
            vec![1024, 8192],
        ),
        (
            "midlayer.self_attn.o_proj.weight",
            Dtype::BF16,
            vec![4096, 4096],
        ),
        (
            "midlayer.mlp.gate_proj.weight",
            Dtype::BF16,
            vec![14_336, 4096],
        ),
        (
            "midlayer.mlp.up_proj.weight",
            Dtype::BF16,
            vec![14_336, 4096],
        ),
        (
            "midlayer.mlp.down_proj.weight",
            Dtype::BF16,
            vec![4096, 14_336],
        ),
        ("midlayer.hidden_norm.weight", Dtype::BF16, vec![4096]),
        ("midlayer.input_layernorm.weight", Dtype::BF16, vec![4096]),
        (
            "midlayer.post_attention_layernorm.weight",
            Dtype::BF16,
            vec![4096],
        ),
        ("norm.weight", Dtype::BF16, vec![4096]),
        ("fc.weight", Dtype::BF16, vec![4096, 12_288]),
        ("d2t", Dtype::I64, vec![draft_vocabulary]),
        ("t2d", Dtype::Bool, vec![128_256]),
        ("lm_head.weight", Dtype::BF16, vec![draft_vocabulary, 4096]),
    ];
    if embeds {
        tensors.push(("embed_tokens.weight", Dtype::BF16, vec![128_256, 4096]));
    }

    let mut builder = InventoryBuilder::default();
    for (name, dtype, shape) in &tensors {
        let bytes = dtype.stored(shape.iter().product()).unwrap();
        builder.add("", name, Storage::Known(*dtype), shape, bytes);
    }

    model(
        "yuhuili/EAGLE3-LLaMA3.1-Instruct-8B",
        &settings,
        builder.finish(),
    )
}

fn speculative(config: &Value) -> BTreeMap<String, Value> {
    BTreeMap::from([("speculative_config".to_owned(), config.clone())])
}

fn request<'a>(
    model: &'a Model,
    parameters: &'a BTreeMap<String, Value>,
    devices: &'a [DeviceFacts],
) -> EngineRequest<'a> {
    EngineRequest {
        model,
        version: None,
        parameters,
        asked: AskedWorkload {
            context: Some(AskedContext::Tokens(8192)),
            ..AskedWorkload::default()
        },
        devices,
    }
}

/// All components of `model` on one device at a context of 8192.
fn components(model: &Model, config: &Value) -> Vec<Component> {
    let (parameters, devices) = (speculative(config), [h100()]);
    let parameters = if config.is_null() {
        BTreeMap::new()
    } else {
        parameters
    };
    let engine = by_name("vllm").unwrap();
    let prepared = companions::prepare(engine, &request(model, &parameters, &devices)).unwrap();

    let split = prepared.splits(1).unwrap().remove(0);
    let mut parts = prepared.fixed(&split, 0, &devices[0]).unwrap();
    let workload = prepared.workload();
    parts.extend(prepared.variable(&split, 0, &devices[0], workload).unwrap());

    parts
}

/// Why vLLM at `version` refuses `model` with `config`.
fn refusal(model: &Model, config: &Value, version: Option<&str>) -> String {
    let (parameters, devices) = (speculative(config), [h100()]);
    let version: Option<EngineVersion> = version.map(|text| text.parse().unwrap());
    let request = EngineRequest {
        version: version.as_ref(),
        ..request(model, &parameters, &devices)
    };

    match companions::prepare(by_name("vllm").unwrap(), &request) {
        Ok(_) => "prepared".to_owned(),
        Err(error) => error.to_string(),
    }
}

fn sum_of(parts: &[Component], name: ComponentName) -> (u64, u64, u64) {
    let sum = parts
        .iter()
        .filter(|part| part.name == name)
        .map(|part| part.bytes)
        .sum::<hf_mem_core::engines::Interval>();

    (sum.low.get(), sum.likely.get(), sum.high.get())
}

/// The weights of the draft, low, likely and high.
fn draft_weights(parts: &[Component]) -> (u64, u64, u64) {
    let own: Vec<Component> = parts
        .iter()
        .filter(|part| part.detail.starts_with("the draft "))
        .cloned()
        .collect();
    assert_eq!(own.len(), 1, "{parts:?}");

    sum_of(&own, ComponentName::Weights)
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

    let activations = |parts: &[Component]| sum_of(parts, ComponentName::Activations);
    assert!(
        activations(&with).2 > activations(&without).2,
        "rows of logits"
    );
}

/// A Llama of two layers and 128,256 tokens.
fn small_target() -> Model {
    let settings = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096,
        "intermediate_size": 14336, "num_hidden_layers": 2, "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 128_256, "max_position_embeddings": 8192,
        "torch_dtype": "bfloat16"
    });

    let mut builder = InventoryBuilder::default();
    for layer in 0..2 {
        let name = format!("model.layers.{layer}.mlp.up_proj.weight");
        let shape = [14_336, 4096];
        let bytes = Dtype::BF16.stored(shape.iter().product()).unwrap();
        builder.add("", &name, Storage::Known(Dtype::BF16), &shape, bytes);
    }

    model("owner/target", &settings, builder.finish())
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
            json!({"method": "eagle3", "num_speculative_tokens": 3, "draft_sample_method": "probabilistic"}),
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
    let config = r#"--speculative-config {"method":"eagle3","model":"yuhuili/EAGLE3-LLaMA3.1-Instruct-8B","num_speculative_tokens":3}"#;
    assert!(line.contains(config), "{line}");

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
