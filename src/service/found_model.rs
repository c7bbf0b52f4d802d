//! The models of a question: their names, and what was read for one caller.

use std::sync::Arc;

use hf_mem_core::model::Model;
use hf_mem_core::report::problem::Reason;
use hf_mem_core::report::question::ModelQuestion;
use hf_mem_core::report::{Problem, Question};

use crate::metrics::CacheResult;
use crate::repository::{ModelReference, Place};

/// The models that one question was answered from, as they were read.
#[derive(Clone, Debug)]
pub(super) struct ReadModels {
    pub(super) model: Arc<Model>,
    pub(super) draft: Option<Arc<Model>>,
}

impl ReadModels {
    /// Returns whether both are the same objects.
    pub(super) fn same(&self, other: &Self) -> bool {
        let same_draft = match (&self.draft, &other.draft) {
            (Some(draft), Some(other)) => Arc::ptr_eq(draft, other),
            (None, None) => true,
            _ => false,
        };

        same_draft && Arc::ptr_eq(&self.model, &other.model)
    }

    /// Returns an estimate of the models' bytes in memory.
    pub(super) fn heap_bytes(&self) -> u64 {
        let draft = self.draft.as_ref().map_or(0, |draft| draft.heap_bytes());
        self.model.heap_bytes().saturating_add(draft)
    }
}

/// The names of a question's models.
#[derive(Clone, Debug)]
pub(super) struct References {
    pub(super) model: ModelReference,
    pub(super) draft: Option<ModelReference>,
}

impl References {
    /// Parses the names in `question`, as [`reference`] does.
    pub(super) fn of_question(question: &Question) -> Result<Self, Problem> {
        let draft = question.draft.as_ref();

        Ok(Self {
            model: reference("model", &question.model)?,
            draft: draft.map(|draft| reference("draft", draft)).transpose()?,
        })
    }
}

/// A model as one caller may see it.
pub(super) struct FoundModel {
    /// The model, with its draft if the question names one.
    pub(super) model: Arc<Model>,
    /// The models as they were read.
    pub(super) read: ReadModels,
    /// Whether the model or its draft can have changed since it was read.
    pub(super) stale: bool,
    /// Where it was found.
    pub(super) cache: CacheResult,
}

impl FoundModel {
    pub(super) fn new(model: Arc<Model>, stale: bool, cache: CacheResult) -> Self {
        let read = ReadModels {
            model: Arc::clone(&model),
            draft: None,
        };

        Self {
            model,
            read,
            stale,
            cache,
        }
    }

    /// Returns this model with `draft` to propose its tokens.
    pub(super) fn with_draft(self, draft: Self) -> Self {
        let with_draft = Model::clone(&self.model).with_draft(Arc::clone(&draft.model));
        Self {
            model: Arc::new(with_draft),
            read: ReadModels {
                model: self.read.model,
                draft: Some(draft.model),
            },
            stale: self.stale || draft.stale,
            cache: self.cache,
        }
    }
}

/// Parses the name of a repository in the question's `field`. It rejects anything that could be
/// read as a path.
pub(super) fn reference(field: &str, question: &ModelQuestion) -> Result<ModelReference, Problem> {
    let text = match &question.revision {
        Some(revision) => format!("{}@{revision}", question.repo),
        None => question.repo.clone(),
    };

    let reference = ModelReference::parse(&text, question.file.as_deref(), |_| false)?;
    match reference.place {
        Place::Hub { .. } => Ok(reference),
        _ => Err(Problem::new(
            Reason::Usage,
            format!("{field}.repo: {text:?} is not the name of a repository"),
        )
        .hint(format!(
            "the daemon opens no path for a client; for a local model, send its metadata in \
             {field}.metadata"
        ))),
    }
}
