//! Element types: every safetensors dtype and every current ggml type, with the elements and bytes
//! of one block.
//!
//! Sources: safetensors `safetensors/src/tensor.rs` (`Dtype::bitsize`); llama.cpp `ggml/src/ggml.c`
//! (`type_traits`) and `ggml/src/ggml-common.h`, ggml 0.25.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::bytes::Bytes;

macro_rules! dtypes {
    ($($variant:ident $name:literal $elements:literal $bytes:literal $ggml:expr;)+) => {
        /// The storage type of a tensor's elements. The block types are ggml's.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[expect(missing_docs, reason = "the variants are the formats' own names")]
        #[expect(non_camel_case_types, reason = "the variants are the formats' own names")]
        pub enum Dtype { $($variant,)+ }

        impl Dtype {
            /// Every known type.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Returns the name that a safetensors header or ggml's table uses.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// Returns the elements and bytes of one block: (1, n) for types without blocks.
            pub const fn block(self) -> (u64, u64) {
                match self { $(Self::$variant => ($elements, $bytes),)+ }
            }

            /// Returns ggml's numeric id, or `None` for a type that ggml does not have.
            pub const fn ggml_id(self) -> Option<u32> {
                match self { $(Self::$variant => $ggml,)+ }
            }
        }
    };
}

dtypes! {
    F64 "F64" 1 8 Some(28); F32 "F32" 1 4 Some(0); F16 "F16" 1 2 Some(1); BF16 "BF16" 1 2 Some(30);
    I64 "I64" 1 8 Some(27); I32 "I32" 1 4 Some(26); I16 "I16" 1 2 Some(25); I8 "I8" 1 1 Some(24);
    U64 "U64" 1 8 None; U32 "U32" 1 4 None; U16 "U16" 1 2 None; U8 "U8" 1 1 None;
    Bool "BOOL" 1 1 None; C64 "C64" 1 8 None;
    F8E4M3 "F8_E4M3" 1 1 Some(43); F8E5M2 "F8_E5M2" 1 1 None; F8E8M0 "F8_E8M0" 1 1 None;
    F8E4M3Fnuz "F8_E4M3FNUZ" 1 1 None; F8E5M2Fnuz "F8_E5M2FNUZ" 1 1 None;
    F6E2M3 "F6_E2M3" 4 3 None; F6E3M2 "F6_E3M2" 4 3 None; F4 "F4" 2 1 None;
    Q4_0 "Q4_0" 32 18 Some(2); Q4_1 "Q4_1" 32 20 Some(3);
    Q5_0 "Q5_0" 32 22 Some(6); Q5_1 "Q5_1" 32 24 Some(7);
    Q8_0 "Q8_0" 32 34 Some(8); Q8_1 "Q8_1" 32 36 Some(9);
    Q2_K "Q2_K" 256 84 Some(10); Q3_K "Q3_K" 256 110 Some(11); Q4_K "Q4_K" 256 144 Some(12);
    Q5_K "Q5_K" 256 176 Some(13); Q6_K "Q6_K" 256 210 Some(14); Q8_K "Q8_K" 256 292 Some(15);
    IQ2_XXS "IQ2_XXS" 256 66 Some(16); IQ2_XS "IQ2_XS" 256 74 Some(17);
    IQ3_XXS "IQ3_XXS" 256 98 Some(18);
    IQ1_S "IQ1_S" 256 50 Some(19); IQ4_NL "IQ4_NL" 32 18 Some(20); IQ3_S "IQ3_S" 256 110 Some(21);
    IQ2_S "IQ2_S" 256 82 Some(22); IQ4_XS "IQ4_XS" 256 136 Some(23); IQ1_M "IQ1_M" 256 56 Some(29);
    TQ1_0 "TQ1_0" 256 54 Some(34); TQ2_0 "TQ2_0" 256 66 Some(35);
    MXFP4 "MXFP4" 32 17 Some(39); NVFP4 "NVFP4" 64 36 Some(40);
    Q1_0 "Q1_0" 128 18 Some(41); Q2_0 "Q2_0" 64 18 Some(42);
}

impl Dtype {
    /// Returns the type with this safetensors name. A safetensors header never has ggml's block
    /// types.
    pub fn from_safetensors(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|dtype| dtype.name() == name && dtype.block().0 <= 4)
    }

    /// Returns the type with this ggml id, or `None` for a retired or unknown id.
    pub fn from_ggml(id: u32) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|dtype| dtype.ggml_id() == Some(id))
    }

    /// Returns the stored bytes of `elements` contiguous elements.
    ///
    /// Returns `None` if they do not fill whole bytes or blocks.
    pub fn stored(self, elements: u64) -> Option<Bytes> {
        let (block, bytes) = self.block();
        (elements.is_multiple_of(block)).then(|| Bytes::new(elements / block) * bytes)
    }

    /// Returns whether engines cast this type to their compute dtype: F64, F32, F16 or BF16.
    pub const fn is_float(self) -> bool {
        matches!(self, Self::F64 | Self::F32 | Self::F16 | Self::BF16)
    }
}

/// Serializes the name, so that stored values do not depend on the order of the variants.
impl Serialize for Dtype {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Dtype {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let known = Self::ALL.iter().copied().find(|dtype| dtype.name() == name);
        known.ok_or_else(|| de::Error::custom(format!("unknown element type '{name}'")))
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partial_blocks_have_no_size() {
        assert_eq!(Dtype::F4.stored(6), Some(Bytes::new(3)));
        assert_eq!(Dtype::F4.stored(3), None);
        assert_eq!(Dtype::F6E2M3.stored(8), Some(Bytes::new(6)));
        assert_eq!(Dtype::Q4_K.stored(512), Some(Bytes::new(288)));
        assert_eq!(Dtype::Q4_K.stored(300), None);
    }

    #[test]
    fn ids_and_names_round_trip() {
        for dtype in Dtype::ALL {
            if let Some(id) = dtype.ggml_id() {
                assert_eq!(Dtype::from_ggml(id), Some(*dtype));
            }
        }

        assert_eq!(Dtype::from_ggml(4), None);
        assert_eq!(Dtype::from_ggml(44), None);
        assert_eq!(Dtype::from_safetensors("F8_E4M3"), Some(Dtype::F8E4M3));
        assert_eq!(Dtype::from_safetensors("Q4_K"), None);
    }
}
