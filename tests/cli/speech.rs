//! Whisper models of CTranslate2: in a folder, in Hugging Face's cache and on the simulated Hub.

use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hf_mem_core::model::Dtype;
use hf_mem_core::model::ctranslate2::sample::{SampleFile, WhisperSizes};
use serde_json::json;

use super::fake_hub::{COMMIT, FakeHub, Reply, Request};
use super::run::{Outcome, program, run};

/// The `config.json` of a converter, which names no architecture.
const CONFIG: &str = r#"{"alignment_heads": [[1, 0]], "lang_ids": [50259], "suppress_ids": [1]}"#;

/// Writes a model's folder, with holes as data.
fn write(folder: &Path, file: &SampleFile) {
    fs::create_dir_all(folder).unwrap();
    for (name, text) in [
        ("config.json", CONFIG),
        ("tokenizer.json", "{}"),
        ("vocabulary.json", "[]"),
        ("preprocessor_config.json", r#"{"feature_size": 128}"#),
    ] {
        fs::write(folder.join(name), text).unwrap();
    }

    let mut model = fs::File::create(folder.join("model.bin")).unwrap();
    for (offset, bytes) in &file.written {
        model.seek(SeekFrom::Start(*offset)).unwrap();
        model.write_all(bytes).unwrap();
    }
    model.set_len(file.length).unwrap();
}

fn folder(file: &SampleFile) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), file);
    folder
}

/// Asks about the folder of `file`.
fn ask(file: &SampleFile, options: &str) -> Outcome {
    let folder = folder(file);
    let path = folder.path().display();
    run(&format!("estimate {path} --local --json {options}"))
}

#[test]
fn speech_folder_is_understood() {
    let answer = ask(&WhisperSizes::LARGE_V3.file(), "--gpus 24GiB").json();

    assert_eq!(answer["verdict"], "fits", "{answer}");
    assert_eq!(answer["engine"]["name"], "ctranslate2");
    assert_eq!(answer["model"]["format"], "ctranslate2");
    assert_eq!(answer["model"]["architecture"], "WhisperSpec");
    assert_eq!(answer["model"]["task"], "speech_to_text");
    assert_eq!(answer["model"]["parameters"], 1_543_613_440_u64);
    assert_eq!(answer["model"]["max_context"], 448);
    assert_eq!(answer["engine"]["parameters"]["compute_type"], "float16");
    assert_eq!(answer["engine"]["parameters"]["beam_size"], 5);
}

#[test]
fn quantization_is_reported_as_stored() {
    let sizes = WhisperSizes::TURBO.stored_as(Dtype::I8, Dtype::F16);
    let options = "--gpus T4 --set batch_size=16 --set beam_size=2";
    let answer = ask(&sizes.file(), options).json();

    assert_eq!(answer["model"]["quantization"], "int8_float16");
    assert_eq!(answer["workload"]["sequences"], 16);
    assert_eq!(answer["workload"]["context"], 227);
    assert_eq!(answer["placement"]["max_sequences"], 16, "the batch");
    let launch = answer["placement"]["launch"].to_string();
    assert!(
        launch.contains("BatchedInferencePipeline") && launch.contains("batch_size=16"),
        "{launch}"
    );
}

#[test]
fn unknown_specification_is_named() {
    let file = WhisperSizes::SMALLEST.file_of("TransformerSpec", 7);
    let answer = ask(&file, "--gpus 24GiB").json();
    let message = answer["message"].as_str().unwrap();

    assert_eq!(answer["verdict"], "unknown");
    assert!(
        message.contains("TransformerSpec (CTranslate2)") && message.contains("translation models"),
        "{message}"
    );
}

#[test]
fn uncovered_bytes_contradict_headers() {
    let file = WhisperSizes::SMALLEST.file();
    let longer = SampleFile {
        length: file.length + 1,
        ..file.clone()
    };
    let answer = ask(&longer, "--gpus 24GiB").json();
    assert_eq!(answer["verdict"], "unknown", "{answer}");
    let message = answer["message"].as_str().unwrap();
    assert!(
        message.contains("model.bin contradicts its file: 1 of"),
        "{message}"
    );

    let cut = SampleFile {
        length: file.length - 1,
        ..file
    };
    let outcome = ask(&cut, "--gpus 24GiB");
    assert_ne!(outcome.code, 0);
    assert!(
        format!("{}{}", outcome.out, outcome.err).contains("download is incomplete"),
        "{} {}",
        outcome.out,
        outcome.err
    );
}

