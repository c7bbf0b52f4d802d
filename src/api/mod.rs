//! The words of a question and of its answer, as they stand on the socket and in `--json`.
//!
//! Plain serde types without logic. Strict in: an unknown field of a question is an error that
//! names it. Open out: keys are only ever added within [`SCHEMA_VERSION`], and clients must ignore
//! those that they do not know.

pub mod answer;
mod bounded;
pub mod client;
pub mod file;
pub mod lease;
pub mod limits;
pub mod openapi;
pub mod peer;
pub mod problem;
pub mod question;
pub mod routes;
pub mod server;
pub mod service;
mod shares;
pub mod status;
pub mod unread;

pub use answer::Answer;
pub use problem::Problem;
pub use question::Question;

/// The version of the wire types.
pub const SCHEMA_VERSION: u32 = 1;
