//! LoRA adapters: the base model plus the adapter, or an error that names the base.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::fake_hub::{COMMIT, FakeHub, Reply, Request};
use super::run::{MODEL, Outcome, program, run};

const LAYERS: u64 = 36;
/// Bytes per rank of an F16 adapter on every q and v projection of the shipped model.
const BYTES_PER_RANK: u64 = 2 * LAYERS * ((4096 + 4096) + (4096 + 1024));

/// Writes an adapter of `rank` on q and v of the shipped model, with `more` in its configuration.
fn adapter(folder: &Path, base: &str, rank: u64, more: &Value) -> PathBuf {
    let mut config = json!({"base_model_name_or_path": base, "peft_type": "LORA", "r": rank, "lora_alpha": 16,
        "target_modules": ["q_proj", "v_proj"], "modules_to_save": null});
    let object = config.as_object_mut().unwrap();
    object.extend(more.as_object().unwrap().clone());
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("adapter_config.json"), config.to_string()).unwrap();
    let (mut entries, mut end) = (Vec::new(), 0);
    let mut add_tensor = |name: String, shape: [u64; 2]| {
        let begin = end;
        end += shape[0] * shape[1] * 2;
        entries.push(format!(
            r#""{name}":{{"dtype":"F16","shape":[{},{}],"data_offsets":[{begin},{end}]}}"#,
            shape[0], shape[1]
        ));
    };

    for layer in 0..LAYERS {
        for (module, out) in [("q_proj", 4096), ("v_proj", 1024)] {
            let stem = format!("base_model.model.model.layers.{layer}.self_attn.{module}");
            add_tensor(format!("{stem}.lora_A.weight"), [rank, 4096]);
            add_tensor(format!("{stem}.lora_B.weight"), [out, rank]);
        }
    }

    if config["modules_to_save"].is_array() {
        add_tensor("base_model.model.lm_head.weight".into(), [151_936, 4096]);
    }

    let header = format!("{{{}}}", entries.join(","));
    let path = folder.join("adapter_model.safetensors");
    fs::write(
        &path,
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat(),
    )
    .unwrap();

    fs::File::options()
        .append(true)
        .open(&path)
        .unwrap()
        .set_len(8 + header.len() as u64 + end)
        .unwrap();

    folder.to_owned()
}

fn base() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(MODEL)
        .display()
        .to_string()
}

fn component(answer: &Value, name: &str, end: &str) -> u64 {
    let parts = answer["requirement"]["components"].as_array().unwrap();
    parts.iter().find(|part| part["name"] == name).unwrap()[end]
        .as_u64()
        .unwrap()
}

fn asked(path: &Path, rest: &str) -> Outcome {
    run(&format!(
        "estimate {} --gpus 80GiB --local --json {rest}",
        path.display()
    ))
}

#[test]
fn adapter_adds_to_base() {
    let folder = tempfile::tempdir().unwrap();
    let lora = adapter(&folder.path().join("lora"), &base(), 8, &json!({}));

    let ask_base = |rest: &str| {
        run(&format!(
            "estimate {MODEL} --gpus 80GiB --local --json {rest}"
        ))
        .json()
    };

    // As stored.
    let (with, without) = (
        asked(&lora, "--engine reference"),
        ask_base("--engine reference"),
    );
    assert_eq!(with.code, 0, "{}", with.out);
    let weight_bytes = |answer: &Value| component(answer, "weights", "likely_bytes");
    assert_eq!(
        weight_bytes(&with.json()) - weight_bytes(&without),
        8 * BYTES_PER_RANK
    );
    let reported = &with.json()["model"]["adapter"];
    assert_eq!(
        (
            &reported["rank"],
            &reported["base_repo"],
            &reported["stored_bytes"]
        ),
        (&8.into(), &base().into(), &(8 * BYTES_PER_RANK).into())
    );

    // PEFT casts 16-bit adapters to F32.
    let (with, without) = (
        asked(&lora, "--engine transformers").json(),
        ask_base("--engine transformers"),
    );
    assert_eq!(
        weight_bytes(&with) - weight_bytes(&without),
        2 * 8 * BYTES_PER_RANK
    );

    // vLLM's slots follow its own parameters, not the adapter.
    let with = asked(&lora, "").json();
    assert_eq!(with["engine"]["parameters"]["max_lora_rank"], 16);
    let slots = ask_base("--set enable_lora=true");
    assert_eq!(with["requirement"], slots["requirement"]);

    assert!(
        with["requirement"]["total"]["likely_bytes"].as_u64()
            > ask_base("")["requirement"]["total"]["likely_bytes"].as_u64()
    );
    let line = with["placement"]["launch"]["args"].to_string();
    assert!(
        line.contains(&base()) && line.contains("--enable-lora") && line.contains("lora="),
        "{line}"
    );
}

