//! The engines by name, with the embedded profiles or with a site's corrections to them.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::ctranslate2::Ctranslate2;
use super::diffusers::Diffusers;
use super::llama_cpp::LlamaCpp;
use super::ollama::Ollama;
use super::profile::ProfileError;
use super::reference::Reference;
use super::sglang::Sglang;
use super::transformers::Transformers;
use super::vllm::Vllm;
use super::{Engine, EngineError, nearest_name};

/// All engines.
pub struct Engines {
    engines: Vec<Box<dyn Engine>>,
}

impl std::fmt::Debug for Engines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

impl Engines {
    /// All engines with the embedded profiles.
    pub fn embedded() -> Result<Self, ProfileError> {
        Ok(Self {
            engines: vec![
                Box::new(Vllm::with_profiles(Vllm::profiles()?)),
                Box::new(Sglang::with_profiles(Sglang::profiles()?)),
                Box::new(LlamaCpp),
                Box::new(Ollama),
                Box::new(Transformers),
                Box::new(Diffusers),
                Box::new(Ctranslate2),
                Box::new(Reference),
            ],
        })
    }

    /// All engines, with a site's own constants.
    ///
    /// Each table holds one table for each engine that it corrects, see
    /// [`Profiles::overridden`](super::profile::Profiles::overridden). A later table overrides an
    /// earlier one.
    pub fn with_constants(tables: &[toml::Table]) -> Result<Self, EngineError> {
        let mut all = Self::embedded().map_err(|error| super::vllm::profile_error(&error))?;
        let mut merged: BTreeMap<&str, toml::Table> = BTreeMap::new();

        for (name, constants) in tables.iter().flatten() {
            all.by_name(name)?;
            let constants = constants
                .as_table()
                .ok_or_else(|| not_correctable(&all, name, "is not a table"))?;
            merge(merged.entry(name).or_default(), constants);
        }

        for (name, constants) in merged {
            let corrected = all.by_name(name)?.with_constants(&constants)?;
            let corrected = corrected.ok_or_else(|| {
                not_correctable(&all, name, "has no constants that can be corrected here")
            })?;
            all.engines.retain(|engine| engine.name() != name);
            all.engines.push(corrected);
        }

        Ok(all)
    }

    /// The engine of this name.
    pub fn by_name(&self, name: &str) -> Result<&dyn Engine, EngineError> {
        let found = self.engines.iter().find(|engine| engine.name() == name);
        found
            .map(AsRef::as_ref)
            .ok_or_else(|| EngineError::UnknownEngine {
                name: name.to_owned(),
                known: self.names().collect::<Vec<_>>().join(", "),
                nearest: nearest_name(name, self.names()),
            })
    }

    /// The valid names for `--engine`.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.engines.iter().map(|engine| engine.name())
    }
}

/// Adds `later` to `table`, constant by constant.
fn merge(table: &mut toml::Table, later: &toml::Table) {
    for (section, values) in later {
        match (table.get_mut(section), values) {
            (Some(toml::Value::Table(known)), toml::Value::Table(values)) => {
                known.extend(values.clone());
            }
            _ => drop(table.insert(section.clone(), values.clone())),
        }
    }
}

fn not_correctable(engines: &Engines, name: &str, why: &str) -> EngineError {
    let engine = engines.by_name(name).map_or("an engine", Engine::name);
    EngineError::BadParameter {
        engine,
        name: "profiles".to_owned(),
        value: name.to_owned(),
        why: why.to_owned(),
    }
}

/// The engine of this name, with the embedded profiles.
pub fn by_name(name: &str) -> Result<&'static dyn Engine, EngineError> {
    static EMBEDDED: LazyLock<Result<Engines, ProfileError>> = LazyLock::new(Engines::embedded);
    match &*EMBEDDED {
        Ok(engines) => engines.by_name(name),
        Err(error) => Err(super::vllm::profile_error(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merge_overrides_single_constants() {
        let parse_table = |text: &str| text.parse::<toml::Table>().unwrap();
        let mut merged = parse_table("constants.a = 1\nconstants.b = 2");
        merge(&mut merged, &parse_table("constants.b = 3\n\"0.33\".a = 4"));

        assert_eq!(
            merged,
            parse_table("constants.a = 1\nconstants.b = 3\n\"0.33\".a = 4")
        );
    }
}
