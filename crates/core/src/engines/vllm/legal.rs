//! Which splits vLLM accepts, and why not.
//!
//! Sources: vLLM 0.33 `config/model.py` (`verify_with_parallel_config`), `distributed/utils.py`,
//! `layers/linear.py`, `layers/quantization/utils/{fp8_utils,marlin_utils}.py`,
//! `layers/fused_moe/oracle/fp8.py`, `layers/mamba/mamba_mixer2.py`.

use super::VllmPrepared;
use crate::engines::{IllegalSplit, Offload, Split};
use crate::model::Architecture;
use crate::model::architecture::{FeedForward, Mixer, Recurrent, Task};

impl VllmPrepared<'_> {
    /// Whether vLLM runs `split`.
    pub(super) fn legal(&self, split: &Split) -> Result<(), IllegalSplit> {
        if split.offload != Offload::None {
            return refuse(
                "vLLM keeps no layers or experts on the host by number; cpu_offload_gb is its way",
            );
        }

        stages(self.architecture, split)?;
        let tensor = u64::from(split.tensor);
        let parallel = self.settings.context_parallel;
        if parallel > 1 && !tensor.is_multiple_of(parallel) {
            return refuse(format!(
                "decode_context_parallel_size {parallel} does not divide tensor parallelism {tensor}"
            ));
        }

        if parallel > 1 {
            context_parallel(self.architecture, tensor, parallel)?;
        }

        tensor_parallel(self.architecture, tensor, split.expert_parallel, 64)
    }
}

/// Ranks share a sequence's tokens only where they would else hold copies of the same heads
/// (`ModelConfig`, `verify_with_parallel_config`): latents on every rank, KV heads where there are
/// more ranks than heads.
fn context_parallel(
    architecture: &Architecture,
    tensor: u64,
    parallel: u64,
) -> Result<(), IllegalSplit> {
    for layer in &architecture.layers {
        for mixer in layer.mixers() {
            let Mixer::Attention(attention) = mixer else {
                continue;
            };

            let copies = tensor / attention.kv_heads.max(1);
            if copies < parallel {
                return refuse(format!(
                    "decode_context_parallel_size {parallel} is more than the {copies} ranks that share a KV head: {} \
                     heads over tensor parallelism {tensor}",
                    attention.kv_heads
                ));
            }
        }
    }

    Ok(())
}

fn refuse<T>(why: impl Into<String>) -> Result<T, IllegalSplit> {
    Err(IllegalSplit(why.into()))
}

/// Pipeline stages: every layer once and in order, and an architecture that can be cut.
pub(in crate::engines) fn stages(
    architecture: &Architecture,
    split: &Split,
) -> Result<(), IllegalSplit> {
    if split.tensor == 0 || split.stages.is_empty() {
        return refuse("a split needs at least one rank");
    }

    let mut next = 0;
    for stage in &split.stages {
        if stage.start != next || stage.end <= stage.start {
            return refuse(format!(
                "pipeline stages must hold every layer once and in order, and each at least one; got {stage:?}"
            ));
        }
        next = stage.end;
    }

    if next != architecture.layer_count() {
        return refuse(format!(
            "the stages hold {next} of {} layers",
            architecture.layer_count()
        ));
    }

    if split.stages.len() > 1 && matches!(architecture.task, Task::Encode | Task::EncodeDecode) {
        return refuse(format!(
            "{} does not support pipeline parallelism",
            architecture.class
        ));
    }

    Ok(())
}

/// What must divide by the tensor-parallel degree. `vocabulary_step`: the vocabulary is padded to
/// it first.
pub(in crate::engines) fn tensor_parallel(
    architecture: &Architecture,
    tensor: u64,
    expert_parallel: bool,
    vocabulary_step: u64,
) -> Result<(), IllegalSplit> {
    if tensor <= 1 {
        return Ok(());
    }

    if !architecture.heads.is_multiple_of(tensor) {
        return refuse(format!(
            "{} attention heads do not divide by tensor parallelism {tensor}",
            architecture.heads
        ));
    }

    let padded = architecture.vocab_size.next_multiple_of(vocabulary_step);
    if !padded.is_multiple_of(tensor) {
        return refuse(format!(
            "the padded vocabulary of {padded} rows does not divide by {tensor}"
        ));
    }

    for layer in &architecture.layers {
        for mixer in layer.mixers() {
            mixer_divides(mixer, tensor)?;
        }
        if let FeedForward::Dense { width } = layer.feed_forward
            && !width.is_multiple_of(tensor)
        {
            return refuse(format!(
                "the feed-forward width {width} does not divide by {tensor}"
            ));
        }
    }

    let routed = architecture
        .layers
        .iter()
        .any(|layer| layer.feed_forward == FeedForward::Experts);
    if let Some(experts) = architecture.experts.filter(|_| routed) {
        if !expert_parallel && !experts.width.is_multiple_of(tensor) {
            return refuse(format!(
                "the expert width {} does not divide by {tensor}; expert parallelism keeps experts whole",
                experts.width
            ));
        }
        if experts.shared_width > 0 && !experts.shared_width.is_multiple_of(tensor) {
            return refuse(format!(
                "the shared experts' width {} does not divide by {tensor}",
                experts.shared_width
            ));
        }
        if expert_parallel && experts.count < tensor {
            return refuse(format!(
                "{} experts cannot be dealt to {tensor} ranks",
                experts.count
            ));
        }
    }

    quantised_blocks(architecture, tensor, expert_parallel)
}

