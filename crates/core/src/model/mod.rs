//! Models: the content of a repository, read from file headers alone.
//!
//! [`metadata`] is one value with everything that was read of a model. [`weight_files`] decides
//! which of its files are *the* weights. [`safetensors`] and [`gguf`] turn headers into an
//! [`Inventory`], and [`config`] turns `config.json` into an [`Architecture`]. The result, a
//! [`Model`], is immutable by commit and takes a few kilobytes. The program's `repository` module
//! finds the files.

pub mod adapter;
pub mod architecture;
pub mod blueprint;
pub mod bounded_json;
pub mod config;
pub mod ctranslate2;
pub mod dtype;
mod footprint;
pub mod gguf;
pub mod metadata;
pub mod quantization;
pub mod safetensors;
mod streaming_encoder;
pub mod tensors;
mod unsupported;
pub mod variant;
pub mod weight_files;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use adapter::Adapter;
pub use architecture::{Architecture, Unsupported};
pub use dtype::Dtype;
pub use streaming_encoder::StreamingEncoder;
pub use tensors::{Inventory, Storage, TensorClass};
pub use variant::FileVariant;

use crate::bytes::Bytes;

/// A model with everything that an answer needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// The model's repository, revision and commit.
    pub identity: Identity,
    /// How the weights are stored.
    pub format: Format,
    /// The tensors. A diffusers pipeline has them by component folder.
    pub inventory: Inventory,
    /// Number of files that hold *the* weights.
    pub weight_files: u32,
    /// The language or encoder model, or why the configuration was not understood. Diffusers
    /// pipelines have none.
    pub architecture: Result<Architecture, Unsupported>,
    /// Components of a diffusers pipeline in `model_index.json`'s order, or the modules of a
    /// sentence-transformers model.
    pub components: Vec<PipelineComponent>,
    /// Whether the repository's `modules.json` asks for pooling: the model is used as an embedder.
    pub asks_for_pooling: bool,
    /// Logical parameters, with packed weights unpacked; `None` if unknown.
    pub parameters: Option<u64>,
    /// The adapter, if the requested repository is one. All other fields then describe its base
    /// model.
    pub adapter: Option<Adapter>,
    /// The draft model that proposes tokens for this model to check, if the question names one.
    pub draft: Option<Arc<Model>>,
    /// All GGUF models of the repository, this one included, if there are several and the request
    /// named none.
    pub variants: Vec<FileVariant>,
    /// Facts that were inferred instead of read, for the answer's `assumptions`.
    pub assumptions: Vec<String>,
    /// Why the headers cannot describe their files. Every engine then refuses the model.
    pub contradiction: Option<String>,
    /// Problems found while reading, for the answer's `warnings`.
    pub warnings: Vec<String>,
}

impl Model {
    /// A model with one file of weights and no other known facts.
    pub fn bare(
        repo: &str,
        format: Format,
        architecture: Result<Architecture, Unsupported>,
        inventory: Inventory,
    ) -> Self {
        Self {
            identity: Identity {
                repo: repo.to_owned(),
                ..Identity::default()
            },
            format,
            inventory,
            weight_files: 1,
            architecture,
            components: Vec::new(),
            asks_for_pooling: false,
            parameters: None,
            adapter: None,
            draft: None,
            variants: Vec::new(),
            assumptions: Vec::new(),
            contradiction: None,
            warnings: Vec::new(),
        }
    }

    /// Returns this model with `draft` to propose its tokens.
    #[must_use]
    pub fn with_draft(mut self, draft: Arc<Model>) -> Self {
        self.draft = Some(draft);
        self
    }
}

/// Which model was read: repository, revision, commit and file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// `owner/name`, or the requested path.
    pub repo: String,
    /// The requested revision.
    pub revision: Option<String>,
    /// The commit that the revision resolves to.
    pub commit: Option<String>,
    /// The requested or chosen file, if it is a single one.
    pub file: Option<String>,
}

/// How weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// safetensors files with or without an index.
    Safetensors,
    /// One GGUF file, split or not.
    Gguf,
    /// A diffusers pipeline of safetensors components.
    Diffusers,
    /// Pickled `.bin` files. Their ZIP directories give the sizes.
    PytorchBin,
    /// CTranslate2's `model.bin`.
    #[serde(rename = "ctranslate2")]
    Ctranslate2,
}

/// A named part of a diffusers pipeline or sentence-transformers model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PipelineComponent {
    /// The folder, which is also [`TensorClass::component`].
    pub name: String,
    /// The library and class that `model_index.json` or `modules.json` states.
    pub class: String,
    /// Bytes of the stored weights.
    pub bytes: Bytes,
    /// The component's configuration, reduced to numbers, flags, words and short lists.
    pub config: Option<serde_json::Value>,
}
