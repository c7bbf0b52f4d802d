//! Models whose tensors are listed one by one.
//!
//! These are encoders, GPT-2, LFM2, vision and speech models, and decoders that MLX has quantized.
//!
//! A repository may store a pooler, an output head and buffers, and its names may start with the
//! model's own name. Therefore there are several lists, and the totals and the files' lengths
//! determine which one applies.

mod decoders;
mod speech;
mod vision;

use serde_json::Value;

use super::sizes::{layers, size};
use super::{Blueprint, ExpectedTensor, Role};

/// The tensors of a model, by name.
pub type TensorList = Vec<(String, ExpectedTensor)>;

/// Returns every list of tensors that a model with this configuration may store.
///
/// The result is empty for other architectures.
pub fn tensor_lists(config: &Value) -> Vec<TensorList> {
    let is_present = |key: &str| config.get(key).is_some_and(|value| !value.is_null());
    if is_present("quantization") || is_present("quantization_config") {
        return decoders::mlx(config).unwrap_or_default();
    }

    let lists = match config.get("model_type").and_then(Value::as_str) {
        Some("bert") => encoders(config, "bert."),
        Some("roberta" | "xlm-roberta") => encoders(config, "roberta."),
        Some("gpt2") => gpt2(config),
        Some("lfm2") => decoders::lfm2(config),
        Some("hubert") => speech::hubert(config),
        Some("idefics3") => vision::idefics3(config),
        Some("qwen2_vl") => vision::qwen2_vl(config),
        Some("qwen2_5_vl") => vision::qwen2_5_vl(config),
        Some("qwen3_vl") => vision::qwen3_vl(config),
        _ => None,
    };

    lists.unwrap_or_default()
}

/// A list of tensors under construction.
#[derive(Clone, Debug, Default)]
struct Tensors(TensorList);

impl Tensors {
    fn add(&mut self, name: String, shape: &[u64]) {
        self.0.push((
            name,
            ExpectedTensor {
                shape: shape.to_vec(),
                role: Role::Plain,
            },
        ));
    }

    /// Adds a weight of `shape` without a bias.
    fn weight(&mut self, module: &str, shape: &[u64]) {
        self.add(format!("{module}.weight"), shape);
    }

    /// Adds a weight of `shape` and a bias of `bias` elements.
    fn pair(&mut self, module: &str, shape: &[u64], bias: u64) {
        self.add(format!("{module}.weight"), shape);
        self.add(format!("{module}.bias"), &[bias]);
    }

    /// Adds a projection of `inputs` to `outputs`, stored row by row.
    fn linear(&mut self, module: &str, outputs: u64, inputs: u64) {
        self.pair(module, &[outputs, inputs], outputs);
    }

    /// Adds a norm with a weight and a bias.
    fn norm(&mut self, module: &str, width: u64) {
        self.pair(module, &[width], width);
    }
}

/// Lists a decoder's tensors, with the names and shapes of `model_type` below `prefix`.
///
/// `has_head` states whether it stores an output head. Returns `None` if `config` lacks a size.
fn decoder(
    config: &Value,
    model_type: &'static str,
    prefix: &str,
    has_head: bool,
) -> Option<TensorList> {
    let blueprint = Blueprint::unquantized(model_type, config)?;
    let names = blueprint.names("model.", has_head)?.into_iter();

    names
        .map(|name| {
            let tensor = blueprint.tensor(&name, |_| false)?;
            let name = match name.strip_prefix("model.") {
                Some(inner) => format!("{prefix}{inner}"),
                None => name,
            };
            Some((name, tensor))
        })
        .collect()
}

/// Returns the product of `sizes`, or `None` if it overflows 64 bits.
fn product(sizes: &[u64]) -> Option<u64> {
    sizes
        .iter()
        .try_fold(1_u64, |product, size| product.checked_mul(*size))
}

/// The sizes of a BERT or `RoBERTa` encoder.
struct EncoderSizes {
    hidden: u64,
    width: u64,
    vocabulary: u64,
    positions: u64,
    types: u64,
    layers: u64,
}

impl EncoderSizes {
    fn from_config(config: &Value) -> Option<Self> {
        Some(Self {
            hidden: size(config, "hidden_size")?,
            width: size(config, "intermediate_size")?,
            vocabulary: size(config, "vocab_size")?,
            positions: size(config, "max_position_embeddings")?,
            types: size(config, "type_vocab_size")?,
            layers: layers(config, "num_hidden_layers")?,
        })
    }

