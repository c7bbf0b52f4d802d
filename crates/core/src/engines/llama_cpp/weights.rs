//! The device of each tensor, and the bytes that CUDA allocates for it.
//!
//! Source: llama.cpp `src/llama-model.cpp` (`load_tensors`), `src/llama-arch.cpp` (tensor layers),
//! `ggml/src/ggml-cuda/ggml-cuda.cu` (`ggml_backend_cuda_buffer_type_get_alloc_size`).

use std::collections::BTreeMap;
use std::ops::Range;

use super::next_token::NextTokenLayers;
use crate::bytes::Bytes;
use crate::model::{Dtype, Model, TensorClass};

/// Alignment of tensors in a CUDA buffer.
const CUDA_ALIGNMENT: u64 = 128;
/// Alignment of tensors in host memory (`TENSOR_ALIGNMENT`).
const HOST_ALIGNMENT: u64 = 32;
/// Quantized tensors are padded to a multiple of this many elements, once behind the last row
/// (`MATRIX_ROW_PADDING`).
const ROW_PADDING: u64 = 512;

/// Families whose loader skips the tensors of the next-token layers in every build
/// (`TENSOR_SKIP`). Others load them in builds before 12000.
const SKIPS_NEXT_TOKEN: [&str; 5] = [
    "glm4moe",
    "bailingmoe2",
    "glm-dsa",
    "deepseek32",
    "exaone-moe",
];

/// Families without an output layer: encoders, and BitNet, which multiplies by the embedding
/// itself (no `LLM_TENSOR_OUTPUT` in `src/models/NAME.cpp`).
const WITHOUT_OUTPUT: [&str; 9] = [
    "bert",
    "bitnet",
    "eurobert",
    "jina-bert-v2",
    "jina-bert-v3",
    "modern-bert",
    "neo-bert",
    "nomic-bert",
    "nomic-bert-moe",
];

/// The location of a class of tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TensorHome {
    /// The host, always: lookup tables.
    Input,
    /// The device of the first layer.
    First,
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

/// The largest dimensions and bytes of a kind of tensor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct StemSize {
    pub(super) first: u64,
    pub(super) second: u64,
    pub(super) bytes: Bytes,
}

