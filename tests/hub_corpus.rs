//! Reads every model of the corpus from a look-alike Hub: weights equal to the byte, parameters
//! equal to the Hub's count.

#![expect(
    clippy::print_stdout,
    reason = "the optional corpus may be absent, and its figures are worth seeing"
)]

#[path = "support/look_alike/mod.rs"]
mod look_alike;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hf_mem_core::model::tensors::InventoryBuilder;
use hf_mem_core::model::{Dtype, Format, Inventory, Model, Storage};
use hf_mem_probe::repository::{
    Auth, HubSettings, ModelReference, SourceClient, SourceError, SourceSettings, Token,
};
use look_alike::LookAlike;
use serde_json::Value;

/// Packed checkpoints. The Hub's total counts their words as stored. This program counts the
/// weights in them, so the figure is that of the model before packing.
const UNPACKED: [(&str, u64); 9] = [
    ("mlx-community/Llama-3.2-1B-Instruct-4bit", 1_235_814_400),
    ("mlx-community/Llama-3.2-3B-Instruct-4bit", 3_212_749_824),
    ("mlx-community/Qwen3-0.6B-4bit", 596_049_920),
    ("mlx-community/Qwen3-0.6B-8bit", 596_049_920),
    ("mlx-community/Qwen3-8B-4bit", 8_190_735_360),
    ("nvidia/GLM-5-NVFP4", 753_864_139_008),
    ("nvidia/Gemma-4-31B-IT-NVFP4", 31_273_088_876),
    ("nvidia/MiniMax-M2.7-NVFP4", 228_689_764_864),
    (
        "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-NVFP4",
        31_577_940_288,
    ),
];

fn models(corpus: &Path) -> Vec<(String, Value)> {
    let list_folders = |path: &Path| -> Vec<PathBuf> {
        let mut found: Vec<_> = std::fs::read_dir(path)
            .expect("listed")
            .flatten()
            .map(|entry| entry.path())
            .collect();
        found.sort();
        found
    };

    let mut all = Vec::new();
    for owner in list_folders(&corpus.join("models")) {
        for model in list_folders(&owner) {
            let Ok(meta) = std::fs::read(model.join("meta.json")) else {
                continue;
            };

            let name_of = |path: &Path| {
                path.file_name()
                    .expect("named")
                    .to_string_lossy()
                    .into_owned()
            };

            let meta = serde_json::from_slice(&meta).expect("meta.json");
            all.push((format!("{}/{}", name_of(&owner), name_of(&model)), meta));
        }
    }

    all
}

/// Returns the tensors in the headers.
fn stored(folder: &Path) -> Inventory {
    let packed = std::fs::File::open(folder.join("tensors.json.gz")).expect("opened");
    let mut text = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(packed), &mut text)
        .expect("unpacked");
    let tensors: Vec<(&str, &str, &str, Vec<u64>)> = serde_json::from_slice(&text).expect("JSON");
    let mut builder = InventoryBuilder::default();

    for (file, name, dtype, shape) in tensors {
        let component = file.rsplit_once('/').map_or("", |(folder, _)| folder);
        let known = Dtype::from_safetensors(dtype).expect("a known type");
        let bytes = known.stored(shape.iter().product()).expect("whole bytes");
        builder.add(component, name, Storage::Known(known), &shape, bytes);
    }

    builder.finish()
}

fn client(endpoint: &str) -> SourceClient {
    let variables = |name: &str| (name == "HF_ENDPOINT").then(|| endpoint.to_owned());
    let mut settings = HubSettings::from_environment(variables).expect("settings");
    // The look-alike creates headers of tens of megabytes on request, on a machine that may be
    // busy.
    settings.limits.total = Duration::from_secs(600);
    settings.limits.attempt = Duration::from_secs(120);
    SourceClient::new(SourceSettings::new(settings))
}

