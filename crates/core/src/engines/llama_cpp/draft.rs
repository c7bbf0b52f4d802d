//! Drafts, which propose tokens for a model: its own next-token layers, a second model, n-grams.
//!
//! Source: llama.cpp b12032 `common/speculative.cpp` (`common_speculative_init_result`,
//! `common_base_params_to_speculative`), `common/common.h` (`need_n_rs_seq`).

use super::draft_model::DraftModel;
use super::next_token::NextTokenDraft;
use super::parameters::{ENGINE, LlamaParameters};
use super::prepared::LlamaCppPrepared;
use crate::bytes::Bytes;
use crate::device::DeviceFacts;
use crate::engines::{
    Basis, Component, ComponentName, EngineError, EngineVersion, IllegalSplit, Interval,
    PreparedEngine, Split, Workload,
};
use crate::model::Model;
use crate::model::architecture::{Architecture, Task};

/// Families whose states roll back token by token, with one copy for each
/// (`llm_arch_supports_rs_rollback`).
const ROLLS_BACK: [&str; 7] = [
    "bailingmoe3",
    "lfm2",
    "lfm2moe",
    "nemotron_h",
    "nemotron_h_moe",
    "qwen35",
    "qwen35moe",
];

/// A draft with a context of its own.
#[derive(Debug)]
pub(crate) enum LlamaDraft<'a> {
    /// The model's next-token layers.
    NextToken(Box<NextTokenDraft>),
    /// A second model.
    Model(Box<DraftModel<'a>>),
}

/// Copies of each slot's states: one for each drafted token if they roll back, and their own.
pub(super) fn snapshots(parameters: &LlamaParameters, architecture: &Architecture) -> u64 {
    let draft = &parameters.draft;
    if draft.next_token && ROLLS_BACK.contains(&&*architecture.class) {
        draft.drafted().saturating_add(1)
    } else {
        1
    }
}

pub(super) fn bad_draft(parameters: &LlamaParameters, why: &str) -> EngineError {
    EngineError::BadParameter {
        engine: ENGINE,
        name: "spec_type".to_owned(),
        value: parameters.draft.spec_type().unwrap_or_default(),
        why: why.to_owned(),
    }
}

impl<'a> LlamaCppPrepared<'a> {
    /// Prepares what `parameters` and `model` draft with.
    pub(super) fn prepare_draft(
        &self,
        model: Option<&'a Model>,
        version: Option<&EngineVersion>,
    ) -> Result<Option<LlamaDraft<'a>>, EngineError> {
        let parameters = &self.parameters;
        if !parameters.draft.is_on() {
            return Ok(None);
        }
        if !self.profile.reserves_inputs {
            let why = "drafts are counted from build 12000 on; name such a build, or ask without";
            return Err(bad_draft(parameters, why));
        }
        if !matches!(self.architecture.task, Task::Generate) {
            return Err(bad_draft(
                parameters,
                "only models that generate text take a draft",
            ));
        }

