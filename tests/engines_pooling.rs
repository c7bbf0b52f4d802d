//! Embedders, classifiers and rerankers on an H100.
//!
//! The figures are vLLM 0.33.0's, of its own model and planner of the cache with `runner=pooling`
//! (bytes of parameters and buffers, and the cache of one sequence of the context), and SGLang
//! 0.5.23's, of its own sizing of the pools (bytes of a token, with and without `is_embedding`).
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "test helpers")]

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::{DeviceFacts, DeviceKind};
use hf_mem_core::engines::{
    AskedContext, AskedWorkload, Component, ComponentName, EngineError, EngineRequest, Interval,
    PreparedEngine, Split, by_name,
};
use hf_mem_core::model::tensors::InventoryBuilder;
use hf_mem_core::model::{Dtype, Format, Model, Storage, config};
use serde_json::{Value, json};

fn h100() -> DeviceFacts {
    DeviceFacts {
        uuid: "GPU-0".to_owned(),
        index: 0,
        name: "NVIDIA H100 80GB HBM3".to_owned(),
        kind: DeviceKind::Gpu,
        total_bytes: Bytes::new(85_017_493_504),
        reserved_bytes: None,
        compute_capability: Some((9, 0)),
        multiprocessors: Some(132),
        parent_uuid: None,
        pci_bus_id: None,
        numa_node: None,
    }
}

fn built(settings: &Value, tensors: &[(String, Dtype, Vec<u64>)]) -> Model {
    let mut builder = InventoryBuilder::default();
    for (name, dtype, shape) in tensors {
        let bytes = dtype.stored(shape.iter().product()).unwrap();
        builder.add("", name, Storage::Known(*dtype), shape, bytes);
    }
    let inventory = builder.finish();
    let architecture = config::architecture(settings, None, &inventory);

    Model::bare("owner/name", Format::Safetensors, architecture, inventory)
}

/// A model of the metadata folder; `None` without it.
fn hub(repo: &str) -> Option<Model> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/hub/models");
    let folder = root.join(repo);
    let Ok(text) = std::fs::read(folder.join("config.json")) else {
        println!("skipped: {} does not exist", folder.display());
        return None;
    };

    let mut rows = String::new();
    let file = std::fs::File::open(folder.join("tensors.json.gz")).unwrap();
    flate2::read::GzDecoder::new(file)
        .read_to_string(&mut rows)
        .unwrap();
    let rows: Vec<(String, String, String, Vec<u64>)> = serde_json::from_str(&rows).unwrap();
    let tensors: Vec<_> = rows
        .into_iter()
        // The planner had no file of the projections (`2_Dense`), and loaded none.
        .filter(|(_, name, ..)| name != "linear.weight")
        .map(|(_, name, dtype, shape)| (name, Dtype::from_safetensors(&dtype).unwrap(), shape))
        .collect();

    Some(built(&serde_json::from_slice(&text).unwrap(), &tensors))
}

/// Tensors of one dtype, by name and shape.
struct Tensors {
    dtype: Dtype,
    all: Vec<(String, Dtype, Vec<u64>)>,
}

impl Tensors {
    fn new(dtype: Dtype) -> Self {
        Self {
            dtype,
            all: Vec::new(),
        }
    }

    fn add(&mut self, name: impl Into<String>, shape: &[u64]) {
        self.all.push((name.into(), self.dtype, shape.to_vec()));
    }

    /// A linear layer, or a norm if `inputs` is 0, with its bias.
    fn linear(&mut self, name: &str, outputs: u64, inputs: u64) {
        let shape = [outputs, inputs];
        let sides = if inputs == 0 { 1 } else { 2 };
        self.add(format!("{name}.weight"), &shape[..sides]);
        self.add(format!("{name}.bias"), &shape[..1]);
    }
}

/// A BERT-like encoder: width, feed-forward, layers, rows of words, positions and types.
fn bert(tensors: &mut Tensors, prefix: &str, [h, wide, layers]: [u64; 3], rows: [u64; 3]) {
    let names = ["word", "position", "token_type"];
    for (name, rows) in names.into_iter().zip(rows) {
        tensors.add(
            format!("{prefix}embeddings.{name}_embeddings.weight"),
            &[rows, h],
        );
    }
    tensors.linear(&format!("{prefix}embeddings.LayerNorm"), h, 0);

    for layer in 0..layers {
        let layer = format!("{prefix}encoder.layer.{layer}");
        for part in ["query", "key", "value"] {
            tensors.linear(&format!("{layer}.attention.self.{part}"), h, h);
        }
        tensors.linear(&format!("{layer}.attention.output.dense"), h, h);
        tensors.linear(&format!("{layer}.attention.output.LayerNorm"), h, 0);
        tensors.linear(&format!("{layer}.intermediate.dense"), wide, h);
        tensors.linear(&format!("{layer}.output.dense"), h, wide);
        tensors.linear(&format!("{layer}.output.LayerNorm"), h, 0);
    }
}

