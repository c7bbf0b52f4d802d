//! Predicts the tensors from a configuration alone: their names, and the shape of each name.
//!
//! A blueprint is only a prediction. The program's `repository` uses it only if the files' own
//! lengths and the Hub's totals by dtype agree with it to the byte. A wrong blueprint only costs
//! reading the headers. Therefore unknown architectures have none, and an unstated default is only
//! guessed if those checks detect a wrong guess.
//!
//! Names and shapes are those of transformers' `modeling_*.py` and of the repositories' own files.

mod names;
mod sizes;
mod tensor_lists;

use serde_json::Value;

use sizes::Sizes;
pub use tensor_lists::{TensorList, tensor_lists};

/// Architectures with tensor names that follow the rules below.
///
/// Before you add a similar one, compare one of its repositories with the headers.
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

/// Maximum number of layers or experts in a plausible configuration.
const MAX_LAYERS: u64 = 1024;

/// The tensors that a configuration predicts.
#[derive(Clone, Debug)]
pub struct Blueprint {
    model_type: &'static str,
    sizes: Sizes,
    /// Rows and columns of a block that shares one scale, if the weights are quantized to FP8.
    block: Option<(u64, u64)>,
}

/// How a tensor's elements are stored, according to its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// In the model's own dtype.
    Plain,
    /// Packed into bytes.
    Packed,
    /// Quantized to eight-bit floats.
    Quantized,
    /// The scales of quantized weights.
    Scale,
    /// The router, which some checkpoints store in a wider dtype.
    Router,
    /// A buffer of integers.
    Numbers,
    /// Packed into 32-bit words.
    Words,
}

/// The predicted shape and storage of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedTensor {
    /// Shape of the tensor.
    pub shape: Vec<u64>,
    /// How the tensor is stored.
    pub role: Role,
}

