//! A suggested question as data. Its text and its plan come from the same changes, so they cannot
//! differ.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value;

use crate::engines::{AskedContext, AskedWorkload, Engine, EngineVersion};
use crate::placement::ask::{Ask, Constraints};

/// A change of a question, named after the field of the question.
#[derive(Clone)]
pub(super) enum Change<'e> {
    /// `context=22528`.
    Context(u64),
    /// `sequences=4`.
    Sequences(u64),
    /// `kv_cache_dtype=fp8`.
    CacheDtype(&'static str),
    /// `dtype=float16`.
    Dtype(&'static str),
    /// `max_num_seqs=32`: a parameter of the engine.
    Parameter(String, Value),
    /// `engine=sglang`, in its newest version.
    Engine(&'e dyn Engine),
    /// `offload=allow`.
    Offload,
    /// `tensor_parallel=null`: a setting of the question is left open.
    LeaveOpen(Setting),
}

/// A setting that a question may leave open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Setting {
    TensorParallel,
    PipelineParallel,
    Devices,
    CacheDtype,
    Parameter(String),
}

/// A question with some changes, not yet planned.
#[derive(Clone)]
pub(super) struct Proposal<'e> {
    changes: Vec<Change<'e>>,
    /// A sentence for a person. It contains no figure that the changes do not contain.
    pub(super) message: String,
}

/// The parts of a changed question that an [`Ask`] borrows.
pub(super) struct Revised<'a> {
    engine: &'a dyn Engine,
    version: Option<&'a EngineVersion>,
    parameters: Cow<'a, BTreeMap<String, Value>>,
    asked: AskedWorkload,
    constraints: Constraints,
}

impl<'e> Proposal<'e> {
    /// Returns a proposal of `changes`.
    pub(super) fn new(
        changes: impl IntoIterator<Item = Change<'e>>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            changes: changes.into_iter().collect(),
            message: message.into(),
        }
    }

    /// Adds a change.
    pub(super) fn and(mut self, change: Change<'e>) -> Self {
        self.changes.push(change);
        self
    }

    /// Returns the changes as text: `quantization=fp8 context=8192`.
    pub(super) fn words(&self) -> String {
        self.changes
            .iter()
            .map(Change::word)
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// Applies the changes to `ask`.
    pub(super) fn revise<'a>(&self, ask: &Ask<'a>) -> Revised<'a>
    where
        'e: 'a,
    {
        let mut revised = Revised {
            engine: ask.engine,
            version: ask.version,
            parameters: Cow::Borrowed(ask.parameters),
            asked: ask.asked.clone(),
            constraints: ask.constraints.clone(),
        };

        for change in &self.changes {
            revised.apply(change);
        }

        revised
    }
}

impl<'a> Revised<'a> {
    /// Applies one change.
    fn apply(&mut self, change: &Change<'a>) {
        match change {
            Change::Context(tokens) => self.asked.context = Some(AskedContext::Tokens(*tokens)),
            Change::Sequences(sequences) => self.asked.sequences = Some(*sequences),
            Change::CacheDtype(dtype) => self.asked.kv_cache_dtype = Some((*dtype).to_owned()),
            Change::Dtype(dtype) => self.asked.dtype = Some((*dtype).to_owned()),
            Change::Parameter(name, value) => {
                self.parameters.to_mut().insert(name.clone(), value.clone());
            }
            Change::Engine(engine) => (self.engine, self.version) = (*engine, None),
            Change::Offload => self.constraints.offload = true,
            Change::LeaveOpen(Setting::TensorParallel) => self.constraints.tensor = None,
            Change::LeaveOpen(Setting::PipelineParallel) => self.constraints.pipeline = None,
            Change::LeaveOpen(Setting::Devices) => self.constraints.devices = None,
            Change::LeaveOpen(Setting::CacheDtype) => self.asked.kv_cache_dtype = None,
            Change::LeaveOpen(Setting::Parameter(name)) => {
                self.parameters.to_mut().remove(name);
            }
        }
    }

    /// Returns the changed question; all other parts are those of `ask`.
    pub(super) fn ask<'b>(&'b self, ask: &Ask<'b>) -> Ask<'b> {
        Ask {
            engine: self.engine,
            model: ask.model,
            version: self.version,
            parameters: &self.parameters,
            asked: self.asked.clone(),
            constraints: self.constraints.clone(),
            policy: ask.policy.clone(),
        }
    }
}

impl Change<'_> {
    fn word(&self) -> String {
        match self {
            Self::Context(tokens) => format!("context={tokens}"),
            Self::Sequences(sequences) => format!("sequences={sequences}"),
            Self::CacheDtype(dtype) => format!("kv_cache_dtype={dtype}"),
            Self::Dtype(dtype) => format!("dtype={dtype}"),
            Self::Parameter(name, value) => match value.as_str() {
                Some(word) => format!("{name}={word}"),
                None => format!("{name}={value}"),
            },
            Self::Engine(engine) => format!("engine={}", engine.name()),
            Self::Offload => "offload=allow".to_owned(),
            Self::LeaveOpen(setting) => format!("{}=null", setting.name()),
        }
    }
}

impl Setting {
    fn name(&self) -> &str {
        match self {
            Self::TensorParallel => "tensor_parallel",
            Self::PipelineParallel => "pipeline_parallel",
            Self::Devices => "devices",
            Self::CacheDtype => "kv_cache_dtype",
            Self::Parameter(name) => name,
        }
    }
}
