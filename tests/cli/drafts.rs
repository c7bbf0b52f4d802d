//! Draft models on the command line: read along with the model, or refused by name.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::run::{MODEL, run};

/// Writes a Llama of one layer and returns its folder.
fn small_model(folder: &Path) -> PathBuf {
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64,
        "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 256, "max_position_embeddings": 8192,
        "torch_dtype": "bfloat16"
    });
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("config.json"), config.to_string()).unwrap();

    let header = r#"{"model.embed_tokens.weight":{"dtype":"BF16","shape":[256,64],"data_offsets":[0,32768]}}"#;
    let path = folder.join("model.safetensors");
    let length = (header.len() as u64).to_le_bytes();
    fs::write(&path, [&length[..], header.as_bytes()].concat()).unwrap();

    let file = fs::File::options().append(true).open(&path).unwrap();
    file.set_len(8 + header.len() as u64 + 32_768).unwrap();

    folder.to_owned()
}

#[test]
fn draft_is_read_with_model() {
    let folder = tempfile::tempdir().unwrap();
    let draft = small_model(&folder.path().join("small"));
    let asked = |command: &str, engine: &str| {
        run(&format!(
            "{command} {MODEL} --draft {} --gpus 80GiB --local --json --engine {engine}",
            draft.display()
        ))
    };

    for command in ["fits", "estimate"] {
        let answer = asked(command, "reference").json();
        let reported = &answer["model"]["draft"];
        assert_eq!(reported["weights_bytes"], 32_768, "{answer}");
        assert_eq!(reported["repo"], draft.display().to_string());
        assert_eq!(answer["verdict"], "unknown", "{answer}");
        assert!(answer.to_string().contains("counts one model"), "{answer}");
    }
}

#[test]
fn problem_names_the_draft() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    fs::create_dir_all(&missing).unwrap();
    let outcome = run(&format!(
        "fits {MODEL} --draft {} --gpus 80GiB --local --json",
        missing.display()
    ));
    assert_eq!(outcome.code, 3, "{}", outcome.out);
    assert!(outcome.out.contains("the draft: "), "{}", outcome.out);

    let outcome = run(&format!(
        "fits {MODEL} --draft-file Q4_K_M --gpus 80GiB --local"
    ));
    assert_eq!(outcome.code, 2, "a file of no draft");
}
