//! The estimated memory of a [`Model`] value, which bounds the cache of models.

use std::fmt::{self, Write as _};
use std::mem::size_of;

use super::tensors::LayerRun;
use super::variant::Known;
use super::{FileVariant, Inventory, Model, TensorClass};

/// The allocator's overhead for one allocation.
const ALLOCATION_BYTES: usize = 16;

impl Model {
    /// Returns an estimate of the value's bytes in memory.
    ///
    /// The estimate is rather too large than too small. Tensors are summed. All other fields count
    /// by the length of their debug output.
    pub fn heap_bytes(&self) -> u64 {
        let tensors = [
            Some(&self.inventory),
            self.adapter.as_ref().map(|adapter| &adapter.inventory),
        ];
        let tensors: usize = tensors.into_iter().flatten().map(inventory_bytes).sum();
        let variants: usize = self.variants.iter().map(variant_bytes).sum();

        let described = debug_length(&(
            &self.identity,
            &self.architecture,
            &self.components,
            &self.assumptions,
            &self.contradiction,
            &self.warnings,
        ));

        let own = (size_of::<Self>() + tensors + variants + described) as u64;
        let draft = self.draft.as_ref().map_or(0, |draft| draft.heap_bytes());
        own.saturating_add(draft)
    }
}

fn inventory_bytes(inventory: &Inventory) -> usize {
    inventory.classes.iter().map(class_bytes).sum()
}

fn class_bytes(class: &TensorClass) -> usize {
    let texts = class.component.len() + class.pattern.len();
    let numbers = class.shape.len() * size_of::<u64>() + class.layers.len() * size_of::<LayerRun>();
    size_of::<TensorClass>() + texts + numbers + 4 * ALLOCATION_BYTES
}

fn variant_bytes(variant: &FileVariant) -> usize {
    let known = match &variant.known {
        Known::Tensors(tensors) => inventory_bytes(tensors),
        Known::Model {
            architecture,
            inventory: tensors,
        } => debug_length(architecture) + inventory_bytes(tensors),
        Known::Itself | Known::Length | Known::NoModel(_) => 0,
        Known::Unreadable(why) => why.len(),
    };

    size_of::<FileVariant>() + variant.path.len() + known
}

/// Returns the length of `value`'s debug output.
///
/// The field names in it outweigh the bytes of numbers and allocations.
fn debug_length(value: &impl fmt::Debug) -> usize {
    struct Length(usize);
    impl fmt::Write for Length {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0 += text.len();
            Ok(())
        }
    }

    let mut length = Length(0);

    // `Length` never returns an error.
    let _ = write!(length, "{value:?}");
    length.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::Bytes;
    use crate::model::Storage;
    use crate::model::tensors::InventoryBuilder;

    #[test]
    fn classes_runs_and_texts_count() {
        let bytes_of_tensors = |name: &dyn Fn(u32) -> String| {
            let mut builder = InventoryBuilder::default();
            for tensor in 0..1000 {
                builder.add(
                    "",
                    &name(tensor),
                    Storage::Unknown("x".into()),
                    &[1],
                    Bytes::new(1),
                );
            }

            inventory_bytes(&builder.finish())
        };

        let one_run = bytes_of_tensors(&|tensor| format!("l.{tensor}.w"));
        let classes = bytes_of_tensors(&|tensor| format!("w{tensor}"));
        let runs = bytes_of_tensors(&|tensor| format!("l.{}.w", tensor * 2));

        assert!(
            one_run < 400
                && classes > 1000 * size_of::<TensorClass>()
                && runs > 1000 * size_of::<LayerRun>()
        );

        assert_eq!(debug_length(&"abc"), 5);
    }
}
