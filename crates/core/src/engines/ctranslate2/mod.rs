//! ctranslate2: Whisper through faster-whisper, on one device.
//!
//! Sources: CTranslate2 4.8.1 `src/models/{model,whisper}.cc`, `src/layers/`, `src/decoding.cc`;
//! faster-whisper 1.2.1 `transcribe.py`. A worker encodes, then decodes; its need is the larger of
//! the two, in addition to the weights that all workers share.

mod compute_type;
mod launch;
mod overhead;
mod phases;
mod prepared;
mod settings;
mod sizes;
mod transcription;
mod weights;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::Value;

use self::prepared::Ctranslate2Prepared;
use super::profile::{Profile, ProfileError, Profiles};
use super::{Engine, EngineError, EngineRequest, PreparedEngine, companions, lora};
use crate::device::DeviceFacts;
use crate::model::{Adapter, Format, Model};

/// The engine's name in errors.
const NAME: &str = "ctranslate2";

/// The constants by version.
static PROFILES: LazyLock<Result<Profiles, ProfileError>> =
    LazyLock::new(|| Profiles::parse(include_str!("../profiles/ctranslate2.toml")));

/// The constants of the version that a request names.
fn profile(request: &EngineRequest<'_>) -> Result<&'static Profile, EngineError> {
    match PROFILES.as_ref() {
        Ok(profiles) => profiles
            .for_version(request.version)
            .map_err(|error| profile_error(&error)),
        Err(error) => Err(profile_error(error)),
    }
}

fn profile_error(error: &ProfileError) -> EngineError {
    EngineError::BadParameter {
        engine: NAME,
        name: "profile".to_owned(),
        value: String::new(),
        why: error.to_string(),
    }
}

/// The `unsupported_architecture` error for this engine.
fn unsupported(why: impl Into<String>) -> EngineError {
    EngineError::Unsupported {
        engine: NAME,
        why: why.into(),
    }
}

/// CTranslate2's Whisper models, as faster-whisper runs them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ctranslate2;

impl Engine for Ctranslate2 {
    fn name(&self) -> &'static str {
        NAME
    }

    fn context_by_host(
        &self,
        _model: &Model,
        _parameters: &BTreeMap<String, Value>,
        _devices: &[&DeviceFacts],
    ) -> Option<u64> {
        None
    }

    fn is_runnable(&self) -> bool {
        true
    }

    fn with_constants(
        &self,
        _constants: &toml::Table,
    ) -> Result<Option<Box<dyn Engine>>, EngineError> {
        Ok(None)
    }

    fn prepare<'a>(
        &self,
        request: &EngineRequest<'a>,
    ) -> Result<Box<dyn PreparedEngine + 'a>, EngineError> {
        if request.model.format != Format::Ctranslate2 {
            return Err(unsupported(
                "the repository has no model.bin of CTranslate2; convert the model with \
                 ct2-transformers-converter, or look for a repository of faster-whisper",
            ));
        }

        let architecture = request
            .model
            .architecture
            .as_ref()
            .map_err(|why| unsupported(why.to_string()))?;

        Ok(Box::new(Ctranslate2Prepared::new(
            request,
            architecture,
            profile(request)?,
        )?))
    }

    fn prepare_with_adapter<'a>(
        &self,
        _request: &EngineRequest<'a>,
        _adapter: &'a Adapter,
    ) -> Result<Box<dyn PreparedEngine + 'a>, EngineError> {
        Err(lora::not_counted(NAME))
    }

    fn prepare_with_draft<'a>(
        &self,
        request: &EngineRequest<'a>,
        _draft: &'a Model,
    ) -> Result<Box<dyn PreparedEngine + 'a>, EngineError> {
        // A refusal of the model itself comes first.
        Engine::prepare(self, request)?;
        Err(companions::no_draft(
            NAME,
            "CTranslate2 drafts nothing: ask for the model without a draft",
        ))
    }
}

#[cfg(test)]
mod tests;
