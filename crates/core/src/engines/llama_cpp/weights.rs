//! Which device holds which tensors, and the bytes that CUDA allocates for them.
//!
//! Source: llama.cpp `src/llama-model.cpp` (`load_tensors`), `src/llama-arch.cpp` (tensor layers),
//! `ggml/src/ggml-cuda/ggml-cuda.cu` (`ggml_backend_cuda_buffer_type_get_alloc_size`).

use std::ops::Range;

use crate::bytes::Bytes;
use crate::model::{Dtype, Model, TensorClass};

/// Tensors start at multiples of this in a CUDA buffer.
const CUDA_ALIGNMENT: u64 = 128;
/// Rows of quantised tensors are padded to this many elements once, behind the last row
/// (`MATRIX_ROW_PADDING`).
const ROW_PADDING: u64 = 512;

/// Families whose loader skips the tensors of the next-token layers (`TENSOR_SKIP`); others load
/// them.
const SKIPS_NEXT_TOKEN: [&str; 5] = [
    "glm4moe",
    "bailingmoe2",
    "glm-dsa",
    "deepseek32",
    "exaone-moe",
];

/// Where a class of tensors belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Home {
    /// The lookup tables: always the host.
    Input,
    /// The device of the output layer.
    Output,
    /// The device of its layer.
    Layer,
    /// The device of its layer, unless experts stay on the host.
    Expert,
    /// One copy on every device (RoPE factors).
    Everywhere,
}

#[derive(Clone, Debug)]
struct Class {
    home: Home,
    tensors: TensorClass,
    on_device: Bytes,
}

/// A model's tensors by home.
#[derive(Clone, Debug)]
pub(crate) struct Weights {
    classes: Vec<Class>,
    /// Decoder layers (L); next-token layers follow.
    layers: u32,
    /// The embedding serves as output too, so the output device keeps a copy.
    tied: Option<Class>,
}

/// Layers that stay on the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct OnHost {
    /// The first layers, whole.
    pub(crate) layers: u32,
    /// The experts of the first layers.
    pub(crate) experts: u32,
}

impl Weights {
    /// Sorts the tensors of `model`, a language model of `layers` layers.
    pub(crate) fn new(model: &Model, family: &str, layers: u32) -> Self {
        let mut classes: Vec<Class> = Vec::new();
        let skips = SKIPS_NEXT_TOKEN.contains(&family);

        for tensors in &model.inventory.classes {
            let home = home(&tensors.pattern);
            let mut tensors = tensors.clone();
            if skips && matches!(home, Home::Layer | Home::Expert) {
                tensors.layers.retain_mut(|run| {
                    run.last = run.last.min(layers.saturating_sub(1));
                    run.first <= run.last && run.first < layers
                });
                tensors.count = tensors.layers.iter().fold(0, |count, run| {
                    let length = u64::from(run.last - run.first) + 1;
                    count.saturating_add(length.saturating_mul(run.each))
                });
            }

            classes.push(Class {
                home,
                on_device: on_device(&tensors),
                tensors,
            });
        }

        let named = |name: &str| {
            classes
                .iter()
                .find(|class| &*class.tensors.pattern == name)
                .cloned()
        };

        let tied = if named("output.weight").is_none() {
            named("token_embd.weight")
        } else {
            None
        };

        Self {
            classes,
            layers,
            tied,
        }
    }

    /// Bytes that the device of the stage `layers` allocates for weights; with `output` it has the
    /// output layer and what follows the last decoder layer.
    pub(crate) fn on_stage(&self, layers: &Range<u32>, output: bool, host: OnHost) -> Bytes {
        let end = if output {
            u32::MAX
        } else {
            layers.end.min(self.layers)
        };

        let whole = layers.start.max(host.layers)..end;
        let experts = whole.start.max(host.experts)..end;

        let of = |class: &Class| {
            let count = match class.home {
                Home::Output if output => class.tensors.count,
                Home::Input | Home::Output => 0,
                Home::Layer => class.tensors.count_in(&whole),
                Home::Expert => class.tensors.count_in(&experts),
                Home::Everywhere => 1,
            };
            class.on_device * count
        };

        let tied = self
            .tied
            .as_ref()
            .filter(|_| output)
            .map_or(Bytes::ZERO, |class| class.on_device);

        self.classes.iter().map(of).sum::<Bytes>() + tied
    }

