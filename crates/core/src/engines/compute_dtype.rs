//! The dtype that a model computes in, and its name.

use crate::bytes::Bytes;
use crate::model::architecture::Architecture;
use crate::model::{Dtype, Format, Inventory, TensorClass};

/// The dtype that the model computes in.
///
/// It is the configuration's, or else the float dtype with the most bytes of tensors.
pub(super) fn model_dtype(
    format: Format,
    inventory: &Inventory,
    architecture: Option<&Architecture>,
) -> Dtype {
    // GGUF files name no compute dtype; llama.cpp's cache is F16.
    if format == Format::Gguf {
        return Dtype::F16;
    }

    if let Some(dtype) = architecture
        .and_then(|architecture| architecture.dtype)
        .filter(|dtype| dtype.is_float())
    {
        return dtype;
    }

    let bytes_in = |dtype: Dtype| -> Bytes {
        inventory
            .classes
            .iter()
            .filter(|class| class.dtype() == Some(dtype))
            .map(TensorClass::bytes)
            .sum()
    };

    let (half, brain) = (bytes_in(Dtype::F16), bytes_in(Dtype::BF16));

    // 32-bit scales and biases of a quantized checkpoint do not show its compute dtype.
    let quantized = architecture.is_some_and(|architecture| architecture.quantization.is_some());
    match (half, brain) {
        (Bytes::ZERO, Bytes::ZERO) if quantized => Dtype::BF16,
        (Bytes::ZERO, Bytes::ZERO) => Dtype::F32,
        (half, brain) if !quantized && bytes_in(Dtype::F32) > half + brain => Dtype::F32,
        (half, brain) if half > brain => Dtype::F16,
        _ => Dtype::BF16,
    }
}

/// The engines' name of a compute dtype.
pub(super) fn dtype_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F64 => "float64",
        Dtype::F32 => "float32",
        Dtype::F16 => "float16",
        Dtype::BF16 => "bfloat16",
        other => other.name(),
    }
}
