//! Estimates: what a model needs, whatever devices this host has.

use std::time::SystemTime;

use super::answer::{answer, fits};
use super::host_view::HostView;
use super::request::Rules;
use super::{files, summary};
use crate::model::Model;
use crate::report::answer::{Answer, Shortfall, Verdict};
use crate::report::problem::{Problem, Reason};
use crate::report::question::Question;

/// The device of an estimate if the question names none: the most common card of its class in
/// published engine logs.
const ASSUMED_DEVICE: &str = "H100-80GB";
/// Numbers of such devices that an estimate tries.
const ASSUMED_COUNTS: [u64; 6] = [1, 2, 4, 8, 16, 32];

/// Returns what `model` needs on the declared devices. Without declared devices, the answer is for
/// the smallest sufficient number of a common data-center GPU, and says so.
pub fn estimate(
    question: &Question,
    model: &Model,
    declared: Option<HostView>,
    rules: &Rules,
) -> Result<Answer, Problem> {
    if let Some(host) = declared {
        return fits(question, model, &host, rules);
    }

    let fixed = question.constraints.tensor_parallel.is_some()
        || question.constraints.pipeline_parallel.is_some();
    let asked = u64::from(question.constraints.tensor_parallel.unwrap_or(1))
        * u64::from(question.constraints.pipeline_parallel.unwrap_or(1));
    let counts: &[u64] = if fixed { &[asked] } else { &ASSUMED_COUNTS };
    let mut last = None;

    for count in counts {
        let host =
            HostView::declared(&format!("{count}x{ASSUMED_DEVICE}"), SystemTime::UNIX_EPOCH)?;
        let mut found = answer(question, model, &host, rules)?;

        // If no bytes are short on the devices, only the host memory is unknown. More devices do
        // not change that.
        let done = matches!(
            found.verdict,
            Some(Verdict::Fits | Verdict::Tight | Verdict::Unknown)
        ) || found.short_by_bytes == Shortfall::Bytes(0);
        if found.verdict != Some(Verdict::Unknown) {
            found.assumptions.insert(
                0,
                format!(
                    "computed for {count} x {ASSUMED_DEVICE}, all of it free; \
                     name your own devices with --gpus"
                ),
            );
            found.message = summary::estimate(&found);
            found.withdraw_verdict();
            found.suggestions.clear();
            found.alternatives.clear();
        }

        found.sampled_at = None;
        if done {
            files::list(&mut found, question, model, &host, rules, false)?;
            return Ok(found);
        }

        last = Some(found);
    }

    last.ok_or_else(|| Problem::new(Reason::Internal, "no number of devices was tried"))
}
