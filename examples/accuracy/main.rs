//! Compares the engines' figures with measured ones and prints the errors.
//!
//! `cargo run --release --example accuracy -- MEASURED HUB`: MEASURED holds `vllm.jsonl` and
//! `llamacpp.jsonl` (start-up logs), HUB holds `models/OWNER/NAME/{config.json, tensors.json.gz}`.

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

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut paths = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(measured), Some(hub)) = (paths.next(), paths.next()) else {
        eprintln!("usage: accuracy MEASURED HUB");
        return ExitCode::from(2);
    };

    let logs = measured.join("vllm.jsonl");
    let result = vllm::run(&logs, &hub)
        .and_then(|()| sglang::run(&logs, &hub))
        .and_then(|()| {
            llama::run(&measured.join("llamacpp.jsonl"), &hub).map_err(|error| error.to_string())
        });

    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("accuracy: {error}");
            ExitCode::FAILURE
        }
    }
}
