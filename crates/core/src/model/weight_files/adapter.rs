//! LoRA and other PEFT adapters.
//!
//! `adapter_config.json` names the base model whose tensors an adapter changes.

use serde_json::Value;

use super::{Choice, Documents, Listing, WeightFile};
use crate::model::Format;

/// Chooses the adapter's file if the repository is an adapter without a full model.
pub(super) fn choose(listing: &Listing, documents: &Documents) -> Option<Choice> {
    let config = documents.json.get("adapter_config.json")?;
    let full_model = [
        "model.safetensors",
        "model.safetensors.index.json",
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
    ];

    if full_model.iter().any(|path| listing.contains_key(*path)) {
        return None;
    }

    let files = [
        ("adapter_model.safetensors", Format::Safetensors),
        ("adapter_model.bin", Format::PytorchBin),
    ];
    let (path, format) = files
        .into_iter()
        .find(|(path, _)| listing.contains_key(*path))?;

    let base = config
        .get("base_model_name_or_path")
        .and_then(Value::as_str)
        .filter(|base| !base.is_empty());
    let file = WeightFile {
        path: path.into(),
        component: String::new(),
        bytes: listing.get(path).copied().flatten(),
    };

    Some(Choice {
        base_model: base.map(Into::into),
        ..Choice::new(format, vec![file], Vec::new())
    })
}
