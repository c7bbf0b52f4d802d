//! Quantities as a person writes them in a file: `"30s"`, `"4MiB"`, `"0660"`.

use std::fmt;

use hf_mem_core::bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Durations such as `"250ms"`, `"30s"` or `"2h"`, for `#[serde(with)]`.
pub(super) mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(in crate::config) fn serialize<S: Serializer>(
        duration: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*duration))
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text).map_err(|_| {
            de::Error::custom(format!(
                "'{text}' is not a duration such as \"30s\" or \"5m\""
            ))
        })
    }
}

/// A size: `"512MiB"`, `"20GiB"`, or a plain number of bytes in quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub Bytes);

const UNITS: [(&str, u64); 4] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
];

impl Size {
    /// `count` KiB.
    pub const fn kib(count: u64) -> Self {
        Self(Bytes::new(count.saturating_mul(1 << 10)))
    }

    /// `count` MiB.
    pub const fn mib(count: u64) -> Self {
        Self(Bytes::mib(count))
    }

    /// `count` GiB.
    pub const fn gib(count: u64) -> Self {
        Self(Bytes::gib(count))
    }

    /// Returns the size in bytes.
    pub const fn get(self) -> Bytes {
        self.0
    }

    fn parse(text: &str) -> Option<Self> {
        let (digits, unit_bytes) = UNITS
            .iter()
            .find_map(|(unit, unit_bytes)| Some((text.strip_suffix(unit)?, *unit_bytes)))
            .unwrap_or((text, 1));

        digits
            .trim_end()
            .parse::<u64>()
            .ok()?
            .checked_mul(unit_bytes)
            .map(|count| Self(Bytes::new(count)))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.get();
        match UNITS
            .iter()
            .find(|(_, unit_bytes)| count != 0 && count.is_multiple_of(*unit_bytes))
        {
            Some((unit, unit_bytes)) => write!(f, "{}{unit}", count / unit_bytes),
            None => write!(f, "{count}"),
        }
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            de::Error::custom(format!(
                "'{text}' is not a size such as \"512MiB\" or \"20GiB\""
            ))
        })
    }
}

/// Permission bits as in chmod(1): `"0660"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketMode(pub u32);

impl Serialize for SocketMode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:04o}", self.0))
    }
}

impl<'de> Deserialize<'de> for SocketMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        u32::from_str_radix(&text, 8)
            .ok()
            .filter(|bits| *bits <= 0o777)
            .map(Self)
            .ok_or_else(|| {
                de::Error::custom(format!("'{text}' is not a file mode such as \"0660\""))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_round_trip() {
        for text in ["20GiB", "4MiB", "1TiB", "0", "1536", "3KiB"] {
            assert_eq!(Size::parse(text).unwrap().to_string(), text);
        }

        assert_eq!(Size::parse("2 GiB"), Some(Size::gib(2)));
        for text in ["", "GiB", "-1MiB", "1.5GiB", "12GB", "99999999999TiB"] {
            assert_eq!(Size::parse(text), None, "{text}");
        }
    }

    #[test]
    fn modes_are_octal_and_bounded() {
        assert_eq!(
            serde_json::from_str::<SocketMode>("\"0660\"").unwrap(),
            SocketMode(0o660)
        );
        assert_eq!(
            serde_json::to_string(&SocketMode(0o60)).unwrap(),
            "\"0060\""
        );

        for text in ["\"0690\"", "\"7777\"", "\"rw\"", "660"] {
            serde_json::from_str::<SocketMode>(text).unwrap_err();
        }
    }
}
