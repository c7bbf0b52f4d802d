//! transformers with accelerate: cast weights, a cache that grows by concatenation, and the whole
//! prompt in one step.
//!
//! Sources: transformers 5.24 `modeling_utils.py` (`from_pretrained`, `caching_allocator_warmup`),
//! `cache_utils.py` (`DynamicLayer`, `DynamicSlidingWindowLayer`, `StaticLayer`),
//! `generation/utils.py`; accelerate `utils/modeling.py`. The engine measures nothing at start: a
//! model fits if the sum of the parts is free.

mod activations;
mod cache;
mod compressed_cache;
mod device_support;
mod encoder_activations;
mod encoder_input;
mod launch;
mod loadable;
mod prepared;
mod settings;
mod states;
mod variable_parts;
mod weights;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::Value;

use self::loadable::{check_compressed, check_model};
use self::prepared::TransformersPrepared;
use super::lora::{AdapterMemory, WithAdapter};
use super::profile::{Profile, ProfileError, Profiles};
use super::{Engine, EngineError, EngineRequest, PreparedEngine, companions};
use crate::device::DeviceFacts;
use crate::model::{Adapter, Model};

/// The engine's name in errors.
const NAME: &str = "transformers";

/// The rules of the caches by version.
static PROFILES: LazyLock<Result<Profiles, ProfileError>> =
    LazyLock::new(|| Profiles::parse(include_str!("../profiles/transformers.toml")));

/// The rules of the version that a request names.
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

/// transformers' `generate()` and plain forward passes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Transformers;

impl Engine for Transformers {
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
        let architecture = check_model(request.model)?;
        let profile = profile(request)?;
        check_compressed(architecture, profile)?;

        Ok(Box::new(TransformersPrepared::new(
            request,
            architecture,
            profile,
        )?))
    }

    fn prepare_with_adapter<'a>(
        &self,
        request: &EngineRequest<'a>,
        adapter: &'a Adapter,
    ) -> Result<Box<dyn PreparedEngine + 'a>, EngineError> {
        let prepared = Engine::prepare(self, request)?;

        Ok(Box::new(WithAdapter::new(
            prepared,
            request,
            adapter,
            AdapterMemory::Cast,
        )))
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
            "assisted generation is not counted: ask for the model without a draft",
        ))
    }
}

#[cfg(test)]
mod cache_tests;
#[cfg(test)]
mod family_tests;
#[cfg(test)]
mod own_states_tests;
#[cfg(test)]
mod tests;
