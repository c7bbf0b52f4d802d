//! `health`: whether the daemon is well, for probes that can only run a command.

use super::arguments::HealthArguments;
use super::connection::AnswerEffort;
use super::output::Output;
use super::{daemon_only, exit};
use crate::api::status::{HealthAnswer, HealthStatus};

/// Exit code 0 when it answers, degraded or not (a Hub that is down is no reason to restart the
/// daemon), 69 when it does not. `--strict` is for those who restart nothing: 1 when a part is
/// degraded.
pub(super) fn run(arguments: &HealthArguments) -> u8 {
    let output = Output {
        json: arguments.connection.json,
    };

    match daemon_only::call(arguments.connection.client(AnswerEffort::AtHand).health()) {
        Ok(health) => {
            output.data(&health, words);
            exit::of_health(&health, arguments.strict)
        }
        Err(problem) => output.problem(&problem),
    }
}

fn words(health: &HealthAnswer) -> String {
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
