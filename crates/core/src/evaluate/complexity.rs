//! The cost of a plan.
//!
//! A plan for an unrealistic model can take seconds, and some callers plan while others wait.

use crate::model::{Inventory, Model};
use crate::report::problem::{Problem, Reason};
use crate::report::question::Question;

/// Maximum pieces of an inventory. The largest known models (Stable Diffusion) have 1 900.
const MAX_PIECES: usize = 8 * 1024;
/// Maximum product of pieces and layers, the cost of planning. The largest known models reach
/// 40 000.
const MAX_COST: usize = 1 << 19;

/// Maximum product of layers and devices of a cheap plan: 64 layers on 8 devices. Such a plan takes
/// milliseconds, even if nothing fits and every suggestion is tried.
const MAX_CELLS: usize = 512;
/// Maximum kinds of tensors of a cheap plan. A kind has one name (numbers aside), dtype and shape.
/// Known models have hundreds.
const MAX_KINDS: usize = 2048;

/// Whether a plan on `devices` devices may take longer than other callers should wait.
///
/// Expensive are a frontier, the verdicts of many files, many layers on many devices, and models
/// with more parts than any known one.
pub fn is_expensive(question: &Question, model: &Model, devices: usize) -> bool {
    let (mut layers, mut kinds) = (layers(model), model.inventory.classes.len());
    if let Some(draft) = &model.draft {
        layers = layers.saturating_add(self::layers(draft));
        kinds = kinds.saturating_add(draft.inventory.classes.len());
    }

    question.frontier
        || model.variants.len() > 1
        || layers.saturating_mul(devices) > MAX_CELLS
        || kinds > MAX_KINDS
}

/// Rejects a model that is too complex for a lease: the plan would block the lease broker too long.
pub fn check_complexity(model: &Model) -> Result<(), Problem> {
    let adapter_pieces = model
        .adapter
        .as_ref()
        .map_or(0, |adapter| pieces(&adapter.inventory));
    let draft_pieces = model
        .draft
        .as_ref()
        .map_or(0, |draft| pieces(&draft.inventory));
    let pieces = pieces(&model.inventory)
        .saturating_add(adapter_pieces)
        .saturating_add(draft_pieces);

    let draft_layers = model.draft.as_ref().map_or(0, |draft| layers(draft));
    let layers = layers(model).saturating_add(draft_layers);
    if pieces <= MAX_PIECES && pieces.saturating_mul(layers) <= MAX_COST {
        return Ok(());
    }

    let with_draft = model.draft.as_ref().map_or_else(String::new, |draft| {
        format!(" with its draft {}", draft.identity.repo)
    });
    let detail = format!(
        "{}{with_draft} has {pieces} kinds of tensors and runs of layers in {layers} layers: too \
         many for a lease",
        model.identity.repo
    );

    Err(Problem::new(Reason::Usage, detail)
        .hint("ask without a lease (POST /v1/fits; fits without --reserve)"))
}

/// Returns the number of layers; 1 for a model without any.
fn layers(model: &Model) -> usize {
    model
        .architecture
        .as_ref()
        .map_or(1, |architecture| architecture.layers.len().max(1))
}

/// Returns the pieces that a plan goes through: each kind of tensor, and each run of layers that
/// has it.
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

    /// Returns a model of `layers` layers with tensors of `names` names, each in every `step`th
    /// layer.
    fn model(layers: u32, names: u32, step: usize) -> Model {
        let mut builder = InventoryBuilder::default();
        for name in 0..names {
            // Numbers between dots are folded into one kind; letters are not.
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
    fn realistic_plan_is_cheap() {
        let question = Question::default();
        let known = model(64, 10, 1);
        assert!(!is_expensive(&question, &known, 8));

        assert!(
            is_expensive(&question, &known, 9),
            "many layers on many devices"
        );
        assert!(
            is_expensive(
                &Question {
                    frontier: true,
                    ..Question::default()
                },
                &known,
                1
            ),
            "a frontier"
        );

        assert!(!is_expensive(&question, &model(1, 2048, 1), 1));
        assert!(
            is_expensive(&question, &model(1, 2049, 1), 1),
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
            is_expensive(&question, &several, 1),
            "the verdicts of many files"
        );
    }

    #[test]
    fn draft_counts_as_its_model() {
        let question = Question::default();
        let draft = |layers, names| std::sync::Arc::new(model(layers, names, 1));
        let (known, cheap) = (model(60, 10, 1), draft(4, 10));
        assert!(!is_expensive(
            &question,
            &known.clone().with_draft(cheap),
            8
        ));
        assert!(
            is_expensive(&question, &known.clone().with_draft(draft(5, 10)), 8),
            "layers of both"
        );
        assert!(
            is_expensive(&question, &known.clone().with_draft(draft(1, 2040)), 1),
            "kinds of tensors of both"
        );

        assert!(check_complexity(&known.clone()).is_ok());
        let problem = check_complexity(&known.with_draft(draft(8, 20_000))).unwrap_err();
        assert!(problem.detail.contains("40020 kinds"), "{problem}");
    }

    #[test]
    fn absurd_models_get_no_lease() {
        assert!(check_complexity(&model(128, 400, 1)).is_ok());
        let problem = check_complexity(&model(8, 20_000, 1)).unwrap_err();
        assert_eq!(problem.reason, Reason::Usage);
        assert!(problem.detail.contains("40000 kinds"), "{problem}");

        assert!(
            check_complexity(&model(2_000, 20, 2)).is_err(),
            "few names, and each in a thousand runs"
        );
    }
}
