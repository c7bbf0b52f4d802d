//! A second model that drafts: its weights, and a context as long as the model's.
//!
//! Source: llama.cpp b12032 `common/speculative.cpp`: `common_base_params_to_speculative` (what the
//! draft takes from the model's parameters), `common_speculative_are_compatible` (what it must
//! share with the model).

use super::draft::bad_draft;
use super::parameters::{ENGINE, LlamaParameters};
use super::prepared::LlamaCppPrepared;
use super::split;
use crate::bytes::Bytes;
use crate::engines::memory_rule::MemoryRule;
use crate::engines::verified::assumed_rules;
use crate::engines::{
    AskedContext, AskedWorkload, Component, EngineError, EngineVersion, IllegalSplit,
    PreparedEngine, Split, Workload,
};
use crate::model::Model;
use crate::model::architecture::Task;

/// The most by which two vocabularies may differ (`SPEC_VOCAB_MAX_SIZE_DIFFERENCE`).
const VOCABULARY_DIFFERENCE: u64 = 128;

/// A draft model, prepared.
#[derive(Debug)]
pub(crate) struct DraftModel<'a> {
    prepared: LlamaCppPrepared<'a>,
    target: TargetLayers,
}

/// The layers of the model that is drafted for, as `-ts` counts them.
#[derive(Clone, Copy, Debug)]
struct TargetLayers {
    /// Those that are on the host whatever the split.
    on_host: u32,
    all: u32,
}

impl<'a> DraftModel<'a> {
    /// Prepares `model` as the draft of `target`.
    pub(super) fn new(
        target: &LlamaCppPrepared<'a>,
        model: &'a Model,
        version: Option<&EngineVersion>,
    ) -> Result<Self, EngineError> {
        let workload = target.effective.workload;
        let asked = AskedWorkload {
            context: Some(AskedContext::Tokens(workload.context)),
            ..AskedWorkload::default()
        };

        let parameters = draft_parameters(target);
        let prepared = LlamaCppPrepared::resolved(model, version, parameters, &asked)
            .map_err(|error| name_draft(error, model))?;
        check_pair(target, &prepared)?;
        check_rules(&prepared, version)?;

        Ok(Self {
            target: TargetLayers {
                on_host: target.always_on_host().layers,
                all: target.all_layers(),
            },
            prepared,
        })
    }

    pub(super) fn prepared(&self) -> &LlamaCppPrepared<'a> {
        &self.prepared
    }

    /// The split of the draft over the devices of the model's `split`: by the same shares.
    fn split(&self, split: &Split) -> Split {
        let devices = u32::try_from(split.stages.len()).unwrap_or(u32::MAX);
        let host = self.target.on_host.max(split::host_layers(split));
        let shares = split::shares(&split.stages, host, self.target.all);

        let draft = &self.prepared;
        let shares = (devices > 1).then_some(&shares[..]);
        let splits = split::splits(
            draft.layers,
            draft.uncounted_layers(),
            draft.always_on_host().layers,
            devices,
            shares,
        );
        let drafts = splits.ok().and_then(|mut all| all.pop());

        // A split by one share for each device never fails.
        drafts.unwrap_or_else(|| split.clone())
    }

    /// Checks that llama.cpp can split the draft as it follows from the model's `split`.
    pub(super) fn check(&self, split: &Split) -> Result<(), IllegalSplit> {
        self.prepared
            .check(&self.split(split))
            .map_err(|IllegalSplit(why)| {
                IllegalSplit(format!(
                    "the draft {}: {why}",
                    self.prepared.identity().repo
                ))
            })
    }

    /// The weights on the device of `rank`.
    pub(super) fn weights(&self, split: &Split, rank: usize) -> Vec<Component> {
        let split = self.split(split);
        let weights = self.prepared.stage_weights(&split, rank);

        vec![mark(weights)]
    }

    /// The cache, states and buffer on the device of `rank`.
    pub(super) fn variable(
        &self,
        split: &Split,
        rank: usize,
        workload: Workload,
    ) -> Vec<Component> {
        let split = self.split(split);
        let parts = self.prepared.variable_components(&split, rank, workload);

        parts.into_iter().map(mark).collect()
    }

    /// The components in host memory.
    pub(super) fn host(&self, split: &Split, workload: Workload) -> Vec<Component> {
        let parts = self.prepared.host_components(&self.split(split), workload);

        parts.into_iter().map(mark).collect()
    }

    /// Bytes of the states on the device of `rank`.
    pub(super) fn states(&self, split: &Split, rank: usize, workload: Workload) -> Bytes {
        self.prepared.states_on(&self.split(split), rank, workload)
    }

    /// States what is not checked.
    pub(super) fn assumptions(&self, target: &LlamaCppPrepared<'_>) -> Vec<String> {
        let repo = &self.prepared.identity().repo;
        vec![format!(
            "{repo} drafts {} tokens, with a context as long as the model's; its vocabulary is \
             compared by size only",
            target.parameters.draft.drafted()
        )]
    }
}

