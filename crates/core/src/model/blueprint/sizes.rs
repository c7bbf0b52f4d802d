//! The sizes in a configuration that shapes are made of, each bounded so that no product of them
//! can leave 64 bits.

use serde_json::Value;

use super::MOST_LAYERS;

/// Beyond this no size of a model can be meant: four of them multiplied still have room in 64 bits
/// by far.
const LARGEST: u64 = 1 << 24;

/// Sizes of a decoder.
#[derive(Clone, Debug)]
pub(super) struct Sizes {
    pub(super) hidden: u64,
    pub(super) vocabulary: u64,
    pub(super) layers: u64,
    pub(super) intermediate: u64,
    pub(super) heads: u64,
    pub(super) kv_heads: u64,
    pub(super) head_dim: u64,
    pub(super) experts: Option<Experts>,
    pub(super) latent: Option<Latent>,
    /// Whether queries, keys and values have a bias, and whether the output projection has one.
    pub(super) bias: (bool, bool),
    /// Whether the feed-forward projections have a bias.
    pub(super) mlp_bias: bool,
}

/// Sizes of a mixture of experts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Experts {
    pub(super) count: u64,
    pub(super) width: u64,
    /// All shared experts as one.
    pub(super) shared_width: u64,
}

/// Sizes of latent attention.
#[derive(Clone, Copy, Debug)]
pub(super) struct Latent {
    pub(super) rank: u64,
    pub(super) query_rank: Option<u64>,
    pub(super) nope: u64,
    pub(super) rope: u64,
    pub(super) value: u64,
    /// Heads and their size of the sparse attention's indexer.
    pub(super) index: Option<(u64, u64)>,
}

impl Sizes {
    pub(super) fn of(model_type: &str, config: &Value) -> Option<Self> {
        let size = |key: &str| size(config, key);
        let flag = |key: &str| config.get(key).and_then(Value::as_bool);
        let (hidden, heads) = (size("hidden_size")?, size("num_attention_heads")?);
        let layers = layers(config, "num_hidden_layers")?;
        let attention_bias = flag("attention_bias").unwrap_or(false);

        let bias = match model_type {
            "qwen2" => (true, false),
            "stablelm" => (flag("use_qkv_bias").unwrap_or(false), false),
            "starcoder2" => (
                flag("use_bias").unwrap_or(true),
                flag("use_bias").unwrap_or(true),
            ),
            "glm4" | "glm4_moe" | "mimo" => (attention_bias, false),
            _ => (attention_bias, attention_bias),
        };

        let latent = match size("kv_lora_rank") {
            Some(rank) => Some(Latent {
                rank,
                query_rank: size("q_lora_rank"),
                nope: size("qk_nope_head_dim")?,
                rope: size("qk_rope_head_dim")?,
                value: size("v_head_dim")?,
                index: size("index_n_heads").zip(size("index_head_dim")),
            }),
            None => None,
        };

        let intermediate = size("intermediate_size")?;
        let count = ["num_experts", "n_routed_experts", "num_local_experts"]
            .iter()
            .find_map(|key| size(key));
        let width = size("moe_intermediate_size").unwrap_or(intermediate);
        let shared_width = width * size("n_shared_experts").unwrap_or(1);

        Some(Self {
            hidden,
            vocabulary: size("vocab_size")?,
            layers,
            intermediate,
            heads,
            kv_heads: size("num_key_value_heads").unwrap_or(heads),
            // Where it is not stated it is nearly always this; where it is not, the lengths will
            // tell.
            head_dim: size("head_dim").or_else(|| hidden.checked_div(heads))?,
            experts: count.map(|count| Experts {
                count,
                width,
                shared_width,
            }),
            latent,
            bias,
            mlp_bias: flag("mlp_bias").unwrap_or(model_type == "starcoder2" && bias.0),
        })
    }
}

/// Rows and columns of one block of an FP8 quantisation.
pub(super) fn block(method: &Value) -> Option<(u64, u64)> {
    let [rows, columns] = method.get("weight_block_size")?.as_array()?.as_slice() else {
        return None;
    };
    Some((bounded(rows)?, bounded(columns)?))
}

/// A number of layers within what any model has.
pub(super) fn layers(config: &Value, key: &str) -> Option<u64> {
    size(config, key).filter(|layers| *layers <= MOST_LAYERS)
}

/// A size within what any model has.
pub(super) fn size(config: &Value, key: &str) -> Option<u64> {
    config.get(key).and_then(bounded)
}

/// A size, or `default` where none is stated. `None` where what is stated is no size.
pub(super) fn size_or(config: &Value, key: &str, default: u64) -> Option<u64> {
    match config.get(key) {
        None | Some(Value::Null) => Some(default),
        Some(_) => size(config, key),
    }
}

/// A number of layers, or `default` where none is stated.
pub(super) fn layers_or(config: &Value, key: &str, default: u64) -> Option<u64> {
    size_or(config, key, default).filter(|layers| *layers <= MOST_LAYERS)
}

/// A size for each of some layers, or `default` where none are stated.
pub(super) fn sizes_or(config: &Value, key: &str, default: &[u64]) -> Option<Vec<u64>> {
    let stated = match config.get(key) {
        None | Some(Value::Null) => return Some(default.to_vec()),
        Some(stated) => stated.as_array()?,
    };
    let is_plausible = stated.len() as u64 <= MOST_LAYERS;
    is_plausible.then(|| stated.iter().map(bounded).collect())?
}

/// A size within what any model has.
fn bounded(value: &Value) -> Option<u64> {
    value.as_u64().filter(|size| (1..=LARGEST).contains(size))
}
