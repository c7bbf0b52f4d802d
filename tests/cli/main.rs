//! Runs the real binary, and checks its output and exit code.
#![expect(clippy::unwrap_used, reason = "the helpers of tests may fail them")]

mod adapters;
mod answers;
mod configurations;
mod daemon;
mod daemon_process;
mod drafts;
mod engine_parameters;
mod engine_versions;
mod failures;
#[path = "../support/fake_hub/mod.rs"]
mod fake_hub;
mod files;
mod folders;
#[path = "../support/gguf_writer.rs"]
mod gguf_writer;
mod gpus;
mod hostile_gguf;
mod llama_parameters;
mod log;
mod run;
mod speech;
mod terminal;
mod uncovered;
