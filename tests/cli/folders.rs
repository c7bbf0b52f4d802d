//! Models of Ollama and LM Studio by their names there, and Ollama's defaults.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::gguf_writer::{Header, Kv};
use super::run::{Outcome, program};

const CONTEXT: u32 = 131_072;

/// Returns a Llama with two layers and a long context: 4 KiB of cache per token.
fn llama() -> Header {
    let mut header = Header::default().with("general.architecture", Kv::Text("llama".into()));
    for (key, value) in [
        ("block_count", 2),
        ("embedding_length", 1024),
        ("feed_forward_length", 4096),
        ("attention.head_count", 8),
        ("attention.head_count_kv", 4),
        ("context_length", CONTEXT),
    ] {
        header = header.with(&format!("llama.{key}"), Kv::U32(value));
    }

    header
        .with("tokenizer.ggml.tokens", Kv::Texts(1000))
        .tensor("token_embd.weight", &[1024, 1000], 1, 2_048_000)
        .tensor("output.weight", &[1024, 1000], 1, 2_048_000)
        .tensor("blk.0.attn_q.weight", &[1024, 1024], 1, 2 << 20)
        .tensor("blk.1.attn_q.weight", &[1024, 1024], 1, 2 << 20)
}

fn adapter() -> Header {
    Header::default()
        .with("general.architecture", Kv::Text("llama".into()))
        .with("general.type", Kv::Text("adapter".into()))
        .tensor("blk.0.attn_q.weight.lora_a", &[1024, 64], 0, 1024 * 64 * 4)
        .tensor("blk.0.attn_q.weight.lora_b", &[64, 1024], 0, 1024 * 64 * 4)
}

fn write(path: &Path, header: &Header) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let (bytes, data) = header.bytes();
    let length = bytes.len() as u64 + data;
    fs::write(path, bytes).unwrap();

    fs::File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_len(length)
        .unwrap();
}

