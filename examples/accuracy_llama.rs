//! Holds llama.cpp's figures against what people measured: `accuracy_llama MEASURED HUB`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints a table")]
#![allow(clippy::cast_precision_loss, reason = "figures are printed, not computed with")]

#[path = "accuracy/llama.rs"]
mod llama;
#[path = "accuracy/score.rs"]
mod score;

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut paths = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(measured), Some(hub)) = (paths.next(), paths.next()) else {
        eprintln!("usage: accuracy_llama MEASURED HUB");
        return ExitCode::from(2);
    };
    match llama::run(&measured.join("llamacpp.jsonl"), &hub) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("accuracy: {error}");
            ExitCode::FAILURE
        }
    }
}
