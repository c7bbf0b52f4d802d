//! A LoRA or other PEFT adapter on the model that it changes.

use super::{Identity, Inventory, Model};

/// What an adapter adds to its base model, which the rest of [`Model`] describes.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapter {
    /// Where the adapter was read; the model's own identity is its base's.
    pub identity: Identity,
    /// Whether the base model is given to accepted or known users only.
    pub base_gated: bool,
    /// How the adapter works: `LORA`, `LOHA`, `IA3`...
    pub method: String,
    /// The largest rank of its matrices, where it has any.
    pub rank: Option<u64>,
    /// Magnitudes beside the matrices (DoRA).
    pub dora: bool,
    /// Its own tensors.
    pub inventory: Inventory,
    /// `modules_to_save`: modules of the base model that it holds whole, as part of its tensors.
    pub saves: Vec<String>,
}

impl Model {
    /// Where that was read which was asked for: the adapter, where it is one.
    pub fn asked(&self) -> &Identity {
        self.adapter
            .as_ref()
            .map_or(&self.identity, |adapter| &adapter.identity)
    }
}