async fn describe(
    client: &SourceClient,
    repo: &str,
) -> Result<(std::sync::Arc<Model>, u32), SourceError> {
    let reference = ModelReference::parse(repo, None, |_| false)?;
    let auth = Auth::from(Token::new("hf_ok"));
    let described = client
        .describe(&reference, &auth, SystemTime::UNIX_EPOCH)
        .await?;
    Ok((described.model, described.requests))
}

/// Returns the minimum requests of hf-mem 0.5.6: the model API, and for each header and an index
/// the Hub's redirect and its target.
fn max_requests(files: u32) -> u32 {
    let index = if files > 1 { 2 } else { 0 };
    1 + index + 2 * files
}

#[tokio::test]
async fn weights_are_exact_for_every_model() {
    let Some(hub) = LookAlike::start(&[]) else {
        return;
    };

    let client = client(&hub.endpoint);
    let (mut wrong, mut checked, mut requests, mut proved, mut unread) = (Vec::new(), 0, 0, 0, 0);

    for (repo, meta) in models(&hub.corpus) {
        let number = |key: &str| meta.get(key).and_then(Value::as_u64);
        let (model, made) = match describe(&client, &repo).await {
            Ok(found) => found,
            Err(error) => {
                wrong.push(format!("{repo}: {error}"));
                continue;
            }
        };

        checked += 1;
        requests += made;

        if let Err(problem) = hf_mem_core::evaluate::check_complexity(&model) {
            wrong.push(problem.to_string());
        }

        if model.format == Format::Safetensors && made > max_requests(model.weight_files) {
            wrong.push(format!("{repo}: {made} requests, more than hf-mem's"));
        }

        println!(
            "{made:4} requests for {:3} files of {repo}",
            model.weight_files
        );
        let says = |what: &str| model.assumptions.iter().any(|proof| proof.contains(what));
        proved += u32::from(says("the others were inferred"));
        unread += u32::from(says("no header was read"));

        // An inferred header must equal the stored one, tensor by tensor.
        if !model.assumptions.is_empty()
            && model.inventory != stored(&hub.corpus.join("models").join(&repo))
        {
            wrong.push(format!(
                "{repo}: {:?}, and its headers say otherwise",
                model.assumptions
            ));
        }

        let bytes = model.inventory.bytes().get();

        // The corpus has no tensors of a repository with pickles only: compare the length of its
        // file.
        let expected = match model.format {
            Format::PytorchBin => meta["extra_files"][0]["size"].as_u64(),
            // `total_bytes` excludes the Dense modules of a sentence-transformers model, which are
            // loaded, too.
            _ => number("total_bytes_with_dense").or_else(|| number("total_bytes")),
        };

        if Some(bytes) != expected {
            wrong.push(format!("{repo}: {bytes} bytes, not {expected:?}"));
        }
        // In some repositories the Hub's total excludes scales and constant masks. Here their
        // elements are parameters if nothing is packed, so either count is right.
        let unpacked = UNPACKED
            .iter()
            .find(|(packed, _)| *packed == repo)
            .map(|(_, count)| *count);

        let right = match (model.format, unpacked) {
            (Format::PytorchBin, _) => model.parameters.is_none(),
            (_, Some(count)) => model.parameters == Some(count),
            // The corpus also counts the parameters of `.fp16.` variants, which repeat the others.
            (Format::Diffusers, _) => number("total_params")
                .is_some_and(|total| [Some(total), Some(total / 2)].contains(&model.parameters)),
            _ => [
                number("hub_params"),
                number("total_params"),
                number("total_params_with_dense"),
            ]
            .iter()
            .any(|count| count.is_some() && *count == model.parameters),
        };

        if !right {
            let (found, stored) = (model.parameters, model.inventory.elements());
            wrong.push(format!(
                "{repo}: {found:?} parameters, not {:?} ({stored} stored)",
                number("hub_params")
            ));
        }
    }

    println!(
        "{checked} models, {requests} requests; {unread} without any header, {proved} with some of them, all right"
    );
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );

    assert!(checked >= 130, "only {checked} models in the corpus");
}

