//! Where a model's metadata comes from, and which of its files are *the* weights.
//!
//! A [`ModelReference`] names a repository of a Hub or something on this host's disk. Both are read
//! through one narrow seam (`read::Files`: whole small files, ranges of large ones) into one
//! [`Metadata`], which is what the cache keeps, a bundle holds and a client sends;
//! [`assemble()`](hf_mem_core::model::metadata::assemble()) makes the
//! [`Model`](hf_mem_core::model::Model) of it.

mod base;
mod buffer;
pub mod bundle;
pub mod client;
mod disk;
pub mod error;
mod hf_cache;
mod hub;
mod known;
mod local;
mod ollama;
mod permissions;
mod problem;
mod read;
mod reading;
pub mod reference;
pub mod settings;
mod stored;
pub mod token;

pub use client::{Described, Origin, SourceClient, SourceSettings};
pub use disk::CacheStanding;
pub use error::SourceError;
pub use hf_mem_core::model::metadata::Metadata;
pub use hub::{HubOutcome, HubStats};
pub use permissions::FileReader;
pub use reference::{ModelReference, Place};
pub use settings::{HubSettings, LocalFolders};
pub use token::{Auth, Token};
