//! Headers that assign a large part of their file to no tensor: unknown with every engine, with and
//! without the daemon.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::daemon_process::Daemon;
use super::gguf_writer::{Header, Kv};
use super::run::{run, run_with_daemon};

/// Writes a file of `length` bytes that begins with `header`.
fn write(path: &Path, header: &[u8], length: u64) {
    fs::write(path, header).unwrap();
    fs::OpenOptions::new()
        .write(true)
        .open(path)
        .unwrap()
        .set_len(length)
        .unwrap();
}

/// Writes a Llama model with `tensors` in its header and `length` bytes in its file.
fn llama(folder: &Path, tensors: &Value, length: u64) -> String {
    fs::create_dir(folder).unwrap();
    let config = json!({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64,
        "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2,
        "vocab_size": 100, "max_position_embeddings": 256, "torch_dtype": "bfloat16"});
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let json = tensors.to_string();
    let header = [&(json.len() as u64).to_le_bytes()[..], json.as_bytes()].concat();
    write(&folder.join("model.safetensors"), &header, length);

    folder.display().to_string()
}

#[track_caller]
fn is_unknown(outcome: &super::run::Outcome) {
    let answer = outcome.json();
    let fields = (
        outcome.code,
        answer["verdict"].as_str(),
        answer["reason"].as_str(),
    );

    assert_eq!(
        fields,
        (3, Some("unknown"), Some("missing_metadata")),
        "{}",
        outcome.out
    );

    assert!(
        answer["message"]
            .as_str()
            .unwrap()
            .contains("belong to no tensor"),
        "{answer}"
    );

    assert_eq!(
        (&answer["requirement"], &answer["lease"]),
        (&Value::Null, &Value::Null),
        "no figure could be right"
    );
}

#[test]
fn uncovered_weights_are_unknown() {
    let directory = tempfile::tempdir().unwrap();
    let one = json!({"w": {"dtype": "BF16", "shape": [512], "data_offsets": [0, 1024]}});
    let apart = json!({"a": {"dtype": "BF16", "shape": [512], "data_offsets": [0, 1024]},
        "b": {"dtype": "BF16", "shape": [512], "data_offsets": [3_000_000, 3_001_024]}});

    for (name, tensors) in [("none", &json!({})), ("one", &one), ("apart", &apart)] {
        let folder = llama(&directory.path().join(name), tensors, 3_400_000);
        for engine in ["vllm", "sglang", "transformers", "reference"] {
            is_unknown(&run(&format!(
                "fits {folder} --gpus 24GiB --engine {engine} --json"
            )));
        }
        is_unknown(&run(&format!("estimate {folder} --json")));
    }
}

#[test]
fn little_more_than_tensors_is_known() {
    let directory = tempfile::tempdir().unwrap();
    let large =
        json!({"w": {"dtype": "U8", "shape": [400_000_000], "data_offsets": [0, 400_000_000]}});
    let small = json!({"w": {"dtype": "U8", "shape": [1000], "data_offsets": [0, 1000]}});

    // Gaps below 1 % of the file or below 1 MiB, and a file that ends with its header.
    let cases = [
        ("percent", &large, 403_000_000),
        ("mebibyte", &small, 1 << 20),
    ];

    for (name, tensors, length) in cases {
        let folder = llama(&directory.path().join(name), tensors, length);
        let outcome = run(&format!(
            "fits {folder} --gpus 24GiB --engine reference --json"
        ));
        assert_eq!(
            (outcome.code, outcome.json()["verdict"].as_str()),
            (0, Some("fits")),
            "{}",
            outcome.out
        );
    }
}

#[test]
fn daemon_answers_unknown_and_grants_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let folder = llama(&directory.path().join("model"), &json!({}), 3_400_000);
    let daemon = Daemon::start_in(tempfile::tempdir().unwrap(), &["--gpus", "2x24GiB"]);
    is_unknown(&run_with_daemon(
        &daemon.socket(),
        &format!("fits {folder} --json"),
    ));

    is_unknown(&run_with_daemon(
        &daemon.socket(),
        &format!("fits {folder} --reserve --json"),
    ));
    let leases = run_with_daemon(&daemon.socket(), "lease list --json");
    assert!(leases.out.contains("\"leases\": []"), "{}", leases.out);
}

#[test]
fn gguf_padding_is_no_gap() {
    let directory = tempfile::tempdir().unwrap();

    // Each tensor has 64 bytes in its own MiB, after a header that is padded to 1 MiB.
    let alignment = 1 << 20;
    let header = Header::default()
        .with("general.architecture", Kv::Text("llama".into()))
        .with("general.alignment", Kv::U32(1 << 20))
        .tensor("a", &[16], 0, alignment)
        .tensor("b", &[16], 0, alignment)
        .tensor("c", &[16], 0, alignment);

    let (bytes, data) = header.bytes();
    let whole = alignment + data;
    let path = directory.path().join("model.gguf");
    let ask_with_length = |length: u64| {
        write(&path, &bytes, length);
        run(&format!(
            "fits {} --gpus 24GiB --engine reference --json",
            path.display()
        ))
    };

    let padded = ask_with_length(whole);
    assert_eq!(
        padded.json()["reason"],
        "unsupported_architecture",
        "its header accounts for it: {}",
        padded.out
    );

    is_unknown(&ask_with_length(whole + (2 << 20)));
}
