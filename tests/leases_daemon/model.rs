//! A small fake model whose memory grows with the context: 64 KiB per token, and little else.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use hf_mem_core::report::Question;
use hf_mem_core::report::question::ModelQuestion;
use hf_mem_core::report::raw_json::RawJson;
use hf_mem_probe::repository::{Auth, HubSettings, ModelReference, SourceClient, SourceSettings};
use serde_json::{Map, Value, json};

const LAYERS: u64 = 4;
const HIDDEN: u64 = 512;
const WIDE: u64 = 1024;
const VOCABULARY: u64 = 1024;
/// Heads and their width: 2 * 64 * 64 * 2 bytes a token and layer.
const HEADS: u64 = 64;
const WIDTH: u64 = 64;

/// Writes the model to `directory`. Returns a question that contains its metadata.
pub(crate) async fn question(directory: &Path, now: SystemTime) -> Question {
    let folder = directory.join("model");
    write(&folder);
    let path = folder.to_str().unwrap();
    let reference = ModelReference::parse(path, None, Path::exists).unwrap();
    let client = SourceClient::new(SourceSettings::new(
        HubSettings::from_environment(|_| None).unwrap(),
    ));
    let metadata = client
        .read(&reference, &Auth::Anonymous, now)
        .await
        .unwrap();
    let metadata = Some(RawJson::new(&metadata).unwrap());
    let model = ModelQuestion {
        repo: "a/model".to_owned(),
        metadata,
        ..ModelQuestion::default()
    };

    let mut question = Question {
        model,
        ..Question::default()
    };

    question.engine.name = Some("reference".to_owned());
    question
}

/// Writes a folder with the headers of a model, and no weights.
pub(crate) fn write(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    let config = json!({
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "attention_bias": false, "hidden_act": "silu",
        "head_dim": WIDTH, "hidden_size": HIDDEN, "intermediate_size": WIDE, "max_position_embeddings": 8_388_608,
        "num_attention_heads": HEADS, "num_key_value_heads": HEADS, "num_hidden_layers": LAYERS, "rms_norm_eps": 1e-6,
        "rope_scaling": null, "rope_theta": 1_000_000, "sliding_window": null, "use_sliding_window": false,
        "tie_word_embeddings": true, "torch_dtype": "bfloat16", "vocab_size": VOCABULARY,
    });

    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let mut header = Map::new();
    let mut end = 0;
    let mut tensor = |name: &str, shape: &[u64]| {
        let begin = end;
        end += 2 * shape.iter().product::<u64>();
        header.insert(
            name.to_owned(),
            json!({"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}),
        );
    };

    tensor("model.embed_tokens.weight", &[VOCABULARY, HIDDEN]);
    for layer in 0..LAYERS {
        for (name, shape) in [
            ("input_layernorm", vec![HIDDEN]),
            ("post_attention_layernorm", vec![HIDDEN]),
            ("mlp.down_proj", vec![HIDDEN, WIDE]),
            ("mlp.gate_proj", vec![WIDE, HIDDEN]),
            ("mlp.up_proj", vec![WIDE, HIDDEN]),
            ("self_attn.k_norm", vec![WIDTH]),
            ("self_attn.q_norm", vec![WIDTH]),
            ("self_attn.k_proj", vec![HEADS * WIDTH, HIDDEN]),
            ("self_attn.q_proj", vec![HEADS * WIDTH, HIDDEN]),
            ("self_attn.v_proj", vec![HEADS * WIDTH, HIDDEN]),
            ("self_attn.o_proj", vec![HIDDEN, HEADS * WIDTH]),
        ] {
            tensor(&format!("model.layers.{layer}.{name}.weight"), &shape);
        }
    }

    tensor("model.norm.weight", &[HIDDEN]);
    let mut text = Value::Object(header).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    let file = [(text.len() as u64).to_le_bytes().as_slice(), &text].concat();
    fs::write(folder.join("model.safetensors"), file).unwrap();
}