fn xlm_roberta(class: &str) -> Model {
    let settings = json!({
        "architectures": [class], "model_type": "xlm-roberta", "hidden_size": 1024,
        "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
        "max_position_embeddings": 8194, "type_vocab_size": 1, "vocab_size": 250_002,
        "pad_token_id": 1, "position_embedding_type": "absolute", "torch_dtype": "float32",
        "hidden_act": "gelu", "layer_norm_eps": 1e-5, "id2label": {"0": "LABEL_0"}
    });

    let mut tensors = Tensors::new(Dtype::F32);
    let has_head = class.ends_with("Classification");
    let prefix = if has_head { "roberta." } else { "" };
    bert(&mut tensors, prefix, [1024, 4096, 24], [250_002, 8194, 1]);
    if has_head {
        tensors.linear("classifier.dense", 1024, 1024);
        tensors.linear("classifier.out_proj", 1, 1024);
    } else {
        tensors.linear("pooler.dense", 1024, 1024);
    }

    built(&settings, &tensors.all)
}

/// ms-marco-MiniLM-L6-v2.
fn mini_lm() -> Model {
    let settings = json!({
        "architectures": ["BertForSequenceClassification"], "model_type": "bert",
        "hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6,
        "num_attention_heads": 12, "max_position_embeddings": 512, "type_vocab_size": 2,
        "vocab_size": 30522, "torch_dtype": "float32", "hidden_act": "gelu",
        "layer_norm_eps": 1e-12, "position_embedding_type": "absolute",
        "id2label": {"0": "LABEL_0"}
    });

    let mut tensors = Tensors::new(Dtype::F32);
    bert(&mut tensors, "bert.", [384, 1536, 6], [30522, 512, 2]);
    tensors.linear("bert.pooler.dense", 384, 384);
    tensors.linear("classifier", 1, 384);

    built(&settings, &tensors.all)
}

fn modern_bert(class: &str) -> Model {
    let settings = json!({
        "architectures": [class], "model_type": "modernbert", "hidden_size": 768,
        "intermediate_size": 1152, "num_hidden_layers": 22, "num_attention_heads": 12,
        "max_position_embeddings": 8192, "vocab_size": 50368, "torch_dtype": "float16",
        "global_attn_every_n_layers": 3, "local_attention": 128, "global_rope_theta": 160_000.0,
        "local_rope_theta": 10000.0, "hidden_activation": "gelu", "norm_eps": 1e-5,
        "position_embedding_type": "absolute", "classifier_pooling": "mean",
        "id2label": {"0": "LABEL_0"}
    });

    let mut tensors = Tensors::new(Dtype::F16);
    let has_head = class.ends_with("Classification");
    let prefix = if has_head { "model." } else { "" };
    tensors.add(
        format!("{prefix}embeddings.tok_embeddings.weight"),
        &[50368, 768],
    );
    tensors.add(format!("{prefix}embeddings.norm.weight"), &[768]);
    for layer in 0..22 {
        if layer > 0 {
            tensors.add(format!("{prefix}layers.{layer}.attn_norm.weight"), &[768]);
        }
        for (name, shape) in [
            ("attn.Wqkv", &[2304, 768][..]),
            ("attn.Wo", &[768, 768]),
            ("mlp.Wi", &[2304, 768]),
            ("mlp.Wo", &[768, 1152]),
            ("mlp_norm", &[768]),
        ] {
            tensors.add(format!("{prefix}layers.{layer}.{name}.weight"), shape);
        }
    }
    tensors.add(format!("{prefix}final_norm.weight"), &[768]);
    if has_head {
        tensors.add("head.dense.weight", &[768, 768]);
        tensors.add("head.norm.weight", &[768]);
        tensors.linear("classifier", 1, 768);
    }

    built(&settings, &tensors.all)
}

