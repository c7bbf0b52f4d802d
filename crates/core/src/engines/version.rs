//! Versions of engines, as users and engines write them.
//!
//! Python engines and Ollama follow PEP 440 (`0.33`, `v0.11.0rc1`, `0.8.5.post1+cu128`); Ollama's
//! own builds add the suffix of `git describe` (`0.25.1-3-g1a2b3c4`). llama.cpp numbers its builds
//! (`b12032`, `12032`).

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A version of an engine.
///
/// [`super::releases`] lists the forms that each engine uses.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EngineVersion {
    text: String,
    /// The numbers of the release; for a build, its only number.
    numbers: Vec<u32>,
    /// Whether it is written as a build: `b12032`.
    build: bool,
    /// Whether it has a development segment: `.dev5`.
    development: bool,
}

/// The error for a text that is not a version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a version; versions look like 0.33, v0.11.0rc1 or b12032")]
pub struct InvalidVersion(String);

impl InvalidVersion {
    /// Keeps up to 40 printable characters of `text` for the message.
    fn new(text: &str) -> Self {
        Self(
            text.chars()
                .filter(|letter| !letter.is_control())
                .take(40)
                .collect(),
        )
    }
}

/// An engine with an optional version: `vllm`, `vllm@0.33`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EngineSpec {
    /// The engine's name; it may not exist.
    pub name: String,
    /// The version, if one is given.
    pub version: Option<EngineVersion>,
}

/// The maximum length of a version in bytes; messages repeat the version.
const MAX_LENGTH: usize = 96;

/// The maximum count of numbers in a release.
const MAX_NUMBERS: usize = 8;

impl EngineVersion {
    /// The build number, if the version is a single number.
    pub fn build(&self) -> Option<u32> {
        match *self.numbers {
            [number] if !self.development => Some(number),
            _ => None,
        }
    }

    /// Whether it can only be a build: `b12032`.
    pub const fn is_build(&self) -> bool {
        self.build
    }

    /// Whether it is a build between releases: `0.19.2rc1.dev134+gfe9c3d6c5`.
    pub const fn is_development(&self) -> bool {
        self.development
    }

    /// Whether the version names no release.
    ///
    /// A build from source without tags reports `0.1.dev17+g1a2b3c4`, `0.0.0`, or build 1.
    pub fn names_no_release(&self) -> bool {
        let first_two = self.numbers.first().copied().unwrap_or(0) == 0
            && self.numbers.get(1).is_none_or(|it| *it <= 1);
        let untagged = self.development && first_two;
        let zero = self.numbers.len() > 1 && self.numbers.iter().all(|number| *number == 0);
        untagged || zero || (self.build && self.numbers.iter().all(|number| *number <= 1))
    }

    /// Compares the version with the release `numbers`, by as many numbers as both have.
    ///
    /// 0.33.1 is in 0.33, and 5 is in 5.23. A version that names no release is newer than all
    /// others.
    pub fn order(&self, numbers: &[u32]) -> Ordering {
        if self.names_no_release() {
            return Ordering::Greater;
        }

        let pairs = self.numbers.iter().zip(numbers);
        pairs
            .map(|(own, other)| own.cmp(other))
            .find(|order| order.is_ne())
            .unwrap_or(Ordering::Equal)
    }

    /// Whether it is the release `numbers` or a later one.
    pub fn is_at_least(&self, numbers: &[u32]) -> bool {
        self.order(numbers).is_ge()
    }

    /// Its numbers.
    pub fn numbers(&self) -> &[u32] {
        &self.numbers
    }
}

impl FromStr for EngineVersion {
    type Err = InvalidVersion;

    fn from_str(text: &str) -> Result<Self, InvalidVersion> {
        let text = text.trim();
        if text.len() > MAX_LENGTH {
            return Err(InvalidVersion::new(text));
        }

        let lower = text.to_ascii_lowercase();
        if let Some(number) = build_number(&lower) {
            return Ok(Self {
                text: text.to_owned(),
                numbers: vec![number],
                build: true,
                development: false,
            });
        }

        let (numbers, development) = release(&lower).ok_or_else(|| InvalidVersion::new(text))?;
        Ok(Self {
            text: text.to_owned(),
            numbers,
            build: false,
            development,
        })
    }
}

impl fmt::Display for EngineVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for EngineVersion {
    type Error = InvalidVersion;

    fn try_from(text: String) -> Result<Self, InvalidVersion> {
        text.parse()
    }
}

