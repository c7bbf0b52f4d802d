//! Which pipeline stages and tensor-parallel degrees divide a model, for vLLM and SGLang.
//!
//! SGLang's layers began as vLLM's, so the rules are the same. Sources: vLLM 0.33
//! `config/model.py` (`verify_with_parallel_config`), `distributed/utils.py`, `layers/linear.py`,
//! `layers/quantization/utils/{fp8_utils,marlin_utils}.py`, `layers/fused_moe/oracle/fp8.py`,
//! `layers/mamba/mamba_mixer2.py`.

use super::topology::degrees;
use crate::engines::{IllegalSplit, Split};
use crate::model::Architecture;
use crate::model::architecture::{Experts, FeedForward, Mixer, Recurrent, Task};
use crate::model::quantization::Quantization;

/// The smallest FP8 scale grid that the expert kernels take.
const MIN_EXPERT_GRID: u64 = 32;

/// Rejects a split for `reason`.
pub(crate) fn illegal<T>(reason: impl Into<String>) -> Result<T, IllegalSplit> {
    Err(IllegalSplit(reason.into()))
}

/// Returns the legal splits of `layers` layers over `devices`, the widest tensor degree first.
///
/// `candidate` takes a tensor degree and a number of stages. It returns their split, or why they
/// have none. If no split is legal, the error is the first reason.
pub(crate) fn legal_splits(
    layers: u32,
    devices: u32,
    candidate: impl Fn(u32, u32) -> Result<Split, IllegalSplit>,
) -> Result<Vec<Split>, IllegalSplit> {
    let mut splits = Vec::new();
    let mut first_reason = None;

    for (tensor, stages) in degrees(devices).filter(|(_, stages)| *stages <= layers.max(1)) {
        match candidate(tensor, stages) {
            Ok(split) => splits.push(split),
            Err(reason) => first_reason = first_reason.or(Some(reason)),
        }
    }

    if splits.is_empty() {
        return Err(first_reason.unwrap_or_else(|| {
            IllegalSplit(format!(
                "{layers} layers cannot be cut into {devices} stages"
            ))
        }));
    }

    Ok(splits)
}

/// Checks that the stages hold every layer once and in order, and that the model can be cut.
pub(crate) fn check_stages(architecture: &Architecture, split: &Split) -> Result<(), IllegalSplit> {
    if split.tensor == 0 || split.stages.is_empty() {
        return illegal("a split needs at least one rank");
    }

    let mut next = 0;
    for stage in &split.stages {
        if stage.start != next || stage.end <= stage.start {
            return illegal(format!(
                "pipeline stages must hold every layer once and in order, at least one each; \
                 got {stage:?}"
            ));
        }
        next = stage.end;
    }

    if next != architecture.layer_count() {
        return illegal(format!(
            "the stages hold {next} of {} layers",
            architecture.layer_count()
        ));
    }

    let is_whole =
        architecture.is_looped() || matches!(architecture.task, Task::Encode | Task::EncodeDecode);
    if split.stages.len() > 1 && is_whole {
        return illegal(format!(
            "{} does not support pipeline parallelism",
            architecture.class
        ));
    }

    Ok(())
}

/// Checks everything that the tensor-parallel degree must divide.
///
/// The engine pads the vocabulary to a multiple of `vocabulary_step` first.
pub(crate) fn check_tensor_parallel(
    architecture: &Architecture,
    tensor: u64,
    expert_parallel: bool,
    vocabulary_step: u64,
) -> Result<(), IllegalSplit> {
    if tensor <= 1 {
        return Ok(());
    }

    if !architecture.heads.is_multiple_of(tensor) {
        return illegal(format!(
            "{} attention heads do not divide by tensor parallelism {tensor}",
            architecture.heads
        ));
    }

    let padded = architecture.vocab_size.next_multiple_of(vocabulary_step);
    if !padded.is_multiple_of(tensor) {
        return illegal(format!(
            "the padded vocabulary of {padded} rows does not divide by {tensor}"
        ));
    }

    for layer in &architecture.layers {
        for mixer in layer.mixers() {
            check_mixer(mixer, tensor)?;
        }

        if let FeedForward::Dense { width } = layer.feed_forward
            && !width.is_multiple_of(tensor)
        {
            return illegal(format!(
                "the feed-forward width {width} does not divide by {tensor}"
            ));
        }
    }

    let routed = architecture
        .layers
        .iter()
        .any(|layer| layer.feed_forward == FeedForward::Experts);
    if let Some(experts) = architecture.experts.filter(|_| routed) {
        check_experts(experts, tensor, expert_parallel)?;
    }

    architecture
        .quantization
        .as_ref()
        .map_or(Ok(()), |quantization| {
            check_quantized_blocks(architecture, quantization, tensor, expert_parallel)
        })
}

fn check_experts(experts: Experts, tensor: u64, expert_parallel: bool) -> Result<(), IllegalSplit> {
    if !expert_parallel && !experts.width.is_multiple_of(tensor) {
        return illegal(format!(
            "the expert width {} does not divide by {tensor}; expert parallelism keeps experts \
             whole",
            experts.width
        ));
    }

    if experts.shared_width > 0 && !experts.shared_width.is_multiple_of(tensor) {
        return illegal(format!(
            "the shared experts' width {} does not divide by {tensor}",
            experts.shared_width
        ));
    }

    if expert_parallel && experts.count < tensor {
        return illegal(format!(
            "{} experts cannot be distributed over {tensor} ranks",
            experts.count
        ));
    }

    Ok(())
}

