//! `check-config`: checks a configuration file as the daemon does.

use std::path::Path;

use hf_mem_core::report::Problem;
use hf_mem_core::report::problem::Reason;

use super::output::{self, Output};
use crate::config::{self, Warning};
use crate::service;

/// Runs `check-config`: exit code 0 if the daemon can use `file`, 78 if it cannot.
///
/// Warnings go to standard error.
pub(super) fn run(file: &Path) -> u8 {
    match check(file) {
        Ok(warnings) => {
            for warning in &warnings {
                output::remark(&format!("warning: {}: {}", warning.what, warning.why));
            }
            output::text(&format!("{} can be used\n", file.display()));
            0
        }
        Err(problem) => Output { json: false }.problem(&problem),
    }
}

fn check(file: &Path) -> Result<Vec<Warning>, Problem> {
    let (config, warnings) = config::load(file)
        .map_err(|error| Problem::new(Reason::BadConfiguration, error.to_string()))?;

    service::check(&config).map_err(|problem| Problem {
        detail: format!("{}: {}", file.display(), problem.detail),
        ..problem
    })?;

    Ok(warnings)
}
