//! What to change, in the words of the answer.

use super::{HostView, Rules};
use crate::engines::Engine;
use crate::model::Format;
use crate::model::architecture::Task;
use crate::placement::{self, Ask, Plan};
use crate::report::answer::{Answer, Suggestion};
use crate::report::problem::Reason;

/// Changes that would help, least harm first; each was planned.
pub(super) fn suggestions(
    ask: &Ask<'_>,
    here: &HostView,
    plan: &Plan,
    rules: &Rules,
) -> Vec<Suggestion> {
    let engines: Vec<&dyn Engine> = other_engines(ask)
        .filter_map(|name| rules.engines.by_name(name).ok())
        .collect();
    let advice = placement::suggestions(ask, &here.availability, plan, &engines, &here.holders);
    let word = |advice: placement::Advice| Suggestion {
        change: advice.change,
        message: advice.message,
        verdict: advice.verdict,
        saves_bytes: advice.saves.get(),
    };

    advice.into_iter().map(word).collect()
}

/// Turns a "no" into a "not yet" where what is short is coming free by itself.
pub(super) fn waiting(answer: &mut Answer, ask: &Ask<'_>, here: &HostView, plan: &Plan) {
    if plan.reason != Reason::InsufficientMemory {
        return;
    }

    let Some((seconds, verdict)) = placement::wait(ask, &here.availability, &here.draining) else {
        return;
    };

    answer.set_reason(Reason::MemoryDraining);
    answer.message = format!(
        "{}; memory is coming free, ask again in about {seconds} s",
        answer.message
    );
    let message = "memory is coming free at this rate".to_owned();
    let waiting = Suggestion {
        change: format!("wait {seconds} s"),
        message,
        verdict,
        saves_bytes: 0,
    };

    answer.suggestions.insert(0, waiting);
}

/// Engines that serve the same files, the likeliest first.
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
