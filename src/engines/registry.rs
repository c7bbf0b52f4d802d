//! The engines by name, with the embedded profiles or with a site's own corrections to them.

use std::sync::LazyLock;

use super::diffusers::Diffusers;
use super::llama_cpp::LlamaCpp;
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
                Box::new(Transformers),
                Box::new(Diffusers),
                Box::new(Reference),
            ],
        })
    }

    /// The engine of this name.
    pub fn by_name(&self, name: &str) -> Result<&dyn Engine, EngineError> {
        let found = self.engines.iter().find(|engine| engine.name() == name);
        found.map(AsRef::as_ref).ok_or_else(|| EngineError::UnknownEngine {
            name: name.to_owned(),
            known: self.names().collect::<Vec<_>>().join(", "),
            nearest: nearest_name(name, self.names()),
        })
    }

    /// The names that `--engine` takes.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.engines.iter().map(|engine| engine.name())
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
