//! The choice of the files that are a repository's weights.
//!
//! The choice depends only on file names, indices and a few small documents. Repositories often
//! contain copies of their weights: `original/`, `consolidated*`, `onnx/`, `.fp16.` variants, or a
//! single-file duplicate of a diffusers pipeline at the root. So this module chooses the files that
//! a loader opens, and not every file with a known extension.
//!
//! Sources: vLLM `model_executor/model_loader/weight_utils.py`
//! (`filter_duplicate_safetensors_files`), diffusers `pipelines/pipeline_loading_utils.py`,
//! sentence-transformers `modules.json`.

mod adapter;
mod folder;
mod gguf;
mod index;
pub mod known_sizes;
mod pipeline;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::Format;

pub use index::{Index, InvalidName, WeightMap, WeightMapBuilder};
pub(crate) use pipeline::asks_for_pooling;

/// All files of a repository, with their lengths if the source states them.
pub type Listing = BTreeMap<String, Option<u64>>;

/// The small documents that determine the choice, by path.
#[derive(Clone, Debug, Default)]
pub struct Documents {
    /// `config.json`, `model_index.json`, `modules.json`, `adapter_config.json` and the
    /// configurations of components.
    pub json: BTreeMap<String, Value>,
    /// `*.safetensors.index.json` and `pytorch_model.bin.index.json`.
    pub indices: BTreeMap<String, Index>,
}

/// A file with weights.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightFile {
    /// The path in the repository.
    pub path: String,
    /// The folder of the file's component; empty for the root.
    pub component: String,
    /// The length, if the source states it.
    pub bytes: Option<u64>,
}

/// A named component of a diffusers pipeline, or a module of a sentence-transformers model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Component {
    /// The component's folder.
    pub name: String,
    /// The component's library and class.
    pub class: String,
}

/// The chosen weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// How the weights are stored.
    pub format: Format,
    /// The files with the weights.
    pub files: Vec<WeightFile>,
    /// The named components in the order of their document.
    pub components: Vec<Component>,
    /// The base model of an adapter.
    pub base_model: Option<String>,
    /// Multimodal projectors next to a GGUF model. They are separate models.
    pub projectors: Vec<String>,
    /// The parts of each other GGUF model in the repository. Empty if the request names a file.
    pub others: Vec<Vec<WeightFile>>,
    /// Remarks about the choice, for the answer's `warnings`.
    pub notes: Vec<String>,
}

/// Why no weights can be chosen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChoiceError {
    /// `--file` matches no file.
    #[error("there is no file {file}{}", list_candidates(candidates))]
    NoSuchFile {
        /// The requested file.
        file: String,
        /// The files with the most similar names.
        candidates: Vec<String>,
    },
    /// `--file` matches several files.
    #[error("{file} could be any of {}; give the whole name", candidates.join(", "))]
    Ambiguous {
        /// The requested file.
        file: String,
        /// The matching files.
        candidates: Vec<String>,
    },
    /// The repository has no file with weights.
    #[error("no weights: no safetensors, GGUF or PyTorch file where a loader looks for one{0}")]
    NoWeights(String),
    /// An index names an absent file, or a split lacks a part.
    #[error("{by} names {file}, which is not there; the upload is incomplete")]
    Incomplete {
        /// The index or first part.
        by: String,
        /// The absent file.
        file: String,
    },
    /// A required document is invalid.
    #[error("{path}: {why}")]
    BadDocument {
        /// The document's path.
        path: String,
        /// The problem.
        why: String,
    },
}

/// Returns the documents that [`choose`] needs for any repository.
pub fn documents_needed(listing: &Listing) -> Vec<String> {
    let always = [
        "config.json",
        "hf_quant_config.json",
        "model_index.json",
        "modules.json",
        "adapter_config.json",
        "model.safetensors.index.json",
    ];
    let mut needed: Vec<String> = always
        .iter()
        .filter(|&&path| listing.contains_key(path))
        .map(|&path| path.to_owned())
        .collect();

    if !listing.keys().any(|path| path.ends_with(".safetensors"))
        && listing.contains_key(folder::BIN_INDEX)
    {
        needed.push(folder::BIN_INDEX.into());
    }

    needed
}