/// A Qwen 2 or 3 decoder with a head of its own, or none.
fn qwen(
    class: &str,
    [h, wide, layers, heads, kv]: [u64; 5],
    [vocabulary, positions]: [u64; 2],
) -> Model {
    let third = class.starts_with("Qwen3");
    let tied = class.starts_with("Qwen3") && h == 1024;
    let settings = json!({
        "architectures": [class], "model_type": if third { "qwen3" } else { "qwen2" },
        "hidden_size": h, "intermediate_size": wide, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": kv, "head_dim": 128,
        "vocab_size": vocabulary, "torch_dtype": "bfloat16", "tie_word_embeddings": tied,
        "max_position_embeddings": positions, "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000, "hidden_act": "silu", "use_sliding_window": false,
        "id2label": {"0": "LABEL_0"}
    });

    let mut tensors = Tensors::new(Dtype::BF16);
    let prefix = if class.ends_with("ForCausalLM") {
        ""
    } else {
        "model."
    };
    tensors.add(format!("{prefix}embed_tokens.weight"), &[vocabulary, h]);
    for layer in 0..layers {
        let layer = format!("{prefix}layers.{layer}");
        for (name, outputs) in [("q", heads * 128), ("k", kv * 128), ("v", kv * 128)] {
            tensors.add(
                format!("{layer}.self_attn.{name}_proj.weight"),
                &[outputs, h],
            );
            if !third {
                tensors.add(format!("{layer}.self_attn.{name}_proj.bias"), &[outputs]);
            }
        }
        tensors.add(
            format!("{layer}.self_attn.o_proj.weight"),
            &[h, heads * 128],
        );
        if third {
            tensors.add(format!("{layer}.self_attn.q_norm.weight"), &[128]);
            tensors.add(format!("{layer}.self_attn.k_norm.weight"), &[128]);
        }
        for (name, shape) in [("gate", [wide, h]), ("up", [wide, h]), ("down", [h, wide])] {
            tensors.add(format!("{layer}.mlp.{name}_proj.weight"), &shape);
        }
        for name in ["input_layernorm", "post_attention_layernorm"] {
            tensors.add(format!("{layer}.{name}.weight"), &[h]);
        }
    }
    tensors.add(format!("{prefix}norm.weight"), &[h]);
    match class {
        "Qwen3ForSequenceClassification" => tensors.add("score.weight", &[1, h]),
        "Qwen2ForRewardModel" => {
            tensors.linear("score.0", h, h);
            tensors.linear("score.2", 1, h);
        }
        _ => {}
    }

    built(&settings, &tensors.all)
}

fn named(name: &str) -> Option<Model> {
    let small = [1024, 3072, 28, 16, 8];
    Some(match name {
        "Qwen3-Embedding-0.6B" => qwen("Qwen3ForCausalLM", small, [151_669, 32768]),
        "Qwen3-Embedding-8B" => qwen(
            "Qwen3ForCausalLM",
            [4096, 12288, 36, 32, 8],
            [151_665, 40960],
        ),
        "Qwen3-Reranker-0.6B-seq-cls" => {
            qwen("Qwen3ForSequenceClassification", small, [151_669, 40960])
        }
        "Qwen2ForRewardModel-7B" => qwen(
            "Qwen2ForRewardModel",
            [3584, 18944, 28, 28, 4],
            [152_064, 4096],
        ),
        "bge-m3" => xlm_roberta("XLMRobertaModel"),
        "bge-reranker-v2-m3" => xlm_roberta("XLMRobertaForSequenceClassification"),
        "gte-modernbert-base" => modern_bert("ModernBertModel"),
        "gte-reranker-modernbert-base" => modern_bert("ModernBertForSequenceClassification"),
        "ms-marco-MiniLM-L6-v2" => mini_lm(),
        _ => return hub(name),
    })
}

