//! Engine profiles: constants by version range, embedded as TOML, each with its source.
//!
//! Numbers are stored in millionths, so that no floating point enters a byte count. A user's table
//! can override any constant; an error names the path of an unknown constant or invalid value.

use std::collections::BTreeMap;

use super::EngineVersion;
use crate::bytes::Bytes;

/// Constants of one version range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// The newest version of the range, as the answer names it.
    pub name: String,
    /// The first release of the range.
    from: EngineVersion,
    /// The first release after the range.
    until: Option<EngineVersion>,
    /// Values by name, in millionths.
    constants: BTreeMap<String, u64>,
}

/// All profiles of one engine, the newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profiles {
    engine: String,
    profiles: Vec<Profile>,
}

/// The reason why a profile is unreadable or incomplete.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// The text is not TOML.
    #[error("profile is not TOML: {0}")]
    Syntax(String),
    /// A field is missing or has the wrong type.
    #[error("profile field {path}: {why}")]
    Field {
        /// The path of the field: `profiles.vllm."0.33".block_tokens`.
        path: String,
        /// The error in the field.
        why: String,
    },
}

fn field(path: impl Into<String>, why: impl Into<String>) -> ProfileError {
    ProfileError::Field {
        path: path.into(),
        why: why.into(),
    }
}

const MILLION: u64 = 1_000_000;

impl Profiles {
    /// Reads profiles from TOML text in the form of the embedded files.
    pub fn parse(text: &str) -> Result<Self, ProfileError> {
        let table: toml::Table = text
            .parse()
            .map_err(|error: toml::de::Error| ProfileError::Syntax(error.to_string()))?;
        let engine = table
            .get("engine")
            .and_then(toml::Value::as_str)
            .ok_or_else(|| field("engine", "is missing"))?;

        let common = match table.get("constants") {
            Some(value) => constants("constants", value)?,
            None => BTreeMap::new(),
        };

        let entries = table
            .get("profile")
            .and_then(toml::Value::as_array)
            .ok_or_else(|| field("profile", "is missing"))?;
        let mut profiles = Vec::with_capacity(entries.len());

        for entry in entries {
            profiles.push(Profile::parse(entry, &common)?);
        }

        profiles.sort_by(|left, right| right.from.numbers().cmp(left.from.numbers()));
        if profiles.is_empty() {
            return Err(field("profile", "holds no profile"));
        }

        Ok(Self {
            engine: engine.to_owned(),
            profiles,
        })
    }

    /// The profile that covers `version`; the newest without a version.
    pub fn for_version(&self, version: Option<&EngineVersion>) -> Result<&Profile, ProfileError> {
        let found = self
            .profiles
            .iter()
            .find(|profile| version.is_none_or(|version| profile.covers(version)));
        found.ok_or_else(|| {
            field(
                "profile",
                version.map_or_else(String::new, |version| format!("none covers {version}")),
            )
        })
    }

    /// These profiles with a user's table merged in.
    ///
    /// `constants.NAME = number` sets a constant for every version, `"0.33".NAME = number` for one
    /// profile. The latter has priority.
    pub fn overridden(mut self, table: &toml::Table) -> Result<Self, ProfileError> {
        let for_all = table.iter().filter(|(section, _)| *section == "constants");
        let for_one = table.iter().filter(|(section, _)| *section != "constants");
        for (section, values) in for_all.chain(for_one) {
            let path = format!("profiles.{}.{section}", self.engine);
            let values = values
                .as_table()
                .ok_or_else(|| field(&path, "must be a table"))?;

            if section != "constants"
                && !self.profiles.iter().any(|profile| profile.name == *section)
            {
                let known: Vec<&str> = self.profiles.iter().map(|profile| &*profile.name).collect();
                return Err(field(
                    path,
                    format!("no such profile; known: constants, {}", known.join(", ")),
                ));
            }

            for profile in self
                .profiles
                .iter_mut()
                .filter(|profile| section == "constants" || profile.name == *section)
            {
                for (name, value) in values {
                    let path = format!("{path}.{name}");
                    let slot = profile
                        .constants
                        .get_mut(name)
                        .ok_or_else(|| field(&path, "no such constant"))?;
                    *slot = millionths(value)
                        .ok_or_else(|| field(&path, "must be a number, not negative"))?;
                }
            }
        }

        Ok(self)
    }
}

