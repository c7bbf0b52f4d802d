//! The wire types of the daemon's routes, their OpenAPI description, and the client.
//!
//! This module imports the core crate only. Its types are plain serde types, the same on the socket
//! and in `--json`. Requests are strict: an unknown field is an error that names the field. Answers
//! are open: within one [`SCHEMA_VERSION`] a release only adds keys, and clients must ignore keys
//! that they do not know.

pub mod batch;
pub mod bounds;
pub mod client;
pub mod event;
pub mod lease;
pub mod openapi;
pub mod peer;
pub mod status;

pub use hf_mem_core::report::answer::Answer;
pub use hf_mem_core::report::problem::Problem;
pub use hf_mem_core::report::question::Question;

/// The version of the wire types.
pub const SCHEMA_VERSION: u32 = 1;

/// The content type of a problem document (RFC 9457).
pub const PROBLEM_JSON: &str = "application/problem+json";
