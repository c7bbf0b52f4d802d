//! The model of an answer.

use crate::bytes::Bytes;
use crate::model::architecture::Task;
use crate::model::{Model, Storage};
use crate::report::answer::{AdapterAnswer, DraftAnswer, ModelAnswer, ModelTask};

/// Returns the `model` of an answer.
pub fn report(model: &Model) -> ModelAnswer {
    let architecture = model.architecture.as_ref().ok();
    let asked = model.asked();

    let by_dtype = model
        .inventory
        .bytes_by_storage()
        .into_iter()
        .map(|(storage, bytes)| {
            let name = match storage {
                Storage::Known(dtype) => dtype.name().to_owned(),
                Storage::Unknown(name) => name.into(),
            };
            (name, bytes.get())
        });

    let by_component = model.inventory.bytes_by_component();
    ModelAnswer {
        repo: asked.repo.clone(),
        revision: asked.revision.clone(),
        commit: asked.commit.clone(),
        file: asked.file.clone(),
        format: Some(model.format.into()),
        architecture: architecture.map(|architecture| architecture.class.clone()),
        task: architecture
            .filter(|architecture| architecture.audio && architecture.task == Task::EncodeDecode)
            .map(|_| ModelTask::SpeechToText.into()),
        parameters: model.parameters,
        weights_bytes: Some(model.inventory.bytes().get()),
        weights_by_dtype_bytes: by_dtype.collect(),
        weights_by_component_bytes: if by_component.len() > 1 {
            by_component
                .into_iter()
                .map(|(name, bytes)| (name.to_owned(), bytes.get()))
                .collect()
        } else {
            std::collections::BTreeMap::new()
        },
        expert_weights_bytes: expert_weights(model).map(Bytes::get),
        quantization: architecture
            .and_then(|architecture| architecture.quantization.as_ref())
            .map(|q| q.method.clone()),
        max_context: architecture.and_then(|architecture| architecture.max_context),
        weight_files: Some(model.weight_files),
        adapter: model.adapter.as_ref().map(|adapter| AdapterAnswer {
            base_repo: model.identity.repo.clone(),
            base_commit: model.identity.commit.clone(),
            method: adapter.method.to_ascii_lowercase(),
            rank: adapter.rank,
            stored_bytes: adapter.inventory.bytes().get(),
        }),
        draft: model.draft.as_deref().map(draft_report),
    }
}

fn draft_report(draft: &Model) -> DraftAnswer {
    let identity = draft.asked().clone();

    DraftAnswer {
        repo: identity.repo,
        revision: identity.revision,
        commit: identity.commit,
        file: identity.file,
        architecture: draft
            .architecture
            .as_ref()
            .ok()
            .map(|architecture| architecture.class.clone()),
        parameters: draft.parameters,
        weights_bytes: draft.inventory.bytes().get(),
    }
}

/// Returns the stored bytes of routed experts; `None` for models without any.
fn expert_weights(model: &Model) -> Option<Bytes> {
    let bytes: Bytes = model
        .inventory
        .classes
        .iter()
        .filter(|class| is_expert_tensor(&class.pattern))
        .map(crate::model::TensorClass::bytes)
        .sum();

    (bytes > Bytes::ZERO).then_some(bytes)
}

/// Whether a name pattern is that of a routed expert's tensor.
fn is_expert_tensor(pattern: &str) -> bool {
    pattern.contains(".experts.") || pattern.contains("_exps.")
}
