//! Models that Ollama has pulled: a manifest names blobs by digest, one of them the GGUF file
//! (ollama `server/manifest.go`, `server/modelpath.go`).

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::error::SourceError;
use super::local::io_error;
use crate::files::Disk;

/// Maximum length of a manifest; real ones have some hundred bytes.
const MAX_MANIFEST_BYTES: u64 = 1 << 20;
const MODEL: &str = "application/vnd.ollama.image.model";
const PROJECTOR: &str = "application/vnd.ollama.image.projector";
const ADAPTER: &str = "application/vnd.ollama.image.adapter";
const PARAMETERS: &str = "application/vnd.ollama.image.params";

/// The files of a model.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OllamaModel {
    /// The digest of the model's blob, which identifies the model.
    pub(super) digest: String,
    /// Pairs of the name that the rest of the program expects and the path of the file.
    pub(super) files: Vec<(String, PathBuf)>,
    /// LoRA adapters that are loaded with it.
    pub(super) adapters: Vec<PathBuf>,
    /// The Modelfile's parameters.
    pub(super) parameters: Option<Value>,
}

#[derive(Deserialize)]
struct Manifest {
    layers: Vec<OllamaLayer>,
}

#[derive(Deserialize)]
struct OllamaLayer {
    #[serde(rename = "mediaType")]
    media_type: String,
    digest: String,
}

/// Finds `name` (`llama3.2:3b`, `someone/model`, `hf.co/owner/name:Q4_K_M`) in Ollama's folder.
pub(super) fn find(disk: &Disk, models: &Path, name: &str) -> Result<OllamaModel, SourceError> {
    let place = format!("in {}", models.display());
    let not_found = |hint: &str| SourceError::NotFound {
        what: format!("Ollama model {name}"),
        place: place.clone(),
        hint: Some(hint.into()),
    };

    let manifest = manifest_path(name).ok_or_else(|| SourceError::BadReference {
        reference: format!("ollama:{name}"),
        why: "Ollama's names are model, model:tag or owner/model:tag".into(),
    })?;
    let path = models.join("manifests").join(manifest);
    let text = disk
        .read(&path, MAX_MANIFEST_BYTES)
        .map_err(|error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => {
                not_found("run `ollama list` for the available models")
            }
            _ => io_error(&path, &error),
        })?;

    let manifest: Manifest =
        hf_mem_core::strict_json::from_slice(&text).map_err(|_| SourceError::MissingMetadata {
            what: path.display().to_string(),
            why: "it is not a manifest of Ollama; pull the model again".into(),
        })?;

    let mut model = OllamaModel {
        digest: String::new(),
        files: Vec::new(),
        adapters: Vec::new(),
        parameters: None,
    };

    for layer in manifest.layers {
        // A digest is hex, so the path stays inside the folder.
        let hex = layer
            .digest
            .strip_prefix("sha256:")
            .filter(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let Some(hex) = hex else { continue };
        let blob = models.join("blobs").join(format!("sha256-{hex}"));

        match layer.media_type.as_str() {
            MODEL if model.digest.is_empty() => {
                model.digest = hex.to_ascii_lowercase();
                model.files.push(("model.gguf".into(), blob));
            }
            PROJECTOR => model.files.push(("mmproj.gguf".into(), blob)),
            ADAPTER => model.adapters.push(blob),
            PARAMETERS => model.parameters = parameters(disk, &blob),
            _ => {}
        }
    }

    if model.digest.is_empty() {
        Err(not_found("its manifest names no model file"))
    } else {
        Ok(model)
    }
}

/// Reads the Modelfile's parameters as JSON. Returns `None` if they are absent or invalid.
fn parameters(disk: &Disk, blob: &Path) -> Option<Value> {
    let text = disk.read(blob, MAX_MANIFEST_BYTES).ok()?;
    hf_mem_core::model::bounded_json::DocumentBudget::default()
        .document(&text)
        .ok()
        .filter(Value::is_object)
}

/// Returns `registry.ollama.ai/library/llama3.2/3b` for `llama3.2:3b`.
fn manifest_path(name: &str) -> Option<PathBuf> {
    let (path, tag) = match name.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, tag),
        _ => (name, "latest"),
    };

    let parts: Vec<&str> = path.split('/').collect();
    if !parts.iter().chain([&tag]).all(|part| is_legal(part)) {
        return None;
    }

    let whole = match parts.as_slice() {
        [model] => vec!["registry.ollama.ai", "library", model, tag],
        [owner, model] => vec!["registry.ollama.ai", owner, model, tag],
        [host, owner, model] => vec![host, owner, model, tag],
        _ => return None,
    };

    Some(whole.iter().collect())
}

fn is_legal(part: &str) -> bool {
    !part.is_empty()
        && !part.starts_with('.')
        && part
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::files;

    #[test]
    fn name_becomes_path_inside_folder() {
        let path_of = |name| manifest_path(name).map(|path| path.to_string_lossy().into_owned());
        assert_eq!(
            path_of("llama3.2:3b").as_deref(),
            Some("registry.ollama.ai/library/llama3.2/3b")
        );

        assert_eq!(
            path_of("me/mine").as_deref(),
            Some("registry.ollama.ai/me/mine/latest")
        );
        assert_eq!(
            path_of("hf.co/o/n:Q4_K_M").as_deref(),
            Some("hf.co/o/n/Q4_K_M")
        );

        for wrong in ["", "..", "../x", "a/b/c/d", "a:", "a/../b", "x:../../y"] {
            assert_eq!(path_of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn manifest_names_the_blobs() {
        let folder = tempfile::tempdir().expect("a folder");
        let manifests = folder
            .path()
            .join("manifests/registry.ollama.ai/library/tiny");
        fs::create_dir_all(&manifests).expect("made");

        let layers = r#"{"layers": [{"mediaType": "application/vnd.ollama.image.license", "digest": "sha256:00"},
            {"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:ab12"},
            {"mediaType": "application/vnd.ollama.image.projector", "digest": "sha256:../../evil"},
            {"mediaType": "application/vnd.ollama.image.projector", "digest": "sha256:cd"}]}"#;
        fs::write(manifests.join("latest"), layers).expect("written");
        let models = folder.path().to_owned();
        let pulled_as = |name: &'static str| {
            let models = models.clone();
            files::wait(&models.clone(), move |disk| find(disk, &models, name)).expect("in time")
        };

        let pulled = pulled_as("tiny").expect("found");
        let blobs = folder.path().join("blobs");
        assert_eq!(pulled.digest, "ab12");

        assert_eq!(
            pulled.files,
            [
                ("model.gguf".into(), blobs.join("sha256-ab12")),
                ("mmproj.gguf".into(), blobs.join("sha256-cd"))
            ]
        );

        assert_eq!(
            pulled_as("other").expect_err("absent").reason(),
            "not_found"
        );
        fs::write(manifests.join("bad"), "{").expect("written");

        assert_eq!(
            pulled_as("tiny:bad").expect_err("damaged").reason(),
            "missing_metadata"
        );
    }
}