/// (model, context, bytes of parameters and of buffers, of a block, and of the cache).
const ROWS: [(&str, u64, [u64; 2], [u64; 2]); 17] = [
    ("BAAI/bge-large-en", 512, [668_323_840, 4480], [0, 0]),
    ("FacebookAI/roberta-base", 512, [248_361_984, 4304], [0, 0]),
    (
        "google/embeddinggemma-300m",
        2048,
        [605_726_208, 2_097_538],
        [0, 0],
    ),
    ("bge-m3", 8192, [1_133_760_512, 65_936], [0, 0]),
    ("bge-reranker-v2-m3", 8192, [1_137_963_012, 65_936], [0, 0]),
    (
        "gte-modernbert-base",
        8192,
        [298_028_544, 2_097_504],
        [0, 0],
    ),
    (
        "gte-reranker-modernbert-base",
        8192,
        [300_393_988, 2_097_504],
        [0, 0],
    ),
    ("ms-marco-MiniLM-L6-v2", 512, [45_775_876, 4192], [0, 0]),
    (
        "intfloat/e5-mistral-7b-instruct",
        8192,
        [14_221_320_192, 8_389_120],
        [2_097_152, 1_075_838_976],
    ),
    (
        "Skywork/Skywork-Reward-Llama-3.1-8B-v0.2",
        8192,
        [15_009_865_728, 33_554_944],
        [2_097_152, 1_073_741_824],
    ),
    (
        "Qwen/Qwen3-8B",
        8192,
        [15_136_811_008, 10_486_336],
        [2_359_296, 1_207_959_552],
    ),
    (
        "google/gemma-2-2b",
        8192,
        [5_228_683_776, 4_194_722],
        [851_968, 873_267_200],
    ),
    (
        "Qwen/Qwen2.5-0.5B",
        8192,
        [988_065_536, 4_194_688],
        [196_608, 100_663_296],
    ),
    (
        "Qwen2ForRewardModel-7B",
        4096,
        [14_192_647_172, 1_049_024],
        [917_504, 234_881_024],
    ),
    (
        "Qwen3-Embedding-0.6B",
        8192,
        [1_191_575_552, 8_389_056],
        [1_835_008, 939_524_096],
    ),
    (
        "Qwen3-Embedding-8B",
        8192,
        [15_134_713_856, 10_486_336],
        [2_359_296, 1_207_959_552],
    ),
    (
        "Qwen3-Reranker-0.6B-seq-cls",
        8192,
        [1_191_579_648, 10_486_208],
        [1_835_008, 939_524_096],
    ),
];

fn prepare<'a>(
    (engine, version): (&str, &str),
    model: &'a Model,
    context: u64,
    given: &'a BTreeMap<String, Value>,
) -> Result<Box<dyn PreparedEngine + 'a>, EngineError> {
    let devices: &'static [DeviceFacts] = Box::leak(Box::new([h100()]));
    let version = Box::leak(Box::new(version.parse().unwrap()));

    by_name(engine).unwrap().prepare(&EngineRequest {
        model,
        version: Some(version),
        parameters: given,
        asked: AskedWorkload {
            context: Some(AskedContext::Tokens(context)),
            ..AskedWorkload::default()
        },
        devices,
    })
}

fn sum(parts: &[Component], name: ComponentName) -> Interval {
    let parts = parts.iter().filter(|part| part.name == name);
    parts.map(|part| part.bytes).sum()
}

#[test]
fn pooling_matches_planner() {
    let given = BTreeMap::from([("runner".to_owned(), json!("pooling"))]);
    let mut wrong = Vec::new();
    for (name, context, [parameters, buffers], [block, cache]) in ROWS {
        let Some(model) = named(name) else { return };
        let prepared = prepare(("vllm", "0.33.0"), &model, context, &given).unwrap();
        let split = Split::single(model.architecture.as_ref().unwrap().layer_count());
        let parts = prepared.fixed(&split, 0, &h100()).unwrap();
        let weights = sum(&parts, ComponentName::Weights).likely.get();
        let parts = prepared
            .variable(&split, 0, &h100(), prepared.workload())
            .unwrap();
        // Ours has the null block, which the planner leaves out of what a sequence needs.
        let ours = sum(&parts, ComponentName::KvCache).likely.get();

        let resident = parameters + buffers;
        println!("{name:44} {resident:12} {weights:12} {cache:12} {ours:12}");
        if weights.abs_diff(resident) > (resident / 10_000).max(8192) || ours != cache + block {
            wrong.push(name);
        }
    }

    assert_eq!(wrong, Vec::<&str>::new());
}

/// (model, bytes of a token in SGLang's pool): encoders have one too.
const RATES: [(&str, u64); 12] = [
    ("BAAI/bge-large-en", 98_304),
    ("intfloat/e5-mistral-7b-instruct", 131_072),
    ("Skywork/Skywork-Reward-Llama-3.1-8B-v0.2", 131_072),
    ("Qwen/Qwen3-8B", 147_456),
    ("google/embeddinggemma-300m", 24_576),
    ("Qwen3-Embedding-0.6B", 114_688),
    ("bge-m3", 98_304),
    ("gte-modernbert-base", 67_584),
    ("Qwen2ForRewardModel-7B", 57_344),
    ("Qwen3-Reranker-0.6B-seq-cls", 114_688),
    ("bge-reranker-v2-m3", 98_304),
    ("ms-marco-MiniLM-L6-v2", 9216),
];

