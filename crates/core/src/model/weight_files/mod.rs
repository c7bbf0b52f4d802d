//! Which files of a repository are *the* weights: a pure question about names, indices and a few
//! small documents.
//!
//! The commonest error of all is to add copies: `original/`, `consolidated*`, `onnx/`, `.fp16.`
//! variants, a diffusers pipeline's single-file duplicate at the root. So files are chosen by what
//! a loader opens (vLLM `model_executor/model_loader/weight_utils.py`,
//! `filter_duplicate_safetensors_files`; diffusers `pipelines/pipeline_loading_utils.py`;
//! sentence-transformers `modules.json`), never by "every file with that ending".

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

/// Every file of a repository with its length, where the source says one.
pub type Listing = BTreeMap<String, Option<u64>>;

/// The small documents that decide, by path.
#[derive(Clone, Debug, Default)]
pub struct Documents {
    /// `config.json`, `model_index.json`, `modules.json`, `adapter_config.json`, components'
    /// configurations.
    pub json: BTreeMap<String, Value>,
    /// `*.safetensors.index.json` and `pytorch_model.bin.index.json`.
    pub indices: BTreeMap<String, Index>,
}

/// One file of the weights.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightFile {
    /// Its path in the repository.
    pub path: String,
    /// The folder of its component; empty for the root.
    pub component: String,
    /// Its length, where the source says one.
    pub bytes: Option<u64>,
}

/// A named component of a pipeline, or a module of a sentence-transformers model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Component {
    /// Its folder.
    pub name: String,
    /// Library and class.
    pub class: String,
}

/// What was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// How the weights are stored.
    pub format: Format,
    /// The files that hold them.
    pub files: Vec<WeightFile>,
    /// The named components, in their document's order.
    pub components: Vec<Component>,
    /// For an adapter: the model that it changes.
    pub base_model: Option<String>,
    /// Multimodal projectors beside a GGUF model, which are models of their own.
    pub projectors: Vec<String>,
    /// The other GGUF models of the repository, each by its parts, where none was asked for by
    /// name.
    pub others: Vec<Vec<WeightFile>>,
    /// What a person should know of the choice.
    pub notes: Vec<String>,
}

/// Why no choice can be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChoiceError {
    /// `--file` names nothing that is there.
    #[error("there is no file {file}{}", if candidates.is_empty() { String::new() } else { format!("; there is {}", candidates.join(", ")) })]
    NoSuchFile {
        /// What was asked for.
        file: String,
        /// The nearest that there is.
        candidates: Vec<String>,
    },
    /// `--file` names several.
    #[error("{file} could be any of {}; give the whole name", candidates.join(", "))]
    Ambiguous {
        /// What was asked for.
        file: String,
        /// What it matches.
        candidates: Vec<String>,
    },
    /// No file that holds weights.
    #[error("no weights: no safetensors, GGUF or PyTorch file where a loader looks for one{0}")]
    NoWeights(String),
    /// An index names a file that is not there, or a split lacks a part.
    #[error("{by} names {file}, which is not there; the upload is incomplete")]
    Incomplete {
        /// The index or first part.
        by: String,
        /// The absent file.
        file: String,
    },
    /// A document that decides cannot be understood.
    #[error("{path}: {why}")]
    BadDocument {
        /// The document.
        path: String,
        /// What is wrong with it.
        why: String,
    },
}

/// The documents to read before [`choose`] can decide: one round for every repository.
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

/// The documents to read once the first are there: configurations and indices of components, as far
/// as nothing else says the same.
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

/// Chooses the weights. `file` is `--file`.
pub fn choose(
    listing: &Listing,
    documents: &Documents,
    file: Option<&str>,
) -> Result<Choice, ChoiceError> {
    if let Some(file) = file {
        return one_file(listing, file);
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
        return Ok(Choice::of(folder.format, folder.files, folder.notes));
    }

    gguf::choose(listing, None)
}

impl Choice {
    fn of(format: Format, files: Vec<WeightFile>, notes: Vec<String>) -> Self {
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

/// `--file`: a path, the end of a path, or a quantisation's name.
fn one_file(listing: &Listing, file: &str) -> Result<Choice, ChoiceError> {
    let exact = listing.contains_key(file).then(|| file.to_owned());
    let Some(path) = exact.or_else(|| unique_end(listing, file)) else {
        return gguf::choose(listing, Some(file));
    };

    let ending = path.rsplit('.').next().unwrap_or_default();
    let format = match ending {
        "gguf" => return gguf::choose(listing, Some(&path)),
        "safetensors" => Format::Safetensors,
        "bin" | "pt" | "pth" => Format::PytorchBin,
        _ => {
            return Err(ChoiceError::NoSuchFile {
                file: file.into(),
                candidates: weights_like(listing),
            });
        }
    };

    let bytes = listing.get(&path).copied().flatten();
    let notes = vec![format!("only {path} is counted, as asked")];

    Ok(Choice::of(
        format,
        vec![WeightFile {
            path,
            component: String::new(),
            bytes,
        }],
        notes,
    ))
}

/// The one path that ends in `/file`.
fn unique_end(listing: &Listing, file: &str) -> Option<String> {
    let end = format!("/{file}");
    let mut ends = listing.keys().filter(|path| path.ends_with(&end));
    let first = ends.next()?;
    ends.next().is_none().then(|| first.clone())
}

/// Whether a path names a GGUF file, in either case.
pub fn is_gguf(path: &str) -> bool {
    path.to_ascii_lowercase().ends_with(".gguf")
}

/// Some files that `--file` could have meant.
fn weights_like(listing: &Listing) -> Vec<String> {
    let is = |path: &&String| {
        [".safetensors", ".gguf", ".bin"]
            .iter()
            .any(|ending| path.ends_with(ending))
    };
    listing.keys().filter(is).take(8).cloned().collect()
}

#[cfg(test)]
mod tests;
