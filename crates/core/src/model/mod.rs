//! What a repository holds, from headers alone.
//!
//! [`metadata`] is all that was read of a model in one value; [`weight_files`] says which of its
//! files are *the* weights; [`safetensors`] and [`gguf`] turn headers into an [`Inventory`];
//! [`config`] turns `config.json` into an [`Architecture`]. The result, a [`Model`], is immutable
//! by commit and small: a known model costs some kilobytes. The program's `repository` finds the
//! files.

pub mod adapter;
pub mod architecture;
pub mod blueprint;
pub mod bounded_json;
pub mod config;
pub mod dtype;
mod footprint;
pub mod gguf;
pub mod metadata;
pub mod quantization;
pub mod safetensors;
pub mod tensors;
pub mod variant;
pub mod weight_files;

use serde::{Deserialize, Serialize};

pub use adapter::Adapter;
pub use architecture::{Architecture, Unsupported};
pub use dtype::Dtype;
pub use tensors::{Inventory, Storage, TensorClass};
pub use variant::FileVariant;

use crate::bytes::Bytes;

/// All that an answer needs to know of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// Where it was read.
    pub identity: Identity,
    /// How its weights are stored.
    pub format: Format,
    /// Its tensors; for a diffusers pipeline by component folder.
    pub inventory: Inventory,
    /// Files that hold *the* weights.
    pub weight_files: u32,
    /// The language or encoder model, or why it could not be understood. Diffusers pipelines have
    /// none.
    pub architecture: Result<Architecture, Unsupported>,
    /// Components of a diffusers pipeline, in `model_index.json`'s order; of a
    /// sentence-transformers model its modules.
    pub components: Vec<PipelineComponent>,
    /// Logical parameters, packed weights unpacked, where they can be told.
    pub parameters: Option<u64>,
    /// The adapter, where the repository that was asked for is one: all other fields are of its
    /// base model.
    pub adapter: Option<Adapter>,
    /// All GGUF models of the repository, this one among them, where there are several and none was
    /// asked for by name.
    pub variants: Vec<FileVariant>,
    /// What was not read but is proved by the rest, for the answer's `assumptions`.
    pub proofs: Vec<String>,
    /// Why its headers cannot describe its files: no engine can be answered for then.
    pub contradiction: Option<String>,
    /// Doubts about what was read, for the answer's `warnings`.
    pub doubts: Vec<String>,
}

impl Model {
    /// A model of one file of weights of which nothing is known but this.
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
            parameters: None,
            adapter: None,
            variants: Vec::new(),
            proofs: Vec::new(),
            contradiction: None,
            doubts: Vec::new(),
        }
    }
}

/// Where a model was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// `owner/name`, or the path that was asked for.
    pub repo: String,
    /// The revision that was asked for.
    pub revision: Option<String>,
    /// The commit that it stands for.
    pub commit: Option<String>,
    /// The one file of the repository that was asked for or chosen.
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
    /// Pickled `.bin` files; sized by their ZIP directories.
    PytorchBin,
}

/// A named part of a diffusers pipeline or sentence-transformers model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PipelineComponent {
    /// The folder, which is also [`TensorClass::component`].
    pub name: String,
    /// The library and class that `model_index.json` or `modules.json` names.
    pub class: String,
    /// Its stored weights.
    pub bytes: Bytes,
    /// The numbers, switches, words and short lists of its configuration, where it has one.
    pub config: Option<serde_json::Value>,
}
