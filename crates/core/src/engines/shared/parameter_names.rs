//! The names of an engine's parameters and their effect on the figures: data from the engine's own
//! argument lists.
//!
//! Each engine has a file in `profiles/parameters`, which lists four kinds of names. *Counted*
//! names enter the figures. Names with *no effect* on memory are accepted and ignored. Names that
//! are *not counted* yet are rejected unless their value changes nothing. Names *elsewhere* belong
//! to another option. Every other name is unknown.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde_json::Value;

use super::parameter_file::{ParameterKind, ParameterNames};
use super::value_forms::means_same;
pub use super::value_forms::switch;
use crate::engines::{EngineError, EngineVersion, nearest_name};

/// The list of one engine, parsed when the first parameter is given.
#[derive(Debug)]
pub struct ParameterList {
    engine: &'static str,
    text: &'static str,
    names: OnceLock<Result<ParameterNames, String>>,
}

/// The lists of the engines with a server.
static SERVERS: [ParameterList; 4] = [
    ParameterList::new("vllm", include_str!("../profiles/parameters/vllm.toml")),
    ParameterList::new("sglang", include_str!("../profiles/parameters/sglang.toml")),
    ParameterList::new(
        "llama.cpp",
        include_str!("../profiles/parameters/llama_cpp.toml"),
    ),
    ParameterList::new("ollama", include_str!("../profiles/parameters/ollama.toml")),
];

