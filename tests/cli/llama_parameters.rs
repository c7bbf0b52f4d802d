//! llama-server parameters: every accepted one changes a figure, every other one is refused.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::gguf_writer::{Header, Kv};
use super::run::run;

/// Writes a mixture of experts of four layers, two of them windowed, and a projector.
fn mixture(folder: &Path) {
    let mut header = Header::default().with("general.architecture", Kv::Text("gpt-oss".into()));
    for (key, value) in [
        ("block_count", 4),
        ("embedding_length", 2048),
        ("feed_forward_length", 2048),
        ("attention.head_count", 32),
        ("attention.head_count_kv", 8),
        ("attention.key_length", 64),
        ("attention.value_length", 64),
        ("attention.sliding_window", 128),
        ("expert_count", 32),
        ("expert_used_count", 4),
        ("expert_feed_forward_length", 2048),
        ("context_length", 65_536),
    ] {
        header = header.with(&format!("gpt-oss.{key}"), Kv::U32(value));
    }

    header = header.with("tokenizer.ggml.tokens", Kv::Texts(50_000));
    for name in ["token_embd.weight", "output.weight"] {
        header = header.tensor(name, &[2048, 50_000], 1, 2 * 2048 * 50_000);
    }

    for layer in 0..4 {
        header = header
            .tensor(
                &format!("blk.{layer}.attn_q.weight"),
                &[2048, 2048],
                1,
                2 << 22,
            )
            .tensor(
                &format!("blk.{layer}.ffn_gate_inp.weight"),
                &[2048, 32],
                0,
                4 * 2048 * 32,
            )
            .tensor(
                &format!("blk.{layer}.ffn_up_exps.weight"),
                &[2048, 2048, 32],
                1,
                (2 << 22) * 32,
            );
    }

    let (bytes, data) = header.bytes();
    let path = folder.join("m-F16.gguf");
    let length = bytes.len() as u64 + data;
    fs::write(&path, bytes).unwrap();

    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(length)
        .unwrap();

    fs::write(folder.join("mmproj-m.gguf"), vec![0; 1 << 20]).unwrap();
}

#[test]
fn accepted_parameters_change_figures() {
    let folder = tempfile::tempdir().unwrap();
    mixture(folder.path());

    let ask_with = |rest: &str| {
        run(&format!(
            "fits {} --gpus 2x24GiB --local --json --offload allow {rest}",
            folder.path().display()
        ))
    };

    let figures_of = |answer: &Value| {
        let placement = &answer["placement"];
        let devices: Vec<Value> = placement["devices"]
            .as_array()
            .unwrap()
            .iter()
            .map(|device| device["components"].clone())
            .collect();

        (
            devices,
            placement["host"]["required_bytes"].clone(),
            placement["launch"]["args"].clone(),
        )
    };

    let plain = ask_with("").json();
    for (name, value) in [
        ("n_ctx", "8192"),
        ("n_batch", "256"),
        ("n_ubatch", "1024"),
        ("n_parallel", "2"),
        ("kv_unified", "off"),
        ("flash_attn", "off"),
        ("type_k", "q8_0"),
        ("type_v", "q4_0"),
        ("n_gpu_layers", "2"),
        ("n_cpu_moe", "2"),
        ("cpu_moe", "on"),
        ("swa_full", "on"),
        ("no_kv_offload", "on"),
        ("kv_offload", "off"),
        ("no_mmproj", "on"),
        ("no_mmproj_offload", "on"),
    ] {
        let outcome = ask_with(&format!("--set {name}={value}"));
        let set = outcome.json();
        assert_eq!(outcome.code, 0, "{name}: {}", outcome.out);

        assert_ne!(
            figures_of(&set),
            figures_of(&plain),
            "{name} = {value} changes nothing"
        );

        let flag = set["placement"]["launch"]["args"].to_string();
        assert!(flag.contains("llama-server"), "{flag}");
    }

    let short_figures =
        |rest: &str| figures_of(&ask_with(&format!("--context 4096 {rest}")).json());
    assert_ne!(
        short_figures("--set n_outputs_max=512"),
        short_figures(""),
        "logits of every token are the largest part of a short context"
    );

    // These do not change allocations, but the memory to leave free or the possible placements.
    let required_bytes = |answer: &Value| {
        answer["placement"]["devices"][0]["required_bytes"]
            .as_u64()
            .unwrap()
    };

    assert!(required_bytes(&ask_with("--set fit_target=4096").json()) > required_bytes(&plain));
    assert!(required_bytes(&ask_with("--set fit=off").json()) < required_bytes(&plain));
    let two = ask_with("--set tensor_split=1,1").json();
    assert_eq!(two["placement"]["devices"].as_array().unwrap().len(), 2);
    let one = ask_with("--set split_mode=none --pipeline-parallel 2").json();
    assert_eq!(one["reason"], "no_legal_split", "{}", one["message"]);

    for (name, code, says) in [
        ("ot", 3, "n_cpu_moe"),
        ("md", 3, "draft"),
        ("lora", 3, "adapter"),
        ("mg", 2, "--on"),
        ("rpc", 3, "other hosts"),
        ("mmproj", 2, "mmproj-m.gguf"),
        ("n_ubatchs", 2, "n_ubatch"),
    ] {
        let outcome = ask_with(&format!("--set {name}=x"));
        assert_eq!(outcome.code, code, "{name}: {}", outcome.out);
        assert!(outcome.out.contains(says), "{name}: {}", outcome.out);
    }

    assert_eq!(ask_with("--set mmproj=mmproj-m.gguf").code, 0);
}
