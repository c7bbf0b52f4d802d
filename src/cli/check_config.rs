//! `check-config`: what the daemon would say of a configuration file.

use std::path::Path;

use hf_mem_core::report::Problem;
use hf_mem_core::report::problem::Reason;

use super::output::{self, Output};
use crate::config;
use crate::service;

/// Exit code 0 when the file can be used, with warnings on standard error; 78 when it cannot.
pub(super) fn run(file: &Path) -> u8 {
    let bad =
        |error: config::ConfigError| Problem::new(Reason::BadConfiguration, error.to_string());
    let checked = config::load(file)
        .map_err(bad)
        .and_then(|(config, warnings)| {
            let refused = |problem: Problem| Problem {
                detail: format!("{}: {}", file.display(), problem.detail),
                ..problem
            };
            service::check(&config).map_err(refused)?;
            Ok(warnings)
        });

    match checked {
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