/// The effect of a server's flag on the figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParameterEffect<'n> {
    /// It enters the figures, by this name.
    Counted(&'n str),
    /// It does not change the figures, at least at this value.
    NoEffect,
    /// It may change the memory, and no formula covers it; the reason, if listed.
    NotCounted(Option<&'n str>),
    /// It is set by another option.
    Elsewhere(&'n str),
}

/// A known name with its given value.
struct NamedSetting<'n> {
    name: &'n str,
    kind: ParameterKind<'n>,
    value: Value,
}

impl ParameterList {
    /// The list of `engine`, as TOML.
    pub const fn new(engine: &'static str, text: &'static str) -> Self {
        Self {
            engine,
            text,
            names: OnceLock::new(),
        }
    }

    /// The engine's name.
    pub const fn engine(&self) -> &'static str {
        self.engine
    }

    /// The counted parameters in `given`, by their canonical names; null values are ignored.
    ///
    /// Fails on the first parameter that `version` of the engine does not have, or that no formula
    /// covers.
    pub fn counted(
        &self,
        version: Option<&EngineVersion>,
        given: &BTreeMap<String, Value>,
    ) -> Result<BTreeMap<String, Value>, EngineError> {
        let mut counted = BTreeMap::new();
        let mut written: BTreeMap<&str, &str> = BTreeMap::new();

        if given.is_empty() {
            return Ok(counted);
        }

        let names = self.names()?;
        for (given_name, value) in given {
            let setting = self.setting(names, given_name, value)?;
            self.check_release(names, setting.name, version)?;

            if let Some(other) = written.insert(setting.name, given_name) {
                return Err(self.bad(given_name, value, format!("also given as '{other}'")));
            }

            if setting.value.is_null() {
                continue;
            }

            match setting.kind {
                ParameterKind::Counted => {
                    drop(counted.insert(setting.name.to_owned(), setting.value));
                }
                ParameterKind::NoEffect => {}
                ParameterKind::NotCounted(off)
                    if off.iter().any(|off| means_same(off, &setting.value)) => {}
                ParameterKind::NotCounted(off) => {
                    return Err(self.not_counted(
                        names.why.get(setting.name),
                        given_name,
                        value,
                        off,
                    ));
                }
                ParameterKind::Elsewhere(cure) => {
                    return Err(self.bad(given_name, value, cure.to_owned()));
                }
            }
        }

        Ok(counted)
    }

    /// The names that enter the figures.
    pub fn counted_names(&self) -> Result<&[String], EngineError> {
        Ok(&self.names()?.counted)
    }

    /// The list of the server with the `--engine` name `name`.
    pub fn of_engine(name: &str) -> Option<&'static Self> {
        SERVERS.iter().find(|list| list.engine == name)
    }

    /// The effect of the flag `given_name` with the text of its value, if it has one.
    ///
    /// `None` for a name that the engine does not have.
    pub fn effect(&self, given_name: &str, value: Option<&str>) -> Option<ParameterEffect<'_>> {
        let names = self.names().ok()?;
        let value = value.map_or(Value::Bool(true), Value::from);
        let setting = self.setting(names, given_name, &value).ok()?;

        Some(match setting.kind {
            ParameterKind::Counted => ParameterEffect::Counted(setting.name),
            ParameterKind::NoEffect => ParameterEffect::NoEffect,
            ParameterKind::NotCounted(off)
                if off.iter().any(|off| means_same(off, &setting.value)) =>
            {
                ParameterEffect::NoEffect
            }
            ParameterKind::NotCounted(_) => {
                ParameterEffect::NotCounted(names.why.get(setting.name).map(String::as_str))
            }
            ParameterKind::Elsewhere(cure) => ParameterEffect::Elsewhere(cure),
        })
    }

    /// The engine's own name for the parameter `given_name`.
    pub fn canonical_name(&self, given_name: &str) -> Option<&str> {
        let plain = given_name.trim_start_matches('-').replace('-', "_");
        Some(self.names().ok()?.find(&plain)?.0)
    }

    /// The engine's names that begin with `start`, in command-line notation without leading dashes.
    pub fn flags_starting(&self, start: &str) -> Vec<String> {
        let Ok(names) = self.names() else {
            return Vec::new();
        };

        let start = start.replace('-', "_");
        names
            .all()
            .filter(|name| name.starts_with(&start))
            .map(|name| name.replace('_', "-"))
            .collect()
    }

    fn names(&self) -> Result<&ParameterNames, EngineError> {
        self.names
            .get_or_init(|| ParameterNames::parse(self.text, self.engine))
            .as_ref()
            .map_err(|why| EngineError::BadParameter {
                engine: self.engine,
                name: "parameters".to_owned(),
                value: String::new(),
                why: format!("the embedded list cannot be read: {why}"),
            })
    }

    /// The setting for `given_name` in any notation: `--max-num-seqs` is `max_num_seqs`.
    fn setting<'n>(
        &self,
        names: &'n ParameterNames,
        given_name: &str,
        value: &Value,
    ) -> Result<NamedSetting<'n>, EngineError> {
        let plain = given_name.trim_start_matches('-').replace('-', "_");
        if let Some((name, kind)) = names.find(&plain) {
            return Ok(NamedSetting {
                name,
                kind,
                value: value.clone(),
            });
        }

        let switched_off = names
            .negated_by
            .as_deref()
            .and_then(|prefix| names.find(plain.strip_prefix(prefix)?));
        if let Some((name, kind)) = switched_off {
            let on = switch(value)
                .ok_or_else(|| self.bad(given_name, value, "must be true or false".to_owned()))?;
            return Ok(NamedSetting {
                name,
                kind,
                value: Value::Bool(!on),
            });
        }

        let long = names.all().filter(|name| name.len() > 3);
        let nearest = nearest_name(&plain, long);

        Err(EngineError::UnknownParameter {
            engine: self.engine,
            name: given_name.to_owned(),
            nearest,
        })
    }

    /// Rejects a name that `version` does not have.
    fn check_release(
        &self,
        names: &ParameterNames,
        name: &str,
        version: Option<&EngineVersion>,
    ) -> Result<(), EngineError> {
        let since = names
            .since
            .get(name)
            .filter(|since| version.is_some_and(|asked| !asked.is_at_least(since.numbers())));
        let until = names
            .until
            .get(name)
            .filter(|until| version.is_none_or(|asked| asked.is_at_least(until.numbers())));
        let releases = match (since, until) {
            (Some(since), _) => format!("releases from {since} on have it"),
            (None, Some(until)) => format!("only releases before {until} have it"),
            (None, None) => return Ok(()),
        };

        let version = version.map_or_else(String::new, |version| format!(" {version}"));
        Err(EngineError::ParameterOfOtherRelease {
            engine: self.engine,
            version,
            name: name.to_owned(),
            releases,
        })
    }

    fn not_counted(
        &self,
        why: Option<&String>,
        given_name: &str,
        value: &Value,
        off: &[Value],
    ) -> EngineError {
        let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
        let cure = off
            .first()
            .map(|off| format!(", or set it to {off}"))
            .unwrap_or_default();

        EngineError::UnsupportedParameter {
            engine: self.engine,
            name: given_name.to_owned(),
            value: value.to_string(),
            why: format!("not counted yet{why}; leave it out{cure}"),
        }
    }

    fn bad(&self, name: &str, value: &Value, why: String) -> EngineError {
        EngineError::BadParameter {
            engine: self.engine,
            name: name.to_owned(),
            value: value.to_string(),
            why,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    static LIST: ParameterList = ParameterList::new(
        "vllm",
        r#"
            engine = "vllm"
            source = "a test"
            negated_by = "no_"
            counted = ["max_num_seqs", "enable_chunked_prefill", "swap"]
            no_effect = ["served_model_name"]
            [not_counted]
            enable_sleep_mode = [false]
            data_parallel_size = [1]
            speculative_config = ["{}"]
            kv_offloading_size = []
            [why]
            data_parallel_size = "ask for one replica"
            [elsewhere]
            tensor_parallel_size = "ask with --tensor-parallel"
            [aliases]
            tp = "tensor_parallel_size"
            [since]
            kv_offloading_size = "0.14"
            [until]
            swap = "0.21"
        "#,
    );

    fn ask(
        name: &str,
        value: Value,
        version: Option<&str>,
    ) -> Result<BTreeMap<String, Value>, EngineError> {
        let version = version.map(|version| version.parse().unwrap());
        LIST.counted(
            version.as_ref(),
            &BTreeMap::from([(name.to_owned(), value)]),
        )
    }

    fn message(name: &str, value: Value, version: Option<&str>) -> String {
        ask(name, value, version).unwrap_err().to_string()
    }

    #[test]
    fn counted_names_are_normalized() {
        let expected = BTreeMap::from([("max_num_seqs".to_owned(), json!(4))]);
        assert_eq!(ask("--max-num-seqs", json!(4), None).unwrap(), expected);
        let off = BTreeMap::from([("enable_chunked_prefill".to_owned(), json!(false))]);
        assert_eq!(
            ask("--no-enable-chunked-prefill", json!(""), None).unwrap(),
            off
        );

        assert_eq!(
            ask("max_num_seqs", Value::Null, None).unwrap(),
            BTreeMap::new()
        );
    }

    #[test]
    fn names_without_effect_are_accepted() {
        assert_eq!(
            ask("served-model-name", json!("x"), None).unwrap(),
            BTreeMap::new()
        );
    }

    #[test]
    fn off_values_are_accepted() {
        for (name, value) in [
            ("enable_sleep_mode", json!(false)),
            ("enable_sleep_mode", json!("off")),
            ("no_enable_sleep_mode", json!("")),
            ("data_parallel_size", json!("1")),
            ("speculative_config", json!({})),
            ("speculative_config", json!("none")),
            ("kv_offloading_size", Value::Null),
        ] {
            assert_eq!(
                ask(name, value.clone(), None).ok(),
                Some(BTreeMap::new()),
                "{name}={value}"
            );
        }
    }

    #[test]
    fn uncounted_names_are_unsupported() {
        for (name, value) in [
            ("enable_sleep_mode", json!(true)),
            ("data_parallel_size", json!(2)),
        ] {
            let error = ask(name, value, None).unwrap_err();
            assert!(
                matches!(error, EngineError::UnsupportedParameter { .. }),
                "{error}"
            );
        }

        let text = message("data_parallel_size", json!(2), None);
        assert!(
            text.contains("not counted yet (ask for one replica); leave it out, or set it to 1"),
            "{text}"
        );
    }

    #[test]
    fn flags_have_listed_effect() {
        use ParameterEffect::{Counted, Elsewhere, NoEffect, NotCounted};

        for (name, value, effect) in [
            ("--max-num-seqs", Some("4"), Some(Counted("max_num_seqs"))),
            ("served-model-name", Some("x"), Some(NoEffect)),
            ("enable-sleep-mode", None, Some(NotCounted(None))),
            ("no-enable-sleep-mode", None, Some(NoEffect)),
            ("data-parallel-size", Some("1"), Some(NoEffect)),
            (
                "data-parallel-size",
                Some("2"),
                Some(NotCounted(Some("ask for one replica"))),
            ),
            (
                "tp",
                Some("2"),
                Some(Elsewhere("ask with --tensor-parallel")),
            ),
            ("unheard-of", None, None),
        ] {
            assert_eq!(LIST.effect(name, value), effect, "{name}");
        }

        assert_eq!(LIST.canonical_name("tp"), Some("tensor_parallel_size"));
        assert_eq!(LIST.flags_starting("max-n"), ["max-num-seqs"]);
    }

    #[test]
    fn servers_have_valid_lists() {
        for list in &SERVERS {
            assert!(list.counted_names().is_ok(), "{}", list.engine);
        }
        assert!(ParameterList::of_engine("reference").is_none());
    }

    #[test]
    fn other_names_are_rejected() {
        assert!(message("tp", json!(2), None).contains("ask with --tensor-parallel"));
        let unknown = message("max_seqs", json!(2), None);
        assert_eq!(
            unknown,
            "vllm has no parameter 'max_seqs'; did you mean 'max_num_seqs'?"
        );

        let twice = BTreeMap::from([
            ("max_num_seqs".to_owned(), json!(1)),
            ("max-num-seqs".to_owned(), json!(2)),
        ]);
        assert!(
            LIST.counted(None, &twice)
                .unwrap_err()
                .to_string()
                .contains("also given as")
        );
    }

    #[test]
    fn names_belong_to_releases() {
        let early = message("kv_offloading_size", json!(1), Some("0.11"));
        assert_eq!(
            early,
            "vllm 0.11 has no parameter 'kv_offloading_size'; releases from 0.14 on have it"
        );
        assert!(message("swap", json!(1), None).ends_with("only releases before 0.21 have it"));
        assert!(ask("swap", json!(1), Some("0.20.2")).is_ok());
    }

    #[test]
    fn inconsistent_lists_are_rejected() {
        for text in [
            "engine = \"e\"\nsource = \"s\"\ncounted = [\"a\", \"a\"]\nno_effect = []\n[not_counted]",
            "engine = \"e\"\nsource = \"s\"\ncounted = [\"a\"]\nno_effect = []\n[not_counted]\n[aliases]\nb = \"c\"",
            "engine = \"f\"\nsource = \"s\"\ncounted = [\"a\"]\nno_effect = []\n[not_counted]",
        ] {
            let list = ParameterList::new("e", text);
            assert!(list.counted_names().is_err(), "{text}");
        }
    }
}
