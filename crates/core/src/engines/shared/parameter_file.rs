//! The format of an engine's file of parameter names.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

use crate::engines::EngineVersion;

/// The content of a file of names.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ParameterNames {
    pub(super) engine: String,
    pub(super) source: String,
    /// The prefix that turns a switch off.
    pub(super) negated_by: Option<String>,
    pub(super) counted: Vec<String>,
    pub(super) no_effect: Vec<String>,
    /// By name, the values that change nothing.
    pub(super) not_counted: BTreeMap<String, Vec<Value>>,
    #[serde(default)]
    pub(super) why: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) elsewhere: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) aliases: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) since: BTreeMap<String, EngineVersion>,
    #[serde(default)]
    pub(super) until: BTreeMap<String, EngineVersion>,
}

/// The kind of a listed name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum ParameterKind<'n> {
    Counted,
    NoEffect,
    NotCounted(&'n [Value]),
    Elsewhere(&'n str),
}

impl ParameterNames {
    /// Parses and validates the file of `engine`.
    pub(super) fn parse(text: &str, engine: &str) -> Result<Self, String> {
        let names: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        names.validate(engine)?;

        Ok(names)
    }

    /// Rejects a file that lists a name twice, or an alias, reason or release of an unlisted name.
    fn validate(&self, engine: &str) -> Result<(), String> {
        if self.engine != engine || self.source.is_empty() {
            return Err(format!("it is not for {engine}, or has no source"));
        }

        let mut seen = BTreeSet::new();
        let listed = self
            .counted
            .iter()
            .chain(&self.no_effect)
            .chain(self.not_counted.keys())
            .chain(self.elsewhere.keys());

        for name in listed.chain(self.aliases.keys()) {
            if !seen.insert(name) {
                return Err(format!("{name} is listed twice"));
            }
        }

        let referred = self
            .aliases
            .values()
            .chain(self.why.keys())
            .chain(self.since.keys())
            .chain(self.until.keys());

        match referred.into_iter().find(|name| self.kind(name).is_none()) {
            Some(name) => Err(format!("{name} is not listed")),
            None => Ok(()),
        }
    }

    /// The canonical name of `plain` and its kind.
    pub(super) fn find(&self, plain: &str) -> Option<(&str, ParameterKind<'_>)> {
        let name = self.aliases.get(plain).map_or(plain, |name| name);
        self.kind(name)
    }

    pub(super) fn kind(&self, name: &str) -> Option<(&str, ParameterKind<'_>)> {
        let is_name = |known: &&String| *known == name;
        if let Some(name) = self.counted.iter().find(is_name) {
            return Some((name, ParameterKind::Counted));
        }

        if let Some(name) = self.no_effect.iter().find(is_name) {
            return Some((name, ParameterKind::NoEffect));
        }

        if let Some((name, off)) = self.not_counted.get_key_value(name) {
            return Some((name, ParameterKind::NotCounted(off)));
        }

        self.elsewhere
            .get_key_value(name)
            .map(|(name, cure)| (name.as_str(), ParameterKind::Elsewhere(cure)))
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &str> {
        let listed = self
            .counted
            .iter()
            .chain(&self.no_effect)
            .chain(self.not_counted.keys());

        listed
            .chain(self.elsewhere.keys())
            .chain(self.aliases.keys())
            .map(String::as_str)
    }
}
