//! Pooling: embedders, classifiers and rerankers.
//!
//! Source: vLLM 0.33 `config/model.py` (`_get_runner_type`, `_get_convert_type`),
//! `model_executor/models/adapters.py` (`_create_pooling_model_cls` leaves out the output head).

use crate::bytes::Bytes;
use crate::engines::EngineError;
use crate::engines::shared::parameters::Parameters;
use crate::model::architecture::Task;
use crate::model::{Architecture, Model};

/// The use that the parameters ask of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// The use that its class is made for.
    AsMade,
    Generate,
    Pool,
}

/// The task that vLLM runs the model for: that of its class, or pooling if the question or the
/// repository's `modules.json` asks for it.
///
/// Decoders that pool keep their cache, encoders have none.
pub(super) fn task(
    given: &Parameters,
    architecture: &Architecture,
    asks_for_pooling: bool,
) -> Result<Task, EngineError> {
    let asked = match runner(given)? {
        Use::AsMade => convert_or_task(given)?,
        runner => runner,
    };

    match (architecture.task, asked) {
        (Task::EncodeDecode, Use::Pool) => Err(refuse(
            given,
            "encoder-decoder models that pool are not counted",
        )),
        (Task::Encode | Task::Pool, Use::Generate) => {
            Err(refuse(given, "the model's class does not generate text"))
        }
        (Task::Generate, Use::Pool) => Ok(Task::Pool),
        (Task::Generate, Use::AsMade) if asks_for_pooling => Ok(Task::Pool),
        (task, _) => Ok(task),
    }
}

/// Refuses speculative decoding for a model that pools: it decodes nothing.
pub(super) fn check_speculation(
    given: &Parameters,
    task: Task,
    speculates: bool,
) -> Result<(), EngineError> {
    if speculates && matches!(task, Task::Encode | Task::Pool) {
        return Err(refuse(given, "a model that pools takes no draft"));
    }

    Ok(())
}

fn runner(given: &Parameters) -> Result<Use, EngineError> {
    match given.word("runner")? {
        None | Some("auto") => Ok(Use::AsMade),
        Some("generate") => Ok(Use::Generate),
        Some("pooling") => Ok(Use::Pool),
        Some(_) => Err(given.bad("runner", "known: auto, generate, pooling")),
    }
}

fn convert_or_task(given: &Parameters) -> Result<Use, EngineError> {
    match given.word("convert")? {
        None | Some("auto" | "none") => {}
        Some("embed" | "classify" | "reward") => return Ok(Use::Pool),
        Some(_) => return Err(given.bad("convert", "known: auto, none, embed, classify, reward")),
    }

    match given.word("task")? {
        None | Some("auto") => Ok(Use::AsMade),
        Some("generate" | "transcription") => Ok(Use::Generate),
        Some("embed" | "embedding" | "encode" | "classify" | "score" | "reward") => Ok(Use::Pool),
        Some(_) => Err(given.bad(
            "task",
            "known: auto, generate, transcription, embed, encode, classify, score, reward",
        )),
    }
}

/// Refuses the parameter that decided.
fn refuse(given: &Parameters, why: &str) -> EngineError {
    let decided = ["runner", "convert", "task"]
        .into_iter()
        .find(|name| given.value(name).is_some_and(|value| value != "auto"));

    given.bad(decided.unwrap_or("runner"), why)
}

/// Rows by which `VocabParallelEmbedding` pads, which BERT has for positions and token types too.
const ROW_STEP: u64 = 64;

/// By how much the weights of a model that pools differ from its tensors in the model's dtype.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct HeadBytes {
    /// Classification heads, which run in 32 bits, and padded rows.
    pub(super) more: Bytes,
    /// Heads that are not loaded.
    pub(super) less: Bytes,
}