/// Creates a home with models of Ollama and LM Studio.
///
/// Ollama has `tiny` and `tuned` (with an adapter, a projector and a context); LM Studio has
/// `some/tiny`.
fn home() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let models = home.path().join(".ollama/models");
    write(&models.join("blobs/sha256-aa"), &llama());
    write(&models.join("blobs/sha256-bb"), &adapter());
    let projector = Header::default()
        .with("general.architecture", Kv::Text("clip".into()))
        .tensor("v.w", &[1 << 20], 1, 2 << 20);
    write(&models.join("blobs/sha256-cc"), &projector);

    fs::write(
        models.join("blobs/sha256-dd"),
        r#"{"num_ctx": 8192, "stop": ["x"]}"#,
    )
    .unwrap();

    let manifests = models.join("manifests/registry.ollama.ai/library");
    for (name, layers) in [
        ("tiny", vec![("model", "aa")]),
        (
            "tuned",
            vec![
                ("model", "aa"),
                ("adapter", "bb"),
                ("projector", "cc"),
                ("params", "dd"),
            ],
        ),
        ("gone", vec![("model", "ee")]),
    ] {
        let layers: Vec<String> = layers
            .iter()
            .map(|(kind, digest)| {
                format!(r#"{{"mediaType": "application/vnd.ollama.image.{kind}", "digest": "sha256:{digest}"}}"#)
            })
            .collect();

        fs::create_dir_all(manifests.join(name)).unwrap();
        fs::write(
            manifests.join(name).join("latest"),
            format!(r#"{{"layers": [{}]}}"#, layers.join(",")),
        )
        .unwrap();
    }

    write(
        &home.path().join(".lmstudio/models/some/tiny/tiny-F16.gguf"),
        &llama(),
    );

    home
}

fn ask(home: &Path, line: &str) -> Outcome {
    program()
        .env("HOME", home)
        .args(line.split_whitespace())
        .output()
        .unwrap()
        .into()
}

fn component(answer: &Value, name: &str) -> u64 {
    let parts = answer["requirement"]["components"].as_array().unwrap();
    parts.iter().find(|part| part["name"] == name).unwrap()["likely_bytes"]
        .as_u64()
        .unwrap()
}

#[test]
fn models_are_found_by_pulled_names() {
    let home = home();
    for (name, engine) in [
        ("ollama:tiny", "ollama"),
        ("ollama:tiny", "llama.cpp"),
        ("lmstudio:some/tiny", "llama.cpp"),
    ] {
        let outcome = ask(
            home.path(),
            &format!("fits {name} --gpus 24GiB --local --json --engine {engine} --context 4096"),
        );
        let answer = outcome.json();
        assert_eq!(
            (outcome.code, &answer["model"]["repo"]),
            (0, &name.into()),
            "{}",
            outcome.out
        );

        // Layers and output are on the device; the embedding stays on the host.
        assert_eq!(
            component(&answer, "weights"),
            2_048_000 + (4 << 20),
            "{name}"
        );

        let args = answer["placement"]["launch"]["args"].clone();
        let expected = if engine == "ollama" {
            serde_json::json!(["ollama", "run", "tiny"])
        } else {
            Value::Null
        };

        assert_eq!(args, expected, "{name}");
    }

    let outcome = ask(
        home.path(),
        "fits ollama:tiny:9b --gpus 24GiB --local --json",
    );
    assert_eq!(
        (outcome.code, &outcome.json()["reason"]),
        (5, &"not_found".into()),
        "{}",
        outcome.out
    );

    let outcome = ask(home.path(), "fits ollama:gone --gpus 24GiB --local --json");
    assert_eq!(outcome.code, 5, "{}", outcome.out);
    assert!(outcome.out.contains("sha256-ee"), "{}", outcome.out);

    let outcome = ask(
        home.path(),
        "fits lmstudio:some/other --gpus 24GiB --local --json",
    );
    assert_eq!(outcome.code, 5, "{}", outcome.out);
}

#[test]
fn modelfile_parts_count() {
    let home = home();
    let ask_about = |name: &str| {
        ask(
            home.path(),
            &format!("fits {name} --gpus 24GiB --local --json --engine ollama"),
        )
        .json()
    };

    let (plain, tuned) = (ask_about("ollama:tiny"), ask_about("ollama:tuned"));
    let more = component(&tuned, "weights") - component(&plain, "weights");
    let projector = fs::metadata(home.path().join(".ollama/models/blobs/sha256-cc"))
        .unwrap()
        .len();
    assert_eq!(more, 2 * 1024 * 64 * 4 + projector);

    assert_eq!(
        (&plain["workload"]["context"], &tuned["workload"]["context"]),
        (&32_768.into(), &8192.into())
    );
    let given = ask(
        home.path(),
        "fits ollama:tuned --gpus 24GiB --local --json --engine ollama --set num_ctx=2048",
    )
    .json();

    assert_eq!(given["workload"]["context"], 2048);
}

#[test]
fn ollama_context_follows_total_memory() {
    let home = home();
    for (gpus, rest, context) in [
        ("8GiB", "", 4096),
        ("22GiB", "", 4096),
        ("23GiB", "", 32_768),
        ("24GiB", "", 32_768),
        ("2x12GiB", "", 32_768),
        ("2x24GiB", "", CONTEXT),
        ("24GiB,12GiB", "", 32_768),
        ("2x12GiB", "--set OLLAMA_GPU_OVERHEAD=1073741824", 4096),
        ("2x24GiB", "--set OLLAMA_CONTEXT_LENGTH=9000", 9000),
        ("2x24GiB", "--context 5000", 5000),
    ] {
        let line = format!("fits ollama:tiny --gpus {gpus} --local --json --engine ollama {rest}");
        let outcome = ask(home.path(), &line);
        assert_eq!(
            outcome.json()["workload"]["context"],
            context,
            "{line}: {}",
            outcome.out
        );
    }
}
