//! Parameters by faster-whisper's own names, and the workload that they make.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::NAME;
use super::compute_type::RequestedType;
use super::sizes::ModelSizes;
use crate::engines::shared::parameter_names::ParameterList;
use crate::engines::shared::parameters::Parameters;
use crate::engines::{AskedContext, EngineError, EngineRequest, Workload};

/// The parameters by name.
static PARAMETERS: ParameterList = ParameterList::new(
    NAME,
    include_str!("../profiles/parameters/ctranslate2.toml"),
);

/// `beam_size` and `best_of` without a request (`transcribe`).
const DEFAULT_BEAMS: u64 = 5;
/// Tokens before the text: start, language, task, and no timestamps.
const TASK_TOKENS: u64 = 4;

/// The parameters in force.
#[derive(Clone, Debug)]
pub(super) struct Ctranslate2Settings {
    pub(super) requested: RequestedType,
    pub(super) workers: u64,
    pub(super) beam_size: u64,
    pub(super) best_of: u64,
    /// Whether `BatchedInferencePipeline` runs the model, which never samples several candidates.
    pub(super) is_batched: bool,
    /// Whether `transcribe` samples `best_of` candidates when beam search fails.
    pub(super) samples: bool,
    /// Whether attention keeps its scores behind the softmax, as releases before 4.8.1 do.
    pub(super) keeps_scores: bool,
    pub(super) workload: Workload,
    pub(super) assumptions: Vec<String>,
}

impl Ctranslate2Settings {
    /// Resolves every parameter for `request`.
    pub(super) fn new(
        request: &EngineRequest<'_>,
        sizes: &ModelSizes,
    ) -> Result<Self, EngineError> {
        let given = Parameters::new(&PARAMETERS, request.version, request.parameters)?;
        let batch = given.size("batch_size")?;
        let sequences = request.asked.sequences.or(batch).unwrap_or(1);

        // A single sequence is what `transcribe` runs without a batch.
        let is_batched = batch.is_some() || sequences > 1;
        let mut assumptions = Vec::new();
        let context = context(request, &given, sizes, is_batched, &mut assumptions)?;
        let samples = !is_batched && samples(&given)?;
        let best_of = given.size("best_of")?.unwrap_or(DEFAULT_BEAMS);

        if samples && best_of > 1 {
            assumptions.push(format!(
                "transcribe samples {best_of} candidates (best_of) where beam search fails, each \
                 with its own copy of the encoder's keys and values; temperature=0 avoids it"
            ));
        }

        assumptions.push(
            "CT2_CUDA_ALLOCATOR=cuda_malloc_async, the default where the driver has memory pools; \
             cub_caching rounds blocks up to four times"
                .to_owned(),
        );

        Ok(Self {
            requested: requested_type(request, &given)?,
            workers: given.size("num_workers")?.unwrap_or(1),
            beam_size: given.size("beam_size")?.unwrap_or(DEFAULT_BEAMS),
            best_of,
            is_batched,
            samples,
            keeps_scores: request
                .version
                .is_some_and(|version| !version.is_at_least(&[4, 8, 1])),
            workload: Workload { context, sequences },
            assumptions,
        })
    }

    /// Sequences that are decoded for each chunk of audio, in either phase.
    pub(super) fn hypotheses(&self) -> u64 {
        if self.samples {
            self.beam_size.max(self.best_of)
        } else {
            self.beam_size
        }
    }

    /// Copies of the encoder's keys and values for each chunk of audio, in the worst phase.
    pub(super) fn audio_copies(&self) -> u64 {
        if self.samples { self.best_of } else { 1 }
    }

    /// The parameters that entered the figures, for the answer. `compute` is the resolved type.
    pub(super) fn parameters(&self, compute: &str) -> BTreeMap<String, Value> {
        let mut all = BTreeMap::from([
            ("compute_type".to_owned(), json!(compute)),
            ("num_workers".to_owned(), json!(self.workers)),
            ("beam_size".to_owned(), json!(self.beam_size)),
            ("max_length".to_owned(), json!(self.workload.context)),
        ]);

        if self.samples {
            all.insert("best_of".to_owned(), json!(self.best_of));
        }

        if self.is_batched {
            let batch = json!(self.workload.sequences);
            all.insert("batch_size".to_owned(), batch);
        }

        all
    }
}

