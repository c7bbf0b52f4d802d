//! The suggestions of an answer.

use super::host_view::HostView;
use super::request::Rules;
use crate::engines::Engine;
use crate::model::Format;
use crate::model::architecture::Task;
use crate::placement::{self, Ask, Plan};
use crate::report::answer::{Answer, Suggestion};
use crate::report::problem::Reason;

/// Returns changes that would help, least harm first; each one is planned.
pub(super) fn suggestions(
    ask: &Ask<'_>,
    host: &HostView,
    plan: &Plan,
    rules: &Rules,
) -> Vec<Suggestion> {
    let engines: Vec<&dyn Engine> = other_engines(ask)
        .filter_map(|name| rules.engines.by_name(name).ok())
        .collect();
    let advice = placement::suggestions(ask, &host.availability, plan, &engines, &host.holders);

    advice
        .into_iter()
        .map(|advice| Suggestion {
            change: advice.change,
            message: advice.message,
            verdict: advice.verdict,
            saves_bytes: advice.saves.get(),
        })
        .collect()
}

/// Turns a "no" into a "not yet" if the missing memory is becoming free.
pub(super) fn waiting(answer: &mut Answer, ask: &Ask<'_>, host: &HostView, plan: &Plan) {
    if plan.reason != Reason::InsufficientMemory {
        return;
    }

    let Some((seconds, verdict)) = placement::wait(ask, &host.availability, &host.draining) else {
        return;
    };

    answer.set_reason(Reason::MemoryDraining);
    answer.message = format!(
        "{}; memory is becoming free, ask again in about {seconds} s",
        answer.message
    );
    let message = "memory is becoming free at this rate".to_owned();
    let waiting = Suggestion {
        change: format!("wait {seconds} s"),
        message,
        verdict,
        saves_bytes: 0,
    };

    answer.suggestions.insert(0, waiting);
}

/// Returns the other engines that serve the same files, the most likely first.
fn other_engines(ask: &Ask<'_>) -> impl Iterator<Item = &'static str> {
    let generates = ask
        .model
        .architecture
        .as_ref()
        .is_ok_and(|it| it.task == Task::Generate);
    let alike: &[&str] = match ask.model.format {
        Format::Gguf => &["llama.cpp", "ollama"],
        Format::Safetensors | Format::PytorchBin if generates => {
            &["vllm", "sglang", "transformers"]
        }
        _ => &[],
    };

    let (asked, runnable) = (ask.engine.name(), ask.engine.is_runnable());
    alike
        .iter()
        .copied()
        .filter(move |name| *name != asked && runnable)
}
