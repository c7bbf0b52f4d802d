//! Models that no real one is like: to plan for one costs seconds, and the ledger's owner plans for everybody.

use crate::api::problem::{Problem, Reason};
use crate::model::{Inventory, Model};

/// The most pieces of an inventory. The largest known (Stable Diffusion) have 1 900.
const MOST_PIECES: usize = 8 * 1024;
/// The most pieces times layers, which is what planning costs. The largest known models come to 40 000.
const MOST_EFFORT: usize = 1 << 19;

/// Refuses a model that memory is not promised for, because it would take the ledger's owner too long to find a place for
/// it.
pub fn leasable(model: &Model) -> Result<(), Problem> {
    let of_adapter = model.adapter.as_ref().map_or(0, |adapter| pieces(&adapter.inventory));
    let pieces = pieces(&model.inventory).saturating_add(of_adapter);
    let layers = model.architecture.as_ref().map_or(1, |architecture| architecture.layers.len().max(1));
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
    inventory.classes.iter().map(|class| class.layers.len().saturating_add(1)).fold(0, usize::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::Bytes;
    use crate::model::tensors::InventoryBuilder;
    use crate::model::{Dtype, Format, Identity, Storage, config};

    /// A model of so many layers, and tensors of so many names, each in every `step`th layer.
    fn model(layers: u32, names: u32, step: usize) -> Model {
        let mut builder = InventoryBuilder::default();
        for name in 0..names {
            // Numbers between dots fold; letters do not.
            let name: String = name.to_string().bytes().map(|digit| char::from(digit - b'0' + b'a')).collect();
            for layer in (0..layers).step_by(step) {
                let tensor = format!("model.layers.{layer}.mlp.{name}.weight");
                builder.add("", &tensor, Storage::Known(Dtype::BF16), &[1, 1], Bytes::new(2));
            }
        }
        let config = serde_json::json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "vocab_size": 128_256,
            "num_hidden_layers": layers, "num_attention_heads": 32, "num_key_value_heads": 8,
            "intermediate_size": 14_336, "max_position_embeddings": 8192
        });
        let architecture = config::architecture(&config, None, &Inventory::default());
        assert_eq!(architecture.as_ref().unwrap().layers.len(), layers as usize);
        Model {
            identity: Identity { repo: "owner/name".to_owned(), ..Identity::default() },
            format: Format::Safetensors,
            architecture,
            inventory: builder.finish(),
            weight_files: 1,
            components: Vec::new(),
            parameters: None,
            adapter: None,
            variants: Vec::new(),
            proofs: Vec::new(),
            doubts: Vec::new(),
        }
    }

    #[test]
    fn models_like_real_ones_are_planned_for_and_absurd_ones_are_not() {
        assert!(leasable(&model(128, 400, 1)).is_ok());
        let problem = leasable(&model(8, 20_000, 1)).unwrap_err();
        assert_eq!(problem.reason, Reason::Usage);
        assert!(problem.detail.contains("40000 kinds"), "{problem}");
        assert!(leasable(&model(2_000, 20, 2)).is_err(), "few names, and each in a thousand runs");
    }
}