/// The requested compute type: the parameter's, or the dtype's.
fn requested_type(
    request: &EngineRequest<'_>,
    given: &Parameters,
) -> Result<RequestedType, EngineError> {
    let asked = request
        .asked
        .dtype
        .as_deref()
        .filter(|name| *name != "auto");
    let (name, value) = match (given.word("compute_type")?, asked) {
        (Some(word), Some(dtype)) if word != dtype => {
            return Err(given.bad(
                "compute_type",
                format!("the dtype is given as {dtype}, too"),
            ));
        }
        (Some(word), _) => ("compute_type", word),
        (None, Some(dtype)) => ("dtype", dtype),
        (None, None) => return Ok(RequestedType::Default),
    };

    RequestedType::by_name(value).ok_or_else(|| EngineError::BadParameter {
        engine: NAME,
        name: name.to_owned(),
        value: value.to_owned(),
        why: format!("must be one of {}", RequestedType::NAMES.join(", ")),
    })
}

/// Cached tokens of one sequence, prompt included.
///
/// A requested context is meant so. Without one, CTranslate2 generates at most half of `max_length`
/// after the prompt (`whisper.cc`, `generate`).
/// So only a prompt of earlier text or of words to expect fills all positions.
fn context(
    request: &EngineRequest<'_>,
    given: &Parameters,
    sizes: &ModelSizes,
    is_batched: bool,
    assumptions: &mut Vec<String>,
) -> Result<u64, EngineError> {
    let max_length = given.size("max_length")?;
    let asked = match request.asked.context {
        Some(AskedContext::Tokens(tokens)) => Some(tokens),
        Some(AskedContext::Max) => Some(sizes.context),
        None => None,
    };
    if let Some(requested) = max_length
        .max(asked)
        .filter(|tokens| *tokens > sizes.context)
    {
        assumptions.push(format!(
            "the context is {} tokens, not {requested}: the decoder has no more positions",
            sizes.context
        ));
    }

    if let Some(asked) = asked {
        return Ok(asked.min(sizes.context));
    }

    let longest = max_length.unwrap_or(sizes.context).min(sizes.context);
    let has_prompt = has_prompt(given, is_batched)?;
    let before = if has_prompt { longest / 2 } else { 0 };
    let generated = match given.size("max_new_tokens")? {
        Some(tokens) => tokens.saturating_add(1),
        None => longest / 2,
    };

    // The last generated token is not cached.
    let cached = before
        .saturating_add(TASK_TOKENS - 1)
        .saturating_add(generated);
    Ok(cached.min(longest))
}

/// Whether a prompt of text precedes the task's tokens.
fn has_prompt(given: &Parameters, is_batched: bool) -> Result<bool, EngineError> {
    let names = ["initial_prompt", "hotwords", "prefix"];
    let is_text = names.iter().any(|name| given.value(name).is_some());
    let continues = given.flag("condition_on_previous_text")?.unwrap_or(true);

    Ok(is_text || (continues && !is_batched))
}

/// Whether any temperature is above 0, as in the default list.
fn samples(given: &Parameters) -> Result<bool, EngineError> {
    let Some(value) = given.value("temperature") else {
        return Ok(true);
    };
    let bad_list = || given.bad("temperature", "must be a number or a list of numbers");

    let numbers: Vec<f64> = match value {
        Value::Array(list) => list
            .iter()
            .map(Value::as_f64)
            .collect::<Option<_>>()
            .ok_or_else(bad_list)?,
        Value::String(text) => text
            .trim_matches(['[', ']'])
            .split(',')
            .map(|number| number.trim().parse().ok())
            .collect::<Option<_>>()
            .ok_or_else(bad_list)?,
        other => vec![other.as_f64().ok_or_else(bad_list)?],
    };

    Ok(numbers.iter().any(|number| *number > 0.0))
}
