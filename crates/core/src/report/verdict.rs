//! The verdict of an answer.

use serde::{Deserialize, Serialize};

/// The verdict of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The high end of the need is available.
    Fits,
    /// The likely need is available, the high end is not.
    Tight,
    /// The likely need is not available.
    DoesNotFit,
    /// The verdict cannot be determined.
    Unknown,
}
