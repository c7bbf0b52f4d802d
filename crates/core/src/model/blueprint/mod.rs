//! What a configuration alone says of the tensors: the shape that each name must have, and which
//! names there are.
//!
//! A blueprint is a prediction and nothing more. It is believed only where the file's own lengths
//! and the Hub's totals by type agree with it to the byte (`source::read`); a wrong one costs the
//! reading of the headers and nothing else. So unknown architectures have none, and a default that
//! is not stated is only guessed where a wrong guess must show.
//!
//! Names and shapes are those of transformers' `modeling_*.py` and of the repositories' own files.

mod listed;
mod names;
mod sizes;

use serde_json::Value;

pub use listed::{Listed, whole_models};
use sizes::Sizes;

/// Architectures whose tensors are named by the rules below. Others of the same make may follow
/// once a repository of theirs was compared with its headers.
const TYPES: &[&str] = &[
    "cohere",
    "cohere2",
    "deepseek",
    "deepseek_v2",
    "deepseek_v3",
    "deepseek_v32",
    "gemma",
    "gemma2",
    "gemma3_text",
    "glm4",
    "glm4_moe",
    "glm_moe_dsa",
    "gpt_oss",
    "granite",
    "granitemoe",
    "hunyuan_v1_dense",
    "llama",
    "mimo",
    "minimax_m2",
    "mistral",
    "mixtral",
    "olmo2",
    "phi3",
    "qwen2",
    "qwen3",
    "qwen3_moe",
    "stablelm",
    "starcoder2",
];

/// Layers and experts beyond which a configuration is not taken at its word.
const MOST_LAYERS: u64 = 1024;

/// The tensors that a configuration promises.
#[derive(Clone, Debug)]
pub struct Blueprint {
    model_type: &'static str,
    sizes: Sizes,
    /// Rows and columns of a block that shares one scale, where the weights are quantised to FP8.
    block: Option<(u64, u64)>,
}

/// How a tensor's elements are stored, as far as its name tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// In the model's own type.
    Plain,
    /// Packed to bytes.
    Packed,
    /// Quantised to eight-bit floats.
    Quantised,
    /// The scales of what is quantised.
    Scale,
    /// The router, which some keep in a wider type.
    Router,
    /// A buffer of whole numbers.
    Numbers,
    /// Packed to words of 32 bits.
    Words,
}

/// A tensor as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promised {
    /// Its shape.
    pub shape: Vec<u64>,
    /// How it is stored.
    pub role: Role,
}

impl Blueprint {
    /// The blueprint of a `config.json`; `None` where its architecture, its quantisation or a size
    /// is not known.
    pub fn of(config: &Value) -> Option<Self> {
        let named = config.get("model_type")?.as_str()?;
        let model_type = TYPES.iter().copied().find(|known| *known == named)?;

        let block = match config
            .get("quantization_config")
            .filter(|value| !value.is_null())
        {
            None => None,
            Some(method) => match method.get("quant_method")?.as_str()? {
                "fp8" => Some(sizes::block(method)?),
                "mxfp4" if model_type == "gpt_oss" => None,
                _ => return None,
            },
        };

        Some(Self {
            model_type,
            sizes: Sizes::of(model_type, config)?,
            block,
        })
    }

    /// The blueprint of a model of `model_type` in the model's own type, whatever quantisation
    /// `config` states.
    fn unquantised(model_type: &'static str, config: &Value) -> Option<Self> {
        Some(Self {
            model_type,
            sizes: Sizes::of(model_type, config)?,
            block: None,
        })
    }

    /// The names of all tensors, for one file that no index describes: `prefix` stands before each,
    /// `head` says whether the output head is stored. `None` where an architecture is only ever
    /// published with an index.
    pub fn names(&self, prefix: &str, head: bool) -> Option<Vec<String>> {
        if self.block.is_some() {
            None
        } else {
            names::all(self.model_type, &self.sizes, prefix, head)
        }
    }

