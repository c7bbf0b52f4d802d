//! The dtypes that a request asks for, by its own fields or by the engine's parameters.
//!
//! A field of the request takes precedence over the parameter of the same meaning.

use std::collections::BTreeSet;

use super::parameters::Parameters;
use crate::engines::{EngineError, EngineRequest};

/// The compute dtype that the request names; `None` for `auto` and without one.
pub(crate) fn asked_dtype<'r>(
    request: &'r EngineRequest<'_>,
    given: &'r Parameters,
) -> Result<Option<&'r str>, EngineError> {
    let parameter = given.word("dtype")?;
    let asked = request.asked.dtype.as_deref().or(parameter);
    Ok(asked.filter(|name| *name != "auto"))
}

/// The dtype of the KV cache that the request names; `auto` without one.
pub(crate) fn asked_kv_cache_dtype<'r>(
    request: &'r EngineRequest<'_>,
    given: &'r Parameters,
) -> Result<&'r str, EngineError> {
    let parameter = given.word("kv_cache_dtype")?;
    let asked = request.asked.kv_cache_dtype.as_deref().or(parameter);
    Ok(asked.unwrap_or("auto"))
}

/// The names of the parameters that the request gives, `dtype` by either way included.
pub(crate) fn given_names(request: &EngineRequest<'_>, given: &Parameters) -> BTreeSet<String> {
    let dtype = request.asked.dtype.as_ref().map(|_| "dtype".to_owned());
    given.names().into_iter().chain(dtype).collect()
}
