//! Models on this host's disk: folders, files, Hugging Face's cache, Ollama's and LM Studio's
//! folders, bundles.

#[path = "support/gguf_writer.rs"]
mod gguf_writer;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::SystemTime;

use gguf_writer::{Header, Kv};
use hf_mem_core::model::metadata;
use hf_mem_core::model::{Format, Model};
use hf_mem_probe::repository::{
    Auth, FileReader, HubSettings, LocalFolders, ModelReference, SourceClient, SourceError,
    SourceSettings, Token, bundle,
};

const NOW: SystemTime = SystemTime::UNIX_EPOCH;
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn settings(cache: Option<&Path>) -> SourceSettings {
    // Offline, so that a test of local places sends no request.
    let variables = |name: &str| match name {
        "HF_HUB_OFFLINE" => Some("1".to_owned()),
        "HF_HUB_CACHE" => cache.map(|cache| cache.display().to_string()),
        _ => None,
    };

    SourceSettings::new(HubSettings::from_environment(variables).expect("settings"))
}

async fn read(
    settings: SourceSettings,
    text: &str,
    file: Option<&str>,
) -> Result<Model, SourceError> {
    let reference = ModelReference::parse(text, file, Path::exists)?;
    let client = SourceClient::new(settings);
    Ok(client
        .describe(&reference, &Auth::Anonymous, NOW)
        .await?
        .model
        .as_ref()
        .clone())
}

/// Writes a safetensors file with a header; its data is a hole in the file.
fn safetensors(path: &Path, tensors: &[(&str, u64)]) {
    let mut end = 0;
    let entries: Vec<String> = tensors
        .iter()
        .map(|(name, floats)| {
            let begin = end;
            end += floats * 4;
            format!(
                r#""{name}":{{"dtype":"F32","shape":[{floats}],"data_offsets":[{begin},{end}]}}"#
            )
        })
        .collect();

    let header = format!("{{{}}}", entries.join(","));
    let mut file = fs::File::create(path).expect("created");
    file.write_all(&(header.len() as u64).to_le_bytes())
        .expect("written");
    file.write_all(header.as_bytes()).expect("written");
    file.set_len(8 + header.len() as u64 + end).expect("a hole");
}

fn gguf(path: &Path) {
    let header = Header::default()
        .with("general.architecture", Kv::Text("llama".into()))
        .tensor("token_embd.weight", &[64, 10], 0, 2560);
    let (bytes, data) = header.bytes();
    let mut file = fs::File::create(path).expect("created");
    file.write_all(&bytes).expect("written");
    file.set_len(bytes.len() as u64 + data).expect("a hole");
}

fn sharded(folder: &Path) {
    fs::create_dir_all(folder).expect("made");
    safetensors(
        &folder.join("a.safetensors"),
        &[("l.0.w", 10), ("l.1.w", 10)],
    );
    safetensors(&folder.join("b.safetensors"), &[("l.2.w", 10)]);
    safetensors(&folder.join("copy.safetensors"), &[("l.0.w", 10)]);

    fs::write(
        folder.join("config.json"),
        r#"{"model_type": "nobody_knows", "x": NaN}"#,
    )
    .expect("written");

    let index = r#"{"metadata": {"total_size": 120}, "weight_map":
        {"l.0.w": "a.safetensors", "l.1.w": "a.safetensors", "l.2.w": "b.safetensors"}}"#;
    fs::write(folder.join("model.safetensors.index.json"), index).expect("written");
}

#[tokio::test]
async fn folder_and_single_file_are_read() {
    let folder = tempfile::tempdir().expect("a folder");
    sharded(folder.path());
    let path = folder.path().to_str().expect("UTF-8");
    let model = read(settings(None), path, None).await.expect("a model");
    assert_eq!(
        (
            model.inventory.bytes().get(),
            model.inventory.tensors(),
            model.weight_files
        ),
        (120, 3, 2)
    );

    assert_eq!(model.inventory.classes.len(), 1);
    let by_option = read(settings(None), path, Some("b.safetensors"))
        .await
        .expect("one file");
    assert_eq!(by_option.inventory.bytes().get(), 40);
    let named = read(settings(None), &format!("{path}/b.safetensors"), None)
        .await
        .expect("one file");
    assert_eq!(named.inventory.bytes().get(), 40);
    let error = read(settings(None), path, Some("gone.safetensors"))
        .await
        .expect_err("absent");
    assert_eq!(error.reason(), "not_found");
    let error = read(settings(None), &format!("{path}/nowhere"), None)
        .await
        .expect_err("absent");
    assert_eq!(error.reason(), "not_found");
}

#[tokio::test]
async fn damaged_file_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.safetensors");
    let text = path.to_str().expect("UTF-8");

    for (bytes, says) in [
        (vec![], "too few"),
        (
            (1_u64 << 63).to_le_bytes().to_vec(),
            "more than the 100000000",
        ),
        (1000_u64.to_le_bytes().to_vec(), "truncated"),
        ([&2_u64.to_le_bytes()[..], b"[]"].concat(), "not the JSON"),
    ] {
        fs::write(&path, bytes).expect("written");
        let error = read(settings(None), text, None).await.expect_err(says);
        assert_eq!(error.reason(), "bad_header");
        assert!(error.to_string().contains(says), "{error}");
    }

    let gguf = folder.path().join("model.gguf");
    fs::write(&gguf, b"GGUF\x03\0\0\0").expect("written");
    let error = read(settings(None), gguf.to_str().expect("UTF-8"), None)
        .await
        .expect_err("truncated");
    assert_eq!(error.reason(), "bad_header");
}