    /// What the tensor `name` must be. `is_there` says which other names there are.
    pub fn tensor(&self, name: &str, is_there: impl Fn(&str) -> bool) -> Option<Promised> {
        if let Some(weight) = name.strip_suffix("_scale_inv") {
            let (rows, columns) = self.block?;
            let [weight_rows, weight_columns] = *self.shape(weight)?.as_slice() else {
                return None;
            };

            let shape = vec![weight_rows.div_ceil(rows), weight_columns.div_ceil(columns)];
            return Some(Promised {
                shape,
                role: Role::Scale,
            });
        }

        let shape = self.shape(name)?;
        let role = if self.block.is_some() && is_there(&format!("{name}_scale_inv")) {
            Role::Quantised
        } else if name.ends_with("_blocks") || name.ends_with("_scales") {
            Role::Packed
        } else if name.ends_with(".e_score_correction_bias")
            || (self.model_type == "minimax_m2" && name.ends_with(".block_sparse_moe.gate.weight"))
        {
            Role::Router
        } else {
            Role::Plain
        };

        Some(Promised { shape, role })
    }

    fn shape(&self, name: &str) -> Option<Vec<u64>> {
        let sizes = &self.sizes;
        let (hidden, vocabulary) = (sizes.hidden, sizes.vocabulary);
        let inner = name.strip_prefix("model.").unwrap_or(name);
        match inner {
            "embed_tokens.weight" | "lm_head.weight" => return Some(vec![vocabulary, hidden]),
            "norm.weight" | "norm.bias" => return Some(vec![hidden]),
            _ => {}
        }

        let (number, module) = inner
            .strip_prefix("layers.")
            .or_else(|| inner.strip_prefix("mtp_layers."))?
            .split_once('.')?;

        // Prediction layers stand behind the others.
        (number.parse::<u64>().ok()? < sizes.layers + MOST_LAYERS).then_some(())?;
        let (module, is_bias) = match module.rsplit_once('.') {
            Some((module, "weight")) => (module, false),
            Some((module, "bias")) => (module, true),
            _ => (module, false),
        };

        let shape = self.module(module)?;

        // A bias has the rows of its weight; a norm's bias has the norm's own shape.
        if is_bias {
            Some(vec![*shape.first()?])
        } else {
            Some(shape)
        }
    }

    /// The shape of a module's weight in a layer.
    fn module(&self, module: &str) -> Option<Vec<u64>> {
        let sizes = &self.sizes;
        let hidden = sizes.hidden;

        if let Some(rest) = module.strip_prefix("self_attn.") {
            return self.attention(rest);
        }

        let expert = |rest: &str| -> Option<Vec<u64>> {
            let (number, projection) = rest.split_once('.')?;
            let experts = sizes.experts?;
            (number.parse::<u64>().ok()? < experts.count)
                .then(|| feed_forward(projection, hidden, experts.width))?
        };

        Some(match module {
            "input_layernorm"
            | "post_attention_layernorm"
            | "pre_feedforward_layernorm"
            | "post_feedforward_layernorm"
            | "post_self_attn_layernorm"
            | "post_mlp_layernorm"
            | "enorm"
            | "hnorm"
            | "shared_head.norm"
            | "final_layernorm"
            | "hidden_layernorm"
            | "token_layernorm" => vec![hidden],
            "embed_tokens" | "shared_head.head" => vec![sizes.vocabulary, hidden],
            "eh_proj" | "input_proj" => vec![hidden, hidden * 2],
            "mlp.gate" | "mlp.router" | "block_sparse_moe.gate" => {
                vec![sizes.experts?.count, hidden]
            }
            // granitemoe keeps all experts of a layer in one tensor.
            "block_sparse_moe.input_linear" => {
                vec![sizes.experts?.count, sizes.experts?.width * 2, hidden]
            }
            "block_sparse_moe.output_linear" => {
                vec![sizes.experts?.count, hidden, sizes.experts?.width]
            }
            "block_sparse_moe.router.layer" => vec![sizes.experts?.count, hidden],
            "mlp.gate.e_score_correction_bias" | "block_sparse_moe.e_score_correction_bias" => {
                vec![sizes.experts?.count]
            }
            _ => {
                if let Some(rest) = module.strip_prefix("mlp.shared_experts.") {
                    return feed_forward(rest, hidden, sizes.experts?.shared_width);
                }

                if let Some(rest) = module.strip_prefix("mlp.experts.") {
                    return if self.model_type == "gpt_oss" {
                        self.packed_experts(rest)
                    } else {
                        expert(rest)
                    };
                }

                if let Some(rest) = module.strip_prefix("block_sparse_moe.experts.") {
                    return expert(rest);
                }

                return feed_forward(module.strip_prefix("mlp.")?, hidden, sizes.intermediate);
            }
        })
    }

