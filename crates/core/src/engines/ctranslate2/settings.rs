//! Parameters by faster-whisper's own names, and the workload that they make.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::NAME;
use super::compute_type::RequestedType;
use super::sizes::ModelSizes;
use super::transcription::Transcription;
use crate::engines::shared::parameter_names::ParameterList;
use crate::engines::shared::parameters::Parameters;
use crate::engines::{AskedContext, EngineError, EngineRequest, Workload};

/// The parameters by name.
pub(super) static PARAMETERS: ParameterList = ParameterList::new(
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
    /// The given `batch_size`.
    pub(super) batch: Option<u64>,
    /// Whether `transcribe` samples `best_of` candidates when beam search fails.
    pub(super) samples: bool,
    pub(super) transcription: Transcription,
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
        let mut assumptions = Vec::new();
        let batch = given.size("batch_size")?;
        let sequences = sequences(request, &given, batch, &mut assumptions)?;

        // A single sequence is what `transcribe` runs without a batch.
        let is_batched = batch.is_some() || sequences > 1;
        let transcription = Transcription::new(&given, is_batched)?;
        let context = context(request, &transcription, sizes, &mut assumptions)?;
        let samples = transcription.samples();
        let best_of = transcription.best_of().unwrap_or(DEFAULT_BEAMS);

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
            batch,
            samples,
            transcription,
            keeps_scores: request
                .version
                .is_some_and(|version| !version.is_at_least(&[4, 8, 1])),
            workload: Workload { context, sequences },
            assumptions,
        })
    }

    /// The workload that the launch line has room for, where `workload` is smaller.
    pub(super) fn filled(&self, workload: Workload) -> Workload {
        let least = self.batch.unwrap_or(1);
        Workload {
            sequences: workload.sequences.max(least),
            ..workload
        }
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
        ]);

        let given = self.transcription.given();
        all.extend(
            given
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone())),
        );

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

/// Chunks that are decoded at once: the whole batch where one is given.
fn sequences(
    request: &EngineRequest<'_>,
    given: &Parameters,
    batch: Option<u64>,
    assumptions: &mut Vec<String>,
) -> Result<u64, EngineError> {
    let (Some(batch), Some(asked)) = (batch, request.asked.sequences) else {
        return Ok(batch.or(request.asked.sequences).unwrap_or(1));
    };

    if asked > batch {
        let why = format!("fewer than the {asked} requested sequences; set both to the same");
        return Err(given.bad("batch_size", why));
    }

    if asked < batch {
        assumptions.push(format!(
            "{batch} chunks at once, not {asked}: batch_size={batch} decodes as many"
        ));
    }

    Ok(batch)
}

/// Cached tokens of one sequence, prompt included.
///
/// A longer requested context is meant so. A shorter one has no argument in faster-whisper.
fn context(
    request: &EngineRequest<'_>,
    transcription: &Transcription,
    sizes: &ModelSizes,
    assumptions: &mut Vec<String>,
) -> Result<u64, EngineError> {
    let cached = cached_tokens(transcription, sizes);
    let asked = match request.asked.context {
        Some(AskedContext::Tokens(tokens)) => tokens,
        Some(AskedContext::Max) => sizes.context,
        None => return Ok(cached),
    };

    if asked < cached {
        return Err(EngineError::BadParameter {
            engine: NAME,
            name: "context".to_owned(),
            value: asked.to_string(),
            why: format!(
                "a chunk may take {cached} tokens, and faster-whisper cannot limit them; set \
                 max_new_tokens and condition_on_previous_text=false"
            ),
        });
    }

    if asked > sizes.context {
        assumptions.push(format!(
            "the context is {} tokens, not {asked}: the decoder has no more positions",
            sizes.context
        ));
    }

    Ok(asked.min(sizes.context))
}

/// The most tokens that a chunk caches with the arguments.
///
/// CTranslate2 generates at most half of `max_length` after the prompt (`whisper.cc`, `generate`).
/// So only a prompt of earlier text or of words to expect fills all positions.
fn cached_tokens(transcription: &Transcription, sizes: &ModelSizes) -> u64 {
    let half = sizes.context / 2;
    let before = half.saturating_mul(transcription.prompts());
    let generated = match transcription.max_new_tokens() {
        Some(tokens) => tokens.saturating_add(1),
        None => half,
    };

    // The last generated token is not cached.
    let cached = before
        .saturating_add(TASK_TOKENS - 1)
        .saturating_add(generated);
    cached.min(sizes.context)
}
