//! Why a configuration is not understood.

/// The reason why a configuration has no [`Architecture`](super::Architecture).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsupported {
    /// A family whose cache is unknown.
    #[error("{class} ({model_type}): {key} is not understood, so the size of its cache is unknown")]
    Family {
        /// The class or GGUF architecture.
        class: String,
        /// `model_type`.
        model_type: String,
        /// The key (and value) that is not understood.
        key: String,
    },
    /// A family whose rule is unknown, and whose tensors do not confirm ordinary attention.
    #[error("{class} ({model_type}): {why}, so the size of its cache is unknown")]
    Unconfirmed {
        /// The class or GGUF architecture.
        class: String,
        /// `model_type`.
        model_type: String,
        /// The missing or unknown fact, as a clause.
        why: String,
    },
    /// A key that the family needs, without a value in the file or a default in its class.
    #[error("{class}: {key} is missing and has no default")]
    Missing {
        /// The class or GGUF architecture.
        class: String,
        /// The key.
        key: String,
    },
    /// A key with an invalid value.
    #[error("{key} = {value}: {why}")]
    Contradiction {
        /// The key.
        key: String,
        /// Its value, shortened.
        value: String,
        /// The reason why the value is invalid.
        why: String,
    },
    /// The repository has no configuration.
    #[error("the repository has no config.json, so the size of its cache is unknown")]
    NoConfiguration,
}
