//! Bytes of one tensor on one rank: cast to its compute dtype, divided by its rule, padded by its
//! kernel.

use super::dtype::ComputeDtype;
use super::tensor_parallel::{Classified, Rule, ShardPart, ShardPlace};
use crate::bytes::Bytes;
use crate::model::architecture::{Mixer, Recurrent, VisionTower};
use crate::model::tensors::TensorClass;
use crate::model::{Architecture, Dtype};

/// Quantization of a full-precision checkpoint at load, by the engine's own names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Online {
    /// Thousandths of a byte per weight: 1000 for FP8.
    pub milli_bytes: u64,
    /// Bytes of scale for each output row.
    pub bytes_per_row: u64,
    /// Whether only routed experts are quantized.
    pub experts_only: bool,
}

impl Online {
    /// Parses a method that quantizes at load (vLLM `--quantization`).
    pub fn parse(method: &str) -> Option<Self> {
        let (milli_bytes, bytes_per_row) = match method {
            // NF4 in blocks of 64, whose scales are quantized again to 8 bits
            // (`compress_statistics`).
            "bitsandbytes" => (516, 0),
            "experts_int8" => (1000, 4),
            "fp8" | "fp8_per_tensor" => (1000, 0),
            "fp8_per_block" => (1001, 0),
            "fp8_per_channel"
            | "ptpc_fp8"
            | "int8_per_channel_weight_only"
            | "w8a8_int8"
            | "w8a8_fp8" => (1000, 4),
            "mxfp8" => (1032, 0),
            "nvfp4_per_token" | "nvfp4_online" => (563, 0),
            _ => return None,
        };

        Some(Self {
            milli_bytes,
            bytes_per_row,
            experts_only: method == "experts_int8",
        })
    }
}

/// The widths to which a kernel for FP4 experts rounds up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpertPadding {
    /// The multiple to which the expert width on a rank is padded.
    pub width: u64,
    /// The multiple to which the hidden size is padded.
    pub hidden: u64,
    /// Whether scales are padded like values (Triton's swizzle pads values only).
    pub scales: bool,
}

/// The context of one tensor's bytes: everything except the tensor itself.
#[derive(Clone, Copy, Debug)]
pub struct ShardContext<'a> {
    /// The model.
    pub architecture: &'a Architecture,
    /// The dtype to which unquantized weights are cast.
    pub compute: ComputeDtype,
    /// Quantization at load.
    pub online: Option<Online>,
    /// Padding of MXFP4 experts.
    pub mxfp4: Option<ExpertPadding>,
    /// Rows of the RoPE tables.
    pub rope: RopeRows,
    /// Tensor-parallel degree.
    pub tensor: u64,
    /// Whether each rank holds whole experts.
    pub expert_parallel: bool,
}

/// The rows of an engine's RoPE tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeRows {
    /// The engine computes angles as it needs them, and keeps no table.
    Absent,
    /// A row for each position; for positions with several axes `axes` times as many.
    Kept {
        /// The multiple of rows for positions with several axes.
        axes: u64,
    },
}

impl RopeRows {
    /// Four times the rows for positions with several axes: vLLM before 0.32 and SGLang
    /// (`rotary_embedding/mrope.py`: room for videos).
    pub const FOUR_AXES: Self = Self::Kept { axes: 4 };
}

