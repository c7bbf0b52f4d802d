//! Compute dtype and KV-cache dtype: the names in vLLM and SGLang, and the bytes of an element.

use crate::model::Dtype;

/// The dtype of activations and unquantized weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ComputeDtype {
    /// 16 bits, brain float.
    Bfloat16,
    /// 16 bits, IEEE half.
    Float16,
    /// 32 bits.
    Float32,
}

impl ComputeDtype {
    /// Parses the engines' names; `half` and `float` are aliases.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "bfloat16" => Some(Self::Bfloat16),
            "float16" | "half" => Some(Self::Float16),
            "float32" | "float" => Some(Self::Float32),
            _ => None,
        }
    }

    /// The engines' name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bfloat16 => "bfloat16",
            Self::Float16 => "float16",
            Self::Float32 => "float32",
        }
    }

    /// Bytes of an element (es).
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Bfloat16 | Self::Float16 => 2,
            Self::Float32 => 4,
        }
    }

    /// The compute dtype for a configuration's dtype; `None` for types without arithmetic.
    pub const fn from_config(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::BF16 => Some(Self::Bfloat16),
            Dtype::F16 => Some(Self::Float16),
            Dtype::F32 | Dtype::F64 => Some(Self::Float32),
            _ => None,
        }
    }
}

/// The storage of keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvDtype {
    /// The compute dtype.
    Model(ComputeDtype),
    /// One byte, scales for the whole tensor.
    Fp8,
    /// One byte and a 4-byte scale for each token and head.
    PerTokenHead8,
    /// Half a byte and 8 bytes of scales for each token and head.
    PerTokenHead4,
    /// Half a byte and one byte of scale for 16 elements.
    Nvfp4,
    /// One byte and one byte of scale for 32 elements.
    Mxfp8,
}

impl KvDtype {
    /// Parses the name in an engine's flag; `auto` must be resolved before.
    pub fn parse(name: &str, compute: ComputeDtype) -> Option<Self> {
        match name {
            "auto" => Some(Self::Model(compute)),
            "bfloat16" | "bf16" => Some(Self::Model(ComputeDtype::Bfloat16)),
            "float16" | "fp16" | "half" => Some(Self::Model(ComputeDtype::Float16)),
            "fp8" | "fp8_e4m3" | "fp8_e5m2" | "fp8_inc" | "fp8_ds_mla" => Some(Self::Fp8),
            "int8_per_token_head" | "fp8_per_token_head" => Some(Self::PerTokenHead8),
            "int4_per_token_head" => Some(Self::PerTokenHead4),
            "nvfp4" | "fp4_e2m1" | "nvfp4_ds_mla" => Some(Self::Nvfp4),
            "mxfp8" => Some(Self::Mxfp8),
            _ => None,
        }
    }

    /// The names that [`KvDtype::parse`] accepts, for the error's text.
    pub const NAMES: &'static str = "auto, bfloat16, float16, fp8, fp8_e4m3, fp8_e5m2, fp8_ds_mla, int8_per_token_head, \
                                     fp8_per_token_head, int4_per_token_head, nvfp4, nvfp4_ds_mla, fp4_e2m1, mxfp8";

    /// Bytes of one head's key or value of `elements` elements, for one token.
    ///
    /// vLLM `v1/kv_cache_interface.py`; SGLang `mem_cache/memory_pool.py`.
    pub const fn head_bytes(self, elements: u64) -> u64 {
        match self {
            Self::Model(compute) => elements.saturating_mul(compute.bytes()),
            Self::Fp8 => elements,
            Self::PerTokenHead8 => elements.saturating_add(4),
            Self::PerTokenHead4 => elements.div_ceil(2).saturating_add(8),
            Self::Nvfp4 => elements.div_ceil(2).saturating_add(elements.div_ceil(16)),
            Self::Mxfp8 => elements.saturating_add(elements.div_ceil(32)),
        }
    }

    /// Whether it is narrower than the model's own dtype.
    pub const fn is_quantized(self) -> bool {
        !matches!(self, Self::Model(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_bytes_follow_dtype() {
        let bytes =
            |name| KvDtype::parse(name, ComputeDtype::Bfloat16).map(|kv| kv.head_bytes(128));
        assert_eq!(bytes("auto"), Some(256));
        assert_eq!(bytes("fp8"), Some(128));
        assert_eq!(bytes("nvfp4"), Some(72));
        assert_eq!(bytes("int8_per_token_head"), Some(132));
        assert_eq!(bytes("int4_per_token_head"), Some(72));
        assert_eq!(bytes("q8_0"), None);
    }
}