impl Blueprint {
    /// Predicts the tensors of a `config.json`.
    ///
    /// Returns `None` if the architecture, the quantization or a size is unknown.
    pub fn from_config(config: &Value) -> Option<Self> {
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
            sizes: Sizes::from_config(model_type, config)?,
            block,
        })
    }

    /// Predicts the tensors of a `model_type` in the model's own dtype.
    ///
    /// The result ignores any quantization that `config` states.
    fn unquantized(model_type: &'static str, config: &Value) -> Option<Self> {
        Some(Self {
            model_type,
            sizes: Sizes::from_config(model_type, config)?,
            block: None,
        })
    }

    /// Returns the names of all tensors, for a single file without an index.
    ///
    /// Every name starts with `prefix`; `head` states whether the output head is stored. Returns
    /// `None` for architectures that are only ever published with an index.
    pub fn names(&self, prefix: &str, head: bool) -> Option<Vec<String>> {
        if self.block.is_some() {
            None
        } else {
            names::all(self.model_type, &self.sizes, prefix, head)
        }
    }

    /// Predicts the tensor `name`. `is_there` returns whether another name exists.
    pub fn tensor(&self, name: &str, is_there: impl Fn(&str) -> bool) -> Option<ExpectedTensor> {
        if let Some(weight) = name.strip_suffix("_scale_inv") {
            let (rows, columns) = self.block?;
            let [weight_rows, weight_columns] = *self.shape(weight)?.as_slice() else {
                return None;
            };

            let shape = vec![weight_rows.div_ceil(rows), weight_columns.div_ceil(columns)];
            return Some(ExpectedTensor {
                shape,
                role: Role::Scale,
            });
        }

        let shape = self.shape(name)?;
        let role = if self.block.is_some() && is_there(&format!("{name}_scale_inv")) {
            Role::Quantized
        } else if name.ends_with("_blocks") || name.ends_with("_scales") {
            Role::Packed
        } else if name.ends_with(".e_score_correction_bias")
            || (self.model_type == "minimax_m2" && name.ends_with(".block_sparse_moe.gate.weight"))
        {
            Role::Router
        } else {
            Role::Plain
        };

        Some(ExpectedTensor { shape, role })
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

        // Multi-token-prediction layers follow the others.
        (number.parse::<u64>().ok()? < sizes.layers + MAX_LAYERS).then_some(())?;
        let (module, is_bias) = match module.rsplit_once('.') {
            Some((module, "weight")) => (module, false),
            Some((module, "bias")) => (module, true),
            _ => (module, false),
        };

        let shape = self.module(module)?;

        // A bias has the rows of its weight. A norm's bias has the shape of the norm.
        if is_bias {
            Some(vec![*shape.first()?])
        } else {
            Some(shape)
        }
    }

    /// Returns the shape of a module's weight in a layer.
    fn module(&self, module: &str) -> Option<Vec<u64>> {
        let sizes = &self.sizes;
        let hidden = sizes.hidden;

        if let Some(rest) = module.strip_prefix("self_attn.") {
            return self.attention(rest);
        }

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
            // granitemoe stores all experts of a layer in one tensor.
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
                        self.routed_expert(rest)
                    };
                }

                if let Some(rest) = module.strip_prefix("block_sparse_moe.experts.") {
                    return self.routed_expert(rest);
                }

                return feed_forward(module.strip_prefix("mlp.")?, hidden, sizes.intermediate);
            }
        })
    }

    /// Returns the shape of `projection` in `rest`, which is `NUMBER.projection`.
    fn routed_expert(&self, rest: &str) -> Option<Vec<u64>> {
        let (number, projection) = rest.split_once('.')?;
        let experts = self.sizes.experts?;
        (number.parse::<u64>().ok()? < experts.count)
            .then(|| feed_forward(projection, self.sizes.hidden, experts.width))?
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
                "indexer.wq_b" => {
                    let indexer = latent.indexer?;
                    vec![indexer.heads * indexer.head_dim, latent.query_rank?]
                }
                "indexer.wk" => vec![latent.indexer?.head_dim, hidden],
                "indexer.k_norm" => vec![latent.indexer?.head_dim],
                "indexer.weights_proj" => vec![latent.indexer?.heads, hidden],
                _ => return None,
            });
        }

        let (query, key) = (heads * sizes.head_dim, sizes.kv_heads * sizes.head_dim);
        let norms_all_heads = ["olmo2", "minimax_m2"].contains(&self.model_type);

        Some(match module {
            "q_proj" => vec![query, hidden],
            "k_proj" | "v_proj" => vec![key, hidden],
            "qkv_proj" => vec![query + 2 * key, hidden],
            "o_proj" => vec![hidden, query],
            "q_norm" | "query_layernorm" if norms_all_heads => vec![query],
            "k_norm" | "key_layernorm" if norms_all_heads => vec![key],
            "q_norm" | "query_layernorm" | "k_norm" | "key_layernorm" => vec![sizes.head_dim],
            "rotary_emb.inv_freq" => vec![sizes.head_dim / 2],
            "sinks" => vec![heads],
            _ => return None,
        })
    }

    /// Returns the shape of a tensor with all experts of a gpt-oss layer.
    ///
    /// Blocks of 32 values take 16 bytes, and each block has a scale.
    fn packed_experts(&self, name: &str) -> Option<Vec<u64>> {
        let (count, hidden, width) = (
            self.sizes.experts?.count,
            self.sizes.hidden,
            self.sizes.experts?.width,
        );

        let (hidden_blocks, width_blocks) = (hidden.div_ceil(32), width.div_ceil(32));
        Some(match name {
            "down_proj_bias" => vec![count, hidden],
            "down_proj_blocks" => vec![count, hidden, width_blocks, 16],
            "down_proj_scales" => vec![count, hidden, width_blocks],
            "gate_up_proj_bias" => vec![count, width * 2],
            "gate_up_proj_blocks" => vec![count, width * 2, hidden_blocks, 16],
            "gate_up_proj_scales" => vec![count, width * 2, hidden_blocks],
            _ => return None,
        })
    }
}

