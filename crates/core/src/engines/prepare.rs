//! Preparing an engine for a request.
//!
//! Checks the version and the model's class, adds the adapter, and widens the figures of an
//! unverified version.

use super::releases::{Confidence, confidence};
use super::unverified::Unverified;
use super::{Engine, EngineError, EngineRequest, PreparedEngine, architectures, lora};

/// Prepares `engine` for `request`.
///
/// Placement calls this, never [`Engine::prepare`], because rules for all engines apply here.
pub fn prepare<'a>(
    engine: &dyn Engine,
    request: &EngineRequest<'a>,
) -> Result<Box<dyn PreparedEngine + 'a>, EngineError> {
    let confidence = confidence(engine.name(), request.version)?;
    if let Ok(architecture) = &request.model.architecture {
        architectures::check(engine.name(), request.version, architecture)?;
    }

    let prepared = lora::prepare(engine, request)?;

    Ok(match confidence {
        Confidence::Verified => prepared,
        Confidence::Unverified(warning) => {
            Box::new(Unverified::new(prepared, request.model, warning))
        }
    })
}
