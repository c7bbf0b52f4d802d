//! The Python lines that load the model as the answer says.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::settings::TransformersSettings;
use crate::bytes::Bytes;
use crate::engines::compute_dtype::dtype_name;
use crate::engines::shared::python::literal;
use crate::engines::{Launch, LaunchPlan, Offload};
use crate::model::Model;
use crate::model::architecture::{Architecture, Task};

/// Writes `python -c` with a `from_pretrained` whose `max_memory` gives each device its share.
///
/// accelerate reserves memory for the largest layer on the first device, so its share gets that
/// much more.
pub(super) fn launch(
    model: &Model,
    architecture: &Architecture,
    settings: &TransformersSettings,
    plan: &LaunchPlan<'_>,
    weights: impl Fn(usize) -> Bytes,
    largest_layer: Bytes,
) -> Launch {
    let env = BTreeMap::from([("CUDA_VISIBLE_DEVICES".to_owned(), visible_devices(plan))]);
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
             model = SentenceTransformer({repo}{revision}, device=\"cuda\", \
             model_kwargs={{\"dtype\": \"{dtype}\"}})"
        );

        return Launch {
            env,
            args: vec!["python".to_owned(), "-c".to_owned(), script],
            takes: Vec::new(),
        };
    }

    let class = auto_class(architecture);
    let placement = device_map(settings, plan, weights, largest_layer);

    let _ = write!(
        script,
        "from transformers import {class}\n\
         model = {class}.from_pretrained({repo}{revision}, dtype=\"{dtype}\", {placement}, \
         attn_implementation=\"{}\")",
        settings.attention
    );

    Launch {
        env,
        args: vec!["python".to_owned(), "-c".to_owned(), script],
        takes: Vec::new(),
    }
}

/// The `device_map` argument, and `max_memory` unless all weights go to one device.
fn device_map(
    settings: &TransformersSettings,
    plan: &LaunchPlan<'_>,
    weights: impl Fn(usize) -> Bytes,
    largest_layer: Bytes,
) -> String {
    let offloads = plan.split.offload != Offload::None;
    if plan.devices.len() <= 1 && !offloads {
        return "device_map={\"\": 0}".to_owned();
    }

    let mut shares = Vec::new();
    for rank in 0..plan.devices.len() {
        let reserve = if rank == 0 {
            largest_layer
        } else {
            Bytes::ZERO
        };
        let mib = (weights(rank) + reserve).div_ceil(1 << 20).get();
        shares.push(format!("{rank}: \"{mib}MiB\""));
    }

    if offloads {
        shares.push("\"cpu\": \"1000GiB\"".to_owned());
    }

    format!(
        "device_map=\"{}\", max_memory={{{}}}",
        settings.device_map,
        shares.join(", ")
    )
}

/// The devices of the plan as `CUDA_VISIBLE_DEVICES` lists them.
fn visible_devices(plan: &LaunchPlan<'_>) -> String {
    plan.devices
        .iter()
        .map(|device| device.facts.uuid.as_str())
        .collect::<Vec<_>>()
        .join(",")
}

/// The automatic class for the task.
fn auto_class(architecture: &Architecture) -> &'static str {
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
