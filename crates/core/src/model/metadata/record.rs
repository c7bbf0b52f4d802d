//! The serialized form of a [`TensorClass`], and its checks on reading.
//!
//! The checks are strict, because anyone may have written the record.

use serde::{Deserialize, Serialize};

use super::{MAX_CLASSES, MAX_VARIANTS};
use crate::bytes::Bytes;
use crate::model::tensors::{Inventory, LayerRun, Storage, TensorClass};
use crate::model::{Dtype, safetensors};

/// Maximum length of a pattern, a component or a dtype.
const MAX_PATTERN: usize = 1024;
/// Maximum number of layer runs in one class.
const MAX_RUNS: usize = 1 << 16;

/// All tensors with one pattern, dtype and shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorRecord {
    /// Component folder, or an empty text for the root.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub component: String,
    /// Tensor name with numbers replaced by `*`.
    pub pattern: String,
    /// Dtype, as its format names it.
    pub dtype: String,
    /// Whether the dtype was unknown to the program that wrote the record.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unknown_dtype: bool,
    /// Shape, as the header states it.
    pub shape: Vec<u64>,
    /// Bytes of one tensor.
    pub bytes_each: u64,
    /// Runs of layers: (first layer, last layer, tensors in each).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<(u32, u32, u64)>,
    /// Number of tensors.
    pub count: u64,
}

/// Why records are not a valid inventory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// There are more kinds of tensors than in any model.
    #[error("it describes more than {} kinds of tensors", MAX_CLASSES)]
    TooManyClasses,
    /// There are more models than in any repository.
    #[error("it lists more than {} models", MAX_VARIANTS)]
    TooManyVariants,
    /// A record that contradicts itself.
    #[error("its record of {pattern} contradicts itself: {why}")]
    Contradiction {
        /// The pattern, shortened.
        pattern: String,
        /// What is wrong.
        why: &'static str,
    },
}

/// Checks `records` and returns their inventory.
pub(super) fn inventory(records: &[TensorRecord]) -> Result<Inventory, RecordError> {
    if records.len() > MAX_CLASSES {
        return Err(RecordError::TooManyClasses);
    }

    let mut classes = records
        .iter()
        .map(TensorRecord::class)
        .collect::<Result<Vec<_>, _>>()?;
    classes.sort_by(|a, b| {
        (&a.component, &a.pattern, &a.storage, &a.shape).cmp(&(
            &b.component,
            &b.pattern,
            &b.storage,
            &b.shape,
        ))
    });

    Ok(Inventory { classes })
}

impl From<&TensorClass> for TensorRecord {
    fn from(class: &TensorClass) -> Self {
        let (dtype, unknown_dtype) = match &class.storage {
            Storage::Known(dtype) => (dtype.name().to_owned(), false),
            Storage::Unknown(name) => (name.to_string(), true),
        };

        Self {
            component: class.component.to_string(),
            pattern: class.pattern.to_string(),
            dtype,
            unknown_dtype,
            shape: class.shape.to_vec(),
            bytes_each: class.bytes_each.get(),
            layers: class
                .layers
                .iter()
                .map(|run| (run.first, run.last, run.each))
                .collect(),
            count: class.count,
        }
    }
}

