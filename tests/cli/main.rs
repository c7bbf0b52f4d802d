//! The real binary: what a person or a scheduler types, what comes out, and the exit code.
#![expect(clippy::unwrap_used, reason = "the helpers of tests may fail them")]

mod answers;
mod daemon;
mod failures;
mod gpus;
mod run;
