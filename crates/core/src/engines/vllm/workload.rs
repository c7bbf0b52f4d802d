//! The workload in force: the context and the number of sequences.

use super::refusal::ENGINE;
use crate::engines::shared::parameters::Parameters;
use crate::engines::{AskedContext, EngineError, EngineRequest, Workload};
use crate::model::Architecture;

/// The context of a model whose configuration gives none (`_get_and_verify_max_len`).
const DEFAULT_CONTEXT: u64 = 2048;

/// Resolves the workload of `request`.
pub(super) fn workload(
    request: &EngineRequest<'_>,
    architecture: &Architecture,
    given: &Parameters,
) -> Result<Workload, EngineError> {
    let parameter = given.positive("max_model_len")?;
    let asked = match request.asked.context {
        Some(AskedContext::Tokens(tokens)) => Some(tokens),
        Some(AskedContext::Max) => None,
        None => parameter,
    };

    let context = match (asked, architecture.max_context) {
        (Some(0), _) => return Err(bad_context(0, "must be at least 1".to_owned())),
        (Some(tokens), Some(limit)) if tokens > limit => {
            return Err(bad_context(
                tokens,
                format!("is more than the {limit} tokens that the model is configured for"),
            ));
        }
        (Some(tokens), _) => tokens,
        (None, Some(limit)) if request.asked.context.is_none() => architecture
            .original_context()
            .map_or(limit, |original| original.min(limit)),
        (None, limit) => limit.unwrap_or(DEFAULT_CONTEXT),
    };

    Ok(Workload {
        context,
        sequences: request.asked.sequences.unwrap_or(1).max(1),
    })
}

fn bad_context(tokens: u64, why: String) -> EngineError {
    EngineError::BadParameter {
        engine: ENGINE,
        name: "max_model_len".to_owned(),
        value: tokens.to_string(),
        why,
    }
}
