//! What can be wrong with a `--gpus` argument.

use thiserror::Error;

use super::MAX_DEVICES;
use crate::bytes::Bytes;

/// What can be wrong with a `--gpus` argument.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeclaredError {
    /// Nothing between two commas, or nothing at all.
    #[error(
        "`--gpus {0}` has an empty item; write for instance `8xH100-80GB` or `2x24GiB,1x12GiB`"
    )]
    Empty(String),
    /// The number before the `x`.
    #[error("`{item}`: the count must be between 1 and {MAX_DEVICES}")]
    Count {
        /// The item.
        item: String,
    },
    /// More devices than [`MAX_DEVICES`] in all.
    #[error("more than {MAX_DEVICES} devices are declared")]
    TooMany,
    /// No such card.
    #[error("`{item}`: no card is called `{card}`{} A size such as `24GiB` works for any card", hint(.nearest))]
    UnknownCard {
        /// The item.
        item: String,
        /// The name in it.
        card: String,
        /// Names that look most like it, the likest first.
        nearest: Vec<String>,
    },
    /// No such MIG profile on the card.
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
    /// Not a size.
    #[error(
        "`{item}`: `{size}` is not a size; write whole GiB or MiB, such as `24GiB` or `24564MiB`"
    )]
    Size {
        /// The item.
        item: String,
        /// What stood for the size.
        size: String,
    },
    /// A card of no bytes, or more in use than there is.
    #[error("`{item}`: {used} in use on a device of {total}")]
    Full {
        /// The item.
        item: String,
        /// The total.
        total: Bytes,
        /// The part said to be in use.
        used: Bytes,
    },
    /// The snapshot file cannot be read.
    #[error("cannot read the snapshot `{path}`: {reason}")]
    File {
        /// Its path.
        path: String,
        /// Why not.
        reason: String,
    },
    /// The snapshot is not one.
    #[error("not a snapshot as `gpus --json` writes it: {0}")]
    Snapshot(String),
}

fn hint(nearest: &[String]) -> String {
    let quoted: Vec<_> = nearest.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        None => ".".to_owned(),
        Some((only, [])) => format!("; did you mean {only}?"),
        Some((last, others)) => format!("; did you mean {} or {last}?", others.join(", ")),
    }
}