impl From<EngineVersion> for String {
    fn from(version: EngineVersion) -> Self {
        version.text
    }
}

impl FromStr for EngineSpec {
    type Err = InvalidVersion;

    fn from_str(text: &str) -> Result<Self, InvalidVersion> {
        let (name, version) = match text.split_once('@') {
            Some((name, version)) => (name, Some(version.parse()?)),
            None => (text, None),
        };

        Ok(Self {
            name: name.to_owned(),
            version,
        })
    }
}

impl fmt::Display for EngineSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            Some(version) => write!(f, "{}@{version}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

impl TryFrom<String> for EngineSpec {
    type Error = InvalidVersion;

    fn try_from(text: String) -> Result<Self, InvalidVersion> {
        text.parse()
    }
}

impl From<EngineSpec> for String {
    fn from(spec: EngineSpec) -> Self {
        spec.to_string()
    }
}

/// The number of `b12032`, with or without the commit that follows it: `b8931-9725a313b`.
fn build_number(text: &str) -> Option<u32> {
    let mut rest = Rest(text.strip_prefix('b')?);
    let number = rest.number()?;

    if rest.skip("-") {
        let commit = rest.0.strip_prefix('g').unwrap_or(rest.0);
        let is_commit =
            (7..=40).contains(&commit.len()) && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
        return is_commit.then_some(number);
    }

    rest.0.is_empty().then_some(number)
}

/// The numbers of a PEP 440 version, and whether it is a development release.
fn release(text: &str) -> Option<(Vec<u32>, bool)> {
    let mut rest = Rest(text.strip_prefix('v').unwrap_or(text));
    if let Some((epoch, version)) = rest.0.split_once('!') {
        // No engine has a release of a later epoch, whose numbers would mean another release.
        if epoch.parse::<u32>().ok()? != 0 {
            return None;
        }
        rest = Rest(version);
    }

    let mut numbers = vec![rest.number()?];
    while let Some(number) = rest.numbered(&[""], &["."]) {
        numbers.push(number);
    }

    if numbers.len() > MAX_NUMBERS {
        return None;
    }

    let separators = ["", ".", "-", "_"];
    rest.numbered(
        &["alpha", "beta", "preview", "pre", "rc", "a", "b", "c"],
        &separators,
    );

    if rest.numbered(&["post", "rev", "r"], &separators).is_none() {
        // A post-release without its word: `0.8.5-1`.
        rest.numbered(&[""], &["-"]);
    }

    let development = rest.numbered(&["dev"], &separators).is_some();
    rest.describe();

    (rest.0.is_empty() || rest.is_local()).then_some((numbers, development))
}

/// The unparsed rest of a version.
struct Rest<'t>(&'t str);