#[test]
fn unsupported_adapter_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let make_adapter =
        |name: &str, rank, more: Value| adapter(&folder.path().join(name), &base(), rank, &more);
    let large = make_adapter("large", 64, json!({}));
    let refused = asked(&large, "");
    assert_eq!(refused.code, 2, "{}", refused.out);
    assert!(refused.out.contains("max_lora_rank=64"), "{}", refused.out);
    assert_eq!(asked(&large, "--set max_lora_rank=64").code, 0);
    let off = asked(
        &make_adapter("off", 8, json!({})),
        "--set enable_lora=false",
    );
    assert_eq!(off.code, 2, "{}", off.out);

    for (name, more, says) in [
        ("dora", json!({"use_dora": true}), "use_dora"),
        (
            "saved",
            json!({"modules_to_save": ["lm_head"]}),
            "modules_to_save",
        ),
        ("other", json!({"peft_type": "LOHA"}), "LOHA"),
    ] {
        let outcome = asked(&make_adapter(name, 8, more), "");
        assert_eq!(outcome.code, 3, "{name}: {}", outcome.out);
        assert!(outcome.out.contains(says), "{name}: {}", outcome.out);
    }
    // The rank of a single module counts.
    let pattern = make_adapter("pattern", 8, json!({"rank_pattern": {"q_proj": 32}}));

    assert!(asked(&pattern, "").out.contains("max_lora_rank=32"));
    let saved = asked(&folder.path().join("saved"), "--engine reference").json();
    assert_eq!(
        saved["model"]["adapter"]["stored_bytes"],
        8 * BYTES_PER_RANK + 151_936 * 4096 * 2
    );

    for (engine, says) in [("llama.cpp", "GGUF"), ("sglang", "merge")] {
        let outcome = asked(&folder.path().join("off"), &format!("--engine {engine}"));
        assert_eq!(outcome.code, 3, "{}", outcome.out);
        assert!(outcome.out.contains(says), "{}", outcome.out);
    }
}

#[test]
fn missing_base_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = adapter(&folder.path().join("a"), "/nowhere/base", 8, &json!({}));
    let outcome = asked(&nowhere, "");
    assert_eq!(outcome.code, 3, "{}", outcome.out);

    assert!(
        outcome.out.contains("/nowhere/base") && outcome.out.contains("base_model_name_or_path"),
        "{}",
        outcome.out
    );

    let unnamed = adapter(&folder.path().join("b"), "", 8, &json!({}));
    let outcome = asked(&unnamed, "");
    assert_eq!(outcome.code, 3, "{}", outcome.out);

    assert!(
        outcome.out.contains("base_model_name_or_path"),
        "{}",
        outcome.out
    );

    let chained = adapter(
        &folder.path().join("c"),
        folder.path().join("d").to_str().unwrap(),
        8,
        &json!({}),
    );

    adapter(&folder.path().join("d"), &base(), 8, &json!({}));
    let outcome = asked(&chained, "");
    assert!(
        outcome.code == 3 && outcome.out.contains("is an adapter itself"),
        "{}",
        outcome.out
    );
}

/// Starts a Hub with the adapter `a/b` on `m/base`, whose replies are `base`.
async fn hub(folder: &Path, base: Reply) -> FakeHub {
    let files = adapter(folder, "m/base", 8, &json!({}));
    FakeHub::start(move |request: &Request, _| {
        let path = request.target.split('?').next().unwrap();
        if path.starts_with("/api/models/m/base/") {
            return Some(base.clone());
        }

        let read_file = |name: &str| fs::read(files.join(name)).unwrap();
        if path.starts_with("/api/models/a/b/revision/") {
            let listed = ["adapter_config.json", "adapter_model.safetensors"]
                .map(|name| json!({"rfilename": name, "size": read_file(name).len()}));
            return Some(Reply::ok(
                json!({"id": "a/b", "sha": COMMIT, "gated": false, "siblings": listed}).to_string(),
            ));
        }

        let bytes = read_file(path.strip_prefix(&format!("/a/b/resolve/{COMMIT}/"))?);
        Some(super::fake_hub::ranged(&bytes, request))
    })
    .await
}

#[tokio::test]
async fn inaccessible_hub_base_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for (reply, reason, says) in [
        (
            Reply::status(403).with("x-error-code", "GatedRepo"),
            "gated",
            "m/base, the base model of the adapter a/b, is gated",
        ),
        (
            Reply::status(404).with("x-error-code", "RepoNotFound"),
            "not_found",
            "it is the base model of the adapter a/b",
        ),
    ] {
        let hub = hub(folder.path(), reply).await;
        let mut command = program();
        command
            .env("HF_ENDPOINT", &hub.endpoint)
            .env_remove("HF_HUB_OFFLINE");
        command.args("fits a/b --gpus 80GiB --local --json".split(' '));

        let outcome: Outcome =
            tokio::task::spawn_blocking(move || command.output().unwrap().into())
                .await
                .unwrap();
        assert_eq!(
            (outcome.code, &outcome.json()["reason"]),
            (5, &reason.into()),
            "{}",
            outcome.out
        );
        assert!(outcome.out.contains(says), "{}", outcome.out);
    }
}

#[test]
fn adapter_gets_verdict_of_base() {
    let folder = tempfile::tempdir().unwrap();
    let lora = adapter(&folder.path().join("lora"), &base(), 8, &json!({}));

    let ask_about = |model: &str, rest: &str| {
        run(&format!(
            "fits {model} --local --json --set enable_lora=true {rest}"
        ))
        .json()
    };

    let lora = lora.display().to_string();

    // Moving 10 GiB to a host of unknown size never fits, with or without an adapter.
    let offloaded = "--gpus T4 --context 2048 --set cpu_offload_gb=10";
    let (plain, with) = (ask_about(MODEL, offloaded), ask_about(&lora, offloaded));
    assert_eq!(plain["verdict"], "does_not_fit", "{plain}");
    assert_eq!(with["verdict"], plain["verdict"], "{with}");

    // The placement on eight devices is the same with an adapter.
    let many = "--gpus 8xA100-40GB --sequences 24";
    let (plain, with) = (ask_about(MODEL, many), ask_about(&lora, many));

    for part in ["strategy", "tensor_parallel", "pipeline_parallel"] {
        assert_eq!(with["placement"][part], plain["placement"][part], "{part}");
    }
}
