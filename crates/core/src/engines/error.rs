//! Why an engine gives no figures, and the nearest name to one that does not exist.

/// Why an engine gives no figures.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The model's cache semantics, or its class, are not understood, or this engine does not run
    /// it.
    #[error("{engine} cannot be answered for: {why}")]
    Unsupported {
        /// The engine.
        engine: &'static str,
        /// What is not understood; names the key or class.
        why: String,
    },
    /// The headers of the model's files cannot be right, so nothing is known of its weights.
    #[error("{why}")]
    Headers {
        /// What is wrong, and with which file.
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
    /// A parameter of this engine whose memory no figure follows, set to something that may take
    /// some.
    #[error("{engine} parameter {name} = {value}: {why}")]
    UnsupportedParameter {
        /// The engine.
        engine: &'static str,
        /// The parameter.
        name: String,
        /// The value as given.
        value: String,
        /// What is not counted, and what to do about it.
        why: String,
    },
    /// A parameter that other releases of this engine have.
    #[error("{engine}{version} has no parameter '{name}'; {releases}")]
    ParameterOfOtherRelease {
        /// The engine.
        engine: &'static str,
        /// The version with a space before it; empty for the newest.
        version: String,
        /// The parameter.
        name: String,
        /// Which releases have it.
        releases: String,
    },
    /// A parameter's value that cannot be meant.
    #[error("{engine} parameter {name} = {value}: {why}")]
    BadParameter {
        /// The engine.
        engine: &'static str,
        /// The parameter.
        name: String,
        /// The value as given.
        value: String,
        /// What is wrong with it.
        why: String,
    },
    /// A size left 64 bits on the way.
    #[error(
        "the {what} of this model is larger than 2^64 bytes: its configuration or headers cannot be right"
    )]
    Overflow {
        /// What was being summed.
        what: &'static str,
    },
    /// A version that this engine cannot have.
    #[error("{engine} has no version '{version}': {why}")]
    InvalidVersion {
        /// The engine.
        engine: &'static str,
        /// The version as given.
        version: String,
        /// What is wrong with it.
        why: String,
    },
    /// A version that is older than everything that is known of the engine.
    #[error(
        "{engine} {version} is older than {oldest}, the first release that anything is known of; ask for a later one"
    )]
    UnsupportedVersion {
        /// The engine.
        engine: &'static str,
        /// The version as given.
        version: String,
        /// The oldest release that is answered for.
        oldest: String,
    },
    /// No engine of this name.
    #[error("unknown engine '{name}'{}; known: {known}", did_you_mean(.nearest.as_deref()))]
    UnknownEngine {
        /// The name as given.
        name: String,
        /// The known ones.
        known: String,
        /// The nearest of them.
        nearest: Option<String>,
    },
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!("; did you mean '{name}'?"))
}

/// The name nearest to `given` among `known`, if any is near enough to be meant.
pub fn nearest_name<'n>(given: &str, known: impl IntoIterator<Item = &'n str>) -> Option<String> {
    known
        .into_iter()
        .map(|name| (strsim::jaro_winkler(given, name), name))
        .filter(|(score, _)| *score > 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name.to_owned())
}