/// Marks a component as the draft's.
fn mark(mut part: Component) -> Component {
    part.detail.insert_str(0, "draft: ");
    part
}

/// The draft's parameters: the model's, except those that name a draft's own.
fn draft_parameters(target: &LlamaCppPrepared<'_>) -> LlamaParameters {
    let (given, effective) = (&target.parameters, &target.effective);
    let [keys, values] = given.draft.cache_types();

    LlamaParameters {
        n_batch: Some(effective.n_batch),
        n_ubatch: given.draft.n_ubatch.or(Some(effective.n_ubatch)),
        n_parallel: Some(effective.slots),
        kv_unified: Some(effective.unified),
        flash_attn: given.flash_attn,
        type_k: Some(keys),
        type_v: Some(values),
        n_gpu_layers: given.draft.n_gpu_layers,
        n_cpu_moe: given.draft.n_cpu_moe,
        swa_full: given.swa_full,
        no_kv_offload: given.no_kv_offload,
        no_mmap: given.no_mmap,
        no_mmproj: true,
        single: given.single,
        no_fit: given.no_fit,
        ..LlamaParameters::default()
    }
}

/// Checks that llama.cpp would draft for `target` with `draft`.
fn check_pair(
    target: &LlamaCppPrepared<'_>,
    draft: &LlamaCppPrepared<'_>,
) -> Result<(), EngineError> {
    if draft.architecture.task != Task::Generate {
        let why = "the draft does not generate text";
        return Err(bad_draft(&target.parameters, why));
    }

    let [model, drafts] = [target, draft].map(|prepared| prepared.architecture.vocab_size);
    if model.abs_diff(drafts) > VOCABULARY_DIFFERENCE {
        let why = format!(
            "the draft has {drafts} tokens and the model {model}: llama.cpp drafts only if they \
             differ by {VOCABULARY_DIFFERENCE} at most"
        );
        return Err(bad_draft(&target.parameters, &why));
    }

    Ok(())
}

/// Checks that the rules of the draft's cache are verified, since no interval of it is widened.
fn check_rules(
    draft: &LlamaCppPrepared<'_>,
    version: Option<&EngineVersion>,
) -> Result<(), EngineError> {
    let [keys, values] = [draft.effective.keys, draft.effective.values];
    let Some(version) = version.or_else(|| crate::engines::releases::newest_verified(ENGINE))
    else {
        return Ok(());
    };

    let rules = [keys, values]
        .into_iter()
        .flat_map(|dtype| MemoryRule::of_cache(draft.architecture, &dtype.name().to_lowercase()));
    let assumed = assumed_rules(ENGINE, version, rules);
    match assumed.first() {
        None => Ok(()),
        Some(assumed) => Err(EngineError::Unsupported {
            engine: ENGINE,
            why: format!(
                "the draft {} needs {}, which are not verified at {version}",
                draft.identity().repo,
                assumed.rule.name()
            ),
        }),
    }
}

/// Names the draft in an error about it.
fn name_draft(error: EngineError, draft: &Model) -> EngineError {
    let repo = &draft.identity.repo;
    match error {
        EngineError::Unsupported { engine, why } => EngineError::Unsupported {
            engine,
            why: format!("the draft {repo}: {why}"),
        },
        EngineError::BadParameter {
            engine,
            name,
            value,
            why,
        } => EngineError::BadParameter {
            engine,
            name: match name.as_str() {
                "type_k" | "type_v" => format!("spec_draft_{name}"),
                _ => name,
            },
            value,
            why: format!("the draft {repo}: {why}"),
        },
        other => other,
    }
}
