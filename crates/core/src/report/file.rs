//! The files of a repository that holds one model in many quantisations, each with its verdict.

use serde::{Deserialize, Serialize};

use super::answer::Verdict;
use crate::engines::Basis;
use crate::placement::Strategy;
use crate::wire_word::WireWord;

/// All of them, and which to take.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FilesAnswer {
    /// The file to take, as `--file` takes it; `null` where none fits, or where there are no
    /// devices to judge by.
    pub recommended: Option<String>,
    /// The rule that chose it.
    pub rule: String,
    /// The files, the most bits a weight first; what is no model comes last.
    pub list: Vec<FileAnswer>,
}

/// One model among the files of a repository (a split one counts once), or what lies beside them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FileAnswer {
    /// Its path in the repository; of a split one the first part's.
    pub file: String,
    /// `model`, `projector`, `adapter`, `other`.
    pub kind: FileKind,
    /// The quantisation that its name claims.
    pub quantization: Option<String>,
    /// Its parts.
    pub parts: u32,
    /// The length of all parts.
    pub stored_bytes: Option<u64>,
    /// Bits of tensor data for each element, over the whole file.
    pub bits_per_weight: Option<f64>,
    /// Bytes that must be available for it: the high end, summed over the devices of its own best
    /// placement.
    pub required_bytes: Option<u64>,
    /// The likely need, summed likewise.
    pub likely_bytes: Option<u64>,
    /// What its weights rest on: `exact` where its tensor table was read, `assumed` where only its
    /// length is known.
    pub basis: Option<Basis>,
    /// Whether it fits; `null` without devices and for what is no model.
    pub verdict: Option<Verdict>,
    /// How it would be placed, as in a placement.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub strategy: Option<WireWord<Strategy>>,
    /// Devices that it would take.
    pub devices: Option<u32>,
    /// Largest context at one sequence, so placed.
    pub max_context: Option<u64>,
    /// Bytes that are short; 0 where it fits.
    pub short_by_bytes: Option<u64>,
    /// Whether the rest of the answer is about this file.
    pub answered: bool,
    /// Why there are no figures.
    pub why_not: Option<String>,
}

/// What a file holds.
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
