//! The types that weights and activations have once a model is loaded.
//!
//! Source: CTranslate2 4.8.1 `src/types.cc` (`resolve_compute_type`, `mayiuse_*`,
//! `get_preferred_size_multiple`) and `src/cuda/utils.cc` (`gpu_supports_int8`,
//! `gpu_has_fp16_tensor_cores`, `gpu_has_int8_tensor_cores`).

use crate::model::Dtype;
use crate::model::ctranslate2::StoredType;

/// A resolved compute type on CUDA, where `int16` is never resolved to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ComputeType {
    Float32,
    Float16,
    Bfloat16,
    Int8Float32,
    Int8Float16,
    Int8Bfloat16,
}

/// A requested compute type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestedType {
    /// As stored, with fallbacks.
    Default,
    /// The fastest of the device.
    Auto,
    /// 8-bit weights, and the stored type for all else.
    Int8,
    Int16,
    Exactly(ComputeType),
}

/// The compute capability that the likely figures take for devices that report none.
const ASSUMED_CAPABILITY: u32 = 80;

/// The arithmetic that a device is fast at.
#[derive(Clone, Copy, Debug)]
struct Abilities {
    float16: bool,
    bfloat16: bool,
    int8: bool,
}

impl Abilities {
    fn of_capability(capability: Option<u32>) -> Self {
        let capability = capability.unwrap_or(ASSUMED_CAPABILITY);
        Self {
            float16: capability >= 70,
            bfloat16: capability >= 80,
            int8: capability >= 61,
        }
    }
}

impl ComputeType {
    /// Its name in CTranslate2.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Float16 => "float16",
            Self::Bfloat16 => "bfloat16",
            Self::Int8Float32 => "int8_float32",
            Self::Int8Float16 => "int8_float16",
            Self::Int8Bfloat16 => "int8_bfloat16",
        }
    }

    /// Whether embeddings and linear weights have 8 bits.
    pub(super) const fn is_int8(self) -> bool {
        matches!(
            self,
            Self::Int8Float32 | Self::Int8Float16 | Self::Int8Bfloat16
        )
    }

    /// The type of activations, caches, biases and convolutions.
    pub(super) const fn float_dtype(self) -> Dtype {
        match self {
            Self::Float32 | Self::Int8Float32 => Dtype::F32,
            Self::Float16 | Self::Int8Float16 => Dtype::F16,
            Self::Bfloat16 | Self::Int8Bfloat16 => Dtype::BF16,
        }
    }

    /// Bytes of an element of [`ComputeType::float_dtype`].
    pub(super) const fn float_bytes(self) -> u64 {
        self.float_dtype().block().1
    }

    /// The number whose multiple the rows of the output layer must be.
    pub(super) fn size_multiple(self, capability: Option<u32>) -> u64 {
        let capability = capability.unwrap_or(ASSUMED_CAPABILITY);
        match self {
            Self::Float16 | Self::Bfloat16 if capability >= 70 => 8,
            Self::Int8Float32 | Self::Int8Float16 | Self::Int8Bfloat16 if capability >= 72 => 16,
            _ => 1,
        }
    }

    /// The type with fallbacks where a device lacks it.
    fn or_fallback(self, can: Abilities) -> Self {
        match self {
            Self::Float16 if !can.float16 => Self::Float32,
            Self::Bfloat16 if !can.bfloat16 => Self::Float32,
            Self::Int8Float32 if !can.int8 && can.float16 => Self::Float16,
            Self::Int8Float32 if !can.int8 => Self::Float32,
            Self::Int8Float16 => match (can.int8, can.float16) {
                (true, true) => Self::Int8Float16,
                (true, false) => Self::Int8Float32,
                (false, true) => Self::Float16,
                (false, false) => Self::Float32,
            },
            Self::Int8Bfloat16 => match (can.int8, can.bfloat16) {
                (true, true) => Self::Int8Bfloat16,
                (true, false) => Self::Int8Float32,
                (false, true) => Self::Bfloat16,
                (false, false) => Self::Float32,
            },
            able => able,
        }
    }

    /// The type with 8-bit weights and this type's floats.
    const fn with_int8_weights(self) -> Self {
        match self.float_dtype() {
            Dtype::F16 => Self::Int8Float16,
            Dtype::BF16 => Self::Int8Bfloat16,
            _ => Self::Int8Float32,
        }
    }
}

