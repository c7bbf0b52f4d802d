//! The models of a GGUF repository: usually one model in many quantizations.
//!
//! A [`Model`] is one of them and lists the others.

use super::architecture::{Architecture, Unsupported};
use super::gguf::quantization_label;
use super::{Inventory, Model};
use crate::bytes::Bytes;

/// A GGUF model of a repository.
#[derive(Clone, Debug, PartialEq)]
pub struct FileVariant {
    /// The path of the first file.
    pub path: String,
    /// Number of files, above 1 for a split model.
    pub parts: u32,
    /// Total length of the files, if the source states it.
    pub file_bytes: Option<Bytes>,
    /// The known facts of this variant.
    pub known: Known,
}

/// The known facts of a variant.
#[derive(Clone, Debug, PartialEq)]
pub enum Known {
    /// The variant is the [`Model`] that has this list.
    Itself,
    /// The tensors from the variant's table. All else is as in the [`Model`].
    Tensors(Inventory),
    /// The whole header: the variant has other metadata than the [`Model`].
    Model {
        /// The architecture in the variant's own metadata.
        architecture: Box<Result<Architecture, Unsupported>>,
        /// The variant's tensors.
        inventory: Inventory,
    },
    /// Only the length of the files.
    Length,
    /// The file is not a model.
    NoModel(Content),
    /// The reason why the header cannot be parsed.
    Unreadable(String),
}

/// The content of a GGUF file that is not a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A vision or audio projector.
    Projector,
    /// A LoRA adapter.
    Adapter,
    /// A vocabulary or an importance matrix.
    Other,
}

impl FileVariant {
    /// Returns the quantization that the variant's file name claims.
    pub fn label(&self) -> Option<String> {
        label(&self.path)
    }
}

/// Returns the quantization that the name of a GGUF file, or of a part of one, claims.
pub fn label(path: &str) -> Option<String> {
    let stem = path.strip_suffix(".gguf").unwrap_or(path);
    let whole = super::gguf::PartName::read(path).map_or(stem, |part| part.stem);
    quantization_label(whole)
}

impl Model {
    /// Returns the model that `variant` is.
    ///
    /// Returns `None` if it is not a model, or if too little is known for figures.
    pub fn variant(&self, variant: &FileVariant) -> Option<Self> {
        let (architecture, inventory) = match &variant.known {
            Known::Tensors(inventory) => (self.architecture.clone(), inventory.clone()),
            Known::Model {
                architecture,
                inventory,
            } => ((**architecture).clone(), inventory.clone()),
            Known::Length => (
                self.architecture.clone(),
                self.inventory.scaled_to(variant.file_bytes?)?,
            ),
            Known::Itself => (self.architecture.clone(), self.inventory.clone()),
            Known::NoModel(_) | Known::Unreadable(_) => return None,
        };

        let mut model = Self {
            architecture,
            inventory,
            weight_files: variant.parts,
            variants: Vec::new(),
            contradiction: self
                .contradiction
                .clone()
                .filter(|_| variant.known == Known::Itself),
            ..self.clone_without_variants()
        };

        model.identity.file = Some(variant.path.clone());
        Some(model)
    }

    fn clone_without_variants(&self) -> Self {
        Self {
            identity: self.identity.clone(),
            format: self.format,
            inventory: Inventory::default(),
            weight_files: self.weight_files,
            architecture: Err(Unsupported::NoConfiguration),
            components: self.components.clone(),
            asks_for_pooling: self.asks_for_pooling,
            parameters: self.parameters,
            adapter: self.adapter.clone(),
            draft: self.draft.clone(),
            variants: Vec::new(),
            assumptions: self.assumptions.clone(),
            contradiction: None,
            warnings: self.warnings.clone(),
        }
    }
}

impl Inventory {
    /// Returns the same tensors scaled by one factor, so that their total is at least `bytes`.
    ///
    /// Returns `None` if the inventory has no bytes.
    pub fn scaled_to(&self, bytes: Bytes) -> Option<Self> {
        let own = self.bytes();
        if own == Bytes::ZERO || own.overflowed() {
            return None;
        }

        let mut scaled = self.clone();
        for class in &mut scaled.classes {
            let product = u128::from(class.bytes_each.get()) * u128::from(bytes.get());
            let each = product.div_ceil(u128::from(own.get()));
            class.bytes_each = Bytes::new(u64::try_from(each).unwrap_or(u64::MAX));
        }

        Some(scaled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tensors::InventoryBuilder;
    use crate::model::{Dtype, Storage};

    #[test]
    fn scaled_inventory_reaches_the_length() {
        let mut builder = InventoryBuilder::default();
        for (name, bytes) in [
            ("blk.0.a.weight", 14_400),
            ("blk.1.a.weight", 14_400),
            ("output.weight", 331),
        ] {
            builder.add(
                "",
                name,
                Storage::Known(Dtype::Q4_K),
                &[256, bytes / 144],
                Bytes::new(bytes),
            );
        }

        let inventory = builder.finish();
        for wanted in [1, 10_000, 29_131, 1_000_003] {
            let bytes = inventory
                .scaled_to(Bytes::new(wanted))
                .unwrap()
                .bytes()
                .get();
            assert!((wanted..wanted + 4).contains(&bytes), "{wanted}: {bytes}");
        }

        assert_eq!(Inventory::default().scaled_to(Bytes::new(1)), None);
    }

    #[test]
    fn part_has_label_of_whole() {
        assert_eq!(
            label("UD-Q2_K_XL/m-UD-Q2_K_XL-00001-of-00005.gguf").as_deref(),
            Some("UD-Q2_K_XL")
        );
        assert_eq!(label("m.gguf"), None);
    }
}
