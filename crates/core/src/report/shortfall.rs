//! The bytes that are short: a key of the answer that is absent, `null` or a number.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The bytes that are short of the request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shortfall {
    /// The answer has no verdict; the key is absent.
    #[default]
    NotJudged,
    /// Unknown; `null`.
    Unknown,
    /// This many bytes are short; 0 if it fits.
    Bytes(u64),
}

impl Shortfall {
    /// Whether the key is absent.
    pub fn is_not_judged(&self) -> bool {
        *self == Self::NotJudged
    }
}

impl Serialize for Shortfall {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Bytes(bytes) => serializer.serialize_some(bytes),
            Self::NotJudged | Self::Unknown => serializer.serialize_none(),
        }
    }
}

impl<'de> Deserialize<'de> for Shortfall {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::deserialize(deserializer)?.map_or(Self::Unknown, Self::Bytes))
    }
}