impl Profile {
    /// Reads one `[[profile]]` entry over the `common` constants.
    fn parse(entry: &toml::Value, common: &BTreeMap<String, u64>) -> Result<Self, ProfileError> {
        let text_of = |key: &str| entry.get(key).and_then(toml::Value::as_str);
        let name = text_of("name").ok_or_else(|| field("profile.name", "is missing"))?;
        let parse_version = |key: &str, text: &str| {
            text.parse::<EngineVersion>()
                .map_err(|error| field(format!("profile.\"{name}\".{key}"), error.to_string()))
        };

        let from = text_of("from").ok_or_else(|| field("profile.from", "is missing"))?;
        let from = parse_version("from", from)?;
        let until = text_of("until")
            .map(|text| parse_version("until", text))
            .transpose()?;

        let mut all = common.clone();
        if let Some(own) = entry.get("constants") {
            all.extend(constants(&format!("profile.\"{name}\".constants"), own)?);
        }

        Ok(Self {
            name: name.to_owned(),
            from,
            until,
            constants: all,
        })
    }

    /// Whether `version` is in the profile's range.
    fn covers(&self, version: &EngineVersion) -> bool {
        let until = self.until.as_ref();
        version.is_at_least(self.from.numbers())
            && until.is_none_or(|until| !version.is_at_least(until.numbers()))
    }

    /// A constant in millionths.
    pub fn millionths(&self, name: &str) -> Result<u64, ProfileError> {
        self.constants
            .get(name)
            .copied()
            .ok_or_else(|| field(format!("\"{}\".{name}", self.name), "is missing"))
    }

    /// A constant as a whole number, rounded down.
    pub fn count(&self, name: &str) -> Result<u64, ProfileError> {
        Ok(self.millionths(name)? / MILLION)
    }

    /// A constant as a switch: any number except 0 is true.
    pub fn flag(&self, name: &str) -> Result<bool, ProfileError> {
        Ok(self.millionths(name)? != 0)
    }

    /// A constant in MiB as bytes.
    pub fn mib(&self, name: &str) -> Result<Bytes, ProfileError> {
        Ok(Bytes::mib(1).scale(self.millionths(name)?, MILLION))
    }

    /// A constant as a ratio.
    pub fn ratio(&self, name: &str) -> Result<Ratio, ProfileError> {
        Ok(Ratio(self.millionths(name)?))
    }
}

/// A ratio in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ratio(pub u64);

impl Ratio {
    /// `bytes` times this ratio, rounded up.
    pub fn of(self, bytes: Bytes) -> Bytes {
        bytes.scale(self.0, MILLION)
    }
}

fn constants(path: &str, value: &toml::Value) -> Result<BTreeMap<String, u64>, ProfileError> {
    let table = value
        .as_table()
        .ok_or_else(|| field(path, "must be a table"))?;
    let mut all = BTreeMap::new();

    for (name, entry) in table {
        let path = format!("{path}.{name}");
        let number = entry.get("value").and_then(millionths);
        let number =
            number.ok_or_else(|| field(&path, "needs a 'value': a number, not negative"))?;

        if entry
            .get("source")
            .and_then(toml::Value::as_str)
            .is_none_or(str::is_empty)
        {
            return Err(field(path, "needs a 'source'"));
        }

        all.insert(name.clone(), number);
    }

    Ok(all)
}