    /// Lists the tensors that every such encoder has.
    fn body(&self, prefix: &str) -> Tensors {
        let (hidden, width) = (self.hidden, self.width);
        let mut tensors = Tensors::default();
        for (table, rows) in [
            ("word", self.vocabulary),
            ("position", self.positions),
            ("token_type", self.types),
        ] {
            tensors.add(
                format!("{prefix}embeddings.{table}_embeddings.weight"),
                &[rows, hidden],
            );
        }

        tensors.norm(&format!("{prefix}embeddings.LayerNorm"), hidden);
        for layer in 0..self.layers {
            let layer = format!("{prefix}encoder.layer.{layer}");
            for projection in ["self.query", "self.key", "self.value", "output.dense"] {
                tensors.linear(&format!("{layer}.attention.{projection}"), hidden, hidden);
            }
            tensors.norm(&format!("{layer}.attention.output.LayerNorm"), hidden);
            tensors.linear(&format!("{layer}.intermediate.dense"), width, hidden);
            tensors.linear(&format!("{layer}.output.dense"), hidden, width);
            tensors.norm(&format!("{layer}.output.LayerNorm"), hidden);
        }

        tensors
    }

    /// Adds the head of masked language models.
    fn add_head(&self, is_bert: bool, tensors: &mut Tensors) {
        if is_bert {
            tensors.linear("cls.predictions.transform.dense", self.hidden, self.hidden);
            tensors.norm("cls.predictions.transform.LayerNorm", self.hidden);
            tensors.add("cls.predictions.bias".to_owned(), &[self.vocabulary]);
        } else {
            tensors.linear("lm_head.dense", self.hidden, self.hidden);
            tensors.norm("lm_head.layer_norm", self.hidden);
            tensors.add("lm_head.bias".to_owned(), &[self.vocabulary]);
        }
    }
}

/// Lists the tensors of BERT and `RoBERTa`.
///
/// Source: transformers `models/bert/modeling_bert.py` and `models/roberta/modeling_roberta.py`.
fn encoders(config: &Value, own_name: &str) -> Option<Vec<TensorList>> {
    let sizes = EncoderSizes::from_config(config)?;
    let is_bert = own_name == "bert.";

    let mut lists = Vec::new();
    for prefix in ["", own_name] {
        let body = sizes.body(prefix);
        for (has_pooler, has_head, has_positions) in choices() {
            let mut tensors = body.clone();
            if has_pooler {
                let pooler = format!("{prefix}pooler.dense");
                tensors.linear(&pooler, sizes.hidden, sizes.hidden);
            }

            if has_head {
                sizes.add_head(is_bert, &mut tensors);
            }

            if has_positions {
                tensors.0.push((
                    format!("{prefix}embeddings.position_ids"),
                    ExpectedTensor {
                        shape: vec![1, sizes.positions],
                        role: Role::Numbers,
                    },
                ));
            }

            lists.push(tensors.0);
        }
    }

    Some(lists)
}

/// The sizes of a GPT-2.
struct Gpt2Sizes {
    hidden: u64,
    width: u64,
    vocabulary: u64,
    positions: u64,
    layers: u64,
}

impl Gpt2Sizes {
    fn from_config(config: &Value) -> Option<Self> {
        let hidden = size(config, "n_embd")?;
        let width = match config.get("n_inner") {
            None | Some(Value::Null) => hidden * 4,
            Some(_) => size(config, "n_inner")?,
        };

        Some(Self {
            hidden,
            width,
            vocabulary: size(config, "vocab_size")?,
            positions: size(config, "n_positions")?,
            layers: layers(config, "n_layer")?,
        })
    }

    /// Lists the tensors without an output head.
    fn body(&self, prefix: &str, has_masks: bool) -> Tensors {
        let (hidden, width, positions) = (self.hidden, self.width, self.positions);
        let mut tensors = Tensors::default();
        tensors.add(format!("{prefix}wte.weight"), &[self.vocabulary, hidden]);
        tensors.add(format!("{prefix}wpe.weight"), &[positions, hidden]);
        tensors.norm(&format!("{prefix}ln_f"), hidden);

        for layer in 0..self.layers {
            let layer = format!("{prefix}h.{layer}");
            for norm in ["ln_1", "ln_2"] {
                tensors.norm(&format!("{layer}.{norm}"), hidden);
            }

            for (projection, inputs, outputs) in [
                ("attn.c_attn", hidden, hidden * 3),
                ("attn.c_proj", hidden, hidden),
                ("mlp.c_fc", hidden, width),
                ("mlp.c_proj", width, hidden),
            ] {
                let shape = [inputs, outputs];
                tensors.pair(&format!("{layer}.{projection}"), &shape, outputs);
            }

            if has_masks {
                tensors.add(format!("{layer}.attn.bias"), &[1, 1, positions, positions]);
            }
        }

        tensors
    }
}

