//! A repository of one model in many quantizations, served by the simulated Hub.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use hf_mem_core::model::Dtype;
use serde_json::Value;

use super::fake_hub::{COMMIT, FakeHub, Reply, Request};
use super::gguf_writer::{Header, Kv};
use super::run::{Outcome, program};

const LAYERS: u32 = 32;

/// Returns the header of a Llama with eight billion parameters.
///
/// All matrices are in `dtype`, the embedding is in `table`.
fn llama(dtype: Dtype, table: Dtype, range: std::ops::Range<u32>) -> Header {
    // Parts after the first have only their number as metadata.
    let mut header = if range.start == 0 {
        metadata()
    } else {
        Header::default()
    };

    if range.end - range.start < LAYERS {
        header = header
            .with("split.no", Kv::U16(u16::from(range.start > 0)))
            .with("split.count", Kv::U16(2));
    }

    let add_tensor = |header: Header, name: &str, shape: &[u64], dtype: Dtype| {
        let bytes = dtype.stored(shape.iter().product()).unwrap().get();
        header.tensor(name, shape, dtype.ggml_id().unwrap(), bytes)
    };

    if range.start == 0 {
        header = add_tensor(header, "token_embd.weight", &[4096, 128_256], table);
        header = add_tensor(header, "output_norm.weight", &[4096], Dtype::F32);
        header = add_tensor(header, "output.weight", &[4096, 128_256], table);
    }

    for layer in range {
        for (name, shape) in [
            ("attn_q", [4096, 4096]),
            ("attn_k", [4096, 1024]),
            ("attn_v", [4096, 1024]),
            ("attn_output", [4096, 4096]),
            ("ffn_gate", [4096, 14_336]),
            ("ffn_up", [4096, 14_336]),
            ("ffn_down", [14_336, 4096]),
        ] {
            header = add_tensor(header, &format!("blk.{layer}.{name}.weight"), &shape, dtype);
        }

        header = add_tensor(
            header,
            &format!("blk.{layer}.attn_norm.weight"),
            &[4096],
            Dtype::F32,
        );
    }

    header
}

fn metadata() -> Header {
    let mut header = Header::default().with("general.architecture", Kv::Text("llama".into()));
    for (key, value) in [
        ("block_count", LAYERS),
        ("embedding_length", 4096),
        ("feed_forward_length", 14_336),
        ("attention.head_count", 32),
        ("attention.head_count_kv", 8),
        ("context_length", 8192),
    ] {
        header = header.with(&format!("llama.{key}"), Kv::U32(value));
    }
    // The vocabulary is so large that the tensor table begins after the first MiB.
    header.with("tokenizer.ggml.tokens", Kv::Texts(128_256))
}

/// A file: its header bytes, and its length with data.
type File = (Vec<u8>, u64);

fn file(header: &Header) -> File {
    let (bytes, data) = header.bytes();
    let length = bytes.len() as u64 + data;
    (bytes, length)
}

fn repository() -> BTreeMap<String, File> {
    let whole_file = |dtype, table| file(&llama(dtype, table, 0..LAYERS));
    let part_file = |range| file(&llama(Dtype::Q6_K, Dtype::Q6_K, range));
    let adapter = metadata()
        .with("general.type", Kv::Text("adapter".into()))
        .tensor("blk.0.attn_q.weight.lora_a", &[4096, 8], 0, 4096 * 8 * 4);

    BTreeMap::from([
        (
            "m-BF16.gguf".to_owned(),
            whole_file(Dtype::BF16, Dtype::BF16),
        ),
        (
            "m-Q8_0.gguf".to_owned(),
            whole_file(Dtype::Q8_0, Dtype::Q8_0),
        ),
        (
            "Q6_K/m-Q6_K-00001-of-00002.gguf".to_owned(),
            part_file(0..20),
        ),
        (
            "Q6_K/m-Q6_K-00002-of-00002.gguf".to_owned(),
            part_file(20..LAYERS),
        ),
        (
            "m-Q4_K_M.gguf".to_owned(),
            whole_file(Dtype::Q4_K, Dtype::Q6_K),
        ),
        (
            "m-UD-Q4_K_M.gguf".to_owned(),
            whole_file(Dtype::Q4_K, Dtype::Q8_0),
        ),
        (
            "m-Q2_K.gguf".to_owned(),
            whole_file(Dtype::Q2_K, Dtype::Q4_K),
        ),
        ("m-lora.gguf".to_owned(), file(&adapter)),
        (
            "m-broken-Q3_K.gguf".to_owned(),
            (b"GGUF\x09\0\0\0".to_vec(), 4_000_000_000),
        ),
        (
            "mmproj-m-F16.gguf".to_owned(),
            (b"GGUF".to_vec(), 900_000_000),
        ),
        ("README.md".to_owned(), (b"x".to_vec(), 1)),
    ])
}

/// Writes the same files into a folder, with holes as data.
pub(crate) fn write_repository(folder: &Path) {
    for (name, (header, length)) in repository() {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, header).unwrap();

        std::fs::File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(length)
            .unwrap();
    }
}

