//! An answer in one line, for scripts and status bars: `-q`.

use hf_mem_core::report::answer::{Answer, Shortfall, Verdict};

use super::figure::figure;
use super::launch::shell_quoted;

/// Returns `fits Qwen/Qwen3-8B vllm@0.33 tp=2 need=25.5GiB left=9.3GiB`.
///
/// The fields keep their order and their names. A field that has no meaning for the answer is left
/// out. `need` is the upper bound over all devices, `left` is that of the fullest device.
pub(super) fn quiet_line(answer: &Answer) -> String {
    let mut words = vec![
        verdict_word(answer.verdict).to_owned(),
        shell_quoted(&answer.model.repo),
    ];
    words.extend(answer.engine.as_ref().map(|engine| {
        if engine.profile.is_empty() {
            engine.name.clone()
        } else {
            format!("{}@{}", engine.name, engine.profile)
        }
    }));

    if let Some(placement) = &answer.placement {
        let degrees = [
            ("tp", placement.tensor_parallel),
            ("pp", placement.pipeline_parallel),
        ];
        words.extend(
            degrees
                .into_iter()
                .filter(|(_, degree)| *degree > 1)
                .map(|(name, degree)| format!("{name}={degree}")),
        );

        let need = placement
            .devices
            .iter()
            .map(|share| share.required_bytes)
            .fold(0, u64::saturating_add);
        words.push(format!("need={}", joined(need)));
    }

    match answer.short_by_bytes {
        Shortfall::Bytes(short @ 1..) => words.push(format!("short={}", joined(short))),
        _ => words.extend(left_bytes(answer).map(|left| format!("left={}", joined(left)))),
    }

    if let (Some(Verdict::DoesNotFit | Verdict::Unknown), Some(reason)) =
        (answer.verdict, &answer.reason)
    {
        words.push(format!("reason={}", reason.as_str()));
    }

    words.join(" ") + "\n"
}

/// Returns the verdict's word on the wire, or `estimate`.
fn verdict_word(verdict: Option<Verdict>) -> &'static str {
    match verdict {
        Some(Verdict::Fits) => "fits",
        Some(Verdict::Tight) => "tight",
        Some(Verdict::DoesNotFit) => "does_not_fit",
        Some(Verdict::Unknown) => "unknown",
        None => "estimate",
    }
}

/// Returns what the model leaves free on the fullest device; `None` if any is unknown.
fn left_bytes(answer: &Answer) -> Option<u64> {
    let shares = &answer.placement.as_ref()?.devices;
    let left = shares
        .iter()
        .map(|share| Some(share.available_bytes?.saturating_sub(share.required_bytes)));

    left.collect::<Option<Vec<u64>>>()?.into_iter().min()
}

/// Returns a figure without a space: `25.5GiB`.
fn joined(bytes: u64) -> String {
    figure(bytes).replace(' ', "")
}
