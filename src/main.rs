//! `hf-mem-probe`: parse, dispatch, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(hf_mem_probe::cli::run(std::env::args_os()))
}
