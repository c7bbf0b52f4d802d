//! What placement is asked: a model, an engine, a workload, and what the answer must keep to.

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

/// One model to be placed.
#[derive(Clone)]
pub struct Ask<'a> {
    /// The engine that runs it.
    pub engine: &'a dyn Engine,
    /// The model.
    pub model: &'a Model,
    /// The engine's version, if one was asked for.
    pub version: Option<&'a EngineVersion>,
    /// Parameters by the engine's own names.
    pub parameters: &'a BTreeMap<String, Value>,
    /// What must be held at once.
    pub asked: AskedWorkload,
    /// What the answer must keep to.
    pub constraints: Constraints,
    /// What is preferred among ways that are equally good.
    pub policy: Policy,
}

impl<'a> Ask<'a> {
    /// The engine, ready to answer for a group whose first device is `first`: the one that an
    /// engine takes its defaults from (vLLM `platforms/cuda.py` reads device 0).
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

    /// The question with the context that the engine takes from all devices of the host, where the
    /// asker names none and the engine takes it from there.
    pub(super) fn settled<'s>(&'s self, here: &Availability) -> Cow<'s, Self> {
        if self.asked.context.is_some() {
            return Cow::Borrowed(self);
        }

        let usable = here
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

        let mut settled = self.clone();
        settled.asked.context = Some(AskedContext::Tokens(context));

        Cow::Owned(settled)
    }

    /// The longest sequence that the model is configured for, where it says.
    pub(super) fn longest(&self) -> Option<u64> {
        self.model
            .architecture
            .as_ref()
            .ok()
            .and_then(|architecture| architecture.max_context)
    }
}

/// What the answer must keep to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Constraints {
    /// Exactly this tensor-parallel degree.
    pub tensor: Option<u32>,
    /// Exactly this many stages.
    pub pipeline: Option<u32>,
    /// Only these devices, by UUID or a prefix of it that no other device has.
    pub devices: Option<Vec<String>>,
    /// Whether parts of the model may stay in host memory.
    pub offload: bool,
}

/// What is preferred among ways that are equally good.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Whether devices are filled up or kept roomy.
    pub packing: Packing,
    /// Devices that are preferred, first one first: a UUID, a prefix of one, or a part of a product
    /// name.
    pub prefer: Vec<String>,
}

/// Whether devices are filled up or kept roomy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Packing {
    /// The least memory left over: keeps large holes for large models.
    #[default]
    Pack,
    /// The most memory left over: keeps every device roomy.
    Spread,
}

/// Why there is no plan at all. "Does not fit" is a plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// A device that is not there.
    #[error("no device '{given}' here; there is {known}")]
    UnknownDevice {
        /// As it was given.
        given: String,
        /// The UUIDs that exist.
        known: String,
    },
    /// A prefix that several devices have.
    #[error("'{given}' is the beginning of several devices: {matches}; give more of it")]
    AmbiguousDevice {
        /// As it was given.
        given: String,
        /// The UUIDs that begin so.
        matches: String,
    },
    /// The engine gives no figures.
    #[error(transparent)]
    Engine(#[from] EngineError),
}
