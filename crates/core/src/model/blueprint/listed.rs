//! Models of one file whose tensors are listed one by one: encoders of BERT's make, and GPT-2.
//!
//! Such a file may or may not hold a pooler, an output head and buffers, and its names may or may
//! not begin with the model's own. So there are several lists, and the totals and the file's length
//! tell which is meant.

use serde_json::Value;

use super::sizes::{layers, size};
use super::{Promised, Role};

/// The tensors of one file.
pub type Listed = Vec<(String, Promised)>;

/// Every list of tensors that the file of a model with this configuration may hold; none for other
/// architectures.
pub fn whole_files(config: &Value) -> Vec<Listed> {
    let lists = match config.get("model_type").and_then(Value::as_str) {
        Some("bert") => encoders(config, "bert."),
        Some("roberta" | "xlm-roberta") => encoders(config, "roberta."),
        Some("gpt2") => gpt2(config),
        _ => None,
    };
    lists.unwrap_or_default()
}

/// A list under construction.
#[derive(Clone, Debug, Default)]
struct Tensors(Listed);

impl Tensors {
    fn add(&mut self, name: String, shape: &[u64]) {
        self.0.push((
            name,
            Promised {
                shape: shape.to_vec(),
                role: Role::Plain,
            },
        ));
    }

    /// A weight of `shape` and a bias of `bias` elements.
    fn pair(&mut self, module: &str, shape: &[u64], bias: u64) {
        self.add(format!("{module}.weight"), shape);
        self.add(format!("{module}.bias"), &[bias]);
    }

    /// A projection of `inputs` to `outputs`, stored row by row.
    fn linear(&mut self, module: &str, outputs: u64, inputs: u64) {
        self.pair(module, &[outputs, inputs], outputs);
    }

    fn norm(&mut self, module: &str, width: u64) {
        self.pair(module, &[width], width);
    }
}

/// transformers `models/bert/modeling_bert.py` and `models/roberta/modeling_roberta.py`.
fn encoders(config: &Value, own_name: &str) -> Option<Vec<Listed>> {
    let (hidden, width) = (
        size(config, "hidden_size")?,
        size(config, "intermediate_size")?,
    );
    let (vocabulary, positions) = (
        size(config, "vocab_size")?,
        size(config, "max_position_embeddings")?,
    );
    let types = size(config, "type_vocab_size")?;
    let layers = layers(config, "num_hidden_layers")?;
    let is_bert = own_name == "bert.";

    let body = |prefix: &str| {
        let mut tensors = Tensors::default();
        for (table, rows) in [
            ("word", vocabulary),
            ("position", positions),
            ("token_type", types),
        ] {
            tensors.add(
                format!("{prefix}embeddings.{table}_embeddings.weight"),
                &[rows, hidden],
            );
        }
        tensors.norm(&format!("{prefix}embeddings.LayerNorm"), hidden);
        for layer in 0..layers {
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
    };
    let head = |tensors: &mut Tensors| {
        if is_bert {
            tensors.linear("cls.predictions.transform.dense", hidden, hidden);
            tensors.norm("cls.predictions.transform.LayerNorm", hidden);
            tensors.add("cls.predictions.bias".to_owned(), &[vocabulary]);
        } else {
            tensors.linear("lm_head.dense", hidden, hidden);
            tensors.norm("lm_head.layer_norm", hidden);
            tensors.add("lm_head.bias".to_owned(), &[vocabulary]);
        }
    };

    let mut lists = Vec::new();
    for prefix in ["", own_name] {
        let body = body(prefix);
        for (has_pooler, has_head, has_positions) in choices() {
            let mut tensors = body.clone();
            if has_pooler {
                tensors.linear(&format!("{prefix}pooler.dense"), hidden, hidden);
            }
            if has_head {
                head(&mut tensors);
            }
            if has_positions {
                let (name, shape) = (
                    format!("{prefix}embeddings.position_ids"),
                    vec![1, positions],
                );
                tensors.0.push((
                    name,
                    Promised {
                        shape,
                        role: Role::Numbers,
                    },
                ));
            }
            lists.push(tensors.0);
        }
    }
    Some(lists)
}

/// transformers `models/gpt2/modeling_gpt2.py`, whose projections are stored column by column.
fn gpt2(config: &Value) -> Option<Vec<Listed>> {
    let hidden = size(config, "n_embd")?;
    let width = match config.get("n_inner") {
        None | Some(Value::Null) => hidden * 4,
        Some(_) => size(config, "n_inner")?,
    };
    let (vocabulary, positions) = (size(config, "vocab_size")?, size(config, "n_positions")?);
    let layers = layers(config, "n_layer")?;

    let body = |prefix: &str, has_masks: bool| {
        let mut tensors = Tensors::default();
        tensors.add(format!("{prefix}wte.weight"), &[vocabulary, hidden]);
        tensors.add(format!("{prefix}wpe.weight"), &[positions, hidden]);
        tensors.norm(&format!("{prefix}ln_f"), hidden);
        for layer in 0..layers {
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
                tensors.pair(
                    &format!("{layer}.{projection}"),
                    &[inputs, outputs],
                    outputs,
                );
            }
            if has_masks {
                tensors.add(format!("{layer}.attn.bias"), &[1, 1, positions, positions]);
            }
        }
        tensors
    };

    let mut lists = Vec::new();
    for prefix in ["", "transformer."] {
        for (has_masks, has_head) in [(true, false), (false, false), (true, true), (false, true)] {
            let mut tensors = body(prefix, has_masks);
            if has_head {
                tensors.add("lm_head.weight".to_owned(), &[vocabulary, hidden]);
            }
            lists.push(tensors.0);
        }
    }
    Some(lists)
}

/// Every choice of three parts that may be there or not.
fn choices() -> impl Iterator<Item = (bool, bool, bool)> {
    (0..8_u8).map(|choice| (choice & 1 != 0, choice & 2 != 0, choice & 4 != 0))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn elements(list: &Listed) -> u64 {
        list.iter()
            .map(|(_, tensor)| tensor.shape.iter().product::<u64>())
            .sum()
    }

    #[test]
    fn published_models_are_among_the_lists() {
        // BAAI/bge-large-en with pooler and positions, FacebookAI/roberta-base with head and
        // positions, gpt2 with masks.
        let bert = json!({"model_type": "bert", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
            "vocab_size": 30522, "max_position_embeddings": 512, "type_vocab_size": 2});
        let roberta = json!({"model_type": "roberta", "hidden_size": 768, "intermediate_size": 3072,
            "num_hidden_layers": 12, "vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1});
        let gpt2 = json!({"model_type": "gpt2", "n_embd": 768, "n_layer": 12, "n_positions": 1024, "vocab_size": 50257});
        for (config, tensors, wanted) in [
            (bert, 392, 335_142_400),
            (roberta, 203, 124_697_947),
            (gpt2, 160, 137_022_720),
        ] {
            let lists = whole_files(&config);
            let found = lists
                .iter()
                .filter(|list| (list.len(), elements(list)) == (tensors, wanted))
                .count();
            assert!(found > 0, "{config}");
        }
    }

    #[test]
    fn other_architectures_have_no_list() {
        assert!(whole_files(&json!({"model_type": "t5"})).is_empty());
        let deep = json!({"model_type": "gpt2", "n_embd": 8, "n_layer": 1_000_000, "n_positions": 8, "vocab_size": 8});
        assert!(whole_files(&deep).is_empty(), "no model has so many layers");
    }
}