/// Returns the shape of a projection in a feed-forward block of `width`.
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
        json!({"model_type": "llama", "hidden_size": 64, "intermediate_size": 128,
            "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2,
            "vocab_size": 100})
    }

    #[test]
    fn plain_decoder_shapes_match() {
        let blueprint = Blueprint::from_config(&llama()).expect("a known architecture");
        let names = blueprint.names("model.", true).expect("its names");
        assert_eq!(names.len(), 3 + 2 * 9);
        let shape_of = |name: &str| blueprint.tensor(name, |_| false).map(|tensor| tensor.shape);
        assert_eq!(
            shape_of("model.layers.1.self_attn.k_proj.weight"),
            Some(vec![32, 64])
        );

        assert_eq!(
            shape_of("model.layers.1.mlp.down_proj.weight"),
            Some(vec![64, 128])
        );
        assert_eq!(
            shape_of("model.layers.1.self_attn.k_proj.bias"),
            Some(vec![32])
        );
        assert_eq!(shape_of("lm_head.weight"), Some(vec![100, 64]));

        assert_eq!(
            shape_of("model.layers.1.mlp.experts.0.up_proj.weight"),
            None,
            "it has no experts"
        );

        assert!(names.iter().all(|name| shape_of(name).is_some()));
    }

    /// The configuration of ibm-granite/granite-3.1-1b-a400m-instruct.
    #[test]
    fn granite_mixture_has_published_size() {
        let config = json!({"model_type": "granitemoe", "hidden_size": 1024,
            "intermediate_size": 512, "num_attention_heads": 16, "num_hidden_layers": 24,
            "num_key_value_heads": 8, "num_local_experts": 32, "vocab_size": 49155});
        let blueprint = Blueprint::from_config(&config).expect("a known architecture");
        let names = blueprint.names("model.", false).expect("its names");
        let shapes = names
            .iter()
            .map(|name| blueprint.tensor(name, |_| false).expect("a shape").shape);
        let elements: u64 = shapes.map(|shape| shape.iter().product::<u64>()).sum();
        assert_eq!((names.len(), elements), (218, 1_334_628_352));
    }

    #[test]
    fn unknown_values_have_no_blueprint() {
        let is_known = |key: &str, value: Value| {
            let mut config = llama();
            config[key] = value;
            Blueprint::from_config(&config).is_some()
        };

        assert!(is_known("hidden_size", json!(64)));
        assert!(!is_known("model_type", json!("llama7")));
        assert!(!is_known("hidden_size", Value::Null));
        assert!(!is_known("hidden_size", json!(-1)));
        assert!(!is_known("num_hidden_layers", json!(u64::MAX)));
        let awq = json!({"quant_method": "awq"});
        assert!(!is_known("quantization_config", awq));
        assert!(!is_known("num_attention_heads", json!(0)));
    }

    #[test]
    fn fp8_blocks_have_scales() {
        let mut config = llama();
        config["quantization_config"] =
            json!({"quant_method": "fp8", "weight_block_size": [16, 128]});
        let blueprint = Blueprint::from_config(&config).expect("a known quantization");
        let name = "model.layers.0.mlp.up_proj.weight";
        let tensor = blueprint
            .tensor(name, |other| other.ends_with("_scale_inv"))
            .expect("known");
        assert_eq!(
            tensor,
            ExpectedTensor {
                shape: vec![128, 64],
                role: Role::Quantized
            }
        );

        let scale = blueprint
            .tensor(&format!("{name}_scale_inv"), |_| true)
            .expect("known");
        assert_eq!(
            scale,
            ExpectedTensor {
                shape: vec![8, 1],
                role: Role::Scale
            }
        );

        assert_eq!(
            blueprint.names("model.", true),
            None,
            "only an index states which modules are quantized"
        );
    }
}
