//! The Python lines that load the model as the answer says.

use std::collections::BTreeMap;

use serde_json::Value;

use super::settings::Ctranslate2Settings;
use crate::engines::shared::python::literal;
use crate::engines::{Launch, LaunchPlan};
use crate::model::Model;
use crate::model::ctranslate2::FILE_NAME;

/// Writes `python -c` with faster-whisper's model and one transcription.
pub(super) fn launch(
    model: &Model,
    settings: &Ctranslate2Settings,
    plan: &LaunchPlan<'_>,
) -> Launch {
    let uuids: Vec<&str> = plan
        .devices
        .iter()
        .map(|device| device.facts.uuid.as_str())
        .collect();
    let env = BTreeMap::from([
        ("CUDA_VISIBLE_DEVICES".to_owned(), uuids.join(",")),
        (
            "CT2_CUDA_ALLOCATOR".to_owned(),
            "cuda_malloc_async".to_owned(),
        ),
    ]);

    // faster-whisper loads a folder, also where the question names the file in it.
    let repo = &model.identity.repo;
    let folder = repo
        .strip_suffix(FILE_NAME)
        .and_then(|folder| folder.strip_suffix('/'));
    let repo = literal(folder.unwrap_or(repo));
    let revision = model
        .identity
        .commit
        .as_deref()
        .or(model.identity.revision.as_deref());
    let revision = revision.map_or_else(String::new, |revision| {
        format!(", revision={}", literal(revision))
    });

    let load = format!(
        "model = WhisperModel({repo}{revision}, device=\"cuda\", compute_type=\"{}\", \
         num_workers={})",
        settings.requested.name(),
        settings.workers
    );
    let (imports, transcribe) = if settings.is_batched {
        (
            "BatchedInferencePipeline, WhisperModel",
            "BatchedInferencePipeline(model).transcribe",
        )
    } else {
        ("WhisperModel", "model.transcribe")
    };

    let script = format!(
        "from faster_whisper import {imports}\n{load}\n\
         segments, info = {transcribe}(\"audio.wav\", {})\n\
         print(\"\".join(segment.text for segment in segments))",
        arguments(settings, plan.workload.sequences)
    );

    Launch {
        env,
        args: vec!["python".to_owned(), "-c".to_owned(), script],
        takes: Vec::new(),
    }
}

/// The arguments of `transcribe`: all that were given, and those that enter the figures.
fn arguments(settings: &Ctranslate2Settings, batch: u64) -> String {
    let mut named = Vec::new();
    if settings.is_batched {
        named.push(format!("batch_size={batch}"));
    }

    let given = settings.transcription.given();
    named.extend(
        given
            .iter()
            .map(|(name, value)| format!("{name}={}", python(value))),
    );

    if settings.samples && !given.contains_key("best_of") {
        named.push(format!("best_of={}", settings.best_of));
    }

    named.push(format!("beam_size={}", settings.beam_size));
    named.join(", ")
}

/// A Python literal: JSON's, apart from the words for truth.
fn python(value: &Value) -> String {
    match value {
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        other => other.to_string(),
    }
}