/// Lists the tensors of GPT-2, whose projections are stored column by column.
///
/// Source: transformers `models/gpt2/modeling_gpt2.py`.
fn gpt2(config: &Value) -> Option<Vec<TensorList>> {
    let sizes = Gpt2Sizes::from_config(config)?;

    let mut lists = Vec::new();
    for prefix in ["", "transformer."] {
        for (has_masks, has_head) in [(true, false), (false, false), (true, true), (false, true)] {
            let mut tensors = sizes.body(prefix, has_masks);
            if has_head {
                let shape = [sizes.vocabulary, sizes.hidden];
                tensors.add("lm_head.weight".to_owned(), &shape);
            }
            lists.push(tensors.0);
        }
    }

    Some(lists)
}

/// Returns every combination of three optional parts.
fn choices() -> impl Iterator<Item = (bool, bool, bool)> {
    (0..8_u8).map(|choice| (choice & 1 != 0, choice & 2 != 0, choice & 4 != 0))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn elements(list: &TensorList) -> u64 {
        list.iter()
            .map(|(_, tensor)| tensor.shape.iter().product::<u64>())
            .sum()
    }

    #[test]
    fn published_encoders_are_listed() {
        // BAAI/bge-large-en with pooler and positions, FacebookAI/roberta-base with head and
        // positions, gpt2 with masks.
        let bert = json!({"model_type": "bert", "hidden_size": 1024, "intermediate_size": 4096,
            "num_hidden_layers": 24, "vocab_size": 30522, "max_position_embeddings": 512,
            "type_vocab_size": 2});
        let roberta = json!({"model_type": "roberta", "hidden_size": 768, "intermediate_size": 3072,
            "num_hidden_layers": 12, "vocab_size": 50265, "max_position_embeddings": 514,
            "type_vocab_size": 1});
        let gpt2 = json!({"model_type": "gpt2", "n_embd": 768, "n_layer": 12, "n_positions": 1024,
            "vocab_size": 50257});

        for (config, tensors, wanted) in [
            (bert, 392, 335_142_400),
            (roberta, 203, 124_697_947),
            (gpt2, 160, 137_022_720),
        ] {
            let lists = tensor_lists(&config);
            let found = lists
                .iter()
                .filter(|list| (list.len(), elements(list)) == (tensors, wanted))
                .count();
            assert!(found > 0, "{config}");
        }
    }

    /// The configuration of Qwen/Qwen3-VL-2B-Instruct.
    fn qwen3_vl() -> Value {
        json!({"model_type": "qwen3_vl", "text_config": {"head_dim": 128, "hidden_size": 2048,
            "intermediate_size": 6144, "num_attention_heads": 16, "num_hidden_layers": 28,
            "num_key_value_heads": 8, "vocab_size": 151_936},
            "vision_config": {"deepstack_visual_indexes": [5, 11, 17], "depth": 24,
            "hidden_size": 1024, "in_channels": 3, "intermediate_size": 4096,
            "num_position_embeddings": 2304, "out_hidden_size": 2048, "patch_size": 16,
            "spatial_merge_size": 2, "temporal_patch_size": 2}})
    }

    /// The configuration of mlx-community/Qwen3-0.6B-4bit.
    fn mlx() -> Value {
        json!({"model_type": "qwen3", "head_dim": 128, "hidden_size": 1024,
            "intermediate_size": 3072, "num_attention_heads": 16, "num_hidden_layers": 28,
            "num_key_value_heads": 8, "vocab_size": 151_936, "quantization": {"group_size": 64,
            "bits": 4}})
    }

    /// The configuration of LiquidAI/LFM2-1.2B.
    fn lfm2() -> Value {
        json!({"model_type": "lfm2", "block_auto_adjust_ff_dim": true, "block_ff_dim": 12288,
            "block_ffn_dim_multiplier": 1.0, "block_multiple_of": 256, "conv_L_cache": 3,
            "conv_bias": false, "full_attn_idxs": [2, 5, 8, 10, 12, 14], "hidden_size": 2048,
            "num_attention_heads": 32, "num_hidden_layers": 16, "num_key_value_heads": 8,
            "vocab_size": 65536})
    }

    #[test]
    fn published_newer_families_are_listed() {
        let smolvlm = json!({"model_type": "idefics3", "scale_factor": 3,
            "text_config": {"model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192,
            "num_attention_heads": 32, "num_hidden_layers": 24, "num_key_value_heads": 32,
            "vocab_size": 49155}, "vision_config": {"hidden_size": 1152, "image_size": 384,
            "intermediate_size": 4304, "num_hidden_layers": 27, "patch_size": 14}});
        let qwen2_vl = json!({"model_type": "qwen2_vl", "hidden_size": 1536,
            "intermediate_size": 8960, "num_attention_heads": 12, "num_hidden_layers": 28,
            "num_key_value_heads": 2, "vocab_size": 151_936, "vision_config": {"depth": 32,
            "embed_dim": 1280, "hidden_size": 1536, "in_chans": 3, "mlp_ratio": 4, "patch_size": 14,
            "spatial_merge_size": 2, "temporal_patch_size": 2}});

        let qwen2_5_vl = json!({"model_type": "qwen2_5_vl", "hidden_size": 3584,
            "intermediate_size": 18944, "num_attention_heads": 28, "num_hidden_layers": 28,
            "num_key_value_heads": 4, "vocab_size": 152_064, "vision_config": {"depth": 32,
            "hidden_size": 1280, "in_chans": 3, "intermediate_size": 3420, "out_hidden_size": 3584,
            "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2}});

        for (config, wanted) in [
            (qwen3_vl(), 2_127_532_032),
            (mlx(), 93_188_096),
            (lfm2(), 1_170_340_608),
            (smolvlm, 2_246_272_880),
            (qwen2_vl, 2_208_985_600),
            (qwen2_5_vl, 8_292_166_656),
            (json!({"model_type": "hubert"}), 94_371_712),
        ] {
            assert!(
                tensor_lists(&config)
                    .iter()
                    .any(|list| elements(list) == wanted),
                "{config}"
            );
        }
    }

    /// Each change makes a configuration that no rule describes.
    #[test]
    fn unknown_variants_have_no_list() {
        let assert_rejects = |mut config: Value, pointer: &str, key: &str, value: Value| {
            assert!(!tensor_lists(&config).is_empty());
            config.pointer_mut(pointer).expect("an object")[key] = value;
            assert!(tensor_lists(&config).is_empty(), "{key}");
        };

        assert_rejects(mlx(), "/quantization", "bits", json!(7));
        assert_rejects(mlx(), "/quantization", "group_size", json!(65));
        assert_rejects(mlx(), "/quantization", "mode", json!("mxfp4"));

        assert_rejects(
            mlx(),
            "/quantization",
            "model.embed_tokens",
            json!({"group_size": 64, "bits": 8}),
        );

        assert_rejects(
            mlx(),
            "",
            "quantization_config",
            json!({"quant_method": "awq"}),
        );

        assert_rejects(mlx(), "", "model_type", json!("granitemoe"));
        assert_rejects(lfm2(), "", "conv_bias", json!(true));
        assert_rejects(lfm2(), "", "block_ffn_dim_multiplier", json!(1.3));
        assert_rejects(lfm2(), "", "layer_types", json!(["conv"]));
        assert_rejects(lfm2(), "", "num_attention_heads", json!(0));

        assert_rejects(
            qwen3_vl(),
            "",
            "quantization_config",
            json!({"quant_method": "fp8"}),
        );

        assert_rejects(
            qwen3_vl(),
            "/vision_config",
            "spatial_merge_size",
            json!(1 << 25),
        );

        assert_rejects(qwen3_vl(), "/vision_config", "depth", json!(1_000_000));
        assert_rejects(
            json!({"model_type": "hubert"}),
            "",
            "conv_dim",
            json!([512]),
        );

        assert_rejects(
            json!({"model_type": "hubert"}),
            "",
            "feat_extract_norm",
            json!("batch"),
        );

        assert_rejects(
            json!({"model_type": "hubert"}),
            "",
            "conv_pos_batch_norm",
            json!(true),
        );
    }

    #[test]
    fn mlx_quantization_config_may_repeat() {
        let mut config = mlx();
        config["quantization_config"] = config["quantization"].clone();
        assert_eq!(tensor_lists(&config).len(), 2);
    }

    #[test]
    fn other_architectures_have_no_list() {
        assert!(tensor_lists(&json!({"model_type": "t5"})).is_empty());
        let deep = json!({"model_type": "gpt2", "n_embd": 8, "n_layer": 1_000_000, "n_positions": 8,
            "vocab_size": 8});
        assert!(
            tensor_lists(&deep).is_empty(),
            "no model has this many layers"
        );
    }
}