#[test]
fn unknown_parameter_has_suggestion() {
    let outcome = ask(&WhisperSizes::TINY.file(), "--gpus 24GiB --set beam_sise=2");
    let text = format!("{}{}", outcome.out, outcome.err);
    assert!(text.contains("beam_size"), "{text}");
}

#[test]
fn cached_snapshot_is_read() {
    let cache = tempfile::tempdir().unwrap();
    let model = cache.path().join("models--Systran--faster-whisper-tiny");
    write(
        &model.join("snapshots").join(COMMIT),
        &WhisperSizes::TINY.file(),
    );
    fs::create_dir_all(model.join("refs")).unwrap();
    fs::write(model.join("refs/main"), COMMIT).unwrap();

    let outcome: Outcome = program()
        .env("HF_HUB_CACHE", cache.path())
        .args("estimate Systran/faster-whisper-tiny --gpus T4 --local --json".split(' '))
        .output()
        .unwrap()
        .into();
    let answer = outcome.json();
    assert_eq!(answer["model"]["commit"], COMMIT, "{answer}");
    assert_eq!(answer["engine"]["name"], "ctranslate2");
    assert_eq!(answer["model"]["weights_bytes"], 75_530_511);
}

/// Serves `file` as a repository, and counts the requests for ranges of it.
async fn hub(file: SampleFile) -> (FakeHub, Arc<AtomicUsize>) {
    let ranges = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&ranges);

    let hub = FakeHub::start(move |request: &Request, _| {
        let path = request.target.split('?').next().unwrap();
        if path.starts_with("/api/models/a/b/revision/") {
            let siblings = json!([
                {"rfilename": "config.json", "size": CONFIG.len()},
                {"rfilename": "model.bin", "size": file.length},
                {"rfilename": "vocabulary.json", "size": 2},
            ]);
            let body = json!({"id": "a/b", "sha": COMMIT, "gated": false, "siblings": siblings});
            return Some(Reply::ok(body.to_string()));
        }

        if path.ends_with("/config.json") {
            return Some(Reply::ok(CONFIG));
        }

        if path != format!("/a/b/resolve/{COMMIT}/model.bin") {
            return None;
        }

        let (first, last) = request
            .header("range")?
            .strip_prefix("bytes=")?
            .split_once('-')?;
        let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        seen.fetch_add(1, Ordering::Relaxed);

        let body = file.window(first, last - first + 1);
        let last = first + body.len() as u64 - 1;
        let reply = Reply {
            status: 206,
            body,
            ..Reply::default()
        };
        Some(reply.with(
            "content-range",
            format!("bytes {first}-{last}/{}", file.length),
        ))
    })
    .await;

    (hub, ranges)
}

#[tokio::test]
async fn hub_is_asked_few_ranges() {
    for sizes in [WhisperSizes::LARGE_V3, WhisperSizes::TINY] {
        let file = sizes.file();
        let (hub, ranges) = hub(file.clone()).await;
        let mut command = program();
        command
            .env("HF_ENDPOINT", &hub.endpoint)
            .env_remove("HF_HUB_OFFLINE")
            .args("estimate a/b --gpus 24GiB --local --json".split(' '));
        let outcome: Outcome =
            tokio::task::spawn_blocking(move || command.output().unwrap().into())
                .await
                .unwrap();

        let (remote, local) = (outcome.json(), ask(&file, "--gpus 24GiB").json());
        assert_eq!(remote["requirement"], local["requirement"], "{remote}");
        assert_eq!(
            remote["model"]["weights_bytes"],
            local["model"]["weights_bytes"]
        );

        let made = ranges.load(Ordering::Relaxed);
        assert!((10..=30).contains(&made), "{made} ranges");
        let assumptions = remote["assumptions"].to_string();
        assert!(assumptions.contains("variables were read"), "{assumptions}");
    }
}
