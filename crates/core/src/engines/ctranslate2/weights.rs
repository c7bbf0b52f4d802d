//! Weights as a compute type loads them.
//!
//! Source: CTranslate2 4.8.1 `src/models/model.cc` (`set_compute_type`, `ensure_dtype`,
//! `is_quantizable`, `move_variables_to_device`), `src/layers/decoder.cc` (`update_output_layer`)
//! and `src/layers/common.cc` (`Dense::select_weights`).

use super::compute_type::ComputeType;
use crate::bytes::Bytes;
use crate::model::{Dtype, Inventory, TensorClass};

/// Bytes of a quantized row's scale.
const SCALE_BYTES: u64 = 4;

/// Bytes of all tensors of `inventory` on the device.
pub(super) fn resident(inventory: &Inventory, compute: ComputeType) -> Bytes {
    let classes = inventory.classes.iter();
    classes
        .map(|class| resident_each(class, compute) * class.count)
        .sum()
}

/// Bytes of one tensor of `class` on the device.
///
/// Numbers without dimensions stay on the host. Embeddings and linear weights get 8 bits and a
/// scale for each row, or the float type. Convolutions are always floats on CUDA.
fn resident_each(class: &TensorClass, compute: ComputeType) -> Bytes {
    if class.shape.is_empty() || is_scale(class) {
        return Bytes::ZERO;
    }

    let elements = Bytes::new(class.elements_each());
    let is_float = class.dtype().is_some_and(Dtype::is_float);
    if !is_weight(class) {
        return if is_float {
            elements * compute.float_bytes()
        } else {
            class.bytes_each
        };
    }

    if compute.is_int8() && !is_convolution(class) {
        let rows = class.shape.first().copied().unwrap_or(0);
        return elements + Bytes::new(rows) * SCALE_BYTES;
    }

    elements * compute.float_bytes()
}

/// A copy of the output layer, if its rows are not a multiple of `multiple`.
///
/// Each worker makes one at its first transcription, with a bias that masks the added rows.
pub(super) fn padded_output(
    (rows, width): (u64, u64),
    compute: ComputeType,
    multiple: u64,
) -> Option<PaddedOutput> {
    if multiple == 0 || rows.is_multiple_of(multiple) {
        return None;
    }

    let padded = rows.checked_next_multiple_of(multiple)?;
    let row = if compute.is_int8() {
        Bytes::new(width) + Bytes::new(SCALE_BYTES)
    } else {
        Bytes::new(width) * compute.float_bytes()
    };

    Some(PaddedOutput {
        rows: padded,
        bytes: (row + Bytes::new(compute.float_bytes())) * padded,
    })
}

/// A copy of the output layer with added rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PaddedOutput {
    pub(super) rows: u64,
    pub(super) bytes: Bytes,
}

/// Whether CTranslate2 quantizes the tensor.
fn is_weight(class: &TensorClass) -> bool {
    class.pattern.ends_with("weight")
}

/// Whether the tensor is the scale of a quantized weight. It is counted with the weight.
fn is_scale(class: &TensorClass) -> bool {
    class.pattern.ends_with("weight_scale")
}

fn is_convolution(class: &TensorClass) -> bool {
    class.pattern.contains("conv")
}

#[cfg(test)]
mod tests {
    use super::super::tests::inventory;
    use super::*;
    use crate::model::ctranslate2::sample::WhisperSizes;

    /// Bytes of tensors in files that CTranslate2 4.8.5 converted to each type, counted by their
    /// variables' headers. Convolutions, which it stores in 8 bits, are floats on CUDA: 82 kB
    /// instead of 28.
    #[test]
    fn conversions_equal_stored_files() {
        let float = |weights| inventory(WhisperSizes::SMALLEST.stored_as(weights, weights));
        let int8 = |others| inventory(WhisperSizes::SMALLEST.stored_as(Dtype::I8, others));
        let tensors = |inventory: &Inventory| -> Bytes {
            let classes = inventory.classes.iter();
            classes
                .filter(|class| !class.shape.is_empty())
                .map(TensorClass::bytes)
                .sum()
        };

        let from = [
            float(Dtype::F32),
            float(Dtype::F16),
            int8(Dtype::F32),
            int8(Dtype::F16),
        ];
        for inventory in &from {
            for (compute, stored) in [
                (ComputeType::Float32, float(Dtype::F32)),
                (ComputeType::Float16, float(Dtype::F16)),
            ] {
                assert_eq!(resident(inventory, compute), tensors(&stored));
            }

            // The convolutions have 64 * 80 * 3 and 64 * 64 * 3 elements, and 64 rows each.
            let elements = 64 * 80 * 3 + 64 * 64 * 3;
            for (compute, stored, width) in [
                (ComputeType::Int8Float32, int8(Dtype::F32), 4),
                (ComputeType::Int8Float16, int8(Dtype::F16), 2),
            ] {
                let convolutions = Bytes::new(elements * (width - 1) - 2 * 64 * SCALE_BYTES);
                assert_eq!(
                    resident(inventory, compute),
                    tensors(&stored) + convolutions
                );
            }
        }
    }

    #[test]
    fn output_is_copied_if_padded() {
        let copy = |rows, compute, multiple| padded_output((rows, 1280), compute, multiple);
        let rows = |padded: Option<PaddedOutput>| padded.map(|padded| padded.rows);

        assert_eq!(rows(copy(51_866, ComputeType::Float16, 8)), Some(51_872));
        assert_eq!(
            rows(copy(51_865, ComputeType::Int8Float16, 16)),
            Some(51_872)
        );
        assert_eq!(copy(51_864, ComputeType::Float16, 8), None);
        assert_eq!(
            rows(copy(51_864, ComputeType::Int8Float16, 16)),
            Some(51_872)
        );
        assert_eq!(copy(51_866, ComputeType::Float32, 1), None);

        let bytes = |compute| copy(51_866, compute, 16).unwrap().bytes.get();
        assert_eq!(bytes(ComputeType::Float16), 51_872 * (1280 * 2 + 2));
        assert_eq!(bytes(ComputeType::Int8Float16), 51_872 * (1280 + 4 + 2));
    }
}
