//! A LoRA or other PEFT adapter on the model that it changes.

use super::{Identity, Inventory};
use crate::bytes::Bytes;

/// What an adapter adds to its base model, which the rest of [`Model`](super::Model) describes.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapter {
    /// Where the base model was read.
    pub base: Identity,
    /// How the adapter works: `LORA`, `LOHA`, `IA3`...
    pub method: String,
    /// The largest rank of its matrices, where it has any.
    pub rank: Option<u64>,
    /// Magnitudes beside the matrices (DoRA).
    pub dora: bool,
    /// Its own tensors.
    pub inventory: Inventory,
    /// Bytes of `modules_to_save`: whole copies of modules of the base model, part of the inventory.
    pub saved: Bytes,
}
