//! The input of placement: a model, an engine, a workload, constraints and a policy.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value;

use super::availability::Availability;
use crate::device::DeviceFacts;
use crate::engines::{
    AskedContext, AskedWorkload, Engine, EngineError, EngineRequest, EngineVersion, PreparedEngine,
    prepare,
};
use crate::model::Model;

/// A request to place one model.
#[derive(Clone)]
pub struct Ask<'a> {
    /// The engine that runs it.
    pub engine: &'a dyn Engine,
    /// The model.
    pub model: &'a Model,
    /// The requested version of the engine.
    pub version: Option<&'a EngineVersion>,
    /// Parameters by the engine's own names.
    pub parameters: &'a BTreeMap<String, Value>,
    /// The requested workload.
    pub asked: AskedWorkload,
    /// The constraints that every placement must satisfy.
    pub constraints: Constraints,
    /// The preference among equally good placements.
    pub policy: Policy,
}

impl<'a> Ask<'a> {
    /// Prepares the engine for a group whose first device is `first`. An engine takes its defaults
    /// from that device (vLLM `platforms/cuda.py` reads device 0).
    pub(super) fn prepare<'b>(
        &'b self,
        first: &'b DeviceFacts,
    ) -> Result<Box<dyn PreparedEngine + 'b>, EngineError>
    where
        'a: 'b,
    {
        let devices = std::slice::from_ref(first);
        let (model, version, parameters) = (self.model, self.version, self.parameters);

        prepare(
            self.engine,
            &EngineRequest {
                model,
                version,
                parameters,
                asked: self.asked.clone(),
                devices,
            },
        )
    }

    /// Returns the request with the context that the engine derives from all devices of the host.
    ///
    /// The request stays as it is if it names a context or if the engine does not derive one.
    pub(super) fn with_host_context<'s>(&'s self, host: &Availability) -> Cow<'s, Self> {
        if self.asked.context.is_some() {
            return Cow::Borrowed(self);
        }

        let usable = host
            .devices
            .iter()
            .filter(|device| device.unusable.is_none());
        let devices: Vec<&DeviceFacts> = usable.map(|device| &device.facts).collect();
        let Some(context) = self
            .engine
            .context_by_host(self.model, self.parameters, &devices)
        else {
            return Cow::Borrowed(self);
        };

        let mut changed = self.clone();
        changed.asked.context = Some(AskedContext::Tokens(context));

        Cow::Owned(changed)
    }

    /// Returns the longest sequence that the model is configured for, if known.
    pub(super) fn model_max_context(&self) -> Option<u64> {
        self.model
            .architecture
            .as_ref()
            .ok()
            .and_then(|architecture| architecture.max_context)
    }
}

/// The constraints that every placement must satisfy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Constraints {
    /// Exactly this tensor-parallel degree.
    pub tensor: Option<u32>,
    /// Exactly this many stages.
    pub pipeline: Option<u32>,
    /// Only these devices, each by its UUID or the beginning of it, its index or its PCI address.
    pub devices: Option<Vec<String>>,
    /// Whether parts of the model may stay in host memory.
    pub offload: bool,
}

/// The preference among equally good placements.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// How devices are packed.
    pub packing: Packing,
    /// Preferred devices, most preferred first: a UUID, a prefix of one, or a part of a product
    /// name.
    pub prefer: Vec<String>,
}

/// How devices are packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Packing {
    /// Prefers the least memory left over: keeps large free areas for large models.
    #[default]
    Pack,
    /// Prefers the most memory left over: keeps room on every device.
    Spread,
}

/// The reason why there is no plan at all. "Does not fit" is a plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// A device that does not exist.
    #[error("no device '{given}' on this host; available: {known}")]
    UnknownDevice {
        /// The device as requested.
        given: String,
        /// The UUIDs that exist.
        known: String,
    },
    /// A prefix that several devices share.
    #[error("'{given}' matches several devices: {matches}; use a longer prefix")]
    AmbiguousDevice {
        /// The device as requested.
        given: String,
        /// The UUIDs that match.
        matches: String,
    },
    /// The engine computes no figures.
    #[error(transparent)]
    Engine(#[from] EngineError),
}
