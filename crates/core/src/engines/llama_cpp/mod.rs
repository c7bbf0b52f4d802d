//! llama.cpp (`llama-server` with CUDA): GGUF files, layers split over unequal devices, experts or
//! layers on the host.
//!
//! Nothing is cast: weights lie on the devices as the file stores them, the embedding stays on the
//! host, each layer's cache sits on its layer's device. Buffers are exact sizes from the graph
//! allocator, not from a caching allocator.

mod answers;
mod cache;
mod compute;
mod kinds;
mod launch;
mod parameters;
mod prepared;
mod profile;
mod split;
mod weights;
mod workload;

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Engine, EngineError, EngineRequest, PreparedEngine};
use crate::device::DeviceFacts;
use crate::model::Model;

pub(crate) use prepared::Ready;

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

    fn prepare<'a>(
        &self,
        case: &EngineRequest<'a>,
    ) -> Result<Box<dyn PreparedEngine + 'a>, EngineError> {
        Ok(Box::new(Ready::new(
            case.model,
            case.version,
            case.parameters,
            &case.asked,
        )?))
    }
}
