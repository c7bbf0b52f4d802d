//! Ollama since 0.25: a llama.cpp server for each model, with Ollama's own context, slots and
//! batch.
//!
//! Source: Ollama `llm/server.go`, `llm/llama_server.go`, `server/sched.go`, `discover/*`. Its
//! scheduler's prediction (file bytes and a naive cache) only decides evictions; the process does
//! not take that amount.

mod launch;
mod options;
mod parameters;
mod prepared;
mod profile;

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Engine, EngineError, EngineRequest, PreparedEngine, companions, lora};
use crate::device::DeviceFacts;
use crate::model::{Adapter, Model};

/// Ollama.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ollama;

impl Engine for Ollama {
    fn name(&self) -> &'static str {
        parameters::ENGINE
    }

    fn context_by_host(
        &self,
        model: &Model,
        parameters: &BTreeMap<String, Value>,
        devices: &[&DeviceFacts],
    ) -> Option<u64> {
        options::context_by_host(model, parameters, devices)
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
        Ok(Box::new(prepared::OllamaPrepared::new(request)?))
    }

    fn prepare_with_adapter<'a>(
        &self,
        request: &EngineRequest<'a>,
        _adapter: &'a Adapter,
    ) -> Result<Box<dyn PreparedEngine + 'a>, EngineError> {
        // A refusal of a model that is not in GGUF comes first.
        self.prepare(request)?;
        Err(lora::gguf_only(parameters::ENGINE))
    }

    fn prepare_with_draft<'a>(
        &self,
        request: &EngineRequest<'a>,
        _draft: &'a Model,
    ) -> Result<Box<dyn PreparedEngine + 'a>, EngineError> {
        // A refusal of the model itself comes first.
        Engine::prepare(self, request)?;
        Err(companions::no_draft(
            parameters::ENGINE,
            "drafts are not counted for Ollama: ask for the model without one",
        ))
    }
}
