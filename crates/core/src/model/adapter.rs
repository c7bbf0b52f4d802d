//! A LoRA or other PEFT adapter on top of its base model.

use super::{Identity, Inventory, Model};

/// An adapter. The other fields of its [`Model`] describe the base model.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapter {
    /// The adapter's own repository. [`Model::identity`] is that of the base model.
    pub identity: Identity,
    /// Whether the base model is gated: only accepted or logged-in users can download it.
    pub base_gated: bool,
    /// The adapter's method: `LORA`, `LOHA`, `IA3`...
    pub method: String,
    /// The largest rank of the adapter's matrices, if it has any.
    pub rank: Option<u64>,
    /// Whether the adapter has magnitude vectors in addition to its matrices (DoRA).
    pub dora: bool,
    /// The adapter's own tensors.
    pub inventory: Inventory,
    /// Modules of the base model that the adapter stores in full (`modules_to_save`). Their tensors
    /// are part of `inventory`.
    pub saves: Vec<String>,
}

impl Model {
    /// Returns the requested identity: the adapter's if the request named an adapter.
    pub fn asked(&self) -> &Identity {
        self.adapter
            .as_ref()
            .map_or(&self.identity, |adapter| &adapter.identity)
    }
}
