//! Weights by layer: as resident after the cast, and as the library may unpack them.

use super::settings::TransformersSettings;
use crate::bytes::Bytes;
use crate::engines::layer_weights::{LayerBytes, LayerWeights};
use crate::model::architecture::Architecture;
use crate::model::{Dtype, Format, Model, TensorClass};

/// Name endings of scales of quantized weights, which keep their dtype.
const SCALE_NAMES: [&str; 6] = [
    "scale",
    "scales",
    "scale_inv",
    "absmax",
    "quant_map",
    "zero_point",
];

/// The weights of a model by layer.
#[derive(Debug)]
pub(super) struct TransformersWeights {
    /// As resident: floats cast to the compute dtype.
    pub(super) resident: LayerBytes,
    /// As the library may unpack them.
    pub(super) unpacked: LayerBytes,
}

impl TransformersWeights {
    pub(super) fn new(
        model: &Model,
        architecture: &Architecture,
        settings: &TransformersSettings,
    ) -> Self {
        let weights = LayerWeights::new(&model.inventory, architecture.layer_count());

        // A pickle names no types: its tensors count as stored, and twice that if transformers
        // widens them to 32 bits.
        let widened = model.format == Format::PytorchBin
            && settings.dtype == Dtype::F32
            && architecture.dtype != Some(Dtype::F32);
        let factor = if widened { 2 } else { 1 };
        let cast = Cast {
            element: settings.element_bytes(),
            keeps_float32: stores_some_float32(model, architecture),
        };

        Self {
            resident: weights.table(|class| resident_bytes(class, cast) * factor),
            unpacked: weights.table(|class| unpacked_bytes(class, architecture, cast) * factor),
        }
    }
}

/// The cast of floats while they load.
#[derive(Clone, Copy, Debug)]
struct Cast {
    /// Bytes of an element of the compute dtype.
    element: u64,
    /// Whether tensors that are stored in 32 bits stay so.
    keeps_float32: bool,
}

/// Whether a 16-bit model stores some of its tensors in 32 bits.
///
/// Classes declare such parameters (routers of experts, speech decoders) in 32 bits, and loading
/// keeps the declared dtype (transformers 5.24 `core_model_loading.py`: `_dtype =
/// empty_param.dtype`). If most of the file has 32 bits, the file is what differs.
fn stores_some_float32(model: &Model, architecture: &Architecture) -> bool {
    let float32: Bytes = model
        .inventory
        .classes
        .iter()
        .filter(|class| class.dtype() == Some(Dtype::F32))
        .map(|class| class.bytes_each * class.count)
        .sum();

    matches!(architecture.dtype, Some(Dtype::BF16 | Dtype::F16))
        && float32 * 2 < model.inventory.bytes()
}

/// Bytes of a tensor as resident: floats cast to the compute dtype, quantized payloads and their
/// scales as stored.
fn resident_bytes(class: &TensorClass, cast: Cast) -> Bytes {
    // transformers does not load prediction layers: their keys are unexpected
    // (`_keys_to_ignore_on_load_unexpected`).
    if class.pattern.starts_with("mtp.") {
        return Bytes::ZERO;
    }

    match class.dtype() {
        Some(Dtype::F32) if cast.keeps_float32 => class.bytes_each,
        Some(dtype) if dtype.is_float() && !is_scale(&class.pattern) => {
            Bytes::new(class.elements_each()) * cast.element
        }
        _ => class.bytes_each,
    }
}

/// Bytes of a tensor as the library may unpack it.
///
/// MXFP4 weights stay packed only with the right kernels installed (`Mxfp4HfQuantizer`).
/// compressed-tensors may unpack its weights at the first pass (`CompressedLinear`).
fn unpacked_bytes(class: &TensorClass, architecture: &Architecture, cast: Cast) -> Bytes {
    let quantization = architecture.quantization.as_ref();
    let bits = quantization
        .and_then(|quantization| quantization.bits)
        .map_or(8, u64::from)
        .max(1);
    let name = &*class.pattern;
    let elements = Bytes::new(class.elements_each());

    let logical = match (
        quantization.map(|quantization| quantization.method.as_str()),
        class.dtype(),
    ) {
        (Some("mxfp4"), Some(Dtype::U8)) if name.ends_with("_blocks") => elements * 2,
        (Some("compressed-tensors"), Some(Dtype::I32)) if name.ends_with(".weight_packed") => {
            elements.scale(32, bits)
        }
        (Some("compressed-tensors"), Some(Dtype::U8)) if name.ends_with(".weight_packed") => {
            elements * 2
        }
        (Some("compressed-tensors"), Some(Dtype::F8E4M3 | Dtype::I8))
            if name.ends_with(".weight") =>
        {
            elements
        }
        _ => return resident_bytes(class, cast),
    };

    logical * cast.element
}

/// Whether a tensor is a scale of quantized weights.
fn is_scale(pattern: &str) -> bool {
    SCALE_NAMES.iter().any(|name| pattern.ends_with(name))
}