/// A model's tensors by location.
#[derive(Clone, Debug)]
pub(crate) struct Weights {
    classes: Vec<PlacedClass>,
    /// Decoder layers (L); next-token layers follow.
    layers: u32,
    /// The embedding if it is the output too; the output device then holds a copy.
    tied: Option<PlacedClass>,
    /// Indices of the classes `blk.N.{stem}.weight`, by stem.
    stems: BTreeMap<Box<str>, Vec<usize>>,
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
    ///
    /// `next_token` says which layers behind them the build loads.
    pub(crate) fn new(
        model: &Model,
        family: &str,
        layers: u32,
        next_token: NextTokenLayers,
    ) -> Self {
        let mut classes: Vec<PlacedClass> = Vec::new();
        let skips = next_token.are_skipped(SKIPS_NEXT_TOKEN.contains(&family));

        for tensors in &model.inventory.classes {
            let home = match tensors.dtype() {
                Some(dtype) if is_multiplied_on_host(dtype) => TensorHome::Input,
                _ => home(&tensors.pattern),
            };
            let mut tensors = tensors.clone();
            let is_in_layer = tensors.pattern.contains(".*.");
            if skips && is_in_layer && !loads_anyway(family, &tensors.pattern) {
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
            None if WITHOUT_OUTPUT.contains(&family) => None,
            None => find_class("token_embd.weight")
                .filter(|class| !class.tensors.dtype().is_some_and(is_multiplied_on_host))
                .cloned(),
        };

        let stems = stems(&classes);
        Self {
            classes,
            layers,
            tied,
            stems,
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
        let has_layers = whole.start < layers.end.min(self.layers);

        let class_bytes = |class: &PlacedClass| {
            let count = match class.home {
                TensorHome::Output if output => class.tensors.count,
                TensorHome::First if whole.start == 0 && has_layers => class.tensors.count,
                TensorHome::Input | TensorHome::First | TensorHome::Output => 0,
                TensorHome::Layer => class.tensors.count_in(&whole),
                TensorHome::Expert => class.tensors.count_in(&experts),
                TensorHome::Everywhere => u64::from(has_layers),
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
                TensorHome::First if host.layers == 0 => 0,
                TensorHome::Input | TensorHome::First | TensorHome::Output => class.tensors.count,
                TensorHome::Layer => class.tensors.count_in(&(0..host.layers)),
                TensorHome::Expert => class.tensors.count_in(&(0..host.layers.max(host.experts))),
                TensorHome::Everywhere => u64::from(host.layers > 0),
            };
            class.tensors.bytes_each.round_up(HOST_ALIGNMENT) * count
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

    /// The largest tensor `blk.N.{stem}.weight` of the layers in `range`; zeros without one.
    pub(super) fn stem_size(&self, stem: &str, range: &Range<u32>) -> StemSize {
        let mut size = StemSize::default();
        for class in self.stem_classes(stem, range) {
            let side = |index: usize| class.tensors.shape.get(index).copied().unwrap_or(0);
            size.first = size.first.max(side(0));
            size.second = size.second.max(side(1));
            size.bytes = size.bytes.max(class.on_device);
        }

        size
    }

    /// Whether any layer in `range` has the tensor `blk.N.{stem}.weight`.
    pub(super) fn has_stem(&self, stem: &str, range: &Range<u32>) -> bool {
        self.stem_classes(stem, range).next().is_some()
    }

    fn stem_classes(&self, stem: &str, range: &Range<u32>) -> impl Iterator<Item = &PlacedClass> {
        let indices = self.stems.get(stem).map_or(&[][..], Vec::as_slice);
        indices
            .iter()
            .filter_map(|index| self.classes.get(*index))
            .filter(|class| class.tensors.count_in(range) > 0)
    }

    /// Elements of the embeddings that all layers get on their own; 0 without any.
    ///
    /// A projection of the input makes them, with or without a table in addition.
    pub(super) fn per_layer_width(&self) -> u64 {
        let projected = self
            .find("per_layer_model_proj.weight")
            .and_then(|class| class.tensors.shape.get(1).copied());
        projected.unwrap_or(0)
    }

    fn find(&self, name: &str) -> Option<&PlacedClass> {
        self.classes
            .iter()
            .find(|class| &*class.tensors.pattern == name)
    }

    /// The first dimension of the tensor `name`, or 0.
    pub(super) fn row(&self, name: &str) -> u64 {
        self.find(name)
            .and_then(|class| class.tensors.shape.first().copied())
            .unwrap_or(0)
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

/// Indices of the classes of layers' weights, by stem.
fn stems(classes: &[PlacedClass]) -> BTreeMap<Box<str>, Vec<usize>> {
    let mut stems: BTreeMap<Box<str>, Vec<usize>> = BTreeMap::new();
    for (index, class) in classes.iter().enumerate() {
        let name = class.tensors.pattern.rsplit_once(".*.");
        if let Some(stem) = name.and_then(|(_, name)| name.strip_suffix(".weight")) {
            stems.entry(stem.into()).or_default().push(index);
        }
    }

    stems
}

/// The location of a tensor by name, as in `LLM_TENSOR_INFOS`.
fn home(pattern: &str) -> TensorHome {
    let stem = pattern.rsplit_once('.').map_or(pattern, |(stem, _)| stem);
    match stem {
        "token_embd" | "token_types" | "position_embd" | "per_layer_token_embd" | "value_embd" => {
            TensorHome::Input
        }
        "token_embd_norm"
        | "per_layer_model_proj"
        | "per_layer_proj_norm"
        | "hrm.z_l_init"
        | "hrm" => TensorHome::First,
        "rope_freqs" | "rope_factors_long" | "rope_factors_short" => TensorHome::Everywhere,
        _ if is_expert(stem) => TensorHome::Expert,
        _ if pattern.contains(".*.") => TensorHome::Layer,
        _ => TensorHome::Output,
    }
}

/// Whether CUDA cannot multiply by this type, so that its tensors stay on the host
/// (`ggml_backend_cuda_device_supports_op`).
fn is_multiplied_on_host(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::TQ1_0 | Dtype::TQ2_0 | Dtype::F8E4M3)
}

/// Whether a family's loader loads a tensor of skipped next-token layers nonetheless: those that
/// it creates without `mtp_flags`.
fn loads_anyway(family: &str, pattern: &str) -> bool {
    let name = pattern.rsplit_once(".*.").map_or(pattern, |(_, name)| name);
    let is_head = name.starts_with("nextn.embed_tokens") || name.starts_with("nextn.shared_head_h");
    let is_feed_forward = name.starts_with("exp_probs_b")
        || (name.starts_with("ffn_") && !name.starts_with("ffn_norm"));

    match family {
        "cohere2moe" => is_head,
        "deepseek32" | "glm-dsa" => name.starts_with("exp_probs_b"),
        "hy_v3" | "step35" => is_head || is_feed_forward || name.starts_with("nextn.shared_head"),
        _ => false,
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
    match (tensors.dtype(), tensors.shape.first()) {
        (Some(dtype), Some(row)) => padded(tensors.bytes_each, dtype, *row),
        _ => tensors.bytes_each.round_up(CUDA_ALIGNMENT),
    }
}

/// Bytes that CUDA allocates for a tensor of `bytes` with rows of `row` elements.
pub(super) fn padded(mut bytes: Bytes, dtype: Dtype, row: u64) -> Bytes {
    let (block, block_bytes) = dtype.block();
    let over = row % ROW_PADDING;
    if block > 1 && over != 0 {
        bytes += Bytes::new((ROW_PADDING - over).div_ceil(block)) * block_bytes;
    }

    bytes.round_up(CUDA_ALIGNMENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_next_token_tensors_follow_loader() {
        for (family, pattern, loads) in [
            ("hy_v3", "blk.*.ffn_up_exps.weight", true),
            ("hy_v3", "blk.*.ffn_norm.weight", false),
            ("hy_v3", "blk.*.attn_q.weight", false),
            ("deepseek32", "blk.*.exp_probs_b.bias", true),
            ("deepseek32", "blk.*.nextn.embed_tokens.weight", false),
            ("glm4moe", "blk.*.ffn_up_exps.weight", false),
        ] {
            assert_eq!(loads_anyway(family, pattern), loads, "{family} {pattern}");
        }
    }

    #[test]
    fn norms_of_input_follow_first_layer() {
        assert_eq!(home("token_embd_norm.weight"), TensorHome::First);
        assert_eq!(home("token_embd.weight"), TensorHome::Input);
        assert_eq!(home("per_layer_model_proj.weight"), TensorHome::First);
        assert_eq!(home("output_norm.weight"), TensorHome::Output);
    }
}