/// The way in which vLLM loads a tensor outside of the layers of a model that pools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Treatment {
    /// Loads it in the model's dtype.
    AsModel,
    /// Loads it in 32 bits (`config/model.py`, `head_dtype`).
    Float32,
    /// Loads it with padded rows.
    Padded,
    /// Leaves it out.
    LeftOut,
}

/// The bytes of heads and padding in a model that runs for `task` and computes in `element` bytes.
pub(super) fn heads(model: &Model, class: &str, task: Task, element: u64) -> HeadBytes {
    let mut bytes = HeadBytes::default();
    if !matches!(task, Task::Encode | Task::Pool) {
        return bytes;
    }

    // The layers of a head in several parts are numbered too: `score.0`, `score.2`.
    let is_outside = |pattern: &str| pattern.starts_with("score.");
    let classes = model.inventory.classes.iter();
    for tensor in classes.filter(|class| class.layers.is_empty() || is_outside(&class.pattern)) {
        let (rows, all) = (tensor.shape.first().copied().unwrap_or(0), &tensor.shape);
        let elements = Bytes::product(all.iter().copied()) * tensor.count;
        match treatment(&tensor.pattern, class) {
            Treatment::AsModel => {}
            Treatment::Float32 => bytes.more += elements * 4_u64.saturating_sub(element),
            Treatment::LeftOut => bytes.less += elements * element,
            Treatment::Padded => {
                let padding = rows.next_multiple_of(ROW_STEP) - rows;
                let row = elements.div_ceil(rows.max(1));
                bytes.more += row * padding * element;
            }
        }
    }

    bytes
}

/// Source: vLLM 0.33 `models/bert.py`, `models/roberta.py`, `models/modernbert.py`,
/// `models/qwen2_rm.py`, `models/adapters.py`.
fn treatment(pattern: &str, class: &str) -> Treatment {
    let classifies = class.ends_with("Classification");
    let name = ["bert.", "roberta.", "model."]
        .iter()
        .find_map(|prefix| pattern.strip_prefix(prefix))
        .unwrap_or(pattern);
    let (first, rest) = name.split_once('.').unwrap_or((name, ""));

    match first {
        "score" | "classifier" => Treatment::Float32,
        "head" if classifies => Treatment::Float32,
        // Projections of sentence-transformers: `2_Dense/model.safetensors`.
        "linear" if rest == "weight" || rest == "bias" => Treatment::Float32,
        "pooler" if class == "BertForSequenceClassification" => Treatment::Float32,
        "pooler" | "cls" => Treatment::LeftOut,
        // The head's own weight and bias are left out with every head.
        "lm_head" if rest.contains('.') => Treatment::LeftOut,
        "embeddings"
            if matches!(
                rest,
                "position_embeddings.weight" | "token_type_embeddings.weight"
            ) =>
        {
            Treatment::Padded
        }
        _ => Treatment::AsModel,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_follow_class() {
        for (pattern, class, expected) in [
            (
                "score.weight",
                "LlamaForSequenceClassification",
                Treatment::Float32,
            ),
            ("score.0.weight", "Qwen2ForRewardModel", Treatment::Float32),
            (
                "head.dense.weight",
                "ModernBertForSequenceClassification",
                Treatment::Float32,
            ),
            (
                "bert.pooler.dense.weight",
                "BertForSequenceClassification",
                Treatment::Float32,
            ),
            ("pooler.dense.weight", "BertModel", Treatment::LeftOut),
            (
                "lm_head.dense.weight",
                "RobertaForMaskedLM",
                Treatment::LeftOut,
            ),
            ("lm_head.weight", "Qwen3ForCausalLM", Treatment::AsModel),
            (
                "roberta.embeddings.position_embeddings.weight",
                "RobertaModel",
                Treatment::Padded,
            ),
            (
                "model.embed_tokens.weight",
                "Qwen3ForCausalLM",
                Treatment::AsModel,
            ),
        ] {
            assert_eq!(treatment(pattern, class), expected, "{pattern} {class}");
        }
    }
}