impl ShardContext<'_> {
    /// Bytes of one tensor of `class` on one rank.
    ///
    /// For a routed expert under expert parallelism, bytes of the whole tensor.
    pub fn bytes(&self, class: &TensorClass, classified: Classified) -> Bytes {
        let tensor = if classified.expert && self.expert_parallel {
            1
        } else {
            self.tensor.max(1)
        };

        if classified.part == ShardPart::GroupIndex && !self.acts_in_order() {
            return Bytes::ZERO;
        }

        if let Some(bytes) = self.padded_mxfp4(class, classified, tensor) {
            return bytes;
        }

        let whole = self.cast(class, classified);
        let scalar = class.elements_each() <= 2 || &*class.pattern == "weight_shape";
        if scalar || tensor == 1 {
            return whole;
        }
        // Every rank holds a whole tower if its heads do not divide.
        let is_uneven = |tower: VisionTower| !tower.heads.is_multiple_of(tensor);

        if classified.place == ShardPlace::Tower && self.architecture.vision.is_some_and(is_uneven)
        {
            return whole;
        }

        match classified.rule {
            Rule::Replicated if self.norm_by_head(class) => {
                let ranks = if class.pattern.contains(".k_norm") {
                    tensor.min(self.kv_heads(class))
                } else {
                    tensor
                };
                whole.div_ceil(ranks)
            }
            Rule::Replicated => whole,
            Rule::Column if classified.part == ShardPart::GroupIndex => whole,
            Rule::Row if Self::belongs_to_output(class, classified) => whole,
            // The caller pads and divides a vocabulary, because it knows its rows.
            Rule::Column | Rule::Row | Rule::Vocabulary => whole.div_ceil(tensor),
            Rule::KeyValue => whole.div_ceil(tensor.min(self.kv_heads(class))),
            Rule::FusedQkv => {
                let (heads, kv_heads) = (self.heads(class), self.kv_heads(class));
                let share = (kv_heads / tensor)
                    .max(1)
                    .saturating_mul(2)
                    .saturating_add(heads.div_ceil(tensor));
                whole.scale(share, kv_heads.saturating_mul(2).saturating_add(heads))
            }
            Rule::MambaMixed => self.mamba_mixed(class, whole, tensor),
        }
    }

    /// Resident bytes of one row of an embedding or head.
    pub fn row_bytes(&self, class: &TensorClass, classified: Classified) -> Bytes {
        let rows = class.shape.first().copied().unwrap_or(1).max(1);
        self.cast(class, classified).div_ceil(rows)
    }

    fn cast(&self, class: &TensorClass, classified: Classified) -> Bytes {
        let elements = class.elements_each();
        let Some(dtype) = class.dtype() else {
            return class.bytes_each;
        };

        if classified.part == ShardPart::Scale {
            return match dtype {
                // vLLM widens the exponent-only scales of block FP8 to 32 bits; those of MXFP4
                // experts stay.
                Dtype::F8E8M0 if !classified.expert => Bytes::new(elements) * 4,
                // NVFP4 block scales are swizzled: rows to 128, columns to 4
                // (`utils/nvfp4_utils.py`).
                Dtype::F8E4M3 if class.shape.len() == 2 => {
                    let padded_side = |axis: usize, step: u64| {
                        padded(class.shape.get(axis).copied().unwrap_or(1), step)
                    };
                    Bytes::new(padded_side(0, 128)) * padded_side(1, 4)
                }
                _ => class.bytes_each,
            };
        }

        if !dtype.is_float() {
            return class.bytes_each;
        }

        if classified.part == ShardPart::Float32 || self.keeps_float32(class, dtype) {
            return Bytes::new(elements) * 4;
        }

        if let Some(online) = self.online
            && class.shape.len() >= 2
            && (classified.expert || !online.experts_only)
            && classified.place == ShardPlace::Layers
            && !matches!(classified.rule, Rule::Replicated | Rule::Vocabulary)
        {
            let rows = class.shape.first().copied().unwrap_or(1);
            return Bytes::new(elements).scale(online.milli_bytes, 1000)
                + Bytes::new(rows) * online.bytes_per_row;
        }

        Bytes::new(elements) * self.compute.bytes()
    }

    /// Whether a tensor stays in 32 bits.
    ///
    /// These are MiniMax M2's routers (`gate` has `params_dtype` float32) and DeepSeek-V4's
    /// hyper-connections.
    fn keeps_float32(&self, class: &TensorClass, dtype: Dtype) -> bool {
        let router = class.pattern.ends_with("block_sparse_moe.gate.weight");
        (router && self.architecture.model_type.starts_with("minimax"))
            || (dtype == Dtype::F32 && class.pattern.contains("hc_"))
    }

    /// Whether a norm is divided by head.
    ///
    /// MiniMax normalizes queries and keys over all heads at once, each rank its own heads
    /// (`MiniMaxText01RMSNormTP`).
    fn norm_by_head(&self, class: &TensorClass) -> bool {
        self.architecture.model_type.starts_with("minimax")
            && (class.pattern.ends_with(".q_norm.weight")
                || class.pattern.ends_with(".k_norm.weight"))
    }

    fn acts_in_order(&self) -> bool {
        self.architecture
            .quantization
            .as_ref()
            .is_some_and(|quantization| quantization.desc_act)
    }

    /// Whether a row layer's tensor belongs to its output side: biases, and scales of one column or
    /// dimension.
    fn belongs_to_output(class: &TensorClass, classified: Classified) -> bool {
        match classified.part {
            ShardPart::Bias => true,
            ShardPart::Scale => {
                class.shape.len() == 1 || (class.shape.len() == 2 && class.shape.last() == Some(&1))
            }
            _ => false,
        }
    }

    fn layer_mixer(&self, class: &TensorClass) -> Option<&Mixer> {
        let layer = class.layers.first()?.first;
        let layer = self.architecture.layers.get(usize::try_from(layer).ok()?)?;
        match (&layer.mixer, &layer.second_mixer) {
            (Mixer::Recurrent(_), Some(beside @ Mixer::Attention(_))) => Some(beside),
            (mixer, _) => Some(mixer),
        }
    }

    fn kv_heads(&self, class: &TensorClass) -> u64 {
        match self.layer_mixer(class) {
            Some(Mixer::Attention(attention)) => attention.kv_heads.max(1),
            // For unknown heads, one head is never divided.
            _ => 1,
        }
    }

    fn heads(&self, class: &TensorClass) -> u64 {
        match self.layer_mixer(class) {
            Some(Mixer::Attention(attention)) => attention.heads.max(1),
            _ => self.architecture.heads.max(1),
        }
    }

    /// Bytes of a Mamba-2 tensor on one rank (`mamba_mixer2.py`).
    ///
    /// Heads and channels are divided, groups rounded up to a multiple of the ranks.
    fn mamba_mixed(&self, class: &TensorClass, whole: Bytes, tensor: u64) -> Bytes {
        let layer = class.layers.first().and_then(|run| {
            self.architecture
                .layers
                .get(usize::try_from(run.first).ok()?)
        });
        let state = layer
            .into_iter()
            .flat_map(|layer| [Some(&layer.mixer), layer.second_mixer.as_ref()])
            .flatten();
        let mut mamba = state.filter_map(|mixer| match mixer {
            Mixer::Recurrent(Recurrent::Mamba2 {
                inner,
                heads,
                state,
                groups,
                ..
            }) => Some((*inner, *heads, *state, *groups)),
            _ => None,
        });

        let Some((inner, heads, state, groups)) = mamba.next() else {
            return whole.div_ceil(tensor);
        };

        let projection = class.pattern.contains("in_proj");
        let row_count = |groups: u64| {
            let mixed = groups
                .saturating_mul(state)
                .saturating_mul(2)
                .saturating_add(inner);
            if projection {
                mixed.saturating_add(inner).saturating_add(heads)
            } else {
                mixed
            }
        };

        whole
            .scale(
                row_count(padded_groups(groups, tensor)),
                row_count(groups).max(1),
            )
            .div_ceil(tensor)
    }

    /// Bytes of MXFP4 experts in the layout of their kernel (`fused_moe/oracle/mxfp4.py`).
    fn padded_mxfp4(
        &self,
        class: &TensorClass,
        classified: Classified,
        tensor: u64,
    ) -> Option<Bytes> {
        let padding = self.mxfp4.filter(|_| classified.expert)?;
        let experts = self.architecture.experts?;
        let (hidden, width) = (
            self.architecture.hidden_size,
            experts.width.div_ceil(tensor),
        );
        let (wide, narrow) = (padded(width, padding.width), padded(hidden, padding.hidden));
        let gate_up = classified.rule == Rule::Column;

        // Whether gate and up are one tensor (gpt-oss) or two (DeepSeek-V4).
        let halves = if class.pattern.contains("gate_up") {
            2
        } else {
            1
        };

        let count = if class.shape.len() >= 3 || class.pattern.ends_with("_bias") {
            experts.count
        } else {
            1
        };

        let elements = Bytes::product([count, halves, wide, narrow]);
        let plain = Bytes::product([count, halves, width, hidden]);

        match classified.part {
            ShardPart::Weight
                if class.dtype() == Some(Dtype::U8) || class.dtype() == Some(Dtype::I8) =>
            {
                Some(elements.div_ceil(2))
            }
            ShardPart::Scale if class.elements_each() > 2 => {
                Some(if padding.scales { elements } else { plain }.div_ceil(32))
            }
            ShardPart::Bias => {
                let side = if gate_up {
                    wide.saturating_mul(halves)
                } else {
                    narrow
                };
                Some(Bytes::product([count, side, self.compute.bytes()]))
            }
            _ => None,
        }
    }
}

