//! Where a model's metadata comes from, and which of its files are *the* weights.
//!
//! A [`ModelReference`] names a repository of a Hub or something on this host's disk. Both are read
//! through one narrow seam (`read::Files`: whole small files, ranges of large ones) into one
//! [`Metadata`], which is what the cache keeps, a bundle holds and a client sends;
//! [`metadata::assemble()`] makes the [`Model`](super::Model) of it.

mod base;
mod buffer;
pub mod bundle;
pub mod client;
mod disk;
pub mod error;
mod hf_cache;
mod hub;
pub mod json;
mod known;
mod local;
pub mod metadata;
mod ollama;
mod permissions;
mod read;
mod reading;
pub mod reference;
pub mod settings;
mod stored;
pub mod token;
mod turns;
pub mod weights;

pub use client::{Described, Origin, SourceClient, SourceSettings};
pub use disk::CacheStanding;
pub use error::SourceError;
pub use hub::{HubOutcome, HubTally};
pub use metadata::Metadata;
pub use permissions::FileReader;
pub use reference::{ModelReference, Place};
pub use settings::{HubSettings, LocalFolders};
pub use token::{Auth, Token};