impl RequestedType {
    /// All names that CTranslate2 takes.
    pub(super) const NAMES: &'static [&'static str] = &[
        "default",
        "auto",
        "int8",
        "int8_float32",
        "int8_float16",
        "int8_bfloat16",
        "int16",
        "float16",
        "bfloat16",
        "float32",
    ];

    /// The type of this name.
    pub(super) fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "default" => Self::Default,
            "auto" => Self::Auto,
            "int8" => Self::Int8,
            "int16" => Self::Int16,
            "float32" | "float" | "fp32" => Self::Exactly(ComputeType::Float32),
            "float16" | "half" | "fp16" => Self::Exactly(ComputeType::Float16),
            "bfloat16" | "bf16" => Self::Exactly(ComputeType::Bfloat16),
            "int8_float32" => Self::Exactly(ComputeType::Int8Float32),
            "int8_float16" => Self::Exactly(ComputeType::Int8Float16),
            "int8_bfloat16" => Self::Exactly(ComputeType::Int8Bfloat16),
            _ => return None,
        })
    }

    /// Its name in CTranslate2.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Auto => "auto",
            Self::Int8 => "int8",
            Self::Int16 => "int16",
            Self::Exactly(compute) => compute.name(),
        }
    }

    /// The type that a device of `capability` loads a model of `stored` with; `None` if CTranslate2
    /// refuses the request there.
    pub(super) fn resolve(
        self,
        stored: StoredType,
        capability: Option<u32>,
    ) -> Option<ComputeType> {
        let can = Abilities::of_capability(capability);
        match self {
            Self::Default => Some(default_type(stored, can)),
            Self::Auto => Some(match (can.int8, can.float16) {
                (true, true) => ComputeType::Int8Float16,
                (true, false) => ComputeType::Int8Float32,
                (false, true) => ComputeType::Float16,
                (false, false) => ComputeType::Float32,
            }),
            Self::Int8 => Some(saved_type(stored).with_int8_weights().or_fallback(can))
                .filter(|resolved| resolved.is_int8()),
            Self::Int16 => None,
            Self::Exactly(compute) => {
                Some(compute).filter(|compute| compute.or_fallback(can) == *compute)
            }
        }
    }
}

/// The compute type of a model as stored; 16-bit integers count as 32-bit floats.
const fn saved_type(stored: StoredType) -> ComputeType {
    match (stored.weights, stored.others) {
        (Dtype::I8, Dtype::F16) => ComputeType::Int8Float16,
        (Dtype::I8, Dtype::BF16) => ComputeType::Int8Bfloat16,
        (Dtype::I8, _) => ComputeType::Int8Float32,
        (Dtype::F16, _) => ComputeType::Float16,
        (Dtype::BF16, _) => ComputeType::Bfloat16,
        _ => ComputeType::Float32,
    }
}

/// The type without a request: as stored, with fallbacks. GPUs lack 16-bit integers.
fn default_type(stored: StoredType, can: Abilities) -> ComputeType {
    if stored.weights == Dtype::I16 && can.float16 {
        return ComputeType::Float16;
    }

    saved_type(stored).or_fallback(can)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The types for capabilities 6.0, 6.1, 7.0, 7.5, 8.0 and an unknown one; `-` if refused.
    fn resolved(requested: &str, weights: Dtype, others: Dtype) -> String {
        let requested = RequestedType::by_name(requested).unwrap();
        let stored = StoredType { weights, others };
        let names = [Some(60), Some(61), Some(70), Some(75), Some(80), None]
            .map(|capability| requested.resolve(stored, capability))
            .map(|resolved| resolved.map_or("-", ComputeType::name));

        names.join(" ")
    }

    #[test]
    fn types_follow_the_device() {
        let table = [
            (
                "default",
                Dtype::F16,
                Dtype::F16,
                "float32 float32 float16 float16 float16 float16",
            ),
            (
                "default",
                Dtype::BF16,
                Dtype::BF16,
                "float32 float32 float32 float32 bfloat16 bfloat16",
            ),
            (
                "default",
                Dtype::I8,
                Dtype::F16,
                "float32 int8_float32 int8_float16 int8_float16 int8_float16 int8_float16",
            ),
            (
                "default",
                Dtype::I8,
                Dtype::BF16,
                "float32 int8_float32 int8_float32 int8_float32 int8_bfloat16 int8_bfloat16",
            ),
            (
                "default",
                Dtype::I8,
                Dtype::F32,
                "float32 int8_float32 int8_float32 int8_float32 int8_float32 int8_float32",
            ),
            (
                "default",
                Dtype::I16,
                Dtype::F32,
                "float32 float32 float16 float16 float16 float16",
            ),
            (
                "auto",
                Dtype::F32,
                Dtype::F32,
                "float32 int8_float32 int8_float16 int8_float16 int8_float16 int8_float16",
            ),
            (
                "int8",
                Dtype::F16,
                Dtype::F16,
                "- int8_float32 int8_float16 int8_float16 int8_float16 int8_float16",
            ),
            (
                "int8",
                Dtype::F32,
                Dtype::F32,
                "- int8_float32 int8_float32 int8_float32 int8_float32 int8_float32",
            ),
            (
                "int8_bfloat16",
                Dtype::F16,
                Dtype::F16,
                "- - - - int8_bfloat16 int8_bfloat16",
            ),
            (
                "float16",
                Dtype::F32,
                Dtype::F32,
                "- - float16 float16 float16 float16",
            ),
            ("int16", Dtype::I16, Dtype::F32, "- - - - - -"),
        ];

        for (requested, weights, others, types) in table {
            assert_eq!(
                resolved(requested, weights, others),
                types,
                "{requested} {weights}"
            );
        }
    }

    #[test]
    fn names_are_read_and_written() {
        for name in RequestedType::NAMES {
            assert_eq!(RequestedType::by_name(name).unwrap().name(), *name);
        }

        assert_eq!(RequestedType::by_name("int4"), None);
    }
}
