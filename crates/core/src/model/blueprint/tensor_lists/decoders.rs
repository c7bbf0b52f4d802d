//! Lists of the tensors of LFM2 and of decoders that MLX has quantized.

use serde_json::Value;

use super::super::sizes::{layers, size};
use super::super::{ExpectedTensor, Role, TYPES};
use super::{TensorList, Tensors, decoder, product};

/// Lists the tensors of LFM2: convolutions in some layers, attention in the others.
///
/// Source: transformers `models/lfm2/modeling_lfm2.py`.
pub(super) fn lfm2(config: &Value) -> Option<Vec<TensorList>> {
    let (hidden, heads) = (
        size(config, "hidden_size")?,
        size(config, "num_attention_heads")?,
    );
    let (kv_heads, vocabulary) = (
        size(config, "num_key_value_heads")?,
        size(config, "vocab_size")?,
    );
    let (kernel, width) = (size(config, "conv_L_cache")?, lfm2_width(config)?);
    let layers = layers(config, "num_hidden_layers")?;
    let head_dim = hidden.checked_div(heads)?;

    if config.get("conv_bias").and_then(Value::as_bool) != Some(false) {
        return None;
    }

    let mut tensors = Tensors::default();
    tensors.weight("model.embed_tokens", &[vocabulary, hidden]);
    tensors.weight("model.embedding_norm", &[hidden]);

    for number in 0..layers {
        let layer = format!("model.layers.{number}");
        tensors.weight(&format!("{layer}.operator_norm"), &[hidden]);
        tensors.weight(&format!("{layer}.ffn_norm"), &[hidden]);

        if has_attention(config, number)? {
            let keys = product(&[kv_heads, head_dim])?;
            tensors.weight(&format!("{layer}.self_attn.q_proj"), &[hidden, hidden]);
            tensors.weight(&format!("{layer}.self_attn.k_proj"), &[keys, hidden]);
            tensors.weight(&format!("{layer}.self_attn.v_proj"), &[keys, hidden]);
            tensors.weight(&format!("{layer}.self_attn.out_proj"), &[hidden, hidden]);
            tensors.weight(&format!("{layer}.self_attn.q_layernorm"), &[head_dim]);
            tensors.weight(&format!("{layer}.self_attn.k_layernorm"), &[head_dim]);
        } else {
            tensors.weight(&format!("{layer}.conv.conv"), &[hidden, 1, kernel]);
            tensors.weight(&format!("{layer}.conv.in_proj"), &[hidden * 3, hidden]);
            tensors.weight(&format!("{layer}.conv.out_proj"), &[hidden, hidden]);
        }

        tensors.weight(&format!("{layer}.feed_forward.w1"), &[width, hidden]);
        tensors.weight(&format!("{layer}.feed_forward.w2"), &[hidden, width]);
        tensors.weight(&format!("{layer}.feed_forward.w3"), &[width, hidden]);
    }

    let mut with_head = tensors.clone();
    with_head.weight("lm_head", &[vocabulary, hidden]);

    Some(vec![tensors.0, with_head.0])
}

/// Returns the width of LFM2's feed-forward blocks: two thirds of the stated one, rounded up.
fn lfm2_width(config: &Value) -> Option<u64> {
    let stated = ["block_ff_dim", "intermediate_size"]
        .into_iter()
        .find_map(|key| size(config, key))?;
    if config
        .get("block_auto_adjust_ff_dim")
        .and_then(Value::as_bool)
        == Some(false)
    {
        return Some(stated);
    }
    // Every published model has the factor 1.0, so no other factor could be compared with a header.
    let factor = config.get("block_ffn_dim_multiplier").map(Value::as_f64);

    let is_one = factor.is_none_or(|factor| factor == Some(1.0));
    is_one
        .then_some((stated * 2 / 3).checked_next_multiple_of(size(config, "block_multiple_of")?))?
}

/// Returns whether the layer `number` of an LFM2 has attention.
fn has_attention(config: &Value, number: u64) -> Option<bool> {
    if let Some(types) = config.get("layer_types").filter(|value| !value.is_null()) {
        return match types.get(usize::try_from(number).ok()?)?.as_str()? {
            "full_attention" => Some(true),
            "conv" => Some(false),
            _ => None,
        };
    }

    let indices = config.get("full_attn_idxs")?.as_array()?;
    Some(indices.iter().any(|index| index.as_u64() == Some(number)))
}

/// Lists the tensors of a known decoder after `mlx_lm.convert -q`.
///
/// Each matrix becomes three tensors.
pub(super) fn mlx(config: &Value) -> Option<Vec<TensorList>> {
    let packing = MlxPacking::from_config(config)?;
    let named = config.get("model_type")?.as_str()?;
    let model_type = TYPES.iter().copied().find(|known| *known == named)?;

    [false, true]
        .into_iter()
        .map(|has_head| {
            let plain = decoder(config, model_type, "model.", has_head)?;
            packing.apply(plain)
        })
        .collect()
}

/// How MLX packs the rows of a matrix (`mlx.nn.QuantizedLinear`, `mlx.nn.QuantizedEmbedding`).
struct MlxPacking {
    bits: u64,
    /// Number of weights in a row that share a scale and a bias.
    group: u64,
}

impl MlxPacking {
    /// Returns `None` for an unknown quantization, and if it differs between modules.
    fn from_config(config: &Value) -> Option<Self> {
        let method = config.get("quantization")?;

        // Since 2024, `mlx_lm` writes the same object to both keys.
        if config
            .get("quantization_config")
            .is_some_and(|other| other != method)
        {
            return None;
        }

        for (key, value) in method.as_object()? {
            let is_known = match key.as_str() {
                "bits" | "group_size" => true,
                "mode" => value == "affine",
                _ => false,
            };
            is_known.then_some(())?;
        }

        let (bits, group) = (size(method, "bits")?, size(method, "group_size")?);
        [2, 3, 4, 5, 6, 8]
            .contains(&bits)
            .then_some(Self { bits, group })
    }

    /// Returns `plain` with each matrix as packed words, scales and biases.
    fn apply(&self, plain: TensorList) -> Option<TensorList> {
        let mut packed = Tensors::default();
        for (name, tensor) in plain {
            let module = name.strip_suffix(".weight");
            match *tensor.shape {
                // A norm, or the bias of a projection.
                [_] => packed.add(name, &tensor.shape),
                [rows, columns] if module.is_some() => {
                    let bits = columns * self.bits;
                    if !columns.is_multiple_of(self.group) || !bits.is_multiple_of(32) {
                        return None;
                    }
                    let words = ExpectedTensor {
                        shape: vec![rows, bits / 32],
                        role: Role::Words,
                    };
                    packed.0.push((name.clone(), words));
                    for part in ["scales", "biases"] {
                        packed.add(format!("{}.{part}", module?), &[rows, columns / self.group]);
                    }
                }
                _ => return None,
            }
        }

        Some(packed.0)
    }
}
