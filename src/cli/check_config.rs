//! `check-config`: what the daemon would say of a configuration file.

use std::path::Path;

use super::output::{self, Output};
use crate::api::Problem;
use crate::api::problem::Reason;
use crate::config;

/// Exit code 0 when the file can be used, with warnings on standard error; 78 when it cannot.
pub(super) fn run(file: &Path) -> u8 {
    match config::check_config(file) {
        Ok(warnings) => {
            for warning in &warnings {
                output::remark(&format!("warning: {}: {}", warning.what, warning.why));
            }
            output::text(&format!("{} can be used\n", file.display()));
            0
        }
        Err(error) => Output { json: false }.problem(&Problem::new(Reason::BadConfiguration, error.to_string())),
    }
}
