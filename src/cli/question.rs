//! The question that a command line asks.

use hf_mem_core::report::question::{
    Constraints, ContextQuestion, EngineQuestion, MaxWord, ModelQuestion, OffloadRule, Question,
    WorkloadQuestion,
};

use crate::cli::arguments::{ContextArgument, OffloadArgument, QuestionOptions};

/// The kind of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QuestionKind {
    /// Whether and how the model fits.
    Fits,
    /// What the model needs.
    Estimate,
}

/// Returns the question of `arguments` about `model`, whose name is still as typed.
pub(super) fn question(model: &str, arguments: &QuestionOptions) -> Question {
    let (engine, version) = match arguments.engine.clone() {
        Some(spec) => (Some(spec.name), spec.version),
        None => (None, None),
    };

    Question {
        model: ModelQuestion {
            repo: model.to_owned(),
            revision: None,
            file: arguments.file.clone(),
            metadata: None,
        },
        draft: arguments.draft.as_ref().map(|draft| ModelQuestion {
            repo: draft.clone(),
            file: arguments.draft_file.clone(),
            ..ModelQuestion::default()
        }),
        engine: EngineQuestion {
            name: engine,
            version,
            parameters: arguments.set.iter().cloned().collect(),
        },
        workload: WorkloadQuestion {
            context: arguments.context.map(|context| match context {
                ContextArgument::Tokens(tokens) => ContextQuestion::Tokens(tokens),
                ContextArgument::Max => ContextQuestion::Word(MaxWord::Max),
            }),
            sequences: arguments.sequences,
            kv_cache_dtype: arguments.kv_cache_dtype.clone(),
            dtype: arguments.dtype.clone(),
        },
        constraints: Constraints {
            tensor_parallel: arguments.tensor_parallel,
            pipeline_parallel: arguments.pipeline_parallel,
            devices: (!arguments.on.is_empty()).then(|| arguments.on.clone()),
            offload: match arguments.offload {
                OffloadArgument::Allow => OffloadRule::Allow,
                OffloadArgument::Deny => OffloadRule::Deny,
            },
        },
        gpus: arguments.gpus.clone(),
        frontier: false,
    }
}
