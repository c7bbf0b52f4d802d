//! From a case to an engine that answers: the version checked, an adapter counted, doubt about a
//! version applied.

use super::releases::{Confidence, confidence};
use super::unverified::Unverified;
use super::{Engine, EngineError, EngineRequest, PreparedEngine, lora};

/// Prepares `engine` for `case`. Placement calls this, never [`Engine::prepare`] itself: what holds
/// for every engine is applied here.
pub fn prepare<'a>(
    engine: &dyn Engine,
    case: &EngineRequest<'a>,
) -> Result<Box<dyn PreparedEngine + 'a>, EngineError> {
    let confidence = confidence(engine.name(), case.version)?;
    let prepared = lora::prepare(engine, case)?;

    Ok(match confidence {
        Confidence::Verified => prepared,
        Confidence::Unverified(warning) => Box::new(Unverified::new(prepared, case.model, warning)),
    })
}
