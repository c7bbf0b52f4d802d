//! The models of a GGUF repository: one model in many quantisations, of which a [`Model`] is one.

use super::architecture::{Architecture, Unsupported};
use super::gguf::quantisation;
use super::{Inventory, Model};
use crate::bytes::Bytes;

/// One of them.
#[derive(Clone, Debug, PartialEq)]
pub struct FileVariant {
    /// The path of its first file.
    pub path: String,
    /// Its files: more than 1 where it is split.
    pub parts: u32,
    /// The length of its files together, where the source says one.
    pub file_bytes: Option<Bytes>,
    /// What is known of it.
    pub known: Known,
}

/// What is known of a variant.
#[derive(Clone, Debug, PartialEq)]
pub enum Known {
    /// It is the model that keeps this list.
    Itself,
    /// Its tensors, read from its table; all else is as in the model beside it.
    Tensors(Inventory),
    /// Its whole header: it is not laid out as the model beside it.
    Model {
        /// What its own metadata says.
        architecture: Box<Result<Architecture, Unsupported>>,
        /// Its tensors.
        inventory: Inventory,
    },
    /// The length of its files and nothing else.
    Length,
    /// It is no model.
    NoModel(Content),
    /// Its header was read and cannot be understood.
    Unreadable(String),
}

/// What a GGUF file holds that is no model.
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
    /// The quantisation that its name claims.
    pub fn label(&self) -> Option<String> {
        label(&self.path)
    }
}

/// The quantisation that the name of a GGUF file, or of the first part of one, claims.
pub fn label(path: &str) -> Option<String> {
    let stem = path.strip_suffix(".gguf").unwrap_or(path);
    let whole = super::gguf::PartName::read(path).map_or(stem, |part| part.stem);
    quantisation(whole)
}

impl Model {
    /// The model that `variant` is; `None` where it is none, or not known well enough for figures.
    pub fn variant(&self, variant: &FileVariant) -> Option<Self> {
        let (architecture, inventory) = match &variant.known {
            Known::Tensors(inventory) => (self.architecture.clone(), inventory.clone()),
            Known::Model {
                architecture,
                inventory,
            } => ((**architecture).clone(), inventory.clone()),
            Known::Length => (
                self.architecture.clone(),
                self.inventory.stretched(variant.file_bytes?)?,
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
            parameters: self.parameters,
            adapter: self.adapter.clone(),
            variants: Vec::new(),
            assumptions: self.assumptions.clone(),
            contradiction: None,
            warnings: self.warnings.clone(),
        }
    }
}

impl Inventory {
    /// The same tensors in `bytes` altogether, each by the same factor; never less than `bytes`.
    /// `None` for nothing to stretch.
    pub fn stretched(&self, bytes: Bytes) -> Option<Self> {
        let own = self.bytes();
        if own == Bytes::ZERO || own.overflowed() {
            return None;
        }

        let factor = |each: Bytes| {
            let scaled = u128::from(each.get()) * u128::from(bytes.get());
            Bytes::new(u64::try_from(scaled.div_ceil(u128::from(own.get()))).unwrap_or(u64::MAX))
        };

        let mut stretched = self.clone();
        for class in &mut stretched.classes {
            class.bytes_each = factor(class.bytes_each);
        }

        Some(stretched)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tensors::InventoryBuilder;
    use crate::model::{Dtype, Storage};

    #[test]
    fn what_is_known_by_its_length_alone_is_never_smaller_than_that() {
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
                .stretched(Bytes::new(wanted))
                .unwrap()
                .bytes()
                .get();
            assert!((wanted..wanted + 4).contains(&bytes), "{wanted}: {bytes}");
        }

        assert_eq!(Inventory::default().stretched(Bytes::new(1)), None);
    }

    #[test]
    fn labels_are_those_of_the_whole_not_of_a_part() {
        assert_eq!(
            label("UD-Q2_K_XL/m-UD-Q2_K_XL-00001-of-00005.gguf").as_deref(),
            Some("UD-Q2_K_XL")
        );
        assert_eq!(label("m.gguf"), None);
    }
}