/// `size` rounded up to a multiple of `step`, saturating.
fn padded(size: u64, step: u64) -> u64 {
    size.checked_next_multiple_of(step).unwrap_or(u64::MAX)
}

/// Groups of B and C rounded up to a multiple of the ranks (`mamba_utils.py`,
/// `extra_groups_for_head_shards`).
pub const fn padded_groups(groups: u64, tensor: u64) -> u64 {
    if tensor == 0 || groups.is_multiple_of(tensor) {
        groups
    } else {
        groups.saturating_add(tensor - groups % tensor)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::engines::sample;
    use crate::engines::shared::tensor_parallel::classify;
    use crate::model::{Inventory, config};

    fn share(config: &serde_json::Value, name: &str, shape: &[u64], tensor: u64) -> u64 {
        share_of(config, (name, Dtype::BF16, shape), tensor, None)
    }

    fn share_of(
        config: &serde_json::Value,
        (name, dtype, shape): (&str, Dtype, &[u64]),
        tensor: u64,
        online: Option<Online>,
    ) -> u64 {
        let architecture = config::architecture(config, None, &Inventory::default()).unwrap();
        let inventory = sample::inventory(&[("", name, dtype, shape)]);
        let (compute, class) = (ComputeDtype::Bfloat16, &inventory.classes[0]);
        let context = ShardContext {
            architecture: &architecture,
            compute,
            online,
            mxfp4: None,
            rope: RopeRows::FOUR_AXES,
            tensor,
            expert_parallel: false,
        };

        context.bytes(class, classify(class)).get()
    }

    /// Every rank holds a copy of the one group of B and C.
    #[test]
    fn single_mamba_group_is_copied() {
        let config = json!({"architectures": ["GraniteMoeHybridForCausalLM"], "model_type": "granitemoehybrid",
            "hidden_size": 1536, "intermediate_size": 512, "num_hidden_layers": 1, "num_attention_heads": 12,
            "num_key_value_heads": 4, "layer_types": ["mamba"], "mamba_n_heads": 48, "mamba_d_head": 64,
            "mamba_n_groups": 1, "mamba_d_state": 128, "mamba_d_conv": 4, "mamba_expand": 2, "vocab_size": 1024,
            "num_local_experts": 0, "shared_intermediate_size": 4096, "max_position_embeddings": 4096});

        let rows = 2 * 3072 + 2 * 128 + 48;
        let bytes = share(
            &config,
            "model.layers.0.mamba.in_proj.weight",
            &[rows, 1536],
            8,
        );

        assert_eq!(bytes, (2 * 3072 + 48 + 8 * 2 * 128) / 8 * 1536 * 2);
    }

    #[test]
    fn tower_with_uneven_heads_stays_whole() {
        let config_with = |heads: u64| {
            json!({"architectures": ["LlavaForConditionalGeneration"], "model_type": "llava",
                "text_config": {"model_type": "llama", "num_hidden_layers": 1},
                "vision_config": {"num_hidden_layers": 1, "hidden_size": 3200, "num_attention_heads": heads,
                "intermediate_size": 12800, "image_size": 448, "patch_size": 14}})
        };

        let name = "vision_tower.encoder.layers.0.mlp.fc1.weight";
        assert_eq!(
            share(&config_with(25), name, &[12800, 3200], 8),
            12800 * 3200 * 2
        );

        assert_eq!(
            share(&config_with(16), name, &[12800, 3200], 8),
            12800 * 3200 * 2 / 8
        );
    }

    /// Bytes of one weight of a square linear layer of 4096, in hundred-thousandths, scales and
    /// tables included.
    ///
    /// Checkpoints follow their headers; weights quantized at load follow the method.
    #[test]
    fn weight_bytes_follow_method() {
        const SIDE: u64 = 4096;

        type Tensors<'t> = &'t [(&'t str, Dtype, &'t [u64])];
        let stored: [(&str, u64, Tensors<'_>); 8] = [
            (
                "gptq",
                51_953,
                &[
                    ("qweight", Dtype::I32, &[SIDE / 8, SIDE]),
                    ("qzeros", Dtype::I32, &[SIDE / 128, SIDE / 8]),
                    ("scales", Dtype::F16, &[SIDE / 128, SIDE]),
                    ("g_idx", Dtype::I32, &[SIDE]),
                ],
            ),
            (
                "awq",
                51_953,
                &[
                    ("qweight", Dtype::I32, &[SIDE, SIDE / 8]),
                    ("qzeros", Dtype::I32, &[SIDE / 128, SIDE / 8]),
                    ("scales", Dtype::F16, &[SIDE / 128, SIDE]),
                ],
            ),
            (
                "bitsandbytes",
                56_250,
                &[
                    ("weight", Dtype::U8, &[SIDE * SIDE / 2, 1]),
                    ("weight.absmax", Dtype::F32, &[SIDE * SIDE / 64]),
                ],
            ),
            (
                "fp8",
                100_024,
                &[
                    ("weight", Dtype::F8E4M3, &[SIDE, SIDE]),
                    ("weight_scale_inv", Dtype::F32, &[SIDE / 128, SIDE / 128]),
                ],
            ),
            (
                "fbgemm_fp8",
                100_097,
                &[
                    ("weight", Dtype::F8E4M3, &[SIDE, SIDE]),
                    ("weight_scale", Dtype::F32, &[SIDE, 1]),
                ],
            ),
            (
                "compressed-tensors",
                51_562,
                &[
                    ("weight_packed", Dtype::I32, &[SIDE, SIDE / 8]),
                    ("weight_scale", Dtype::BF16, &[SIDE, SIDE / 128]),
                ],
            ),
            (
                "modelopt",
                56_250,
                &[
                    ("weight", Dtype::U8, &[SIDE, SIDE / 2]),
                    ("weight_scale", Dtype::F8E4M3, &[SIDE, SIDE / 16]),
                    ("weight_scale_2", Dtype::F32, &[]),
                ],
            ),
            (
                "mxfp8",
                103_125,
                &[
                    ("weight", Dtype::F8E4M3, &[SIDE, SIDE]),
                    ("weight_scale", Dtype::U8, &[SIDE, SIDE / 32]),
                ],
            ),
        ];

        for (method, expected, tensors) in stored {
            let config = json!({"model_type": "llama", "num_hidden_layers": 1,
                "quantization_config": {"quant_method": method, "bits": 4, "load_in_4bit": true}});
            let all: u64 = tensors
                .iter()
                .map(|(part, dtype, shape)| {
                    let name = format!("model.layers.0.mlp.up_proj.{part}");
                    share_of(&config, (&name, *dtype, shape), 1, None)
                })
                .sum();

            assert_eq!(all * 100_000 / (SIDE * SIDE), expected, "{method}");
        }

        let plain = json!({"model_type": "llama", "num_hidden_layers": 1});
        for (method, expected) in [
            ("fp8", 100_000),
            ("fp8_per_block", 100_024),
            ("fp8_per_channel", 100_097),
            ("int8_per_channel_weight_only", 100_048),
            ("mxfp8", 103_125),
            ("nvfp4_per_token", 56_250),
            ("bitsandbytes", 51_587),
        ] {
            let tensor = (
                "model.layers.0.mlp.up_proj.weight",
                Dtype::BF16,
                &[SIDE, SIDE][..],
            );
            let bytes =
                share_of(&plain, tensor, 1, Online::parse(method)) * 100_000 / (SIDE * SIDE);

            // The figure is never below, and at most a thousandth above.
            assert!(
                (expected..=expected + 100).contains(&bytes),
                "{method}: {bytes}"
            );
        }
    }
}