    fn attention(&self, module: &str) -> Option<Vec<u64>> {
        let sizes = &self.sizes;
        let (hidden, heads) = (sizes.hidden, sizes.heads);
        if let Some(latent) = &sizes.latent {
            let (keys, values) = (
                heads * (latent.nope + latent.rope),
                heads * (latent.nope + latent.value),
            );
            return Some(match module {
                "q_proj" => vec![keys, hidden],
                "q_a_proj" => vec![latent.query_rank?, hidden],
                "q_a_layernorm" => vec![latent.query_rank?],
                "q_b_proj" => vec![keys, latent.query_rank?],
                "kv_a_proj_with_mqa" => vec![latent.rank + latent.rope, hidden],
                "kv_a_layernorm" => vec![latent.rank],
                "kv_b_proj" => vec![values, latent.rank],
                "o_proj" => vec![hidden, heads * latent.value],
                "indexer.wq_b" => vec![latent.index?.0 * latent.index?.1, latent.query_rank?],
                "indexer.wk" => vec![latent.index?.1, hidden],
                "indexer.k_norm" => vec![latent.index?.1],
                "indexer.weights_proj" => vec![latent.index?.0, hidden],
                _ => return None,
            });
        }

        let (query, key) = (heads * sizes.head_dim, sizes.kv_heads * sizes.head_dim);
        let whole = ["olmo2", "minimax_m2"].contains(&self.model_type);

        Some(match module {
            "q_proj" => vec![query, hidden],
            "k_proj" | "v_proj" => vec![key, hidden],
            "qkv_proj" => vec![query + 2 * key, hidden],
            "o_proj" => vec![hidden, query],
            "q_norm" | "query_layernorm" => vec![if whole { query } else { sizes.head_dim }],
            "k_norm" | "key_layernorm" => vec![if whole { key } else { sizes.head_dim }],
            "rotary_emb.inv_freq" => vec![sizes.head_dim / 2],
            "sinks" => vec![heads],
            _ => return None,
        })
    }

    /// gpt-oss keeps all experts of a layer in one tensor: blocks of 32 values in 16 bytes, and a
    /// scale for each.
    fn packed_experts(&self, name: &str) -> Option<Vec<u64>> {
        let (count, hidden, width) = (
            self.sizes.experts?.count,
            self.sizes.hidden,
            self.sizes.experts?.width,
        );

        let blocks = |size: u64| size.div_ceil(32);
        Some(match name {
            "down_proj_bias" => vec![count, hidden],
            "down_proj_blocks" => vec![count, hidden, blocks(width), 16],
            "down_proj_scales" => vec![count, hidden, blocks(width)],
            "gate_up_proj_bias" => vec![count, width * 2],
            "gate_up_proj_blocks" => vec![count, width * 2, blocks(hidden), 16],
            "gate_up_proj_scales" => vec![count, width * 2, blocks(hidden)],
            _ => return None,
        })
    }
}

