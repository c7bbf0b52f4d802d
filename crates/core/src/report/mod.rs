//! The question and the answer, as the socket and `--json` carry them.
//!
//! The types are plain serde types without logic. Input is strict: an unknown field of a question
//! is an error that names the field. Output is open: within one [`SCHEMA_VERSION`] keys and words
//! are only added, and clients must accept those that they do not know.

pub mod answer;
pub mod bounded;
pub mod failures;
pub mod file;
pub mod lease;
mod model;
pub mod problem;
pub mod question;
pub mod raw_json;
mod shortfall;
pub mod strategy;
pub mod together;
mod verdict;

pub use answer::Answer;
pub use problem::Problem;
pub use question::Question;
pub use together::TogetherAnswer;

/// The version of the wire types.
pub const SCHEMA_VERSION: u32 = 1;
