//! Failures of a question as problems: no plan, no engine, no device.

use super::host_view::HostView;
use super::overflow;
use crate::device::UnusableReason;
use crate::engines::EngineError;
use crate::placement::{Ask, PlacementError, Plan, plan};
use crate::report::problem::{Problem, Reason};

/// Returns the reason and the sentence of an error after which only the weights are known; `None`
/// for any other error.
pub(super) fn only_weights_known(error: &EngineError) -> Option<(Reason, String)> {
    match error {
        EngineError::Unsupported { why, .. } => {
            Some((Reason::UnsupportedArchitecture, why.clone()))
        }
        EngineError::UnsupportedVersion { .. } => {
            Some((Reason::UnsupportedEngineVersion, error.to_string()))
        }
        EngineError::UnsupportedParameter { .. } => {
            Some((Reason::UnsupportedParameter, error.to_string()))
        }
        _ => None,
    }
}

/// Returns the problem of a question without a plan.
pub(super) fn no_plan(error: &PlacementError, ask: &Ask<'_>, host: &HostView) -> Problem {
    match error {
        PlacementError::Engine(EngineError::Overflow { what }) => {
            let by_question = overflow::caused_by_question(what, ask, &host.availability);
            by_question.unwrap_or_else(|| Problem::new(Reason::MissingMetadata, error.to_string()))
        }
        PlacementError::Engine(error) => engine_problem(error),
        error => Problem::new(Reason::Usage, error.to_string()),
    }
}

/// Returns the problem of several questions without a plan; it names the question.
pub(super) fn batch_problem(error: &PlacementError, asks: &[Ask<'_>], host: &HostView) -> Problem {
    let failing = asks.iter().enumerate().find_map(|(place, ask)| {
        let error = plan(ask, &host.availability).err()?;
        let mut problem = no_plan(&error, ask, host);
        problem.detail = format!("questions[{place}]: {}", problem.detail);
        Some(problem)
    });

    failing.unwrap_or_else(|| match error {
        PlacementError::Engine(error) => engine_problem(error),
        error => Problem::new(Reason::Usage, error.to_string()),
    })
}

/// Returns the problem of an engine that computes no figures.
pub(super) fn engine_problem(error: &EngineError) -> Problem {
    let reason = match error {
        EngineError::Unsupported { .. } => Reason::UnsupportedArchitecture,
        EngineError::UnsupportedVersion { .. } => Reason::UnsupportedEngineVersion,
        EngineError::UnsupportedParameter { .. } => Reason::UnsupportedParameter,
        EngineError::UnknownParameter { .. }
        | EngineError::ParameterOfOtherRelease { .. }
        | EngineError::BadParameter { .. }
        | EngineError::InvalidVersion { .. }
        | EngineError::UnknownEngine { .. } => Reason::Usage,
        EngineError::Headers { .. } | EngineError::Overflow { .. } => Reason::MissingMetadata,
    };

    Problem::new(reason, error.to_string())
}

/// Returns the problem of a host without a usable device: a device is lost, or there is none.
pub(super) fn no_devices(plan: &Plan, host: &HostView) -> Problem {
    // A MIG parent only points to its instances. An operator must learn of a lost GPU first.
    let unusable = host
        .availability
        .devices
        .iter()
        .filter(|device| {
            plan.passed_over
                .iter()
                .any(|it| it.uuid == device.facts.uuid)
        })
        .filter_map(|device| device.unusable.as_ref());
    let words = unusable
        .map(|unusable| &unusable.reason)
        .filter(|word| **word != UnusableReason::MigParent);
    let lost = words.clone().find(|word| **word == UnusableReason::GpuLost);
    let reason = lost
        .or_else(|| words.clone().next())
        .map_or(Reason::NoDevices, Reason::of_device);

    let unused = plan
        .passed_over
        .iter()
        .map(|it| format!("{} ({}): {}", it.name, it.uuid, it.why));
    let listed = unused.collect::<Vec<_>>().join("; ");
    let detail = if listed.is_empty() {
        "this host has no GPU".to_owned()
    } else {
        format!("no device can be used: {listed}")
    };

    Problem::new(reason, detail).hint("declare devices with --gpus, or run hf-mem-probe gpus")
}
