//! Compares the engines' figures with measured ones and prints the errors.
//!
//! `cargo run --release --example accuracy -- MEASURED HUB`: MEASURED holds `vllm.jsonl` and
//! `llamacpp.jsonl` (start-up logs), HUB holds `models/OWNER/NAME/{config.json, tensors.json.gz}`.
//! Each table gives the rows inside their interval for both halves of the models: one to fit
//! constants to, one to test them. The program fails if a bar is missed.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program that prints a table"
)]
#![allow(
    clippy::cast_precision_loss,
    reason = "figures are printed, not computed with"
)]

mod devices;
mod facts;
mod generated;
mod hub;
mod llama;
mod score;
mod sglang;
mod vllm;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut paths = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(measured), Some(hub)) = (paths.next(), paths.next()) else {
        eprintln!("usage: accuracy MEASURED HUB");
        return ExitCode::from(2);
    };

    let result = tables(&measured, &hub);

    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("accuracy: a bar is missed");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("accuracy: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints the table of every engine, and returns whether all bars are reached.
fn tables(measured: &Path, hub: &Path) -> Result<bool, String> {
    let logs = measured.join("vllm.jsonl");
    let vllm = vllm::run(&logs, hub)?;
    let sglang = sglang::run(&logs, hub)?;

    llama::run(&measured.join("llamacpp.jsonl"), hub).map_err(|error| error.to_string())?;
    Ok(vllm && sglang)
}
