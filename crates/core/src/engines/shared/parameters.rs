//! Parameters that enter the figures, by an engine's own names, and their values by type.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::parameter_names::ParameterList;
use super::value_forms::switch;
use crate::engines::profile::millionths_of;
use crate::engines::{EngineError, EngineVersion};

/// Given parameters with checked and normalized names (`--max-num-seqs` is `max_num_seqs`).
#[derive(Clone, Debug)]
pub struct Parameters {
    engine: &'static str,
    values: BTreeMap<String, Value>,
}

impl Parameters {
    /// Checks every name against the engine's `list`.
    pub fn new(
        list: &ParameterList,
        version: Option<&EngineVersion>,
        given: &BTreeMap<String, Value>,
    ) -> Result<Self, EngineError> {
        Ok(Self {
            engine: list.engine(),
            values: list.counted(version, given)?,
        })
    }

    /// The given names.
    pub fn names(&self) -> BTreeSet<String> {
        self.values.keys().cloned().collect()
    }

    /// The error for an invalid value of `name`.
    pub fn bad(&self, name: &str, why: impl Into<String>) -> EngineError {
        let value = self
            .values
            .get(name)
            .map_or_else(String::new, ToString::to_string);

        EngineError::BadParameter {
            engine: self.engine,
            name: name.to_owned(),
            value,
            why: why.into(),
        }
    }

    /// A non-negative whole number; a string of digits counts as one.
    pub fn count(&self, name: &str) -> Result<Option<u64>, EngineError> {
        let Some(value) = self.values.get(name) else {
            return Ok(None);
        };

        let number = value
            .as_u64()
            .or_else(|| value.as_str()?.trim().replace('_', "").parse().ok());

        number
            .map(Some)
            .ok_or_else(|| self.bad(name, "must be a whole number, not negative"))
    }

    /// A whole number of at least 1.
    pub fn positive(&self, name: &str) -> Result<Option<u64>, EngineError> {
        match self.count(name)? {
            Some(0) => Err(self.bad(name, "must be at least 1")),
            other => Ok(other),
        }
    }

    /// As [`Parameters::positive`], and at most 2^32, because products use it.
    pub fn size(&self, name: &str) -> Result<Option<u64>, EngineError> {
        match self.positive(name)? {
            Some(size) if size > 1 << 32 => Err(self.bad(name, "must be at most 2^32")),
            other => Ok(other),
        }
    }

    /// One of `choices`.
    pub fn choice(
        &self,
        name: &str,
        choices: &[&'static str],
    ) -> Result<Option<&'static str>, EngineError> {
        let Some(word) = self.word(name)? else {
            return Ok(None);
        };

        let chosen = choices.iter().find(|choice| **choice == word).copied();
        chosen
            .map(Some)
            .ok_or_else(|| self.bad(name, format!("must be one of {}", choices.join(", "))))
    }

    /// A non-negative number.
    pub fn number(&self, name: &str) -> Result<Option<f64>, EngineError> {
        let Some(value) = self.values.get(name) else {
            return Ok(None);
        };

        let number = value
            .as_f64()
            .or_else(|| value.as_str()?.trim().parse().ok());
        let number = number.filter(|number| number.is_finite() && *number >= 0.0);

        number
            .map(Some)
            .ok_or_else(|| self.bad(name, "must be a number, not negative"))
    }

    /// A share above 0 and at most 1, in millionths.
    pub fn share(&self, name: &str) -> Result<Option<u64>, EngineError> {
        match self.millionths(name)? {
            Some(share) if share == 0 || share > 1_000_000 => {
                Err(self.bad(name, "must be above 0 and at most 1"))
            }
            other => Ok(other),
        }
    }

    /// A non-negative number in millionths.
    pub fn millionths(&self, name: &str) -> Result<Option<u64>, EngineError> {
        let Some(value) = self.values.get(name) else {
            return Ok(None);
        };

        let number = value
            .as_f64()
            .or_else(|| value.as_str()?.trim().parse().ok());

        number
            .and_then(millionths_of)
            .map(Some)
            .ok_or_else(|| self.bad(name, "must be a number, not negative"))
    }

    /// A switch: true, false, 0, 1.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, EngineError> {
        let Some(value) = self.values.get(name) else {
            return Ok(None);
        };
        switch(value)
            .map(Some)
            .ok_or_else(|| self.bad(name, "must be true or false"))
    }

    /// A word.
    pub fn word(&self, name: &str) -> Result<Option<&str>, EngineError> {
        let Some(value) = self.values.get(name) else {
            return Ok(None);
        };

        value
            .as_str()
            .map(Some)
            .ok_or_else(|| self.bad(name, "must be a word"))
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

    static LIST: ParameterList = ParameterList::new(
        "vllm",
        "engine = \"vllm\"\nsource = \"a test\"\ncounted = [\"max_num_seqs\", \"enforce_eager\"]\nno_effect = []\n[not_counted]",
    );

    fn given(name: &str, value: Value) -> Result<Parameters, EngineError> {
        Parameters::new(&LIST, None, &BTreeMap::from([(name.to_owned(), value)]))
    }

    #[test]
    fn values_parse_by_type() {
        let parameters = given("--max-num-seqs", json!("256")).unwrap();
        assert_eq!(parameters.positive("max_num_seqs").unwrap(), Some(256));

        assert!(
            given("max_num_seqs", json!(-3))
                .unwrap()
                .count("max_num_seqs")
                .is_err()
        );

        assert!(
            given("max_num_seqs", json!(0))
                .unwrap()
                .positive("max_num_seqs")
                .is_err()
        );

        assert_eq!(
            given("enforce_eager", json!(""))
                .unwrap()
                .flag("enforce_eager")
                .unwrap(),
            Some(true)
        );

        assert!(
            given("enforce_eager", json!([1]))
                .unwrap()
                .flag("enforce_eager")
                .is_err()
        );

        let large = given("max_num_seqs", json!(1_u64 << 33)).unwrap();
        assert!(large.size("max_num_seqs").is_err() && large.positive("max_num_seqs").is_ok());

        assert_eq!(
            given("max_num_seqs", json!("1.5"))
                .unwrap()
                .number("max_num_seqs")
                .unwrap(),
            Some(1.5)
        );

        assert!(
            given("max_num_seqs", json!(-1.5))
                .unwrap()
                .number("max_num_seqs")
                .is_err()
        );

        let word = given("max_num_seqs", json!("many")).unwrap();
        assert_eq!(
            word.choice("max_num_seqs", &["few", "many"]).unwrap(),
            Some("many")
        );

        let refused = word
            .choice("max_num_seqs", &["few"])
            .unwrap_err()
            .to_string();
        assert!(refused.contains("must be one of few"), "{refused}");
    }
}