    /// Bytes that stay on the host; `output` says whether the output layer is on a device.
    pub(crate) fn on_host(&self, host: OnHost, output: bool) -> Bytes {
        let of = |class: &Class| {
            let count = match class.home {
                Home::Output if output => 0,
                Home::Input | Home::Output => class.tensors.count,
                Home::Layer => class.tensors.count_in(&(0..host.layers)),
                Home::Expert => class.tensors.count_in(&(0..host.layers.max(host.experts))),
                Home::Everywhere => 0,
            };
            class.tensors.bytes_each * count
        };

        self.classes.iter().map(of).sum()
    }

    /// The largest tensor on the host that a device would be given a copy of to multiply large
    /// batches with.
    pub(crate) fn largest_on_host(&self, host: OnHost, output: bool) -> Bytes {
        let of = |class: &Class| {
            let here = match class.home {
                Home::Layer => class.tensors.count_in(&(0..host.layers)),
                Home::Expert => class.tensors.count_in(&(0..host.layers.max(host.experts))),
                Home::Output if !output => 1,
                _ => 0,
            };

            if here > 0 {
                class.on_device
            } else {
                Bytes::ZERO
            }
        };

        let tied = self
            .tied
            .as_ref()
            .filter(|_| !output)
            .map_or(Bytes::ZERO, |class| class.on_device);

        self.classes
            .iter()
            .map(of)
            .max()
            .unwrap_or(Bytes::ZERO)
            .max(tied)
    }

    /// Whether the file has expert tensors.
    pub(crate) fn has_experts(&self) -> bool {
        self.classes.iter().any(|class| class.home == Home::Expert)
    }

    /// Storage types that ggml does not know, for the answer's refusal.
    pub(crate) fn unknown_type(&self) -> Option<&TensorClass> {
        self.classes
            .iter()
            .map(|class| &class.tensors)
            .find(|tensors| tensors.dtype().is_none())
    }

    /// Types that the weights have.
    pub(crate) fn has(&self, dtype: Dtype) -> bool {
        self.classes
            .iter()
            .any(|class| class.tensors.dtype() == Some(dtype))
    }
}

/// By name, as `LLM_TENSOR_INFOS` has it.
fn home(pattern: &str) -> Home {
    let stem = pattern.rsplit_once('.').map_or(pattern, |(stem, _)| stem);
    match stem {
        "token_embd"
        | "token_embd_norm"
        | "token_types"
        | "position_embd"
        | "per_layer_token_embd" => Home::Input,
        "rope_freqs" | "rope_factors_long" | "rope_factors_short" => Home::Everywhere,
        _ if is_expert(stem) => Home::Expert,
        _ if pattern.contains(".*.") => Home::Layer,
        _ => Home::Output,
    }
}

/// `LLM_FFN_EXPS_REGEX`: `\.ffn_(up|down|gate|gate_up)_(ch|)exps`.
fn is_expert(stem: &str) -> bool {
    let last = stem.rsplit('.').next().unwrap_or(stem);
    last.strip_prefix("ffn_").is_some_and(|rest| {
        let part = rest
            .strip_suffix("exps")
            .map(|part| part.strip_suffix("ch").unwrap_or(part));
        matches!(part, Some("up_" | "down_" | "gate_" | "gate_up_"))
    })
}

/// What CUDA allocates for one tensor.
fn on_device(tensors: &TensorClass) -> Bytes {
    let mut bytes = tensors.bytes_each;
    if let (Some(dtype), Some(row)) = (tensors.dtype(), tensors.shape.first()) {
        let (block, block_bytes) = dtype.block();
        let over = row % ROW_PADDING;
        if block > 1 && over != 0 {
            bytes += Bytes::new((ROW_PADDING - over).div_ceil(block)) * block_bytes;
        }
    }

    bytes.round_up(CUDA_ALIGNMENT)
}
