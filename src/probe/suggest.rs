//! What to change, in the words of the answer.

use std::collections::BTreeMap;

use super::{Here, Rules};
use crate::api::answer::{Answer, Suggestion};
use crate::api::problem::{Problem, Reason};
use crate::engines::AskedContext;
use crate::model::Format;
use crate::model::architecture::Task;
use crate::placement::{self, Ask, Constraints, Other, Plan};

/// Changes that would help, least harm first; each was planned anew.
pub(super) fn suggestions(ask: &Ask<'_>, here: &Here, plan: &Plan, rules: &Rules) -> Result<Vec<Suggestion>, Problem> {
    let defaults = BTreeMap::new();
    let mut others = Vec::new();
    for name in other_engines(ask) {
        let Ok(engine) = rules.engines.by_name(name) else { continue };
        let mut asked = ask.asked.clone();
        asked.kv_cache_dtype = None;
        asked.context = plan.settled.as_ref().map(|settled| AskedContext::Tokens(settled.workload.context));
        let constraints = Constraints { tensor: None, pipeline: None, ..ask.constraints.clone() };
        let ask = Ask { engine, version: None, parameters: &defaults, asked, constraints, ..ask.clone() };
        others.push(Other { change: format!("engine={name}"), message: format!("the same workload on {name}"), ask });
    }
    let advice = placement::suggestions(ask, &here.availability, plan, &others, &here.holders)
        .map_err(|error| Problem::new(Reason::Internal, error.to_string()))?;
    let word = |advice: placement::Advice| Suggestion {
        change: advice.change,
        message: advice.message,
        verdict: advice.verdict,
        saves_bytes: advice.saves.get(),
    };
    Ok(advice.into_iter().map(word).collect())
}

/// Turns a "no" into a "not yet" where what is short is coming free by itself.
pub(super) fn waiting(answer: &mut Answer, ask: &Ask<'_>, here: &Here, plan: &Plan) -> Result<(), Problem> {
    if plan.reason != Reason::InsufficientMemory {
        return Ok(());
    }
    let waited = placement::wait(ask, &here.availability, &here.draining)
        .map_err(|error| Problem::new(Reason::Internal, error.to_string()))?;
    if let Some((seconds, verdict)) = waited {
        Reason::MemoryDraining.word().clone_into(&mut answer.reason);
        answer.message = format!("{}; memory is coming free, ask again in about {seconds} s", answer.message);
        let message = "memory is coming free at this rate".to_owned();
        let waiting = Suggestion { change: format!("wait {seconds} s"), message, verdict, saves_bytes: 0 };
        answer.suggestions.insert(0, waiting);
    }
    Ok(())
}

/// Engines that serve the same files, the likeliest first.
fn other_engines(ask: &Ask<'_>) -> impl Iterator<Item = &'static str> {
    let generates = ask.model.architecture.as_ref().is_ok_and(|it| it.task == Task::Generate);
    let alike: &[&str] = match ask.model.format {
        Format::Gguf => &["llama.cpp", "ollama"],
        Format::Safetensors | Format::PytorchBin if generates => &["vllm", "sglang", "transformers"],
        _ => &[],
    };
    let asked = ask.engine.name();
    alike.iter().copied().filter(move |name| *name != asked && asked != "reference")
}