fn mixer_divides(mixer: &Mixer, tensor: u64) -> Result<(), IllegalSplit> {
    let divides = |count: u64, what: &str| {
        if count.is_multiple_of(tensor) {
            Ok(())
        } else {
            refuse(format!("{count} {what} do not divide by {tensor}"))
        }
    };

    match mixer {
        Mixer::Attention(attention) => {
            divides(attention.heads, "attention heads")?;
            let kv = attention.kv_heads;
            if kv.is_multiple_of(tensor) || tensor.is_multiple_of(kv.max(1)) {
                Ok(())
            } else {
                refuse(format!(
                    "{kv} KV heads neither divide by {tensor} nor into it"
                ))
            }
        }
        Mixer::Latent(latent) => divides(latent.heads, "attention heads"),
        Mixer::Recurrent(Recurrent::Mamba2 { heads, groups, .. }) => {
            divides(*heads, "Mamba heads")?;
            if groups.is_multiple_of(tensor) || *groups == 1 {
                Ok(())
            } else {
                refuse(format!(
                    "{groups} Mamba groups neither divide by {tensor} nor are they one"
                ))
            }
        }
        Mixer::Recurrent(Recurrent::Mamba1 { inner, .. }) => divides(*inner, "Mamba channels"),
        Mixer::Recurrent(Recurrent::GatedDelta {
            key_heads,
            value_heads,
            ..
        }) => {
            divides(*key_heads, "linear key heads")?;
            divides(*value_heads, "linear value heads")
        }
        Mixer::Recurrent(Recurrent::Kda { heads, .. } | Recurrent::Lightning { heads, .. }) => {
            divides(*heads, "linear heads")
        }
        Mixer::Recurrent(Recurrent::ShortConv { width, .. }) => {
            divides(*width, "convolution channels")
        }
        Mixer::Recurrent(Recurrent::Rwkv { hidden, .. }) => divides(*hidden, "channels"),
        Mixer::None => Ok(()),
    }
}

/// Blocks and groups that share a scale must not be cut.
fn quantised_blocks(
    architecture: &Architecture,
    tensor: u64,
    expert_parallel: bool,
) -> Result<(), IllegalSplit> {
    let Some(quantization) = &architecture.quantization else {
        return Ok(());
    };

    let dense = architecture
        .layers
        .iter()
        .filter_map(|layer| match layer.feed_forward {
            FeedForward::Dense { width } => Some(width),
            _ => None,
        });
    let dense = dense.max();
    let experts = architecture.experts.filter(|_| !expert_parallel);
    let cut = |width: u64, step: u64| !(width / tensor).is_multiple_of(step.max(1));
    if let Some((rows, _)) = quantization.block {
        if let Some(width) = dense.filter(|width| cut(*width, rows)) {
            return refuse(format!(
                "the feed-forward width {width} by {tensor} is no multiple of the {rows}-row FP8 block"
            ));
        }
        // Shared experts are plain linear layers: their scale grid is not refined, and expert
        // parallelism cuts them too.
        let shared = architecture
            .experts
            .map_or(0, |experts| experts.shared_width);
        let plain = quantization
            .skipped
            .iter()
            .any(|pattern| pattern.contains("shared_expert"));
        if shared > 0 && !plain && cut(shared, rows) {
            return refuse(format!(
                "the shared experts' width {shared} by {tensor} is no multiple of the {rows}-row FP8 block"
            ));
        }
        // Experts: the scale grid is refined to gcd(block, width by rank, hidden), down to 32.
        if let Some(experts) = experts {
            let grid = gcd(gcd(rows, experts.width / tensor), architecture.hidden_size);
            if grid < 32 {
                return refuse(format!(
                    "the expert width {} by {tensor} cuts the {rows}-row FP8 block; use expert parallelism",
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
            if cut(width, group) {
                return refuse(format!(
                    "the width {width} by {tensor} is no multiple of the quantisation group of {group}"
                ));
            }
        }
    }

    Ok(())
}

const fn gcd(a: u64, b: u64) -> u64 {
    let (mut a, mut b) = (a, b);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}