/// Returns the further documents to read after [`documents_needed`].
///
/// They are the configurations and indices of components whose content nothing else states.
pub fn more_documents(listing: &Listing, documents: &Documents) -> Vec<String> {
    let mut needed = Vec::new();
    let named = documents
        .json
        .get("model_index.json")
        .and_then(|index| index.get("_class_name"));
    let pipeline = named.and_then(Value::as_str).unwrap_or_default();
    for component in pipeline::components(documents) {
        let inside = listing
            .keys()
            .filter(|path| folder::is_directly_in(path, &component.name));
        let (needs_config, needs_index) = (
            !known_sizes::is_known_by_shape(&component.class, pipeline),
            !folder::is_whole_split(listing, &component.name),
        );

        needed.extend(
            inside
                .filter(|path| match path {
                    path if folder::is_config(path) => needs_config,
                    path => folder::is_index(path) && needs_index,
                })
                .cloned(),
        );
    }

    needed
        .retain(|path| !documents.json.contains_key(path) && !documents.indices.contains_key(path));

    needed
}

/// Chooses the weights. `file` is the value of `--file`.
pub fn choose(
    listing: &Listing,
    documents: &Documents,
    file: Option<&str>,
) -> Result<Choice, ChoiceError> {
    if let Some(file) = file {
        return requested_file(listing, file);
    }

    if documents.json.contains_key("model_index.json") {
        return pipeline::diffusers(listing, documents);
    }

    if let Some(choice) = adapter::choose(listing, documents) {
        return Ok(choice);
    }

    if documents.json.contains_key("modules.json")
        && let Some(choice) = pipeline::sentence_transformers(listing, documents)?
    {
        return Ok(choice);
    }

    if let Some(folder) = folder::choose(listing, documents, "")? {
        return Ok(Choice::new(folder.format, folder.files, folder.notes));
    }

    gguf::choose(listing, None)
}

impl Choice {
    fn new(format: Format, files: Vec<WeightFile>, notes: Vec<String>) -> Self {
        Self {
            format,
            files,
            components: Vec::new(),
            base_model: None,
            projectors: Vec::new(),
            others: Vec::new(),
            notes,
        }
    }
}

/// Chooses by `--file`: a path, the end of a path, or the name of a quantization.
fn requested_file(listing: &Listing, file: &str) -> Result<Choice, ChoiceError> {
    let exact = listing.contains_key(file).then(|| file.to_owned());
    let Some(path) = exact.or_else(|| unique_end(listing, file)) else {
        return gguf::choose(listing, Some(file));
    };

    let extension = path.rsplit('.').next().unwrap_or_default();
    let format = match extension {
        "gguf" => return gguf::choose(listing, Some(&path)),
        "safetensors" => Format::Safetensors,
        "bin" | "pt" | "pth" => Format::PytorchBin,
        _ => {
            return Err(ChoiceError::NoSuchFile {
                file: file.into(),
                candidates: possible_weights(listing),
            });
        }
    };

    let bytes = listing.get(&path).copied().flatten();
    let notes = vec![format!("only {path} is counted, as asked")];

    Ok(Choice::new(
        format,
        vec![WeightFile {
            path,
            component: String::new(),
            bytes,
        }],
        notes,
    ))
}

/// Returns the only path that ends in `/file`.
fn unique_end(listing: &Listing, file: &str) -> Option<String> {
    let end = format!("/{file}");
    let mut ends = listing.keys().filter(|path| path.ends_with(&end));
    let first = ends.next()?;
    ends.next().is_none().then(|| first.clone())
}

/// Returns whether a path names a GGUF file, in either case.
pub fn is_gguf(path: &str) -> bool {
    path.to_ascii_lowercase().ends_with(".gguf")
}

/// Returns some files that `--file` could name.
fn possible_weights(listing: &Listing) -> Vec<String> {
    listing
        .keys()
        .filter(|path| {
            [".safetensors", ".gguf", ".bin"]
                .iter()
                .any(|extension| path.ends_with(extension))
        })
        .take(8)
        .cloned()
        .collect()
}

/// Returns the end of a message that lists the candidates, if there are any.
fn list_candidates(candidates: &[String]) -> String {
    if candidates.is_empty() {
        String::new()
    } else {
        format!("; there is {}", candidates.join(", "))
    }
}

#[cfg(test)]
mod tests;
