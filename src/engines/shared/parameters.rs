//! Parameters by an engine's own names: unknown ones refused with the nearest known, values read by kind.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::engines::profile::millionths_of;
use crate::engines::{EngineError, nearest_name};

/// Parameters as given, their names checked and normalised (`--max-num-seqs` is `max_num_seqs`).
#[derive(Clone, Debug)]
pub struct Parameters {
    engine: &'static str,
    values: BTreeMap<String, Value>,
}

impl Parameters {
    /// Checks every name against `known`.
    pub fn new(engine: &'static str, known: &[&str], given: &BTreeMap<String, Value>) -> Result<Self, EngineError> {
        let mut values = BTreeMap::new();
        for (name, value) in given {
            let plain = name.trim_start_matches('-').replace('-', "_");
            if !known.contains(&&*plain) {
                let nearest = nearest_name(&plain, known.iter().copied());
                return Err(EngineError::UnknownParameter { engine, name: name.clone(), nearest });
            }
            if !value.is_null() {
                values.insert(plain, value.clone());
            }
        }
        Ok(Self { engine, values })
    }

    /// The error for a value of `name`.
    pub fn bad(&self, name: &str, why: impl Into<String>) -> EngineError {
        let value = self.values.get(name).map_or_else(String::new, ToString::to_string);
        EngineError::BadParameter { engine: self.engine, name: name.to_owned(), value, why: why.into() }
    }

    /// Whether it was given.
    pub fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// Refuses the first parameter of `names` that was given, with the reason beside its name.
    pub fn refuse(&self, names: &[(&str, &str)]) -> Result<(), EngineError> {
        names.iter().find(|(name, _)| self.has(name)).map_or(Ok(()), |(name, why)| Err(self.bad(name, *why)))
    }

    /// A whole number, not negative; a string of digits counts as one.
    pub fn count(&self, name: &str) -> Result<Option<u64>, EngineError> {
        let Some(value) = self.values.get(name) else { return Ok(None) };
        let number = value.as_u64().or_else(|| value.as_str()?.trim().replace('_', "").parse().ok());
        number.map(Some).ok_or_else(|| self.bad(name, "must be a whole number, not negative"))
    }

    /// A whole number of at least 1.
    pub fn positive(&self, name: &str) -> Result<Option<u64>, EngineError> {
        match self.count(name)? {
            Some(0) => Err(self.bad(name, "must be at least 1")),
            other => Ok(other),
        }
    }

    /// As [`Parameters::positive`], and at most 2^32: sizes are multiplied by it.
    pub fn size(&self, name: &str) -> Result<Option<u64>, EngineError> {
        match self.positive(name)? {
            Some(size) if size > 1 << 32 => Err(self.bad(name, "must be at most 2^32")),
            other => Ok(other),
        }
    }

    /// One of `choices`.
    pub fn choice(&self, name: &str, choices: &[&'static str]) -> Result<Option<&'static str>, EngineError> {
        let Some(word) = self.word(name)? else { return Ok(None) };
        let chosen = choices.iter().find(|choice| **choice == word).copied();
        chosen.map(Some).ok_or_else(|| self.bad(name, format!("must be one of {}", choices.join(", "))))
    }

    /// A number, not negative.
    pub fn number(&self, name: &str) -> Result<Option<f64>, EngineError> {
        let Some(value) = self.values.get(name) else { return Ok(None) };
        let number = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok());
        let number = number.filter(|number| number.is_finite() && *number >= 0.0);
        number.map(Some).ok_or_else(|| self.bad(name, "must be a number, not negative"))
    }

    /// A share above 0 and at most 1, in millionths.
    pub fn share(&self, name: &str) -> Result<Option<u64>, EngineError> {
        match self.millionths(name)? {
            Some(share) if share == 0 || share > 1_000_000 => Err(self.bad(name, "must be above 0 and at most 1")),
            other => Ok(other),
        }
    }

    /// A number, not negative, in millionths.
    pub fn millionths(&self, name: &str) -> Result<Option<u64>, EngineError> {
        let Some(value) = self.values.get(name) else { return Ok(None) };
        let number = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok());
        number.and_then(millionths_of).map(Some).ok_or_else(|| self.bad(name, "must be a number, not negative"))
    }

    /// A switch: true, false, 0, 1.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, EngineError> {
        let Some(value) = self.values.get(name) else { return Ok(None) };
        let flag = match value {
            Value::Bool(flag) => Some(*flag),
            Value::Number(number) => match number.as_u64() {
                Some(0) => Some(false),
                Some(1) => Some(true),
                _ => None,
            },
            Value::String(word) => match word.trim().to_ascii_lowercase().as_str() {
                "true" | "1" | "on" | "yes" | "" => Some(true),
                "false" | "0" | "off" | "no" => Some(false),
                _ => None,
            },
            _ => None,
        };
        flag.map(Some).ok_or_else(|| self.bad(name, "must be true or false"))
    }

    /// A word.
    pub fn word(&self, name: &str) -> Result<Option<&str>, EngineError> {
        let Some(value) = self.values.get(name) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.bad(name, "must be a word"))
    }

    /// The value itself.
    pub fn value(&self, name: &str) -> Option<&Value> {
        self.values.get(name)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn given(name: &str, value: Value) -> Result<Parameters, EngineError> {
        Parameters::new("vllm", &["max_num_seqs", "enforce_eager"], &BTreeMap::from([(name.to_owned(), value)]))
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_nearest() {
        let message = given("max_seqs", json!(1)).unwrap_err().to_string();
        assert_eq!(message, "vllm has no parameter 'max_seqs'; did you mean 'max_num_seqs'?");
    }

    #[test]
    fn values_are_read_by_kind() {
        let parameters = given("--max-num-seqs", json!("256")).unwrap();
        assert_eq!(parameters.positive("max_num_seqs").unwrap(), Some(256));
        assert!(given("max_num_seqs", json!(-3)).unwrap().count("max_num_seqs").is_err());
        assert!(given("max_num_seqs", json!(0)).unwrap().positive("max_num_seqs").is_err());
        assert_eq!(given("enforce_eager", json!("")).unwrap().flag("enforce_eager").unwrap(), Some(true));
        assert!(given("enforce_eager", json!([1])).unwrap().flag("enforce_eager").is_err());
        let large = given("max_num_seqs", json!(1_u64 << 33)).unwrap();
        assert!(large.size("max_num_seqs").is_err() && large.positive("max_num_seqs").is_ok());
        assert_eq!(given("max_num_seqs", json!("1.5")).unwrap().number("max_num_seqs").unwrap(), Some(1.5));
        assert!(given("max_num_seqs", json!(-1.5)).unwrap().number("max_num_seqs").is_err());
        let word = given("max_num_seqs", json!("many")).unwrap();
        assert_eq!(word.choice("max_num_seqs", &["few", "many"]).unwrap(), Some("many"));
        let refused = word.choice("max_num_seqs", &["few"]).unwrap_err().to_string();
        assert!(refused.contains("must be one of few"), "{refused}");
    }
}
