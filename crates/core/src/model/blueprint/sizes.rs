//! The sizes in a configuration that determine shapes.
//!
//! They are bounded so that products of two do not overflow.

use serde_json::Value;

use super::MAX_LAYERS;

/// Maximum size in a plausible configuration. The product of two such sizes has 48 bits.
const MAX_SIZE: u64 = 1 << 24;

/// The sizes of a decoder.
#[derive(Clone, Debug)]
pub(super) struct Sizes {
    pub(super) hidden: u64,
    pub(super) vocabulary: u64,
    pub(super) layers: u64,
    pub(super) intermediate: u64,
    pub(super) heads: u64,
    pub(super) kv_heads: u64,
    pub(super) head_dim: u64,
    pub(super) experts: Option<ExpertSizes>,
    pub(super) latent: Option<LatentSizes>,
    /// Whether queries, keys and values have a bias.
    pub(super) qkv_bias: bool,
    /// Whether the output projection has a bias.
    pub(super) output_bias: bool,
    /// Whether the feed-forward projections have a bias.
    pub(super) mlp_bias: bool,
}

/// The sizes of a mixture of experts.
#[derive(Clone, Copy, Debug)]
pub(super) struct ExpertSizes {
    pub(super) count: u64,
    pub(super) width: u64,
    /// Total width of the shared experts.
    pub(super) shared_width: u64,
}

/// The sizes of latent attention.
#[derive(Clone, Copy, Debug)]
pub(super) struct LatentSizes {
    pub(super) rank: u64,
    pub(super) query_rank: Option<u64>,
    pub(super) nope: u64,
    pub(super) rope: u64,
    pub(super) value: u64,
    pub(super) indexer: Option<IndexerSizes>,
}

/// The sizes of the sparse attention's indexer.
#[derive(Clone, Copy, Debug)]
pub(super) struct IndexerSizes {
    pub(super) heads: u64,
    pub(super) head_dim: u64,
}

impl Sizes {
    pub(super) fn from_config(model_type: &str, config: &Value) -> Option<Self> {
        let hidden = size(config, "hidden_size")?;
        let heads = size(config, "num_attention_heads")?;
        let layers = layers(config, "num_hidden_layers")?;
        let attention_bias = flag(config, "attention_bias").unwrap_or(false);

        let (qkv_bias, output_bias) = match model_type {
            "qwen2" => (true, false),
            "stablelm" => (flag(config, "use_qkv_bias").unwrap_or(false), false),
            "starcoder2" => {
                let use_bias = flag(config, "use_bias").unwrap_or(true);
                (use_bias, use_bias)
            }
            "glm4" | "glm4_moe" | "mimo" => (attention_bias, false),
            _ => (attention_bias, attention_bias),
        };

        let latent = match size(config, "kv_lora_rank") {
            Some(rank) => Some(LatentSizes::from_config(rank, config)?),
            None => None,
        };

        let intermediate = size(config, "intermediate_size")?;
        let count = ["num_experts", "n_routed_experts", "num_local_experts"]
            .iter()
            .find_map(|key| size(config, key));
        let width = size(config, "moe_intermediate_size").unwrap_or(intermediate);
        let shared_width = width * size(config, "n_shared_experts").unwrap_or(1);

        Some(Self {
            hidden,
            vocabulary: size(config, "vocab_size")?,
            layers,
            intermediate,
            heads,
            kv_heads: size(config, "num_key_value_heads").unwrap_or(heads),
            // An unstated head size is nearly always hidden / heads. If not, the file lengths
            // differ.
            head_dim: size(config, "head_dim").or_else(|| hidden.checked_div(heads))?,
            experts: count.map(|count| ExpertSizes {
                count,
                width,
                shared_width,
            }),
            latent,
            qkv_bias,
            output_bias,
            mlp_bias: flag(config, "mlp_bias").unwrap_or(model_type == "starcoder2" && qkv_bias),
        })
    }
}

impl LatentSizes {
    fn from_config(rank: u64, config: &Value) -> Option<Self> {
        let heads = size(config, "index_n_heads");
        let head_dim = size(config, "index_head_dim");

        Some(Self {
            rank,
            query_rank: size(config, "q_lora_rank"),
            nope: size(config, "qk_nope_head_dim")?,
            rope: size(config, "qk_rope_head_dim")?,
            value: size(config, "v_head_dim")?,
            indexer: heads
                .zip(head_dim)
                .map(|(heads, head_dim)| IndexerSizes { heads, head_dim }),
        })
    }
}

fn flag(config: &Value, key: &str) -> Option<bool> {
    config.get(key).and_then(Value::as_bool)
}

/// Reads rows and columns of one block of an FP8 quantization.
pub(super) fn block(method: &Value) -> Option<(u64, u64)> {
    let [rows, columns] = method.get("weight_block_size")?.as_array()?.as_slice() else {
        return None;
    };
    Some((bounded(rows)?, bounded(columns)?))
}

/// Reads a number of layers, within the plausible maximum.
pub(super) fn layers(config: &Value, key: &str) -> Option<u64> {
    size(config, key).filter(|layers| *layers <= MAX_LAYERS)
}

/// Reads a size, within the plausible maximum.
pub(super) fn size(config: &Value, key: &str) -> Option<u64> {
    config.get(key).and_then(bounded)
}

/// Reads a size, or `default` if it is absent. Returns `None` for an invalid value.
pub(super) fn size_or(config: &Value, key: &str, default: u64) -> Option<u64> {
    match config.get(key) {
        None | Some(Value::Null) => Some(default),
        Some(_) => size(config, key),
    }
}

/// Reads a number of layers, or `default` if it is absent.
pub(super) fn layers_or(config: &Value, key: &str, default: u64) -> Option<u64> {
    size_or(config, key, default).filter(|layers| *layers <= MAX_LAYERS)
}

/// Reads one size for each of several layers, or `default` if they are absent.
pub(super) fn sizes_or(config: &Value, key: &str, default: &[u64]) -> Option<Vec<u64>> {
    let stated = match config.get(key) {
        None | Some(Value::Null) => return Some(default.to_vec()),
        Some(stated) => stated.as_array()?,
    };
    let is_plausible = stated.len() as u64 <= MAX_LAYERS;
    is_plausible.then(|| stated.iter().map(bounded).collect())?
}

/// Converts a size, within the plausible maximum.
fn bounded(value: &Value) -> Option<u64> {
    value.as_u64().filter(|size| (1..=MAX_SIZE).contains(size))
}
