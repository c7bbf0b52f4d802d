//! About how much memory a known model takes, so that all of them together can be bounded.

use std::fmt::{self, Write as _};
use std::mem::size_of;

use super::tensors::LayerRun;
use super::variant::Known;
use super::{FileVariant, Inventory, Model, TensorClass};

/// What an allocator adds to each piece.
const PIECE_BYTES: usize = 16;

impl Model {
    /// Bytes that it takes in memory, by an estimate that is rather too much than too little:
    /// tensors are added up, what is described otherwise counts by the length of its description.
    pub fn heap_bytes(&self) -> u64 {
        let tensors = [
            Some(&self.inventory),
            self.adapter.as_ref().map(|adapter| &adapter.inventory),
        ];
        let tensors: usize = tensors.into_iter().flatten().map(inventory).sum();
        let variants: usize = self.variants.iter().map(variant).sum();

        let described = described(&(
            &self.identity,
            &self.architecture,
            &self.components,
            &self.assumptions,
            &self.contradiction,
            &self.warnings,
        ));

        (size_of::<Self>() + tensors + variants + described) as u64
    }
}

fn inventory(inventory: &Inventory) -> usize {
    let class = |class: &TensorClass| {
        let texts = class.component.len() + class.pattern.len();
        let numbers =
            class.shape.len() * size_of::<u64>() + class.layers.len() * size_of::<LayerRun>();
        size_of::<TensorClass>() + texts + numbers + 4 * PIECE_BYTES
    };

    inventory.classes.iter().map(class).sum()
}

fn variant(variant: &FileVariant) -> usize {
    let known = match &variant.known {
        Known::Tensors(tensors) => inventory(tensors),
        Known::Model {
            architecture,
            inventory: tensors,
        } => described(architecture) + inventory(tensors),
        Known::Itself | Known::Length | Known::NoModel(_) => 0,
        Known::Unreadable(why) => why.len(),
    };

    size_of::<FileVariant>() + variant.path.len() + known
}

/// The length of what `value` prints: field names weigh more than what numbers and allocations take
/// beside them.
fn described(value: &impl fmt::Debug) -> usize {
    struct Length(usize);
    impl fmt::Write for Length {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0 += text.len();
            Ok(())
        }
    }

    let mut length = Length(0);

    // Counting does not fail.
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
    fn kinds_runs_and_texts_are_counted() {
        let of = |tensors: u32, name: &dyn Fn(u32) -> String| {
            let mut builder = InventoryBuilder::default();
            for tensor in 0..tensors {
                builder.add(
                    "",
                    &name(tensor),
                    Storage::Unknown("x".into()),
                    &[1],
                    Bytes::new(1),
                );
            }

            inventory(&builder.finish())
        };

        let one = of(1000, &|tensor| format!("l.{tensor}.w"));
        let kinds = of(1000, &|tensor| format!("w{tensor}"));
        let runs = of(1000, &|tensor| format!("l.{}.w", tensor * 2));

        assert!(
            one < 400
                && kinds > 1000 * size_of::<TensorClass>()
                && runs > 1000 * size_of::<LayerRun>()
        );

        assert_eq!(described(&"abc"), 5);
    }
}
