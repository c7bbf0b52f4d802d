//! Engine versions: invalid and old versions fail, distant versions give a warning.

use std::fs;

use serde_json::{Value, json};

use super::run::{MODEL, Outcome, run};

fn fits(engine: &str) -> Outcome {
    run(&format!(
        "fits {MODEL} --gpus 80GiB --local --json --context 4096 --engine {engine}"
    ))
}

fn warnings(answer: &Value) -> String {
    answer["warnings"].to_string()
}

#[test]
fn no_version_is_usage_error() {
    for engine in [
        "vllm@banana",
        "vllm@",
        "vllm@latest",
        "vllm@b12032",
        "sglang@1.x",
        "reference@1.0",
        "llama.cpp@0.33",
    ] {
        let outcome = fits(engine);
        assert_eq!(
            (outcome.code, outcome.json()["reason"].as_str()),
            (2, Some("usage")),
            "{engine}: {}",
            outcome.out
        );
    }
}

#[test]
fn old_version_is_unsupported() {
    for engine in ["vllm@0.3.3", "sglang@0.1", "transformers@3.5.1"] {
        let outcome = fits(engine);
        let answer = outcome.json();
        let found = (
            outcome.code,
            answer["verdict"].as_str(),
            answer["reason"].as_str(),
        );

        assert_eq!(
            found,
            (3, Some("unknown"), Some("unsupported_engine_version")),
            "{engine}: {}",
            outcome.out
        );

        assert_eq!(
            answer["requirement"]["components"][0]["name"], "weights",
            "{engine}"
        );
    }
}

#[test]
fn distant_version_is_warned_about() {
    for (engine, says) in [
        ("vllm@9.9", "9 major releases newer than 0.33"),
        ("vllm@0.1.dev17+g1a2b3c4", "names no release"),
        ("sglang@0.4.7.post1", "1 minor release older than 0.5"),
        ("transformers@4.57", "1 major release older"),
    ] {
        let outcome = fits(engine);
        let answer = outcome.json();
        assert_eq!(outcome.code, 0, "{engine}: {}", outcome.out);

        assert!(
            warnings(&answer).contains(says),
            "{engine}: {}",
            warnings(&answer)
        );

        for part in answer["requirement"]["components"].as_array().unwrap() {
            let assumed = part["basis"] == "assumed" || part["name"] == "weights";
            assert!(assumed, "{engine}: {part}");
        }
    }
}

#[test]
fn class_of_later_version_is_unknown() {
    let outcome = fits("vllm@0.5");
    let answer = outcome.json();
    assert_eq!(
        (outcome.code, &answer["reason"]),
        (3, &json!("unsupported_architecture"))
    );
    let message = answer["message"].as_str().unwrap();
    assert!(
        message.contains("vLLM has Qwen3ForCausalLM since 0.8.4"),
        "{message}"
    );
}

#[test]
fn verified_version_has_no_warning() {
    for engine in [
        "vllm@0.33",
        "vllm@v0.19.1+cu128",
        "sglang@0.5.23",
        "transformers@5",
        "vllm",
    ] {
        let answer = fits(engine).json();
        assert!(
            !warnings(&answer).contains("verified"),
            "{engine}: {}",
            warnings(&answer)
        );
    }
}

#[test]
fn default_engine_takes_version() {
    let folder = tempfile::tempdir().unwrap();
    let check_config = |engine: &str| {
        let file = folder.path().join("daemon.toml");
        fs::write(&file, format!("[engines]\ndefault_engine = \"{engine}\"\n")).unwrap();
        run(&format!("check-config {}", file.display()))
    };

    assert_eq!(check_config("vllm@0.19").code, 0);
    for engine in ["vllm@banana", "vllm@0.1.0", "reference@1", "nobody"] {
        let outcome = check_config(engine);
        assert_eq!(outcome.code, 78, "{engine}: {}", outcome.out);
    }
}
