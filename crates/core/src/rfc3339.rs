//! A wall time as RFC 3339 with milliseconds, for `#[serde(with = "...")]`.

use std::time::SystemTime;

use serde::{Deserialize, Deserializer, Serializer, de};

/// Writes `at` in UTC with milliseconds.
pub fn serialize<S: Serializer>(at: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_millis(*at))
}

/// Reads a UTC time of any precision.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
    humantime::parse_rfc3339(&String::deserialize(deserializer)?).map_err(de::Error::custom)
}
