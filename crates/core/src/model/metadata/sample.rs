//! Metadata of a small model, for tests of code that stores metadata.

use std::collections::BTreeMap;

use super::{Evidence, Metadata, TensorRecord, VERSION};
use crate::model::{Format, Identity};

/// Returns metadata with one tensor.
pub fn small(repo: &str, commit: &str) -> Metadata {
    let record = TensorRecord {
        component: String::new(),
        pattern: "w".into(),
        dtype: "F32".into(),
        unknown_dtype: false,
        shape: vec![4],
        bytes_each: 16,
        layers: Vec::new(),
        count: 1,
    };

    Metadata {
        version: VERSION,
        identity: Identity {
            repo: repo.into(),
            revision: None,
            commit: Some(commit.into()),
            file: None,
        },
        format: Format::Safetensors,
        files: Vec::new(),
        siblings: Vec::new(),
        projectors: Vec::new(),
        tensors: vec![record],
        documents: BTreeMap::new(),
        unreadable: BTreeMap::new(),
        components: Vec::new(),
        base_model: None,
        base: None,
        gguf: None,
        ctranslate2: None,
        variants: Vec::new(),
        partial: false,
        hub_totals: None,
        gated: false,
        evidence: Evidence::EveryHeader,
        contradiction: None,
        warnings: Vec::new(),
    }
}
