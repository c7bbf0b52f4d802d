//! Preparing an engine for a request.
//!
//! Checks the version and the model's class, adds the adapter or the draft, and widens the figures
//! that are not verified.

use super::releases::{Confidence, confidence, newest_verified};
use super::unverified::{Verification, widen_unverified};
use super::{Engine, EngineError, EngineRequest, PreparedEngine, architectures, companions};

/// Prepares `engine` for `request`.
///
/// Placement calls this, never [`Engine::prepare`], because rules for all engines apply here.
pub fn prepare<'a>(
    engine: &dyn Engine,
    request: &EngineRequest<'a>,
) -> Result<Box<dyn PreparedEngine + 'a>, EngineError> {
    let name = engine.name();
    let mut warnings = Vec::new();
    let confidence = confidence(name, request.version)?;

    if let Ok(architecture) = &request.model.architecture {
        warnings.extend(architectures::check(name, request.version, architecture)?);
    }

    let prepared = companions::prepare(engine, request)?;
    let is_outside = match confidence {
        Confidence::Verified => false,
        Confidence::Unverified(warning) => {
            warnings.push(warning);
            true
        }
    };

    // An engine without versions is a definition, which nothing can contradict.
    let Some(version) = request.version.or_else(|| newest_verified(name)) else {
        return Ok(prepared);
    };

    let verification = Verification {
        engine: name,
        version,
        is_outside,
        warnings,
    };
    Ok(widen_unverified(prepared, request.model, verification))
}
