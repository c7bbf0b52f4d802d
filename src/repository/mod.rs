//! Sources of model metadata: Hubs, local folders, caches and bundles.
//!
//! A [`ModelReference`] names a repository of a Hub or something on this host's disk. Both are read
//! through one narrow trait (`read::Files`: whole small files, ranges of large ones) into one
//! [`Metadata`]. The cache keeps it, a bundle holds it and a client sends it;
//! [`assemble()`](hf_mem_core::model::metadata::assemble()) makes the
//! [`Model`](hf_mem_core::model::Model) from it. `read` also chooses the weight files.

mod base_model;
mod buffer;
pub mod bundle;
pub mod client;
mod disk_cache;
mod disk_lookup;
pub mod error;
mod hf_cache;
mod hub;
mod hub_lookup;
mod hub_url;
mod local;
mod model_cache;
mod ollama;
mod permissions;
mod problem;
mod read;
mod read_metadata;
pub mod reference;
pub mod settings;
pub mod token;

pub use client::{Described, Origin, SourceClient};
pub use disk_cache::CacheStatus;
pub use error::SourceError;
pub use hf_mem_core::model::metadata::Metadata;
pub use hub::{HubOutcome, HubStats};
pub use permissions::FileReader;
pub use reference::{ModelReference, Place};
pub use settings::{HubSettings, LocalFolders, SourceSettings};
pub use token::{Auth, Token};
