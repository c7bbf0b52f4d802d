//! `health`: reports the daemon's health, for probes that can only run a command.

use super::arguments::HealthArguments;
use super::connection::AnswerEffort;
use super::output::Output;
use super::{daemon_only, exit};
use crate::api::status::{HealthAnswer, HealthStatus};

/// Runs `health`: exit code 0 if the daemon answers, 69 if it does not.
///
/// A degraded daemon also gives 0, because a restart does not repair an unreachable Hub. With
/// `--strict`, for probes that do not restart the daemon, it gives 1.
pub(super) fn run(arguments: &HealthArguments) -> u8 {
    let output = Output {
        json: arguments.connection.json,
    };

    match daemon_only::call(arguments.connection.client(AnswerEffort::InMemory).health()) {
        Ok(health) => {
            output.data(&health, health_text);
            exit::of_health(&health, arguments.strict)
        }
        Err(problem) => output.problem(&problem),
    }
}

fn health_text(health: &HealthAnswer) -> String {
    let mut out = format!("{}, up {} s\n", health.version, health.uptime_seconds);
    for part in &health.parts {
        let state = if part.status == HealthStatus::Ok {
            "ok"
        } else {
            "degraded"
        };

        out.push_str(&format!("  {:<10} {state}", part.name));
        if let Some(reason) = &part.reason {
            out.push_str(&format!(": {reason}"));
        }

        out.push('\n');
    }

    out
}