impl Rest<'_> {
    /// Takes `part`, if it comes next.
    fn skip(&mut self, part: &str) -> bool {
        let rest = self.0.strip_prefix(part);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn starts_with_digit(&self) -> bool {
        self.0.starts_with(|letter: char| letter.is_ascii_digit())
    }

    /// Takes the digits that come next.
    fn number(&mut self) -> Option<u32> {
        let end = self
            .0
            .bytes()
            .position(|byte| !byte.is_ascii_digit())
            .unwrap_or(self.0.len());
        let (digits, rest) = self.0.split_at(end);
        self.0 = rest;

        digits.parse().ok()
    }

    /// Takes a separator, one of `words` and its number.
    ///
    /// A number may be missing after a word. Takes nothing if they do not follow.
    fn numbered(&mut self, words: &[&str], separators: &[&str]) -> Option<u32> {
        for separator in separators {
            let Some(after) = self.0.strip_prefix(separator) else {
                continue;
            };

            let Some(word) = words.iter().find(|word| after.starts_with(**word)) else {
                continue;
            };

            let mut rest = Rest(after.get(word.len()..).unwrap_or_default());
            if word.is_empty() && !rest.starts_with_digit() {
                continue;
            }

            if !word.is_empty() {
                let after = rest.0.strip_prefix(['.', '-', '_']).map(Rest);
                let after = after.filter(Rest::starts_with_digit);
                rest = after.unwrap_or(rest);
            }

            let number = if rest.starts_with_digit() {
                rest.number()?
            } else {
                0
            };
            self.0 = rest.0;
            return Some(number);
        }

        None
    }

    /// Takes the end that `git describe` adds: `-g1a2b3c4`, `-dirty`.
    fn describe(&mut self) {
        if let Some(after) = self.0.strip_prefix("-g") {
            let end = after
                .bytes()
                .position(|byte| !byte.is_ascii_hexdigit())
                .unwrap_or(after.len());
            if end >= 4 {
                self.0 = after.get(end..).unwrap_or_default();
            }
        }

        self.skip("-dirty");
    }

    /// Whether the rest is a local label: `+cu128`, `+g1a2b3c4.d20260424`.
    fn is_local(&self) -> bool {
        self.0.strip_prefix('+').is_some_and(|label| {
            label.split(['.', '-', '_']).all(|part| {
                !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> EngineVersion {
        text.parse().unwrap()
    }

    #[test]
    fn engine_versions_parse() {
        for (text, numbers) in [
            ("0.33", &[0, 33][..]),
            ("v0.33", &[0, 33]),
            ("0.11.0rc1", &[0, 11, 0]),
            ("0.8.5.post1", &[0, 8, 5]),
            ("0.8.5-1", &[0, 8, 5]),
            ("0.10.1.1+cu128", &[0, 10, 1, 1]),
            ("0!0.4", &[0, 4]),
            ("0.20.1.dev0+g101584af0.d20260424", &[0, 20, 1]),
            ("0.20.2rc1.dev249+glmkimirebase20260514", &[0, 20, 2]),
            ("0.15.2rc1.dev93+g11a4c9d30.cu128", &[0, 15, 2]),
            ("5.0.0.Alpha-2", &[5, 0, 0]),
            ("0.30.0-rc2", &[0, 30, 0]),
            ("0.25.1-3-g1a2b3c4-dirty", &[0, 25, 1]),
            ("5", &[5]),
            ("b12032", &[12_032]),
            ("12032", &[12_032]),
            ("b8931-9725a313b", &[8931]),
        ] {
            assert_eq!(version(text).numbers(), numbers, "{text}");
        }
    }

    #[test]
    fn other_texts_fail_to_parse() {
        let long = "1.".repeat(200);
        for text in [
            "",
            " ",
            "banana",
            "1!0.33",
            "latest",
            "0.",
            ".5",
            "0..3",
            "0.33x",
            "0.33 beta",
            "v",
            "b",
            "bx",
            "-1",
            "0.33+",
            "0.33+cu!",
            "1!",
            "99999999999",
            "1.2.3.4.5.6.7.8.9",
            "0.33\u{7}",
            "b12-zz",
            "0.33+a..b",
            "*",
            "0.11.*",
            long.as_str(),
        ] {
            assert!(text.parse::<EngineVersion>().is_err(), "{text}");
        }

        let message = "ban\u{1b}[31mana"
            .parse::<EngineVersion>()
            .unwrap_err()
            .to_string();
        assert!(
            message.starts_with("'ban[31mana' is not a version"),
            "{message}"
        );
    }

    #[test]
    fn order_uses_numbers_of_both() {
        assert_eq!(version("0.33.1").order(&[0, 33]), Ordering::Equal);
        assert_eq!(version("0.9.2").order(&[0, 33]), Ordering::Less);
        assert_eq!(version("0.33").order(&[0, 5, 23]), Ordering::Greater);
        assert_eq!(version("5").order(&[5, 23]), Ordering::Equal);
        assert_eq!(version("0.1.dev3+gabc").order(&[0, 33]), Ordering::Greater);
    }

    #[test]
    fn untagged_builds_name_no_release() {
        for text in [
            "0.1.dev17+g1a2b3c4",
            "0.0.0",
            "0.0.0.dev1+gabc",
            "0.1.0.dev5",
            "b1",
        ] {
            assert!(version(text).names_no_release(), "{text}");
        }

        for text in [
            "0.1",
            "0.1.5",
            "0.33.0.dev5",
            "0.19.2rc1.dev134+gfe9c3d6c5",
            "b12032",
            "0",
        ] {
            assert!(!version(text).names_no_release(), "{text}");
        }
    }

    #[test]
    fn spec_keeps_name_and_version() {
        let spec: EngineSpec = "vllm@0.19".parse().unwrap();
        assert_eq!(
            (spec.name.as_str(), spec.version.clone()),
            ("vllm", Some(version("0.19")))
        );
        assert_eq!(spec.to_string(), "vllm@0.19");
        assert_eq!("vllm".parse::<EngineSpec>().unwrap().version, None);
        assert!("vllm@".parse::<EngineSpec>().is_err());
    }
}
