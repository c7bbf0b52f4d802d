//! `health`: whether the daemon is well, for probes that can only run a command.

use super::arguments::ConnectionArguments;
use super::output::Output;
use crate::api::Problem;
use crate::api::client::{Client, block_on};
use crate::api::problem::Reason;
use crate::api::status::{HealthAnswer, HealthStatus};

/// Exit code 0 when it answers, degraded or not (a Hub that is down is no reason to restart the daemon), 69 when it does
/// not.
pub(super) fn run(arguments: &ConnectionArguments) -> u8 {
    let output = Output { json: arguments.json };
    let asked = block_on(Client::new(&arguments.socket).health());
    let health = match asked {
        Ok(Ok(health)) => health,
        Ok(Err(error)) => return output.problem(&error.into()),
        Err(error) => return output.problem(&Problem::new(Reason::Internal, format!("no runtime: {error}"))),
    };
    output.data(&health, words);
    Reason::Fits.exit_code()
}

fn words(health: &HealthAnswer) -> String {
    let mut out = format!("{}, up {} s\n", health.version, health.uptime_seconds);
    for part in &health.parts {
        let state = if part.status == HealthStatus::Ok { "ok" } else { "degraded" };
        out.push_str(&format!("  {:<10} {state}", part.name));
        if let Some(reason) = &part.reason {
            out.push_str(&format!(": {reason}"));
        }
        out.push('\n');
    }
    out
}