fn check_mixer(mixer: &Mixer, tensor: u64) -> Result<(), IllegalSplit> {
    match mixer {
        Mixer::Attention(attention) => {
            check_divides(attention.heads, "attention heads", tensor)?;
            let kv = attention.kv_heads;
            if kv.is_multiple_of(tensor) || tensor.is_multiple_of(kv.max(1)) {
                Ok(())
            } else {
                illegal(format!(
                    "{kv} KV heads neither divide by {tensor} nor into it"
                ))
            }
        }
        Mixer::Latent(latent) => check_divides(latent.heads, "attention heads", tensor),
        Mixer::Recurrent(Recurrent::Mamba2 { heads, groups, .. }) => {
            check_divides(*heads, "Mamba heads", tensor)?;
            if groups.is_multiple_of(tensor) || *groups == 1 {
                Ok(())
            } else {
                illegal(format!(
                    "{groups} Mamba groups neither divide by {tensor} nor are they one"
                ))
            }
        }
        Mixer::Recurrent(Recurrent::Mamba1 { inner, .. }) => {
            check_divides(*inner, "Mamba channels", tensor)
        }
        Mixer::Recurrent(Recurrent::GatedDelta {
            key_heads,
            value_heads,
            ..
        }) => {
            check_divides(*key_heads, "linear key heads", tensor)?;
            check_divides(*value_heads, "linear value heads", tensor)
        }
        Mixer::Recurrent(Recurrent::Kda { heads, .. } | Recurrent::Lightning { heads, .. }) => {
            check_divides(*heads, "linear heads", tensor)
        }
        Mixer::Recurrent(
            Recurrent::ShortConv { width, .. } | Recurrent::PastInputs { width, .. },
        ) => check_divides(*width, "convolution channels", tensor),
        Mixer::Recurrent(Recurrent::ConvStreams { heads, .. }) => {
            check_divides(*heads, "convolved KV heads", tensor)
        }
        Mixer::Recurrent(Recurrent::Rwkv { hidden, .. }) => {
            check_divides(*hidden, "channels", tensor)
        }
        Mixer::None => Ok(()),
    }
}

fn check_divides(count: u64, what: &str, tensor: u64) -> Result<(), IllegalSplit> {
    if count.is_multiple_of(tensor) {
        Ok(())
    } else {
        illegal(format!("{count} {what} do not divide by {tensor}"))
    }
}

/// Checks that no rank's edge cuts a block or group that shares a scale.
fn check_quantized_blocks(
    architecture: &Architecture,
    quantization: &Quantization,
    tensor: u64,
    expert_parallel: bool,
) -> Result<(), IllegalSplit> {
    let dense = architecture
        .layers
        .iter()
        .filter_map(|layer| match layer.feed_forward {
            FeedForward::Dense { width } => Some(width),
            _ => None,
        });
    let dense = dense.max();
    let experts = architecture.experts.filter(|_| !expert_parallel);

    if let Some((rows, _)) = quantization.block {
        if let Some(width) = dense.filter(|width| cuts_block(*width, tensor, rows)) {
            return illegal(format!(
                "the feed-forward width {width} by {tensor} is no multiple of the {rows}-row FP8 \
                 block"
            ));
        }

        check_shared_experts(architecture, quantization, tensor, rows)?;

        // The engine refines the experts' scale grid to gcd(block, width by rank, hidden).
        if let Some(experts) = experts {
            let grid = gcd(gcd(rows, experts.width / tensor), architecture.hidden_size);
            if grid < MIN_EXPERT_GRID {
                return illegal(format!(
                    "the expert width {} by {tensor} cuts the {rows}-row FP8 block; use expert \
                     parallelism",
                    experts.width
                ));
            }
        }
    }

    let marlin = matches!(
        &*quantization.method,
        "gptq" | "gptq_marlin" | "awq" | "awq_marlin" | "auto-round" | "auto_round"
    ) || quantization.format.as_deref() == Some("pack-quantized");

    if let Some(group) = quantization
        .group_size
        .filter(|group| marlin && *group > 0 && !quantization.desc_act)
    {
        for width in dense
            .into_iter()
            .chain(experts.map(|experts| experts.width))
        {
            if cuts_block(width, tensor, group) {
                return illegal(format!(
                    "the width {width} by {tensor} is no multiple of the quantization group of \
                     {group}"
                ));
            }
        }
    }

    Ok(())
}

/// Checks the FP8 blocks of shared experts.
///
/// Shared experts are plain linear layers: the engine does not refine their scale grid, and expert
/// parallelism cuts them too.
fn check_shared_experts(
    architecture: &Architecture,
    quantization: &Quantization,
    tensor: u64,
    rows: u64,
) -> Result<(), IllegalSplit> {
    let width = architecture
        .experts
        .map_or(0, |experts| experts.shared_width);
    let unquantized = quantization
        .skipped
        .iter()
        .any(|pattern| pattern.contains("shared_expert"));

    if width > 0 && !unquantized && cuts_block(width, tensor, rows) {
        return illegal(format!(
            "the shared experts' width {width} by {tensor} is no multiple of the {rows}-row FP8 \
             block"
        ));
    }

    Ok(())
}

/// Whether a rank's part of `width` is no whole number of blocks of `step`.
const fn cuts_block(width: u64, tensor: u64, step: u64) -> bool {
    let step = if step == 0 { 1 } else { step };
    !(width / tensor).is_multiple_of(step)
}

const fn gcd(a: u64, b: u64) -> u64 {
    let (mut a, mut b) = (a, b);
    while b != 0 {
        (a, b) = (b, a % b);
    }

    a
}
