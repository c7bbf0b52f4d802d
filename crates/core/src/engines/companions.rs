//! The second model that an engine loads along with a model: its adapter or its draft.

use super::{Engine, EngineError, EngineRequest, PreparedEngine};
use crate::model::Model;

/// Prepares `engine` for `request`, with the model's adapter or its draft if it has one.
///
/// # Errors
///
/// As [`Engine::prepare`]. Refuses contradictory headers of the model and of its draft, and a draft
/// together with an adapter, whose memory no formula here describes.
pub fn prepare<'a>(
    engine: &dyn Engine,
    request: &EngineRequest<'a>,
) -> Result<Box<dyn PreparedEngine + 'a>, EngineError> {
    // Every engine is prepared here, so none answers for such a model.
    check_headers(request.model)?;

    match (&request.model.adapter, &request.model.draft) {
        (None, None) => engine.prepare(request),
        (Some(adapter), None) => engine.prepare_with_adapter(request, adapter),
        (None, Some(draft)) => {
            check_draft(engine, draft)?;
            engine.prepare_with_draft(request, draft)
        }
        (Some(_), Some(_)) => Err(EngineError::Unsupported {
            engine: engine.name(),
            why: "a draft together with an adapter is not counted; merge the adapter into its \
                  base model"
                .to_owned(),
        }),
    }
}

/// Refuses a draft for an engine whose draft memory has no formula, with the reason `why`.
pub fn no_draft(engine: &'static str, why: &str) -> EngineError {
    EngineError::Unsupported {
        engine,
        why: why.to_owned(),
    }
}

fn check_draft(engine: &dyn Engine, draft: &Model) -> Result<(), EngineError> {
    check_headers(draft).map_err(|error| match error {
        EngineError::Headers { why } => EngineError::Headers {
            why: format!("the draft {}: {why}", draft.identity.repo),
        },
        other => other,
    })?;

    if draft.adapter.is_none() {
        return Ok(());
    }

    Err(EngineError::Unsupported {
        engine: engine.name(),
        why: format!(
            "the draft {} is an adapter; merge it into its base model",
            draft.asked().repo
        ),
    })
}

fn check_headers(model: &Model) -> Result<(), EngineError> {
    match &model.contradiction {
        Some(why) => Err(EngineError::Headers { why: why.clone() }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use serde_json::json;

    use super::super::{by_name, sample};
    use super::*;
    use crate::model::{Adapter, Dtype, Identity};

    fn llama(repo: &str) -> Model {
        let config = json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096,
            "intermediate_size": 14336, "num_hidden_layers": 2, "num_attention_heads": 32,
            "num_key_value_heads": 8, "vocab_size": 128_256, "max_position_embeddings": 8192,
            "torch_dtype": "bfloat16"
        });

        let name = "model.embed_tokens.weight";
        let embedding = ("", name, Dtype::BF16, &[128_256, 4096][..]);
        let mut model = sample::model(&config, sample::inventory(&[embedding]));
        repo.clone_into(&mut model.identity.repo);
        model
    }

    fn adapter() -> Adapter {
        Adapter {
            identity: Identity {
                repo: "owner/lora".to_owned(),
                ..Identity::default()
            },
            base_gated: false,
            method: "LORA".to_owned(),
            rank: Some(8),
            dora: false,
            inventory: sample::inventory(&[]),
            saves: Vec::new(),
        }
    }

    fn refusal(engine: &str, model: &Model) -> String {
        let parameters = BTreeMap::new();
        let devices = [sample::device()];
        let request = EngineRequest {
            model,
            version: None,
            parameters: &parameters,
            asked: sample::tokens(2048),
            devices: &devices,
        };

        match prepare(by_name(engine).unwrap(), &request) {
            Ok(_) => "prepared".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn engines_without_drafts_refuse() {
        let model = llama("owner/large");
        let with_draft = model.clone().with_draft(Arc::new(llama("owner/small")));

        for (engine, why) in [
            ("transformers", "assisted generation is not counted"),
            ("reference", "counts one model"),
        ] {
            assert_eq!(refusal(engine, &model), "prepared");
            let refused = refusal(engine, &with_draft);
            assert!(refused.contains(why), "{engine}: {refused}");
        }
    }

    #[test]
    fn contradictory_draft_is_refused() {
        let mut draft = llama("owner/small");
        draft.contradiction = Some("a header is wrong".to_owned());
        let refused = refusal(
            "reference",
            &llama("owner/large").with_draft(Arc::new(draft)),
        );
        assert_eq!(refused, "the draft owner/small: a header is wrong");
    }

    #[test]
    fn draft_with_adapter_is_refused() {
        let mut model = llama("owner/large").with_draft(Arc::new(llama("owner/small")));
        model.adapter = Some(adapter());
        assert!(refusal("transformers", &model).contains("together with an adapter"));

        let mut draft = llama("owner/small");
        draft.adapter = Some(adapter());
        let refused = refusal(
            "transformers",
            &llama("owner/large").with_draft(Arc::new(draft)),
        );
        assert!(
            refused.contains("the draft owner/lora is an adapter"),
            "{refused}"
        );
    }
}
