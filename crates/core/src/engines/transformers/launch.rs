//! The Python lines that load the model the way it was answered.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::super::compute_dtype::dtype_name;
use super::super::{Launch, LaunchPlan, Offload};
use super::settings::TransformersSettings;
use crate::bytes::Bytes;
use crate::engines::shared::python::literal;
use crate::model::Model;
use crate::model::architecture::{Architecture, Task};

/// `python -c` with a `from_pretrained` that gets each device's share as `max_memory`.
///
/// accelerate reserves room for the largest layer on the first device, so that much is added there.
pub(super) fn launch(
    model: &Model,
    architecture: &Architecture,
    settings: &TransformersSettings,
    plan: &LaunchPlan<'_>,
    weights: impl Fn(usize) -> Bytes,
    largest_layer: Bytes,
) -> Launch {
    let env = BTreeMap::from([("CUDA_VISIBLE_DEVICES".to_owned(), visible(plan))]);
    let mut script = String::new();
    let repo = literal(&model.identity.repo);

    let revision = model
        .identity
        .commit
        .as_deref()
        .or(model.identity.revision.as_deref());
    let revision = revision.map_or_else(String::new, |revision| {
        format!(", revision={}", literal(revision))
    });
    let dtype = dtype_name(settings.dtype);

    if !model.components.is_empty() {
        // Writing to a String cannot fail.
        let _ = write!(
            script,
            "from sentence_transformers import SentenceTransformer\n\
             model = SentenceTransformer({repo}{revision}, device=\"cuda\", model_kwargs={{\"dtype\": \"{dtype}\"}})"
        );

        return Launch {
            env,
            args: vec!["python".to_owned(), "-c".to_owned(), script],
            takes: Vec::new(),
        };
    }

    let class = class(architecture);
    let placed = if plan.devices.len() <= 1 && plan.split.offload == Offload::None {
        "device_map={\"\": 0}".to_owned()
    } else {
        let share = |rank: usize| {
            let reserve = if rank == 0 {
                largest_layer
            } else {
                Bytes::ZERO
            };

            format!(
                "{rank}: \"{}MiB\"",
                (weights(rank) + reserve).div_ceil(1 << 20).get()
            )
        };

        let mut shares: Vec<String> = (0..plan.devices.len()).map(share).collect();
        if plan.split.offload != Offload::None {
            shares.push("\"cpu\": \"1000GiB\"".to_owned());
        }

        format!(
            "device_map=\"{}\", max_memory={{{}}}",
            settings.device_map,
            shares.join(", ")
        )
    };

    let _ = write!(
        script,
        "from transformers import {class}\n\
         model = {class}.from_pretrained({repo}{revision}, dtype=\"{dtype}\", {placed}, \
         attn_implementation=\"{}\")",
        settings.attention
    );

    Launch {
        env,
        args: vec!["python".to_owned(), "-c".to_owned(), script],
        takes: Vec::new(),
    }
}

fn visible(plan: &LaunchPlan<'_>) -> String {
    plan.devices
        .iter()
        .map(|device| device.facts.uuid.as_str())
        .collect::<Vec<_>>()
        .join(",")
}

/// The automatic class for the task.
fn class(architecture: &Architecture) -> &'static str {
    match architecture.task {
        Task::Encode | Task::Pool if architecture.class.contains("SequenceClassification") => {
            "AutoModelForSequenceClassification"
        }
        Task::Encode | Task::Pool => "AutoModel",
        Task::EncodeDecode if architecture.model_type == "whisper" => "AutoModelForSpeechSeq2Seq",
        Task::EncodeDecode => "AutoModelForSeq2SeqLM",
        Task::Generate if architecture.vision.is_some() => "AutoModelForImageTextToText",
        Task::Generate => "AutoModelForCausalLM",
    }
}
