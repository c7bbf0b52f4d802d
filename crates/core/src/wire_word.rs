//! Words on the wire: closed enums inside the program, open to unknown words when read.
//!
//! A newer daemon may send words that an older client does not know. [`WireWord`] keeps those
//! verbatim, so that the client can still read, print and forward the answer.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A closed set of words.
pub trait Word: Copy + 'static {
    /// Every member of the set.
    const ALL: &'static [Self];

    /// Returns the word as it is written in JSON.
    fn word(self) -> &'static str;
}

/// A word of the set `T`, or a word that this version does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WireWord<T> {
    /// A word of the set.
    Known(T),
    /// Any other word, verbatim.
    Unknown(Box<str>),
}

impl<T: Word> WireWord<T> {
    /// Looks `word` up in the set.
    pub fn new(word: &str) -> Self {
        T::ALL
            .iter()
            .find(|known| known.word() == word)
            .map_or_else(|| Self::Unknown(word.into()), |known| Self::Known(*known))
    }

    /// Returns the member of the set, or `None` for an unknown word.
    pub fn known(&self) -> Option<T> {
        match self {
            Self::Known(known) => Some(*known),
            Self::Unknown(_) => None,
        }
    }

    /// Returns the word as it is written in JSON.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Known(known) => known.word(),
            Self::Unknown(word) => word,
        }
    }
}

impl<T> From<T> for WireWord<T> {
    fn from(known: T) -> Self {
        Self::Known(known)
    }
}

impl<T: PartialEq> PartialEq<T> for WireWord<T> {
    fn eq(&self, other: &T) -> bool {
        matches!(self, Self::Known(known) if known == other)
    }
}

impl<T: Word> fmt::Display for WireWord<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl<T: Word> Serialize for WireWord<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de, T: Word> Deserialize<'de> for WireWord<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyWord<T>(PhantomData<T>);
        impl<T: Word> Visitor<'_> for AnyWord<T> {
            type Value = WireWord<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<WireWord<T>, E> {
                Ok(WireWord::new(word))
            }
        }

        deserializer.deserialize_str(AnyWord(PhantomData))
    }
}

/// Defines an enum of words and the word of each variant.
macro_rules! words {
    (
        $(#[$meta:meta])*
        pub enum $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)+ }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            /// Returns the word as it is written in JSON.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl $crate::wire_word::Word for $name {
            const ALL: &'static [Self] = &[$(Self::$variant,)+];

            fn word(self) -> &'static str {
                self.word()
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.word())
            }
        }
    };
}

pub(crate) use words;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::Strategy;

    #[test]
    fn unknown_word_survives_round_trip() {
        for text in [r#""layer_split""#, r#""ring_split""#] {
            let word: WireWord<Strategy> = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&word).unwrap(), text);
            assert_eq!(
                word.known().is_some(),
                text.contains("layer"),
                "only the first is a word of this version"
            );
        }
    }
}