        match (model, parameters.draft.next_token, parameters.draft.model) {
            (Some(_), true, _) => {
                let why = "draft-mtp drafts with the model's own layers; ask without a draft model";
                Err(bad_draft(parameters, why))
            }
            (Some(_), false, false) => {
                let why = "the draft model would not be used; add draft-simple";
                Err(bad_draft(parameters, why))
            }
            (Some(model), false, true) => {
                let draft = DraftModel::new(self, model, version)?;
                Ok(Some(LlamaDraft::Model(Box::new(draft))))
            }
            (None, _, true) => {
                let why = "a second model drafts; name it as the model's draft";
                Err(bad_draft(parameters, why))
            }
            (None, true, false) => {
                let draft = NextTokenDraft::new(self)?;
                Ok(Some(LlamaDraft::NextToken(Box::new(draft))))
            }
            (None, false, false) => Ok(None),
        }
    }

    /// The components of the draft on `rank` that no workload changes.
    pub(super) fn fixed_draft(
        &self,
        split: &Split,
        rank: usize,
        device: &DeviceFacts,
    ) -> Vec<Component> {
        let mut components = match &self.draft {
            None => return Vec::new(),
            Some(LlamaDraft::NextToken(_)) => Vec::new(),
            Some(LlamaDraft::Model(draft)) => draft.weights(split, rank),
        };

        // A second context has backends of its own; how much of their pools it uses is unknown.
        let libraries = self.profile.libraries(device.capability());
        components.push(Component::between(
            ComponentName::Runtime,
            Interval {
                low: Bytes::ZERO,
                ..libraries
            },
            Basis::Calibrated,
            "draft: cuBLAS workspace and conversion pool",
        ));

        components
    }

    /// The components of the draft on `rank` that `workload` adds.
    pub(super) fn variable_draft(
        &self,
        split: &Split,
        rank: usize,
        workload: Workload,
    ) -> Vec<Component> {
        let mut components = match &self.draft {
            None => return Vec::new(),
            Some(LlamaDraft::NextToken(draft)) => draft.on_device(self, split, rank, workload),
            Some(LlamaDraft::Model(draft)) => draft.variable(split, rank, workload),
        };

        components.extend(self.checkpoints(split, rank, workload));
        components
    }

    /// The components of the draft in host memory.
    pub(super) fn host_draft(&self, split: &Split, workload: Workload) -> Vec<Component> {
        if !self.parameters.draft.is_on() {
            return Vec::new();
        }

        let mut components = match &self.draft {
            None => Vec::new(),
            Some(LlamaDraft::NextToken(draft)) => draft.on_host(self, split, workload),
            Some(LlamaDraft::Model(draft)) => draft.host(split, workload),
        };
        components.push(self.host_outputs(workload));

        components
    }

    /// Checks that the next-token layers run on the device of the output layer, or that llama.cpp
    /// can split the second model so.
    pub(super) fn check_draft_split(&self, split: &Split) -> Result<(), IllegalSplit> {
        match &self.draft {
            None => return Ok(()),
            Some(LlamaDraft::Model(draft)) => return draft.check(split),
            Some(LlamaDraft::NextToken(_)) => {}
        }

        let last = split.stages.last().map_or(0, |stage| stage.start);
        if last < self.layers && self.host_of(split).layers <= self.layers {
            return Ok(());
        }

        Err(IllegalSplit(
            "next-token layers that draft are counted on the device of the output layer and of a \
             decoder layer only"
                .to_owned(),
        ))
    }

    /// Rows on the host that more than one output of a sequence, or its hidden states, take.
    ///
    /// Source: `llama_context::output_reserve`.
    fn host_outputs(&self, workload: Workload) -> Component {
        let slots = self.effective.slots(workload);
        let rows = slots.saturating_mul(self.outputs_per_sequence().saturating_sub(1));
        let mut outputs = Bytes::product([4, rows, self.architecture.vocab_size]);
        if self.parameters.draft.next_token {
            outputs += Bytes::product([4, self.effective.n_batch, self.architecture.hidden_size]);
        }

        Component::between(
            ComponentName::Host,
            Interval::new(Bytes::ZERO, outputs, outputs),
            Basis::Formula,
            "draft: logits and hidden states of the model",
        )
    }

    /// Copies of states that cannot roll back, which the server may keep on the devices.
    ///
    /// Source: `llama_context::state_seq_get_data` with `LLAMA_STATE_SEQ_FLAGS_ON_DEVICE`. Whether
    /// the server of a build uses that flag is assumed.
    fn checkpoints(&self, split: &Split, rank: usize, workload: Workload) -> Option<Component> {
        let own = if self.effective.layout(workload).snapshots > 1 {
            Bytes::ZERO
        } else {
            self.states_on(split, rank, workload)
        };
        let drafts = match &self.draft {
            Some(LlamaDraft::Model(draft)) => draft.states(split, rank, workload),
            _ => Bytes::ZERO,
        };

        let copies = own + drafts;
        (copies > Bytes::ZERO).then(|| {
            Component::between(
                ComponentName::State,
                Interval::new(Bytes::ZERO, copies, copies),
                Basis::Assumed,
                "draft: copies of states that a rejected draft restores",
            )
        })
    }

    /// Bytes of the states on the device of `rank`.
    pub(super) fn states_on(&self, split: &Split, rank: usize, workload: Workload) -> Bytes {
        if !self.cache_on_device() {
            return Bytes::ZERO;
        }

        let (stage, _, _) = self.stage(split, rank);
        let layers = self.kinds.within(&stage);
        self.cache_and_states(&layers, self.effective.layout(workload))
            .1
    }

    /// Bytes of the draft's cache for one token.
    pub(super) fn draft_bytes_per_token(&self) -> Bytes {
        match &self.draft {
            None => Bytes::ZERO,
            Some(LlamaDraft::NextToken(draft)) => draft.bytes_per_token(self),
            Some(LlamaDraft::Model(draft)) => draft.prepared().kv_bytes_per_token(),
        }
    }

    /// Rows of logits that a sequence may need at once.
    pub(super) fn outputs_per_sequence(&self) -> u64 {
        self.parameters.draft.output_rows()
    }

    /// States what drafts, for the answer.
    pub(super) fn draft_assumptions(&self) -> Vec<String> {
        match &self.draft {
            None if self.parameters.draft.is_on() => vec![
                "n-grams propose tokens: their rows of logits are counted, their tables on the \
                 host are not"
                    .to_owned(),
            ],
            None => Vec::new(),
            Some(LlamaDraft::NextToken(_)) => vec![format!(
                "the model's own next-token layers draft {} tokens, in a second context",
                self.parameters.draft.drafted()
            )],
            Some(LlamaDraft::Model(draft)) => draft.assumptions(self),
        }
    }
}
