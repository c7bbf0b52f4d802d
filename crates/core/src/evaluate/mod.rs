//! The path from a question to its answer.
//!
//! The Hub, the driver and the ledger have been read before: [`answer()`] takes values and returns
//! one. [`fits`] adds a verdict for every file of a repository, [`together`] places several models,
//! and [`estimate()`] needs no device. `answer.rs` is the path in one function; read it first.

mod answer;
mod assemble;
mod batch;
pub mod complexity;
mod default_engine;
mod estimate;
mod files;
mod host_view;
mod leased;
mod model_report;
mod overflow;
mod problems;
mod request;
mod requirement;
mod suggest;
mod summary;

pub use answer::{answer, fits};
pub use assemble::note_staleness;
pub use batch::together;
pub use complexity::{check_complexity, is_expensive};
pub use default_engine::{default_engine, defaults_to_vllm};
pub use estimate::estimate;
pub use host_view::HostView;
pub use model_report::report as model_answer;
pub use request::{Rules, check_engine};
