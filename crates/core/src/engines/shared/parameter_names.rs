//! The names of an engine's parameters, and whether what they set is counted: data, from the
//! engine's own argument lists.
//!
//! Each engine has a file in `profiles/parameters`. A name is *counted* (it enters the figures),
//! has *no effect* on memory (it is accepted and forgotten), is *not counted* yet (unless its value
//! is as good as none, nothing can be said), or is asked for *elsewhere*. Every other name is
//! unknown.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde::Deserialize;
use serde_json::Value;

use crate::engines::{EngineError, EngineVersion, nearest_name};

/// The list of one engine; read when a parameter is given for the first time.
#[derive(Debug)]
pub struct ParameterList {
    engine: &'static str,
    text: &'static str,
    names: OnceLock<Result<ParameterNames, String>>,
}

/// The lists of the engines that have a server.
static SERVERS: [ParameterList; 4] = [
    ParameterList::new("vllm", include_str!("../profiles/parameters/vllm.toml")),
    ParameterList::new("sglang", include_str!("../profiles/parameters/sglang.toml")),
    ParameterList::new(
        "llama.cpp",
        include_str!("../profiles/parameters/llama_cpp.toml"),
    ),
    ParameterList::new("ollama", include_str!("../profiles/parameters/ollama.toml")),
];

/// What a flag of an engine's server does to the figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParameterEffect<'n> {
    /// It enters them, by this name.
    Counted(&'n str),
    /// It does not change them, or has a value that is as good as none.
    NoEffect,
    /// It may change what is taken, and no figure follows it; why, where there is more to say.
    NotCounted(Option<&'n str>),
    /// It is asked for in another way.
    Elsewhere(&'n str),
}

/// What a file of names holds.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ParameterNames {
    engine: String,
    source: String,
    /// What an engine writes before the name of a switch to turn it off.
    negated_by: Option<String>,
    counted: Vec<String>,
    no_effect: Vec<String>,
    /// With the values that are as good as none.
    not_counted: BTreeMap<String, Vec<Value>>,
    #[serde(default)]
    why: BTreeMap<String, String>,
    #[serde(default)]
    elsewhere: BTreeMap<String, String>,
    #[serde(default)]
    aliases: BTreeMap<String, String>,
    #[serde(default)]
    since: BTreeMap<String, EngineVersion>,
    #[serde(default)]
    until: BTreeMap<String, EngineVersion>,
}

/// What is known of a name.
#[derive(Clone, Copy, Debug, PartialEq)]
enum ParameterKind<'n> {
    Counted,
    NoEffect,
    NotCounted(&'n [Value]),
    Elsewhere(&'n str),
}

/// A name that an engine has, with the value that it was given.
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

    /// The counted parameters among `given`, by their canonical names; what was given as null is
    /// left out.
    ///
    /// Fails on the first parameter that `version` of the engine does not have, or that no figure
    /// follows.
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
                return Err(self.bad(given_name, value, format!("given as '{other}' too")));
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
                    if off.iter().any(|off| means(off, &setting.value)) => {}
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

    /// The list of the server that `--engine` calls `name`.
    pub fn of_engine(name: &str) -> Option<&'static Self> {
        SERVERS.iter().find(|list| list.engine == name)
    }

    /// What the flag `given_name` does, with the text of its value where it has one. `None` for a
    /// name that the engine does not have.
    pub fn effect(&self, given_name: &str, value: Option<&str>) -> Option<ParameterEffect<'_>> {
        let names = self.names().ok()?;
        let value = value.map_or(Value::Bool(true), Value::from);
        let setting = self.setting(names, given_name, &value).ok()?;

        Some(match setting.kind {
            ParameterKind::Counted => ParameterEffect::Counted(setting.name),
            ParameterKind::NoEffect => ParameterEffect::NoEffect,
            ParameterKind::NotCounted(off) if off.iter().any(|off| means(off, &setting.value)) => {
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

    /// All names of the engine that begin with `start`, in the notation of command lines and
    /// without dashes before them.
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
        let read = || {
            let names: ParameterNames =
                toml::from_str(self.text).map_err(|error| error.to_string())?;
            names.validate(self.engine)?;
            Ok(names)
        };

        self.names
            .get_or_init(read)
            .as_ref()
            .map_err(|why| EngineError::BadParameter {
                engine: self.engine,
                name: "parameters".to_owned(),
                value: String::new(),
                why: format!("the embedded list cannot be read: {why}"),
            })
    }

    /// What `given_name` stands for, however the command line writes it: `--max-num-seqs` is
    /// `max_num_seqs`.
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

    /// Refuses a name that `version` does not have.
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

impl ParameterNames {
    /// Refuses a file in which a name is listed twice, or an alias, a reason or a release is of no
    /// name.
    fn validate(&self, engine: &str) -> Result<(), String> {
        if self.engine != engine || self.source.is_empty() {
            return Err(format!("it is not of {engine}, or has no source"));
        }

        let mut seen = std::collections::BTreeSet::new();
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

    /// The canonical name that `plain` stands for.
    fn find(&self, plain: &str) -> Option<(&str, ParameterKind<'_>)> {
        let name = self.aliases.get(plain).map_or(plain, |name| name);
        self.kind(name)
    }

    fn kind(&self, name: &str) -> Option<(&str, ParameterKind<'_>)> {
        let same = |known: &&String| *known == name;
        if let Some(name) = self.counted.iter().find(same) {
            return Some((name, ParameterKind::Counted));
        }

        if let Some(name) = self.no_effect.iter().find(same) {
            return Some((name, ParameterKind::NoEffect));
        }

        if let Some((name, off)) = self.not_counted.get_key_value(name) {
            return Some((name, ParameterKind::NotCounted(off)));
        }

        self.elsewhere
            .get_key_value(name)
            .map(|(name, cure)| (name.as_str(), ParameterKind::Elsewhere(cure)))
    }

    fn all(&self) -> impl Iterator<Item = &str> {
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

/// A switch, as command lines and JSON write it.
pub fn switch(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(on) => Some(*on),
        Value::Number(number) => match number.as_u64() {
            Some(0) => Some(false),
            Some(1) => Some(true),
            _ => None,
        },
        Value::String(word) => match word.trim().to_ascii_lowercase().as_str() {
            "true" | "1" | "on" | "yes" | "enabled" | "" => Some(true),
            "false" | "0" | "off" | "no" | "disabled" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

/// Whether `value` is `off` in another notation: `1` and `"1"`, `false` and `"off"`.
fn means(off: &Value, value: &Value) -> bool {
    let text = |value: &Value| {
        value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned)
            .trim()
            .to_ascii_lowercase()
    };

    match off {
        Value::Bool(off) => switch(value) == Some(*off),
        Value::Number(off) => {
            let number = value
                .as_f64()
                .or_else(|| value.as_str()?.trim().parse().ok());
            number.is_some() && number == off.as_f64()
        }
        _ => matches!(text(value).as_str(), "null" | "none") || text(off) == text(value),
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
    fn counted_names_are_normalised() {
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

        let said = message("data_parallel_size", json!(2), None);
        assert!(
            said.contains("not counted yet (ask for one replica); leave it out, or set it to 1"),
            "{said}"
        );
    }

    #[test]
    fn flags_have_the_effect_listed() {
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
    fn other_names_are_refused() {
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
                .contains("given as")
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
    fn lists_with_ghosts_are_refused() {
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
