//! What a plan costs: for models that no real one is like it is seconds, and some who plan do so
//! for everybody.

use crate::model::{Inventory, Model};
use crate::report::problem::{Problem, Reason};
use crate::report::question::Question;

/// The most pieces of an inventory. The largest known (Stable Diffusion) have 1 900.
const MOST_PIECES: usize = 8 * 1024;
/// The most pieces times layers, which is what planning costs. The largest known models come to 40
/// 000.
const MOST_EFFORT: usize = 1 << 19;

/// Layers times devices up to which a plan is a matter of milliseconds, also where nothing fits and
/// all ways out are tried: 64 layers on 8 devices.
const MOST_CELLS: usize = 512;
/// Kinds of tensors (of one name but for its numbers, dtype and shape) beyond those of any known
/// model, which has hundreds.
const MOST_KINDS: usize = 2048;

/// Whether a plan on `devices` of this host may take longer than everybody else should wait: a
/// frontier, the verdicts of many files, many layers on many devices, a model of more parts than
/// any that is known.
pub fn takes_long(question: &Question, model: &Model, devices: usize) -> bool {
    let layers = model
        .architecture
        .as_ref()
        .map_or(1, |architecture| architecture.layers.len());

    question.frontier
        || model.variants.len() > 1
        || layers.saturating_mul(devices) > MOST_CELLS
        || model.inventory.classes.len() > MOST_KINDS
}

/// Refuses a model that memory is not promised for, because it would take the ledger's owner too
/// long to find a place for it.
pub fn leasable(model: &Model) -> Result<(), Problem> {
    let of_adapter = model
        .adapter
        .as_ref()
        .map_or(0, |adapter| pieces(&adapter.inventory));
    let pieces = pieces(&model.inventory).saturating_add(of_adapter);

    let layers = model
        .architecture
        .as_ref()
        .map_or(1, |architecture| architecture.layers.len().max(1));
    if pieces <= MOST_PIECES && pieces.saturating_mul(layers) <= MOST_EFFORT {
        return Ok(());
    }

    let detail = format!(
        "{} has {pieces} kinds of tensors and runs of layers in {layers} layers, more than any model that memory is promised \
         for",
        model.identity.repo
    );

    Err(Problem::new(Reason::Usage, detail)
        .hint("ask whether it fits, without a lease (POST /v1/fits; fits without --reserve)"))
}

/// What a plan goes through: each kind of tensor, and each run of layers that has it.
fn pieces(inventory: &Inventory) -> usize {
    inventory
        .classes
        .iter()
        .map(|class| class.layers.len().saturating_add(1))
        .fold(0, usize::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::Bytes;
    use crate::model::tensors::InventoryBuilder;
    use crate::model::variant::{FileVariant, Known};
    use crate::model::{Dtype, Format, Storage, config};

    /// A model of so many layers, and tensors of so many names, each in every `step`th layer.
    fn model(layers: u32, names: u32, step: usize) -> Model {
        let mut builder = InventoryBuilder::default();
        for name in 0..names {
            // Numbers between dots fold; letters do not.
            let name: String = name
                .to_string()
                .bytes()
                .map(|digit| char::from(digit - b'0' + b'a'))
                .collect();
            for layer in (0..layers).step_by(step) {
                let tensor = format!("model.layers.{layer}.mlp.{name}.weight");
                builder.add(
                    "",
                    &tensor,
                    Storage::Known(Dtype::BF16),
                    &[1, 1],
                    Bytes::new(2),
                );
            }
        }

        let config = serde_json::json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "vocab_size": 128_256,
            "num_hidden_layers": layers, "num_attention_heads": 32, "num_key_value_heads": 8,
            "intermediate_size": 14_336, "max_position_embeddings": 8192
        });
        let architecture = config::architecture(&config, None, &Inventory::default());
        assert_eq!(architecture.as_ref().unwrap().layers.len(), layers as usize);

        Model::bare(
            "owner/name",
            Format::Safetensors,
            architecture,
            builder.finish(),
        )
    }

    #[test]
    fn a_plan_is_made_at_once_unless_it_may_take_long() {
        let question = Question::default();
        let known = model(64, 10, 1);
        assert!(!takes_long(&question, &known, 8));

        assert!(
            takes_long(&question, &known, 9),
            "many layers on many devices"
        );
        assert!(
            takes_long(
                &Question {
                    frontier: true,
                    ..Question::default()
                },
                &known,
                1
            ),
            "a frontier"
        );

        assert!(!takes_long(&question, &model(1, 2048, 1), 1));
        assert!(
            takes_long(&question, &model(1, 2049, 1), 1),
            "kinds of tensors"
        );

        let file = FileVariant {
            path: "a.gguf".to_owned(),
            parts: 1,
            file_bytes: None,
            known: Known::Length,
        };

        let several = Model {
            variants: vec![file.clone(), file],
            ..known
        };

        assert!(
            takes_long(&question, &several, 1),
            "the verdicts of many files"
        );
    }

    #[test]
    fn models_like_real_ones_are_planned_for_and_absurd_ones_are_not() {
        assert!(leasable(&model(128, 400, 1)).is_ok());
        let problem = leasable(&model(8, 20_000, 1)).unwrap_err();
        assert_eq!(problem.reason, Reason::Usage);
        assert!(problem.detail.contains("40000 kinds"), "{problem}");

        assert!(
            leasable(&model(2_000, 20, 2)).is_err(),
            "few names, and each in a thousand runs"
        );
    }
}
