//! The error for a model or a parameter that vLLM does not support.

use crate::engines::EngineError;

/// The engine's name in errors.
pub(super) const ENGINE: &str = "vllm";

/// The `unsupported_architecture` error for this engine.
pub(super) fn unsupported(why: impl Into<String>) -> EngineError {
    EngineError::Unsupported {
        engine: ENGINE,
        why: why.into(),
    }
}
