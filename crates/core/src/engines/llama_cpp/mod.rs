//! llama.cpp (`llama-server` with CUDA): GGUF files, layers split over unequal devices, experts or
//! layers on the host.
//!
//! Nothing is cast: devices hold the weights as the file stores them. The embedding stays on the
//! host, and each layer's cache is on its layer's device. Buffers are exact sizes from the graph
//! allocator, not from a caching allocator.

mod blocks;
mod cache;
mod components;
mod compressed;
mod compute;
mod distinct_layers;
mod draft;
mod draft_model;
mod draft_parameters;
mod family_phases;
mod flash_kernels;
mod graphs;
mod launch;
mod new_architectures;
mod next_token;
mod parameters;
mod prepared;
mod prepared_engine;
mod profile;
mod reserved_graph;
mod reserved_host;
mod reserved_phases;
mod split;
mod weights;
mod widths;
mod workload;

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Engine, EngineError, EngineRequest, PreparedEngine, lora};
use crate::device::DeviceFacts;
use crate::model::{Adapter, Model};

pub(crate) use prepared::LlamaCppPrepared;

/// llama.cpp.
#[derive(Clone, Copy, Debug, Default)]
pub struct LlamaCpp;

impl Engine for LlamaCpp {
    fn name(&self) -> &'static str {
        parameters::ENGINE
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
        Ok(Box::new(LlamaCppPrepared::new(
            request.model,
            request.version,
            request.parameters,
            &request.asked,
        )?))
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
        draft: &'a Model,
    ) -> Result<Box<dyn PreparedEngine + 'a>, EngineError> {
        Ok(Box::new(LlamaCppPrepared::with_draft(
            request.model,
            Some(draft),
            request.version,
            request.parameters,
            &request.asked,
        )?))
    }
}