impl TensorRecord {
    /// Checks the record and returns its class.
    pub fn class(&self) -> Result<TensorClass, RecordError> {
        let longest = [&self.pattern, &self.component, &self.dtype]
            .into_iter()
            .map(String::len)
            .max();
        if longest > Some(MAX_PATTERN)
            || self.shape.len() > safetensors::MAX_RANK
            || self.layers.len() > MAX_RUNS
        {
            return Err(self.contradiction("it is longer than any real record"));
        }
        // A dtype that was unknown to the writer may be known now. The number of bytes comes from
        // the offsets either way.
        let known = Dtype::ALL
            .iter()
            .copied()
            .find(|dtype| dtype.name() == self.dtype && !self.unknown_dtype);

        let bytes_each = Bytes::new(self.bytes_each);
        let elements = Bytes::product(self.shape.iter().copied());
        let min_bytes = match known.and_then(|dtype| dtype.stored(elements.get())) {
            Some(_) if elements.overflowed() => {
                return Err(self.contradiction("its shape overflows 64 bits"));
            }
            Some(bytes) => bytes,
            None => Bytes::ZERO,
        };

        if bytes_each < min_bytes {
            return Err(self.contradiction("it has fewer bytes than its shape and type need"));
        }

        let mut layers = Vec::with_capacity(self.layers.len());
        let (mut counted, mut next) = (0_u64, 0_u64);
        for &(first, last, each) in &self.layers {
            if first > last || u64::from(first) < next {
                return Err(self.contradiction("its layers are not in order"));
            }
            next = u64::from(last) + 1;
            counted = counted.saturating_add((next - u64::from(first)).saturating_mul(each));
            layers.push(LayerRun { first, last, each });
        }

        if !layers.is_empty() && counted != self.count {
            return Err(self.contradiction("its layers do not add up to its count"));
        }

        Ok(TensorClass {
            component: self.component.as_str().into(),
            pattern: self.pattern.as_str().into(),
            storage: known.map_or_else(
                || Storage::Unknown(self.dtype.as_str().into()),
                Storage::Known,
            ),
            shape: self.shape.clone().into(),
            bytes_each,
            layers,
            count: self.count,
        })
    }

    fn contradiction(&self, why: &'static str) -> RecordError {
        let pattern = self.pattern.chars().take(120).collect();
        RecordError::Contradiction { pattern, why }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tensors::InventoryBuilder;

    #[test]
    fn records_round_trip() {
        let mut builder = InventoryBuilder::default();
        for layer in [0, 1, 2, 5] {
            let name = format!("model.layers.{layer}.w");
            builder.add(
                "",
                &name,
                Storage::Known(Dtype::BF16),
                &[3, 5],
                Bytes::new(30),
            );
        }

        builder.add(
            "vae",
            "x",
            Storage::Unknown("F3".into()),
            &[8],
            Bytes::new(3),
        );

        let inventory = builder.finish();
        for class in &inventory.classes {
            let text = serde_json::to_string(&TensorRecord::from(class)).expect("serializes");
            let record: TensorRecord = serde_json::from_str(&text).expect("reads back");
            assert_eq!(record.class().as_ref(), Ok(class), "{text}");
        }
    }

    #[test]
    fn contradictory_records_are_rejected() {
        let good = TensorRecord {
            component: String::new(),
            pattern: "a.*".into(),
            dtype: "F32".into(),
            unknown_dtype: false,
            shape: vec![4],
            bytes_each: 16,
            layers: vec![(0, 3, 2)],
            count: 8,
        };

        assert!(good.class().is_ok());
        assert!(
            TensorRecord {
                bytes_each: 15,
                ..good.clone()
            }
            .class()
            .is_err()
        );

        assert!(
            TensorRecord {
                count: 9,
                ..good.clone()
            }
            .class()
            .is_err()
        );

        assert!(
            TensorRecord {
                layers: vec![(3, 0, 2)],
                ..good.clone()
            }
            .class()
            .is_err()
        );

        assert!(
            TensorRecord {
                layers: vec![(0, 3, 1), (3, 6, 1)],
                ..good.clone()
            }
            .class()
            .is_err()
        );

        assert!(
            TensorRecord {
                layers: vec![(0, u32::MAX, u64::MAX)],
                ..good.clone()
            }
            .class()
            .is_err()
        );

        assert!(
            TensorRecord {
                shape: vec![u64::MAX, 4],
                ..good.clone()
            }
            .class()
            .is_err()
        );

        assert!(
            TensorRecord {
                shape: vec![1; 100],
                ..good.clone()
            }
            .class()
            .is_err()
        );

        // Answers repeat these names, so their length is bounded.
        assert!(
            TensorRecord {
                dtype: "F".repeat(2000),
                ..good.clone()
            }
            .class()
            .is_err()
        );

        assert!(
            TensorRecord {
                component: "vae".repeat(1000),
                ..good
            }
            .class()
            .is_err()
        );
    }
}
