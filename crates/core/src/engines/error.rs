//! Reasons why an engine returns no figures, and the nearest name to an unknown one.

/// The reason why an engine returns no figures.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The engine does not run the model, or its class or cache semantics are unknown.
    #[error("{engine} cannot be answered for: {why}")]
    Unsupported {
        /// The engine.
        engine: &'static str,
        /// The reason; names the key or class.
        why: String,
    },
    /// The headers of the model's files are wrong, so its weights are unknown.
    #[error("{why}")]
    Headers {
        /// The error, with the file's name.
        why: String,
    },
    /// A parameter that the engine does not have.
    #[error("{engine} has no parameter '{name}'{}", did_you_mean(.nearest.as_deref()))]
    UnknownParameter {
        /// The engine.
        engine: &'static str,
        /// The name as given.
        name: String,
        /// The nearest name that exists.
        nearest: Option<String>,
    },
    /// A parameter whose memory has no formula, at a value that may take some.
    #[error("{engine} parameter {name} = {value}: {why}")]
    UnsupportedParameter {
        /// The engine.
        engine: &'static str,
        /// The parameter.
        name: String,
        /// The value as given.
        value: String,
        /// The uncounted memory, and how to fix it.
        why: String,
    },
    /// A parameter that other releases of this engine have.
    #[error("{engine}{version} has no parameter '{name}'; {releases}")]
    ParameterOfOtherRelease {
        /// The engine.
        engine: &'static str,
        /// The version after a space; empty for the newest.
        version: String,
        /// The parameter.
        name: String,
        /// The releases that have it.
        releases: String,
    },
    /// An invalid value of a parameter.
    #[error("{engine} parameter {name} = {value}: {why}")]
    BadParameter {
        /// The engine.
        engine: &'static str,
        /// The parameter.
        name: String,
        /// The value as given.
        value: String,
        /// The error in the value.
        why: String,
    },
    /// A size beyond 64 bits.
    #[error(
        "the {what} of this model is larger than 2^64 bytes: its configuration or headers cannot be right"
    )]
    Overflow {
        /// The sum that overflowed.
        what: &'static str,
    },
    /// A version whose form this engine does not use.
    #[error("{engine} has no version '{version}': {why}")]
    InvalidVersion {
        /// The engine.
        engine: &'static str,
        /// The version as given.
        version: String,
        /// The error in the value.
        why: String,
    },
    /// A version older than the first known release.
    #[error(
        "{engine} {version} is older than {oldest}, the first known release; ask for a later one"
    )]
    UnsupportedVersion {
        /// The engine.
        engine: &'static str,
        /// The version as given.
        version: String,
        /// The oldest supported release.
        oldest: String,
    },
    /// An engine name that does not exist.
    #[error("unknown engine '{name}'{}; known: {known}", did_you_mean(.nearest.as_deref()))]
    UnknownEngine {
        /// The name as given.
        name: String,
        /// The known names.
        known: String,
        /// The nearest known name.
        nearest: Option<String>,
    },
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!("; did you mean '{name}'?"))
}

/// The name in `known` that is nearest to `given`; `None` if all are too different.
pub fn nearest_name<'n>(given: &str, known: impl IntoIterator<Item = &'n str>) -> Option<String> {
    known
        .into_iter()
        .map(|name| (strsim::jaro_winkler(given, name), name))
        .filter(|(score, _)| *score > 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name.to_owned())
}
