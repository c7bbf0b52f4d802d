//! The files of a repository that holds one model in many quantizations, each with its verdict.

use serde::{Deserialize, Serialize};

use super::verdict::Verdict;
use crate::engines::Basis;
use crate::report::strategy::Strategy;
use crate::wire_word::WireWord;

/// All files of a repository, and the recommended one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FilesAnswer {
    /// The recommended file, as `--file` accepts it; `null` if none fits, or without devices.
    pub recommended: Option<String>,
    /// The rule of the recommendation.
    pub rule: String,
    /// The files, the most bits a weight first; files that are no model come last.
    pub list: Vec<FileAnswer>,
}

/// A model among the files of a repository (a split one counts once), or another kind of file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FileAnswer {
    /// The path in the repository; for a split file the path of the first part.
    pub file: String,
    /// `model`, `projector`, `adapter`, `other`.
    pub kind: FileKind,
    /// The quantization according to its name.
    pub quantization: Option<String>,
    /// The number of parts.
    pub parts: u32,
    /// The length of all parts.
    pub stored_bytes: Option<u64>,
    /// Bits of tensor data for each element, over the whole file.
    pub bits_per_weight: Option<f64>,
    /// Bytes that must be available: the high end, summed over the devices of the file's best
    /// placement.
    pub required_bytes: Option<u64>,
    /// The likely need, summed over the same devices.
    pub likely_bytes: Option<u64>,
    /// The basis of the weights: `exact` if the tensor table was read, `assumed` if only the length
    /// is known.
    pub basis: Option<Basis>,
    /// Whether it fits; `null` without devices and for a file that is no model.
    pub verdict: Option<Verdict>,
    /// The kind of placement, as in a placement.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub strategy: Option<WireWord<Strategy>>,
    /// The number of devices of the placement.
    pub devices: Option<u32>,
    /// The largest context at one sequence in that placement.
    pub max_context: Option<u64>,
    /// Bytes that are short; 0 if it fits.
    pub short_by_bytes: Option<u64>,
    /// Whether the rest of the answer is about this file.
    pub answered: bool,
    /// Why there are no figures.
    pub why_not: Option<String>,
}

/// The kind of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// A model.
    Model,
    /// A vision or audio projector.
    Projector,
    /// A LoRA adapter.
    Adapter,
    /// Anything else.
    Other,
}
