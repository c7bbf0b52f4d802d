//! The question and the answer, as the socket and `--json` carry them.
//!
//! Plain serde types without logic. Strict in: an unknown field of a question is an error that
//! names it. Open out: keys are only ever added within [`SCHEMA_VERSION`], and clients must ignore
//! those that they do not know.

pub mod answer;
pub mod bounded;
pub mod failures;
pub mod file;
pub mod lease;
pub mod problem;
pub mod question;
pub mod raw_json;
pub mod together;

pub use answer::Answer;
pub use problem::Problem;
pub use question::Question;
pub use together::TogetherAnswer;

/// The version of the wire types.
pub const SCHEMA_VERSION: u32 = 1;