#[tokio::test]
async fn described_gguf_is_read_by_quantization() {
    let Some(hub) = LookAlike::start(&[]) else {
        return;
    };

    let client = client(&hub.endpoint);
    let mut checked = 0;

    for entry in std::fs::read_dir(hub.corpus.join("gguf/described"))
        .expect("listed")
        .flatten()
    {
        let packed = std::fs::File::open(entry.path()).expect("opened");
        let described: Value =
            serde_json::from_reader(flate2::read::GzDecoder::new(packed)).expect("JSON");
        let text = |key: &str| described[key].as_str().expect("a text");
        let repo = text("repo_id");

        // Use the file's own name, which does not contain a converter's name such as `MXFP4_MOE`.
        let file = text("file")
            .rsplit('/')
            .next()
            .and_then(|name| name.strip_suffix(".gguf"))
            .expect("a GGUF");
        let reference = ModelReference::parse(repo, Some(file), |_| false).expect("a reference");
        let found = client
            .describe(&reference, &Auth::Anonymous, SystemTime::UNIX_EPOCH)
            .await;
        let model = found
            .unwrap_or_else(|error| panic!("{repo} {file}: {error}"))
            .model;
        assert_eq!(model.format, Format::Gguf, "{repo}");

        assert_eq!(
            model.parameters,
            described["total_params"].as_u64(),
            "{repo} {file}"
        );

        assert_eq!(
            u64::from(model.weight_files),
            described["splits"].as_u64().expect("a number"),
            "{repo} {file}"
        );

        // The description counts padding between tensors, an inventory does not.
        let (bytes, data) = (
            model.inventory.bytes().get(),
            described["data_bytes"].as_u64().expect("a number"),
        );
        let padding =
            described["alignment"].as_u64().expect("a number") * model.inventory.tensors();
        assert!(
            bytes <= data && data - bytes < padding.max(1),
            "{repo} {file}: {bytes} of {data}"
        );

        model
            .architecture
            .as_ref()
            .unwrap_or_else(|error| panic!("{repo} {file}: {error}"));
        checked += 1;
    }

    println!("{checked} GGUF models");
    assert!(checked >= 15);
}

/// A rate limit or an overload in each tenth request delays an answer but does not change it.
#[tokio::test]
async fn failing_requests_change_no_answer() {
    let Some(hub) = LookAlike::start(&["--fail-rate", "0.1", "--fail-kinds", "429,503"]) else {
        return;
    };

    let client = client(&hub.endpoint);
    let kinds = [
        "Qwen/Qwen3-8B",
        "openai/gpt-oss-20b",
        "Qwen/Qwen3-8B-FP8",
        "BAAI/bge-large-en",
        "google/gemma-2-2b",
        "stabilityai/stable-diffusion-xl-base-1.0",
    ];

    for repo in kinds {
        let path = hub.corpus.join("models").join(repo).join("meta.json");
        let meta: Value =
            serde_json::from_slice(&std::fs::read(path).expect("meta.json")).expect("JSON");
        let (model, requests) = describe(&client, repo)
            .await
            .unwrap_or_else(|error| panic!("{repo}: {error}"));
        assert_eq!(
            Some(model.inventory.bytes().get()),
            meta["total_bytes"].as_u64(),
            "{repo}"
        );

        println!("{requests} requests for {repo}");
    }
}

/// A mirror that ignores ranges sends whole files. The client reads no further than the headers.
#[tokio::test]
async fn mirror_without_ranges_answers_the_same() {
    let Some(hub) = LookAlike::start(&["--no-range", "--page-size", "3"]) else {
        return;
    };

    let (model, _) = describe(&client(&hub.endpoint), "Qwen/Qwen3-8B")
        .await
        .expect("an answer");
    assert_eq!(model.inventory.bytes().get(), 16_381_470_720);
}
