//! The Python lines that load the model as the answer says.

use std::collections::BTreeMap;

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
    let (imports, call) = if settings.is_batched {
        let batch = plan.workload.sequences;
        (
            "BatchedInferencePipeline, WhisperModel",
            format!("BatchedInferencePipeline(model).transcribe(\"audio.wav\", batch_size={batch}"),
        )
    } else if settings.samples {
        (
            "WhisperModel",
            format!(
                "model.transcribe(\"audio.wav\", best_of={}",
                settings.best_of
            ),
        )
    } else {
        (
            "WhisperModel",
            "model.transcribe(\"audio.wav\", temperature=0".to_owned(),
        )
    };

    let script = format!(
        "from faster_whisper import {imports}\n{load}\n\
         segments, info = {call}, beam_size={})\n\
         print(\"\".join(segment.text for segment in segments))",
        settings.beam_size
    );

    Launch {
        env,
        args: vec!["python".to_owned(), "-c".to_owned(), script],
        takes: Vec::new(),
    }
}
