//! The `hf-mem-probe` program: runs the command line and returns its exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(hf_mem_probe::cli::run(std::env::args_os()))
}