/// A TOML number in millionths.
fn millionths(value: &toml::Value) -> Option<u64> {
    match value {
        toml::Value::Integer(whole) => u64::try_from(*whole).ok()?.checked_mul(MILLION),
        toml::Value::Float(number) => millionths_of(*number),
        _ => None,
    }
}

/// A fraction in millionths; `None` if it is negative, not a number, or larger than any constant.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the range is checked first"
)]
pub fn millionths_of(number: f64) -> Option<u64> {
    (number.is_finite() && (0.0..=1e12).contains(&number)).then(|| (number * 1e6).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
        engine = "e"
        [constants]
        block = { value = 16, source = "s" }
        share = { value = 0.92, source = "s" }
        [[profile]]
        name = "0.33"
        from = "0.21"
        [[profile]]
        name = "0.19"
        from = "0.0"
        until = "0.21"
        [profile.constants]
        share = { value = 0.9, source = "s" }
    "#;

    #[test]
    fn version_selects_profile_and_inherits() {
        let profiles = Profiles::parse(TEXT).unwrap();
        let select_profile = |version: Option<&str>| {
            let version = version.map(|version| version.parse().unwrap());
            profiles.for_version(version.as_ref()).unwrap()
        };

        let share_at = |version| select_profile(version).millionths("share").unwrap();
        assert_eq!(share_at(None), 920_000);
        assert_eq!(share_at(Some("0.20.2rc1.dev249+gl")), 900_000);
        assert_eq!(share_at(Some("0.21.0")), 920_000);
        assert_eq!(select_profile(Some("0.5")).count("block").unwrap(), 16);
        assert_eq!(select_profile(Some("0.1.dev9+gabcdef1")).name, "0.33");
        assert_eq!(select_profile(Some("0")).name, "0.33");
    }

    #[test]
    fn overrides_apply_or_name_error() {
        let profiles = Profiles::parse(TEXT).unwrap();
        let override_with = |text: &str| profiles.clone().overridden(&text.parse().unwrap());
        let changed = override_with("constants.block = 32\n\"0.19\".share = 0.5").unwrap();
        assert_eq!(
            changed.for_version(None).unwrap().count("block").unwrap(),
            32
        );
        let old: EngineVersion = "0.19".parse().unwrap();
        assert_eq!(
            changed
                .for_version(Some(&old))
                .unwrap()
                .millionths("share")
                .unwrap(),
            500_000
        );

        let both = override_with("constants.share = 0.25\n\"0.19\".share = 0.5").unwrap();
        assert_eq!(
            both.for_version(Some(&old))
                .unwrap()
                .millionths("share")
                .unwrap(),
            500_000
        );

        assert_eq!(
            both.for_version(None).unwrap().millionths("share").unwrap(),
            250_000
        );
        let message = override_with("constants.blok = 1").unwrap_err().to_string();
        assert_eq!(
            message,
            "profile field profiles.e.constants.blok: no such constant"
        );
        assert!(override_with("\"0.7\".share = 1").is_err());

        assert!(
            override_with("constants.share = -1.0")
                .unwrap_err()
                .to_string()
                .contains("not negative")
        );
    }

    #[test]
    fn constant_without_source_is_rejected() {
        let text = TEXT.replace(r#"{ value = 16, source = "s" }"#, "{ value = 16 }");
        assert!(
            Profiles::parse(&text)
                .unwrap_err()
                .to_string()
                .contains("constants.block")
        );
    }

    #[test]
    fn embedded_profiles_start_at_oldest_release() {
        for (text, before, oldest) in [
            (include_str!("profiles/vllm.toml"), "0.3", "0.4"),
            (include_str!("profiles/sglang.toml"), "0.1", "0.2"),
        ] {
            let profiles = Profiles::parse(text).unwrap();
            profiles
                .for_version(Some(&oldest.parse().unwrap()))
                .unwrap();
            let error = profiles
                .for_version(Some(&before.parse().unwrap()))
                .unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("profile field profile: none covers {before}")
            );
        }
    }
}
