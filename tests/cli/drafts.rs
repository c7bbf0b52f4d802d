//! Draft models on the command line: read along with the model, or refused by name.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::daemon_process::Daemon;
use super::run::{MODEL, run, run_with_daemon};

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

    let tensor = json!({"dtype": "BF16", "shape": [256, 64], "data_offsets": [0, 32_768]});
    let header = json!({ "model.embed_tokens.weight": tensor }).to_string();
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
fn daemon_reads_sent_draft() {
    let folder = tempfile::tempdir().unwrap();
    let draft = small_model(&folder.path().join("small"));
    let mut daemon = Daemon::start(&["--gpus", "80GiB"]);
    let asked = |rest: &str| {
        let line = format!(
            "fits {MODEL} --draft {} --engine reference --json {rest}",
            draft.display()
        );
        run_with_daemon(&daemon.socket(), &line)
    };

    let answer = asked("");
    assert!(
        answer.err.contains("answered by the daemon"),
        "{}",
        answer.err
    );
    let reported = &answer.json()["model"]["draft"];
    assert_eq!(reported["weights_bytes"], 32_768, "{}", answer.out);

    // The lease is refused like the answer.
    let leased = asked("--reserve");
    assert_eq!(
        leased.json()["lease"],
        serde_json::Value::Null,
        "{}",
        leased.out
    );
    assert!(leased.out.contains("counts one model"), "{}", leased.out);

    assert_eq!(daemon.stop(), Some(0));
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