/// Range requests: file, first byte, last byte.
type Ranges = Arc<Mutex<Vec<(String, u64, u64)>>>;

async fn hub(files: BTreeMap<String, File>) -> (FakeHub, Ranges) {
    let ranges = Ranges::default();
    let seen = Arc::clone(&ranges);

    let hub = FakeHub::start(move |request: &Request, _| {
        let path = request.target.split('?').next().unwrap();
        if path.starts_with("/api/models/a/b/revision/") {
            let listed: Vec<Value> = files
                .iter()
                .map(|(name, (_, length))| serde_json::json!({"rfilename": name, "size": length}))
                .collect();
            let body =
                serde_json::json!({"id": "a/b", "sha": COMMIT, "gated": false, "siblings": listed});
            return Some(Reply::ok(body.to_string()));
        }

        let name = path.strip_prefix(&format!("/a/b/resolve/{COMMIT}/"))?;
        let (header, length) = files.get(name)?;
        let (first, last) = request
            .header("range")?
            .strip_prefix("bytes=")?
            .split_once('-')?;
        let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        seen.lock().unwrap().push((name.to_owned(), first, last));
        let last = last.min(length - 1);

        let byte_at = |at: u64| {
            usize::try_from(at)
                .ok()
                .and_then(|at| header.get(at))
                .copied()
                .unwrap_or(0)
        };

        let body: Vec<u8> = (first..=last).map(byte_at).collect();
        let reply = Reply {
            status: 206,
            body,
            ..Reply::default()
        };

        Some(reply.with("content-range", format!("bytes {first}-{last}/{length}")))
    })
    .await;

    (hub, ranges)
}

async fn ask(hub: &FakeHub, line: &str) -> Outcome {
    let mut command = program();
    command
        .env("HF_ENDPOINT", &hub.endpoint)
        .env_remove("HF_HUB_OFFLINE")
        .args(line.split_whitespace());

    tokio::task::spawn_blocking(move || command.output().unwrap().into())
        .await
        .unwrap()
}

#[tokio::test]
async fn every_file_has_verdict() {
    let (hub, ranges) = hub(repository()).await;
    let outcome = ask(&hub, "fits a/b --gpus 11GiB --local --json").await;
    let answer = outcome.json();
    let files = answer["files"]["list"].as_array().unwrap();
    let listed: Vec<(&str, &str, u64)> = files
        .iter()
        .map(|file| {
            let verdict = file["verdict"]
                .as_str()
                .unwrap_or_else(|| file["kind"].as_str().unwrap());
            (
                file["file"].as_str().unwrap(),
                verdict,
                file["parts"].as_u64().unwrap(),
            )
        })
        .collect();

    assert_eq!(
        listed,
        [
            ("m-BF16.gguf", "does_not_fit", 1),
            ("m-Q8_0.gguf", "tight", 1),
            ("Q6_K/m-Q6_K-00001-of-00002.gguf", "fits", 2),
            ("m-UD-Q4_K_M.gguf", "fits", 1),
            ("m-Q4_K_M.gguf", "fits", 1),
            ("m-Q2_K.gguf", "fits", 1),
            ("m-broken-Q3_K.gguf", "model", 1),
            ("mmproj-m-F16.gguf", "projector", 1),
            ("m-lora.gguf", "adapter", 1),
        ]
    );

    assert_eq!(
        answer["files"]["recommended"],
        "Q6_K/m-Q6_K-00001-of-00002.gguf"
    );

    // The answer itself is about the file that llama.cpp loads by default.
    assert_eq!(
        (&answer["model"]["file"], &answer["verdict"], outcome.code),
        (&"m-Q4_K_M.gguf".into(), &"fits".into(), 0)
    );

    // Each figure equals that of a question about this file.
    for file in files.iter().filter(|file| file["verdict"].is_string()) {
        assert_eq!(file["basis"], "exact");
        let name = file["file"].as_str().unwrap();
        let single = ask(
            &hub,
            &format!("fits a/b --gpus 11GiB --local --json --file {name}"),
        )
        .await
        .json();

        assert_eq!(single["files"], Value::Null);
        assert_eq!(
            (&single["verdict"], &single["model"]["file"]),
            (&file["verdict"], &file["file"])
        );

        assert_eq!(
            single["placement"]["devices"][0]["required_bytes"], file["required_bytes"],
            "{name}"
        );
    }
    // The answer read one header whole, and one small range of each part of the other models.
    let seen = ranges.lock().unwrap();

    let first: Vec<_> = seen
        .iter()
        .take_while(|(name, first, _)| name != "m-BF16.gguf" || *first > 0)
        .collect();
    let small = first.iter().filter(|(name, ..)| {
        ["m-BF16.gguf", "m-Q8_0.gguf", "m-Q2_K.gguf"].contains(&name.as_str())
    });
    let lengths: Vec<u64> = small.map(|(_, first, last)| last - first + 1).collect();
    assert_eq!(lengths.len(), 3);

    assert!(
        lengths.iter().all(|length| *length < 64 << 10),
        "{lengths:?}"
    );
}

