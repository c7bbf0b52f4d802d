//! `pack`, and answers from its bundles: byte for byte those of the Hub, for each kind of
//! repository and each way to ask.

use serde_json::json;

use super::fake_hub::FakeHub;
use super::fake_hub::repositories::{OWNER, Repositories, Repository, decoder, dense, safetensors};
use super::gguf_writer::{Header, Kv};
use super::harness::{Daemon, User, requests_of};

/// Returns a repository of each kind, and the `--file` argument it needs.
fn every_kind() -> (Repositories, Vec<(&'static str, &'static str)>) {
    let (config, tensors) = decoder();
    let config = config.to_string();
    let (first, second) = tensors.split_at(10);

    let file_of = |tensors: &[(String, Vec<u64>)]| {
        safetensors(
            &tensors
                .iter()
                .map(|(name, shape)| (name.as_str(), "BF16", 2, shape.as_slice()))
                .collect::<Vec<_>>(),
        )
    };

    let paths = [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ];
    let mapped = first
        .iter()
        .map(|(name, _)| (name, paths[0]))
        .chain(second.iter().map(|(name, _)| (name, paths[1])));
    let index = json!({"metadata": {}, "weight_map": mapped.map(|(name, path)| (name.clone(), json!(path))).collect::<serde_json::Map<_, _>>()});
    let sharded = Repository::default()
        .with("config.json", config.clone())
        .with("model.safetensors.index.json", index.to_string())
        .with(paths[0], file_of(first))
        .with(paths[1], file_of(second));

    let gguf_file = |bytes: u64| {
        let header = Header::default()
            .with("general.architecture", Kv::Text("llama".into()))
            .with("llama.block_count", Kv::U32(1))
            .with("llama.embedding_length", Kv::U32(64))
            .with("llama.feed_forward_length", Kv::U32(128))
            .with("llama.attention.head_count", Kv::U32(4))
            .with("llama.attention.head_count_kv", Kv::U32(2))
            .with("llama.context_length", Kv::U32(256))
            .tensor("token_embd.weight", &[64, 100], 0, 25_600)
            .tensor("blk.0.attn_q.weight", &[64, 64], 0, 16_384)
            .tensor("output_norm.weight", &[bytes / 4], 0, bytes);
        let (mut file, data) = header.bytes();
        file.resize(file.len() + usize::try_from(data).expect("small"), 0);

        file
    };

    let quantized = Repository::default()
        .with("tiny-Q4_K_M.gguf", gguf_file(256))
        .with("tiny-Q8_0.gguf", gguf_file(512));
    let part = || safetensors(&[("conv_in.weight", "F16", 2, &[32, 4, 3, 3])]);
    let model_index = json!({"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"]});
    let pipeline = Repository::default()
        .with("model_index.json", model_index.to_string())
        .with(
            "unet/config.json",
            r#"{"_class_name": "UNet2DConditionModel", "sample_size": 64}"#,
        )
        .with("unet/diffusion_pytorch_model.safetensors", part())
        .with("vae/config.json", r#"{"_class_name": "AutoencoderKL"}"#)
        .with("vae/diffusion_pytorch_model.safetensors", part());

    let modules = json!([{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Dense", "type": "sentence_transformers.models.Dense"}]);
    let embedder = dense()
        .with("modules.json", modules.to_string())
        .with(
            "1_Dense/config.json",
            r#"{"in_features": 64, "out_features": 8}"#,
        )
        .with(
            "1_Dense/model.safetensors",
            safetensors(&[("linear.weight", "F32", 4, &[8, 64])]),
        );

    let pickled = Repository::default()
        .with("config.json", config)
        .with("pytorch_model.bin", vec![0; 4096]);
    let adapter = Repository::default()
        .with(
            "adapter_config.json",
            r#"{"peft_type": "LORA", "r": 8, "base_model_name_or_path": "kinds/dense"}"#,
        )
        .with(
            "adapter_model.safetensors",
            safetensors(&[(
                "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
                "F32",
                4,
                &[8, 64],
            )]),
        );

    let repositories = Repositories::default()
        .with("kinds/dense", dense())
        .with(
            "kinds/gated",
            Repository {
                gated: true,
                ..dense()
            },
        )
        .with("kinds/sharded", sharded)
        .with("kinds/gguf", quantized)
        .with("kinds/diffusers", pipeline)
        .with("kinds/embedder", embedder)
        .with("kinds/pickled", pickled)
        .with("kinds/adapter", adapter);

    let names = [
        "dense",
        "gated",
        "sharded",
        "gguf",
        "diffusers",
        "embedder",
        "pickled",
        "adapter",
    ];

    (
        repositories,
        names
            .into_iter()
            .map(|name| (name, if name == "gguf" { "--file Q8_0" } else { "" }))
            .collect(),
    )
}

#[tokio::test]
async fn bundle_answers_as_the_hub_does() {
    let (repositories, kinds) = every_kind();
    let hub = FakeHub::start(move |request, _| Some(repositories.reply(request))).await;
    let user = User::of(&hub.endpoint).with("HF_TOKEN", OWNER);
    let offline = User::of("http://127.0.0.1:9").with("HF_HUB_OFFLINE", "1");
    let daemon = Daemon::start(&offline, "offline = true", "", &[]).await;
    let mut known = 0;

    for (name, file) in kinds {
        let bundle = user.path(&format!("{name}.hfmp")).display().to_string();
        let packed = user
            .run(&format!("pack kinds/{name} {file} -o {bundle} --json"))
            .await;
        assert_eq!(packed.code, 0, "{name}: {packed:?}");
        let said = packed.json();
        assert_eq!(
            (said["repo"].as_str(), said["schema_version"].as_u64()),
            (Some(format!("kinds/{name}").as_str()), Some(1))
        );
        assert_eq!(said["sha256"].as_str().map(str::len), Some(64));
        let bytes = std::fs::read(&bundle).expect("a bundle");
        assert_eq!(said["bundle_bytes"], bytes.len());
        assert!(bytes.len() < 200 << 10, "{name}: {} bytes", bytes.len());

        for (command, more) in [
            ("fits", "--gpus 24GiB"),
            ("estimate", ""),
            ("estimate", "--engine reference --context 64"),
        ] {
            let of_hub = user
                .run(&format!(
                    "{command} kinds/{name} {file} {more} --local --json"
                ))
                .await;
            known += u32::from(of_hub.code == 0);
            let line = format!("{command} {bundle} {more} --json");
            let (of_bundle, requests) = requests_of(&hub, user.run(&line)).await;
            assert_eq!(
                (of_bundle.code, of_bundle.timeless()),
                (of_hub.code, of_hub.timeless()),
                "{name}: {line}"
            );

            assert_eq!(requests, 0, "{name}");
            let of_offline = offline.run(&line).await;
            assert_eq!(
                (of_offline.code, of_offline.timeless()),
                (of_hub.code, of_hub.timeless()),
                "{name}: {line}, offline"
            );

            let of_daemon = offline.ask(&daemon.socket(), None, &line).await;
            assert!(
                of_daemon.code == 0 || of_daemon.out.contains("schema_version"),
                "{of_daemon:?}"
            );

            assert_eq!(
                (of_daemon.code, of_daemon.timeless()),
                (of_hub.code, of_hub.timeless()),
                "{name}: {line}, daemon"
            );

            assert!(
                command == "estimate" && !more.is_empty() || !daemon.log().contains(&bundle),
                "the daemon saw the path"
            );
        }
    }

    assert!(
        known >= 12,
        "most of these are answers, not refusals: {known}"
    );
}

#[tokio::test]
async fn bundle_is_reproducible_without_secrets() {
    let (repositories, _) = every_kind();
    let hub = FakeHub::start(move |request, _| Some(repositories.reply(request))).await;
    let user = User::of(&hub.endpoint).with("HF_TOKEN", OWNER);
    let mut bundles = Vec::new();

    for name in ["one", "two"] {
        let packed = user.run(&format!("pack kinds/gated -o {name}")).await;
        assert_eq!(packed.code, 0, "{packed:?}");
        assert!(packed.err.contains("kinds/gated is gated"), "{packed:?}");

        assert!(
            packed
                .out
                .starts_with(&format!("{name}: kinds/gated at 0123456789abcdef")),
            "{packed:?}"
        );

        bundles.push(std::fs::read(user.path(name)).expect("a bundle"));
    }

    assert_eq!(bundles[0], bundles[1]);
    let mut text = String::new();
    std::io::Read::read_to_string(
        &mut flate2::read::GzDecoder::new(bundles[0].as_slice()),
        &mut text,
    )
    .expect("gzip");

    for secret in [OWNER, "canary", "Signature", &hub.endpoint] {
        assert!(!text.contains(secret), "{secret}");
    }

    assert!(
        text.contains("model.layers.*.self_attn.q_proj.weight"),
        "and there is something in it"
    );
}

#[tokio::test]
async fn failed_packing_is_reported() {
    let (repositories, _) = every_kind();
    let hub = FakeHub::start(move |request, _| Some(repositories.reply(request))).await;
    let user = User::of(&hub.endpoint);

    for (line, code, reason, says) in [
        (
            "pack kinds/dense -o /nonexistent/folder/x",
            2,
            "usage",
            "cannot write /nonexistent/folder/x",
        ),
        ("pack kinds/dense -o .", 2, "usage", "cannot write ."),
        (
            "pack kinds/none -o x",
            5,
            "not_found",
            "repository kinds/none",
        ),
        (
            "pack kinds/gated -o x",
            5,
            "gated",
            "/kinds/gated, then set HF_TOKEN",
        ),
        ("pack kinds/gguf --file Q2_K -o x", 5, "not_found", "Q2_K"),
        ("pack kinds/dense", 2, "usage", "--output"),
    ] {
        let outcome = user.run(&format!("{line} --json")).await;
        let said = outcome.json();
        assert_eq!(
            (outcome.code, said["reason"].as_str()),
            (code, Some(reason)),
            "{line}: {outcome:?}"
        );

        assert!(
            said["detail"]
                .as_str()
                .is_some_and(|detail| detail.contains(says)),
            "{line}: {outcome:?}"
        );
    }

    assert!(!user.path("x").exists(), "no partial file remains");
}

#[tokio::test]
async fn adapter_bundle_is_gated_as_base() {
    let config = r#"{"base_model_name_or_path": "a/gated", "peft_type": "LORA", "r": 8}"#;
    let adapter = Repository::default()
        .with("adapter_config.json", config)
        .with(
            "adapter_model.safetensors",
            safetensors(&[(
                "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
                "F32",
                4,
                &[8, 64],
            )]),
        );

    let repositories = Repositories::default().with("a/lora", adapter).with(
        "a/gated",
        Repository {
            gated: true,
            ..dense()
        },
    );
    let hub = FakeHub::start(move |request, _| Some(repositories.reply(request))).await;
    let user = User::of(&hub.endpoint).with("HF_TOKEN", OWNER);
    let packed = user.run("pack a/lora -o lora --json").await;
    assert_eq!(
        (packed.code, packed.json()["gated"].as_bool()),
        (0, Some(true)),
        "{packed:?}"
    );

    assert!(
        packed.err.contains("is gated: share lora only with"),
        "{packed:?}"
    );
}
