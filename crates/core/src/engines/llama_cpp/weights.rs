//! The device of each tensor, and the bytes that CUDA allocates for it.
//!
//! Source: llama.cpp `src/llama-model.cpp` (`load_tensors`), `src/llama-arch.cpp` (tensor layers),
//! `ggml/src/ggml-cuda/ggml-cuda.cu` (`ggml_backend_cuda_buffer_type_get_alloc_size`).

use std::ops::Range;

use crate::bytes::Bytes;
use crate::model::{Dtype, Model, TensorClass};

/// Alignment of tensors in a CUDA buffer.
const CUDA_ALIGNMENT: u64 = 128;
/// Quantized tensors are padded to a multiple of this many elements, once behind the last row
/// (`MATRIX_ROW_PADDING`).
const ROW_PADDING: u64 = 512;

/// Families whose loader skips the tensors of the next-token layers (`TENSOR_SKIP`). Other families
/// load them.
const SKIPS_NEXT_TOKEN: [&str; 5] = [
    "glm4moe",
    "bailingmoe2",
    "glm-dsa",
    "deepseek32",
    "exaone-moe",
];

/// The location of a class of tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TensorHome {
    /// The host, always: lookup tables.
    Input,
    /// The device of the output layer.
    Output,
    /// The device of its layer.
    Layer,
    /// The device of its layer, unless experts stay on the host.
    Expert,
    /// Every device, with a copy (RoPE factors).
    Everywhere,
}

#[derive(Clone, Debug)]
struct PlacedClass {
    home: TensorHome,
    tensors: TensorClass,
    on_device: Bytes,
}

/// A model's tensors by location.
#[derive(Clone, Debug)]
pub(crate) struct Weights {
    classes: Vec<PlacedClass>,
    /// Decoder layers (L); next-token layers follow.
    layers: u32,
    /// The embedding if it is the output too; the output device then holds a copy.
    tied: Option<PlacedClass>,
}

/// The layers and experts that stay on the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct OnHost {
    /// The first layers, whole.
    pub(crate) layers: u32,
    /// The experts of the first layers.
    pub(crate) experts: u32,
}

impl Weights {
    /// Classifies the tensors of `model`, a language model of `layers` layers.
    pub(crate) fn new(model: &Model, family: &str, layers: u32) -> Self {
        let mut classes: Vec<PlacedClass> = Vec::new();
        let skips = SKIPS_NEXT_TOKEN.contains(&family);

        for tensors in &model.inventory.classes {
            let home = home(&tensors.pattern);
            let mut tensors = tensors.clone();
            if skips && matches!(home, TensorHome::Layer | TensorHome::Expert) {
                tensors.layers.retain_mut(|run| {
                    run.last = run.last.min(layers.saturating_sub(1));
                    run.first <= run.last && run.first < layers
                });
                tensors.count = tensors.layers.iter().fold(0, |count, run| {
                    let length = u64::from(run.last - run.first) + 1;
                    count.saturating_add(length.saturating_mul(run.each))
                });
            }

            classes.push(PlacedClass {
                home,
                on_device: on_device(&tensors),
                tensors,
            });
        }

        let find_class = |name: &str| classes.iter().find(|class| &*class.tensors.pattern == name);

        let tied = match find_class("output.weight") {
            Some(_) => None,
            None => find_class("token_embd.weight").cloned(),
        };

        Self {
            classes,
            layers,
            tied,
        }
    }

    /// Bytes of weights on the device of the stage `layers`.
    ///
    /// With `output`, the device holds the output layer and the tensors after the last decoder
    /// layer.
    pub(crate) fn on_stage(&self, layers: &Range<u32>, output: bool, host: OnHost) -> Bytes {
        let end = if output {
            u32::MAX
        } else {
            layers.end.min(self.layers)
        };

        let whole = layers.start.max(host.layers)..end;
        let experts = whole.start.max(host.experts)..end;

        let class_bytes = |class: &PlacedClass| {
            let count = match class.home {
                TensorHome::Output if output => class.tensors.count,
                TensorHome::Input | TensorHome::Output => 0,
                TensorHome::Layer => class.tensors.count_in(&whole),
                TensorHome::Expert => class.tensors.count_in(&experts),
                TensorHome::Everywhere => 1,
            };
            class.on_device * count
        };

        let tied = self
            .tied
            .as_ref()
            .filter(|_| output)
            .map_or(Bytes::ZERO, |class| class.on_device);

        self.classes.iter().map(class_bytes).sum::<Bytes>() + tied
    }

    /// Bytes of weights on the host; `output` is whether the output layer is on a device.
    pub(crate) fn on_host(&self, host: OnHost, output: bool) -> Bytes {
        let class_bytes = |class: &PlacedClass| {
            let count = match class.home {
                TensorHome::Output if output => 0,
                TensorHome::Input | TensorHome::Output => class.tensors.count,
                TensorHome::Layer => class.tensors.count_in(&(0..host.layers)),
                TensorHome::Expert => class.tensors.count_in(&(0..host.layers.max(host.experts))),
                TensorHome::Everywhere => 0,
            };
            class.tensors.bytes_each * count
        };

        self.classes.iter().map(class_bytes).sum()
    }

    /// The largest tensor on the host that a device copies to multiply large batches.
    pub(crate) fn largest_on_host(&self, host: OnHost, output: bool) -> Bytes {
        let copied_bytes = |class: &PlacedClass| {
            let on_host = match class.home {
                TensorHome::Layer => class.tensors.count_in(&(0..host.layers)),
                TensorHome::Expert => class.tensors.count_in(&(0..host.layers.max(host.experts))),
                TensorHome::Output if !output => 1,
                _ => 0,
            };

            if on_host > 0 {
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
            .map(copied_bytes)
            .max()
            .unwrap_or(Bytes::ZERO)
            .max(tied)
    }

    /// Whether the file has expert tensors.
    pub(crate) fn has_experts(&self) -> bool {
        self.classes
            .iter()
            .any(|class| class.home == TensorHome::Expert)
    }

    /// The first tensor class whose storage type ggml does not know.
    pub(crate) fn unknown_type(&self) -> Option<&TensorClass> {
        self.classes
            .iter()
            .map(|class| &class.tensors)
            .find(|tensors| tensors.dtype().is_none())
    }

    /// Whether any weight has this dtype.
    pub(crate) fn has(&self, dtype: Dtype) -> bool {
        self.classes
            .iter()
            .any(|class| class.tensors.dtype() == Some(dtype))
    }
}

/// The location of a tensor by name, as in `LLM_TENSOR_INFOS`.
fn home(pattern: &str) -> TensorHome {
    let stem = pattern.rsplit_once('.').map_or(pattern, |(stem, _)| stem);
    match stem {
        "token_embd"
        | "token_embd_norm"
        | "token_types"
        | "position_embd"
        | "per_layer_token_embd" => TensorHome::Input,
        "rope_freqs" | "rope_factors_long" | "rope_factors_short" => TensorHome::Everywhere,
        _ if is_expert(stem) => TensorHome::Expert,
        _ if pattern.contains(".*.") => TensorHome::Layer,
        _ => TensorHome::Output,
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

/// Bytes that CUDA allocates for one tensor.
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