#[tokio::test]
async fn no_suggests_fitting_file() {
    let (hub, _) = hub(repository()).await;
    let answer = ask(
        &hub,
        "fits a/b --gpus 7680MiB --context 8192 --local --json",
    )
    .await;
    assert_eq!(answer.code, 1, "{}", answer.out);
    let answer = answer.json();
    let suggested = answer["suggestions"]
        .as_array()
        .unwrap()
        .iter()
        .find(|it| it["change"] == "file=m-Q2_K.gguf");

    let saved = suggested.unwrap()["saves_bytes"].as_u64().unwrap();
    let line = "fits a/b --gpus 7680MiB --context 8192 --local --json --file Q2_K";
    let single = ask(&hub, line).await;
    assert_eq!(single.code, 0, "{}", single.out);

    let required_bytes = |answer: &Value| {
        answer["placement"]["devices"][0]["required_bytes"]
            .as_u64()
            .unwrap()
    };

    assert_eq!(
        saved,
        required_bytes(&answer) - required_bytes(&single.json())
    );
}

#[tokio::test]
async fn file_table_matches_snapshot() {
    let (hub, _) = hub(repository()).await;
    let outcome = ask(&hub, "fits a/b --gpus 11GiB --local").await;
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    insta::assert_snapshot!(outcome.out);
}

#[tokio::test]
async fn file_is_path_or_quantization() {
    let (hub, _) = hub(repository()).await;
    for (asked, found) in [
        ("Q4_K_M", "m-Q4_K_M.gguf"),
        ("q4_k_m", "m-Q4_K_M.gguf"),
        ("UD-Q4_K_M", "m-UD-Q4_K_M.gguf"),
        ("ud-q4_k_m", "m-UD-Q4_K_M.gguf"),
        ("m-q8_0.GGUF", "m-Q8_0.gguf"),
        ("Q6_K", "Q6_K/m-Q6_K-00001-of-00002.gguf"),
        (
            "Q6_K/m-Q6_K-00002-of-00002.gguf",
            "Q6_K/m-Q6_K-00001-of-00002.gguf",
        ),
        (
            "m-Q6_K-00002-of-00002.gguf",
            "Q6_K/m-Q6_K-00001-of-00002.gguf",
        ),
    ] {
        let answer = ask(
            &hub,
            &format!("fits a/b --gpus 11GiB --local --json --file {asked}"),
        )
        .await
        .json();
        assert_eq!(
            answer["model"]["file"], found,
            "{asked}: {}",
            answer["message"]
        );
    }

    let missing = ask(&hub, "fits a/b --gpus 11GiB --local --json --file Q4_K_S").await;
    assert_eq!(
        (missing.code, &missing.json()["reason"]),
        (5, &"not_found".into())
    );

    let message = missing.json()["message"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
        + &missing.out;
    assert!(message.contains("Q4_K_M"), "{message}");

    for (file, says) in [
        ("m-lora.gguf", "adapter"),
        ("m-broken-Q3_K.gguf", "m-broken-Q3_K.gguf"),
    ] {
        let refused = ask(
            &hub,
            &format!("fits a/b --gpus 11GiB --local --json --file {file}"),
        )
        .await;
        assert_eq!(refused.code, 3, "{}", refused.out);
        assert!(refused.out.contains(says), "{}", refused.out);
    }
}

#[tokio::test]
async fn unsupported_engine_is_reported_once() {
    let (hub, _) = hub(repository()).await;
    let outcome = ask(&hub, "fits a/b --gpus 11GiB --local --json --engine vllm").await;
    let answer = outcome.json();
    assert_eq!(
        (outcome.code, &answer["verdict"]),
        (3, &"unknown".into()),
        "{}",
        outcome.out
    );

    let files = answer["files"]["list"].as_array().unwrap();
    let unknown: Vec<&Value> = files
        .iter()
        .filter(|file| file["verdict"] == "unknown")
        .collect();
    assert_eq!(unknown.len(), 6);

    assert!(
        unknown
            .iter()
            .all(|file| file["why_not"].is_null() && file["stored_bytes"].is_u64())
    );

    assert_eq!(answer["files"]["recommended"], Value::Null);
}

#[tokio::test]
async fn estimate_lists_files_without_verdicts() {
    let (hub, _) = hub(repository()).await;
    let outcome = ask(&hub, "estimate a/b --local --json").await;
    let answer = outcome.json();
    assert_eq!(
        (outcome.code, &answer["files"]["recommended"]),
        (0, &Value::Null)
    );
    let files = answer["files"]["list"].as_array().unwrap();
    let needed: Vec<u64> = files
        .iter()
        .filter_map(|file| file["required_bytes"].as_u64())
        .collect();
    assert_eq!(needed.len(), 6);

    assert!(
        needed.is_sorted_by(|left, right| left > right),
        "{needed:?}"
    );
    assert!(files.iter().all(|file| file["verdict"].is_null()));
}
