//! Errors of a `--gpus` argument.

use thiserror::Error;

use crate::bytes::Bytes;

/// Maximum number of declared devices, more than any host has. It bounds what a specification can
/// build.
pub const MAX_DEVICES: usize = 128;

/// An error of a `--gpus` argument.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeclaredError {
    /// An empty item, or an empty specification.
    #[error(
        "`--gpus {0}` has an empty item; write for instance `8xH100-80GB` or `2x24GiB,1x12GiB`"
    )]
    Empty(String),
    /// An invalid number before the `x`.
    #[error("`{item}`: the count must be between 1 and {MAX_DEVICES}")]
    Count {
        /// The item.
        item: String,
    },
    /// More than [`MAX_DEVICES`] devices in all.
    #[error("more than {MAX_DEVICES} devices are declared")]
    TooMany,
    /// An unknown card.
    #[error("`{item}`: no card is called `{card}`{} A size such as `24GiB` works for any card", hint(.nearest))]
    UnknownCard {
        /// The item.
        item: String,
        /// The name in it.
        card: String,
        /// The most similar names, the most similar first.
        nearest: Vec<String>,
    },
    /// An unknown MIG profile of a card.
    #[error("`{item}`: {card} has no MIG profile `{profile}` that was measured; known: {known}")]
    UnknownProfile {
        /// The item.
        item: String,
        /// The card.
        card: String,
        /// The profile.
        profile: String,
        /// The card's profiles.
        known: String,
    },
    /// An invalid size.
    #[error(
        "`{item}`: `{size}` is not a size; write whole GiB or MiB, such as `24GiB` or `24564MiB`"
    )]
    Size {
        /// The item.
        item: String,
        /// The text in place of the size.
        size: String,
    },
    /// A device without free memory: no bytes at all, or more in use than the total.
    #[error("`{item}`: {used} in use on a device of {total}")]
    Full {
        /// The item.
        item: String,
        /// The total.
        total: Bytes,
        /// The bytes declared to be in use.
        used: Bytes,
    },
    /// The snapshot file cannot be read.
    #[error("cannot read the snapshot `{path}`: {reason}")]
    File {
        /// The path.
        path: String,
        /// The reason.
        reason: String,
    },
    /// The text is not a snapshot.
    #[error("not a snapshot as `gpus --json` writes it: {0}")]
    Snapshot(String),
}

/// Returns the similar names as a question.
fn hint(nearest: &[String]) -> String {
    let quoted: Vec<_> = nearest.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        None => ".".to_owned(),
        Some((only, [])) => format!("; did you mean {only}?"),
        Some((last, others)) => format!("; did you mean {} or {last}?", others.join(", ")),
    }
}
