//! The types of a model's variables, from which CTranslate2 infers the compute type to load with.

use crate::bytes::Bytes;
use crate::model::{Dtype, Inventory};

/// The types of weights and of all other tensors, as stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredType {
    /// Type of embeddings and linear layers.
    pub weights: Dtype,
    /// Type of biases, norms and positions.
    pub others: Dtype,
}

impl StoredType {
    /// The compute type that loads them without conversion (CTranslate2 `types.cc`,
    /// `data_type_to_compute_type`).
    pub const fn name(self) -> &'static str {
        match (self.weights, self.others) {
            (Dtype::I8, Dtype::F16) => "int8_float16",
            (Dtype::I8, Dtype::BF16) => "int8_bfloat16",
            (Dtype::I8, _) => "int8_float32",
            (Dtype::I16, _) => "int16",
            (Dtype::F16, _) => "float16",
            (Dtype::BF16, _) => "bfloat16",
            _ => "float32",
        }
    }
}

/// Returns the types of `inventory`, or `None` if it lacks either kind of tensors.
///
/// CTranslate2 takes them from any variable of each kind (`model.cc`, `infer_compute_type`). This
/// takes the type with the most bytes.
pub fn stored_type(inventory: &Inventory) -> Option<StoredType> {
    let is_weight = |pattern: &str| pattern.ends_with("weight");
    let is_other = |pattern: &str| !is_weight(pattern) && !pattern.contains("_scale");

    Some(StoredType {
        weights: most_common(inventory, is_weight)?,
        others: most_common(inventory, is_other)?,
    })
}

/// Returns the type with the most bytes among the tensors that `counts` selects.
fn most_common(inventory: &Inventory, counts: impl Fn(&str) -> bool) -> Option<Dtype> {
    let mut totals: Vec<(Bytes, Dtype)> = Vec::new();
    for class in &inventory.classes {
        let Some(dtype) = class.dtype() else { continue };
        if class.shape.is_empty() || !counts(&class.pattern) {
            continue;
        }

        match totals.iter_mut().find(|(_, known)| *known == dtype) {
            Some((bytes, _)) => *bytes += class.bytes(),
            None => totals.push((class.bytes(), dtype)),
        }
    }

    totals.into_iter().max().map(|(_, dtype)| dtype)
}
