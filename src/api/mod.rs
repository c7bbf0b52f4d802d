//! The words of a question and of its answer, as they stand on the socket and in `--json`.
//!
//! Plain serde types without logic. Strict in: an unknown field of a question is an error that
//! names it. Open out: keys are only ever added within [`SCHEMA_VERSION`], and clients must ignore
//! those that they do not know.

pub mod client;
pub mod lease;
pub mod openapi;
pub mod peer;
pub mod status;

pub use hf_mem_core::report::answer::Answer;
pub use hf_mem_core::report::problem::Problem;
pub use hf_mem_core::report::question::Question;

/// The version of the wire types.
pub const SCHEMA_VERSION: u32 = 1;