#[tokio::test]
async fn huggingface_cache_answers_offline() {
    let cache = tempfile::tempdir().expect("a folder");
    let model = cache.path().join("models--a--b");
    sharded(&model.join("snapshots").join(COMMIT));
    fs::create_dir_all(model.join("refs")).expect("made");
    fs::write(model.join("refs/main"), COMMIT).expect("written");
    let found = read(settings(Some(cache.path())), "a/b", None)
        .await
        .expect("a model");
    assert_eq!(found.inventory.bytes().get(), 120);
    assert_eq!(found.identity.commit.as_deref(), Some(COMMIT));

    // The model was downloaded for this program's own user, with a token or without. Other users
    // cannot see it.
    let client = SourceClient::new(settings(Some(cache.path())));
    let reference = ModelReference::parse("a/b", None, |_| false).expect("a reference");
    let other = Token::new("hf_other").into();
    let refused = client
        .describe(&reference, &other, NOW)
        .await
        .expect_err("another user's");
    assert_eq!(refused.reason(), "offline");
    let error = read(settings(Some(cache.path())), "a/c", None)
        .await
        .expect_err("not there");
    assert_eq!(error.reason(), "offline");

    assert!(
        error
            .to_string()
            .contains(cache.path().to_str().expect("UTF-8")),
        "{error}"
    );
}

#[tokio::test]
async fn readers_do_not_share_copies() {
    let cache = tempfile::tempdir().expect("a folder");
    let model = cache.path().join("models--a--b");
    sharded(&model.join("snapshots").join(COMMIT));
    fs::create_dir_all(model.join("refs")).expect("made");
    fs::write(model.join("refs/main"), COMMIT).expect("written");
    fs::set_permissions(&model, fs::Permissions::from_mode(0o700)).expect("set");
    let client = SourceClient::new(settings(Some(cache.path())));
    let reference = ModelReference::parse("a/b", None, |_| false).expect("a reference");

    let other = FileReader::User {
        uid: 4_000_000_000,
        groups: vec![],
    };

    // Both ask at once, with the same token, first with an empty cache; then again.
    for _ in 0..2 {
        let (own, refused) = tokio::join!(
            client.describe_for(&FileReader::Own, &reference, &Auth::Anonymous, NOW),
            client.describe_for(&other, &reference, &Auth::Anonymous, NOW),
        );
        assert!(own.is_ok());
        assert_eq!(refused.expect_err("not for this user").reason(), "offline");

        assert!(
            client
                .describe_cached(&reference, &Auth::Anonymous, NOW)
                .is_none(),
            "nothing is kept in memory"
        );
    }
}

#[tokio::test]
async fn ollama_and_lm_studio_are_read() {
    let home = tempfile::tempdir().expect("a folder");
    let mut settings = settings(None);
    settings.folders = LocalFolders::from_environment(|name| {
        (name == "HOME").then(|| home.path().display().to_string())
    });
    let ollama = home.path().join(".ollama/models");
    fs::create_dir_all(ollama.join("blobs")).expect("made");
    fs::create_dir_all(ollama.join("manifests/registry.ollama.ai/library/tiny")).expect("made");
    gguf(&ollama.join("blobs/sha256-ab"));
    let manifest = r#"{"layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:ab"}]}"#;
    fs::write(
        ollama.join("manifests/registry.ollama.ai/library/tiny/latest"),
        manifest,
    )
    .expect("written");

    let lm_studio = home.path().join(".lmstudio/models/someone/tiny");
    fs::create_dir_all(&lm_studio).expect("made");
    gguf(&lm_studio.join("tiny-Q4_0.gguf"));
    let blob = ollama.join("blobs/sha256-ab");

    for name in [
        "ollama:tiny",
        "lmstudio:someone/tiny",
        blob.to_str().expect("UTF-8"),
    ] {
        let model = read(settings.clone(), name, None)
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(
            (model.format, model.inventory.bytes().get()),
            (Format::Gguf, 2560),
            "{name}"
        );
    }

    let error = read(settings, "ollama:other", None)
        .await
        .expect_err("not pulled");
    assert_eq!(error.reason(), "not_found");
}

#[tokio::test]
async fn bundle_gives_same_model_and_is_checked() {
    let folder = tempfile::tempdir().expect("a folder");
    let model_folder = folder.path().join("model");
    sharded(&model_folder);

    let reference =
        ModelReference::parse(model_folder.to_str().expect("UTF-8"), None, Path::exists)
            .expect("a path");
    let client = SourceClient::new(settings(None));
    let read_once = client
        .read(&reference, &Auth::Anonymous, NOW)
        .await
        .expect("metadata");
    let packed = bundle::pack(&read_once).expect("packed").bytes;
    assert_eq!(
        packed,
        bundle::pack(&read_once).expect("packed").bytes,
        "the same metadata, the same bytes"
    );

    let path = folder.path().join("any-name");
    fs::write(&path, &packed).expect("written");
    let unpacked = read(settings(None), path.to_str().expect("UTF-8"), None)
        .await
        .expect("a model");
    assert_eq!(unpacked, metadata::assemble(&read_once).expect("a model"));

    for position in [20, packed.len() / 2, packed.len() - 6] {
        let mut damaged = packed.clone();
        damaged[position] ^= 0x55;
        fs::write(&path, &damaged).expect("written");
        let error = read(settings(None), path.to_str().expect("UTF-8"), None)
            .await
            .expect_err("damaged");
        assert!(
            ["missing_metadata", "not_found"].contains(&error.reason()),
            "{error}"
        );
    }
}