/// A projection of a feed-forward block of `width`.
fn feed_forward(projection: &str, hidden: u64, width: u64) -> Option<Vec<u64>> {
    Some(match projection {
        "gate_proj" | "up_proj" | "w1" | "w3" | "c_fc" => vec![width, hidden],
        "down_proj" | "w2" | "c_proj" => vec![hidden, width],
        "gate_up_proj" => vec![width * 2, hidden],
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn llama() -> Value {
        json!({"model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4,
            "num_key_value_heads": 2, "num_hidden_layers": 2, "vocab_size": 100})
    }

    #[test]
    fn a_plain_decoder() {
        let blueprint = Blueprint::of(&llama()).expect("a known architecture");
        let names = blueprint.names("model.", true).expect("its names");
        assert_eq!(names.len(), 3 + 2 * 9);
        let shape = |name: &str| blueprint.tensor(name, |_| false).map(|tensor| tensor.shape);
        assert_eq!(
            shape("model.layers.1.self_attn.k_proj.weight"),
            Some(vec![32, 64])
        );

        assert_eq!(
            shape("model.layers.1.mlp.down_proj.weight"),
            Some(vec![64, 128])
        );
        assert_eq!(
            shape("model.layers.1.self_attn.k_proj.bias"),
            Some(vec![32])
        );
        assert_eq!(shape("lm_head.weight"), Some(vec![100, 64]));

        assert_eq!(
            shape("model.layers.1.mlp.experts.0.up_proj.weight"),
            None,
            "it has no experts"
        );

        assert!(names.iter().all(|name| shape(name).is_some()));
    }

    /// ibm-granite/granite-3.1-1b-a400m-instruct.
    #[test]
    fn granite_mixture_has_its_published_size() {
        let config = json!({"model_type": "granitemoe", "hidden_size": 1024, "intermediate_size": 512,
            "num_attention_heads": 16, "num_hidden_layers": 24, "num_key_value_heads": 8, "num_local_experts": 32,
            "vocab_size": 49155});
        let blueprint = Blueprint::of(&config).expect("a known architecture");
        let names = blueprint.names("model.", false).expect("its names");
        let shapes = names
            .iter()
            .map(|name| blueprint.tensor(name, |_| false).expect("a shape").shape);
        let elements: u64 = shapes.map(|shape| shape.iter().product::<u64>()).sum();
        assert_eq!((names.len(), elements), (218, 1_334_628_352));
    }

    #[test]
    fn what_is_not_known_has_no_blueprint() {
        let with = |key: &str, value: Value| {
            let mut config = llama();
            config[key] = value;
            Blueprint::of(&config).is_some()
        };

        assert!(with("hidden_size", json!(64)));
        assert!(!with("model_type", json!("llama7")));
        assert!(!with("hidden_size", Value::Null));
        assert!(!with("hidden_size", json!(-1)));
        assert!(!with("num_hidden_layers", json!(u64::MAX)));
        assert!(!with("quantization_config", json!({"quant_method": "awq"})));
        assert!(!with("num_attention_heads", json!(0)));
    }

    #[test]
    fn blocks_of_eight_bits_have_a_scale_each() {
        let mut config = llama();
        config["quantization_config"] =
            json!({"quant_method": "fp8", "weight_block_size": [16, 128]});
        let blueprint = Blueprint::of(&config).expect("a known quantisation");
        let name = "model.layers.0.mlp.up_proj.weight";
        let tensor = blueprint
            .tensor(name, |other| other.ends_with("_scale_inv"))
            .expect("known");
        assert_eq!(
            tensor,
            Promised {
                shape: vec![128, 64],
                role: Role::Quantised
            }
        );

        let scale = blueprint
            .tensor(&format!("{name}_scale_inv"), |_| true)
            .expect("known");
        assert_eq!(
            scale,
            Promised {
                shape: vec![8, 1],
                role: Role::Scale
            }
        );

        assert_eq!(
            blueprint.names("model.", true),
            None,
            "which modules are quantised is only known by an index"
        );
    }
}