#[test]
fn sglang_pool_is_the_same() {
    for is_embedding in [false, true] {
        let given = BTreeMap::from([("is_embedding".to_owned(), json!(is_embedding))]);
        for (name, rate) in RATES {
            let Some(model) = named(name) else { return };
            let prepared = prepare(("sglang", "0.5.23"), &model, 512, &given).unwrap();
            assert_eq!(prepared.kv_bytes_per_token().get(), rate, "{name}");
        }
    }
}

/// Weights of Qwen3-8B on SGLang hold the output head, which vLLM leaves out.
#[test]
fn only_vllm_leaves_head_out() {
    let Some(model) = named("Qwen/Qwen3-8B") else {
        return;
    };
    let split = Split::single(36);
    let weights = |engine, name: &str, value: Value| {
        let given: &'static _ = Box::leak(Box::new(BTreeMap::from([(name.to_owned(), value)])));
        let prepared = prepare(engine, &model, 8192, given).unwrap();
        let parts = prepared.fixed(&split, 0, &h100()).unwrap();
        sum(&parts, ComponentName::Weights).likely.get()
    };

    let (vllm, sglang) = (("vllm", "0.33.0"), ("sglang", "0.5.23"));
    let head = 151_936 * 4096 * 2;
    let generated = weights(vllm, "runner", json!("generate"));
    assert_eq!(generated - weights(vllm, "runner", json!("pooling")), head);
    assert_eq!(generated - weights(vllm, "convert", json!("embed")), head);

    let plain = weights(sglang, "is_embedding", json!(false));
    assert_eq!(weights(sglang, "is_embedding", json!(true)), plain);
}

/// vLLM starts its pooling runner for a decoder whose `modules.json` asks for it.
#[test]
fn modules_start_pooling_runner() {
    let shape = [1024, 3072, 28, 16, 8];
    let mut model = qwen("Qwen3ForCausalLM", shape, [151_936, 131_072]);
    let none = BTreeMap::new();
    let pooling = BTreeMap::from([("runner".to_owned(), json!("pooling"))]);
    let generate = BTreeMap::from([("runner".to_owned(), json!("generate"))]);

    let activations = |model: &Model, given: &BTreeMap<String, Value>| {
        let given: &'static _ = Box::leak(Box::new(given.clone()));
        let prepared = prepare(("vllm", "0.33.0"), model, 131_072, given).unwrap();
        let workload = prepared.workload();
        let parts = prepared.variable(&Split::single(28), 0, &h100(), workload);
        let fixed = prepared.fixed(&Split::single(28), 0, &h100()).unwrap();
        sum(&parts.unwrap(), ComponentName::Activations)
            .plus(sum(&fixed, ComponentName::Activations))
    };

    let (pooled, generated) = (activations(&model, &pooling), activations(&model, &none));
    assert!(pooled.likely > generated.likely, "a step of the context");

    model.asks_for_pooling = true;
    assert_eq!(activations(&model, &none), pooled);
    assert_eq!(activations(&model, &generate), generated);
}

#[test]
fn runners_that_class_lacks_are_refused() {
    let classifier = named("ms-marco-MiniLM-L6-v2").unwrap();
    let speculation = json!({"method": "ngram", "num_speculative_tokens": 3});
    let given = BTreeMap::from([("speculative_config".to_owned(), speculation)]);
    let refused = prepare(("vllm", "0.33.0"), &classifier, 512, &given);
    assert!(refused.is_err_and(|error| error.to_string().contains("takes no draft")));

    for (name, value, says) in [
        ("runner", "generate", "does not generate text"),
        ("runner", "draft", "known: auto, generate, pooling"),
        ("convert", "rerank", "known: auto, none"),
    ] {
        let given = BTreeMap::from([(name.to_owned(), json!(value))]);
        let Err(error) = prepare(("vllm", "0.33.0"), &classifier, 512, &given) else {
            panic!("{name}={value} is prepared");
        };
        assert!(error.to_string().contains(says), "{error}");
    }
}
