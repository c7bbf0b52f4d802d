//! The Python lines that run the pipeline as answered.

use std::collections::BTreeMap;

use super::super::compute_dtype::dtype_name;
use super::super::{Launch, LaunchPlan, Offload};
use super::pipeline::Pipeline;
use super::settings::DiffusersSettings;
use crate::engines::shared::python::literal;
use crate::model::Model;

/// `python -c` with the load, the planned offload, and the call's sizes.
pub(super) fn launch(
    model: &Model,
    pipeline: &Pipeline,
    settings: &DiffusersSettings,
    plan: &LaunchPlan<'_>,
) -> Launch {
    let uuids: Vec<&str> = plan
        .devices
        .iter()
        .map(|device| device.facts.uuid.as_str())
        .collect();
    let env = BTreeMap::from([("CUDA_VISIBLE_DEVICES".to_owned(), uuids.join(","))]);
    let repo = literal(&model.identity.repo);

    let revision = model
        .identity
        .commit
        .as_deref()
        .or(model.identity.revision.as_deref());
    let revision = revision.map_or_else(String::new, |revision| {
        format!(", revision={}", literal(revision))
    });

    let mut lines = vec![
        "import torch".to_owned(),
        "from diffusers import DiffusionPipeline".to_owned(),
        format!(
            "pipe = DiffusionPipeline.from_pretrained({repo}{revision}, torch_dtype=torch.{})",
            dtype_name(settings.dtype)
        ),
    ];
    lines.push(match (&settings.groups, plan.split.offload) {
        (Some(groups), _) => groups.python(),
        (None, Offload::Components) => "pipe.enable_model_cpu_offload()".to_owned(),
        (None, Offload::Leaves) => "pipe.enable_sequential_cpu_offload()".to_owned(),
        _ => "pipe.to(\"cuda\")".to_owned(),
    });

    if settings.slicing {
        lines.push("pipe.vae.enable_slicing()".to_owned());
    }

    if settings.tiling {
        lines.push("pipe.vae.enable_tiling()".to_owned());
    }

    lines.push(call(pipeline, settings, plan.workload.sequences));

    Launch {
        env,
        args: vec!["python".to_owned(), "-c".to_owned(), lines.join("\n")],
        takes: Vec::new(),
    }
}

/// The pipeline's call, with every argument that the figures depend on.
fn call(pipeline: &Pipeline, settings: &DiffusersSettings, images: u64) -> String {
    let mut arguments = vec![
        "\"a photograph\"".to_owned(),
        format!("width={}", pipeline.width),
        format!("height={}", pipeline.height),
    ];
    if pipeline.makes_videos {
        arguments.push(format!("num_frames={}", pipeline.frames));
    }
    arguments.push(format!("{}={images}", pipeline.images_name()));

    let scales = [
        ("guidance_scale", settings.guidance),
        ("true_cfg_scale", settings.true_guidance),
    ];
    for (name, scale) in scales {
        arguments.extend(scale.map(|scale| format!("{name}={scale}")));
    }
    arguments.extend(
        settings
            .text_tokens
            .map(|tokens| format!("max_sequence_length={tokens}")),
    );
    if !settings.bins {
        arguments.push("use_resolution_binning=False".to_owned());
    }

    let arguments = arguments.join(", ");
    if pipeline.makes_videos {
        format!("video = pipe({arguments}).frames[0]")
    } else {
        format!("image = pipe({arguments}).images[0]")
    }
}
