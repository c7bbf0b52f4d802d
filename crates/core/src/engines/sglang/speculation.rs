//! Speculative decoding as asked: the algorithm, its steps and tokens, and whether it needs a
//! draft.
//!
//! Source: SGLang 0.5.23 `arg_groups/speculative_hook.py`.

use super::{ENGINE, unsupported};
use crate::engines::shared::parameters::Parameters;
use crate::engines::{EngineError, EngineVersion};
use crate::model::{Architecture, Model};

const ALGORITHM: &str = "speculative_algorithm";
const DRAFT: &str = "speculative_draft_model_path";
const STEPS: &str = "speculative_num_steps";
const BRANCHES: &str = "speculative_eagle_topk";
const TOKENS: &str = "speculative_num_draft_tokens";

/// The first release whose drafts are counted.
const FIRST_COUNTED: &[u32] = &[0, 5, 23];

/// The largest step, branch or token count that is read.
const MAX_COUNT: u64 = 1 << 16;

/// Concurrent requests with speculative decoding, unless asked for.
const DEFAULT_RUNNING: u64 = 48;

/// Classes for which SGLang chooses 5 steps of 4 branches (`_auto_choose_speculative_params`).
const BRANCHING_CLASSES: &[&str] = &["LlamaForCausalLM", "Grok1ForCausalLM", "Grok1VForCausalLM"];

/// Classes whose own prediction layers SGLang loads as a draft without naming one
/// (`_handle_eagle_family`), and whose pools and layers are counted.
const PREDICTING_CLASSES: &[&str] = &["DeepseekV3ForCausalLM", "Glm4MoeForCausalLM"];

/// The algorithm that proposes tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DraftAlgorithm {
    /// The model's own next-token predictor.
    OwnLayers,
    /// A whole model.
    Standalone,
    /// A head that reads the model's hidden states.
    Eagle,
    /// A head that reads the hidden states of several layers.
    Eagle3,
}

impl DraftAlgorithm {
    const fn name(self) -> &'static str {
        match self {
            Self::OwnLayers => "NEXTN",
            Self::Standalone => "STANDALONE",
            Self::Eagle => "EAGLE",
            Self::Eagle3 => "EAGLE3",
        }
    }
}

/// Speculative decoding in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SglangSpeculation {
    pub(super) algorithm: DraftAlgorithm,
    steps: u64,
    branches: u64,
    /// Tokens that a step of the model checks for each sequence.
    pub(super) tokens: u64,
}

impl SglangSpeculation {
    /// Reads what `given` asks for; `None` without speculative decoding.
    pub(super) fn read(
        given: &Parameters,
        version: Option<&EngineVersion>,
        architecture: &Architecture,
        draft: Option<&Model>,
    ) -> Result<Option<Self>, EngineError> {
        let word = given.word(ALGORITHM)?.map(str::to_uppercase);
        let algorithm = match draft {
            Some(_) => drafting_algorithm(given, word.as_deref())?,
            None => match (word.as_deref(), given.word(DRAFT)?) {
                (None, None) => return Ok(None),
                (Some("NEXTN" | "EAGLE"), None) if predicts_itself(architecture) => {
                    DraftAlgorithm::OwnLayers
                }
                _ => {
                    return Err(uncounted(
                        given,
                        "of the algorithms without a draft only NEXTN is counted, for DeepSeek V3 \
                         and GLM 4.5; name a draft with --draft MODEL",
                    ));
                }
            },
        };

        if version.is_some_and(|version| !version.is_at_least(FIRST_COUNTED)) {
            return Err(unsupported(
                "drafts are counted for SGLang 0.5.23 and later",
            ));
        }

        if let (Some(named), Some(draft)) = (given.word(DRAFT)?, draft)
            && named != draft.identity.repo
        {
            return Err(given.bad(
                DRAFT,
                format!("is not the draft that is named: {}", draft.identity.repo),
            ));
        }

        if given.word("quantization")?.is_some() {
            return Err(unsupported(
                "quantization at load together with a draft is not counted",
            ));
        }

        let (steps, branches, tokens) = counts(given, algorithm, architecture)?;
        Ok(Some(Self {
            algorithm,
            steps,
            branches,
            tokens,
        }))
    }

    /// Requests that run at once, as asked or by default, but not fewer than `sequences`.
    pub(super) fn running(asked: Option<u64>, sequences: u64) -> u64 {
        asked.unwrap_or_else(|| DEFAULT_RUNNING.max(sequences))
    }

    /// Token slots that each request keeps beyond its context, in pages of `page` tokens
    /// (`mem_cache/allocation_sizing.py`, `get_alloc_reserve_per_decode`).
    pub(super) fn slots_beyond(&self, page: u64) -> u64 {
        let page = page.max(1);
        let by_steps = if page == 1 || self.branches == 1 {
            self.steps.saturating_mul(self.branches)
        } else {
            let pages = (page - 1).saturating_add(self.steps).div_ceil(page);
            pages.saturating_mul(page).saturating_mul(self.branches)
        };

        by_steps
            .max(self.tokens)
            .saturating_mul(2)
            .next_multiple_of(page)
    }

    /// The flags that ask for it, with the draft if there is one.
    pub(super) fn flags(&self, draft: Option<&Model>) -> Vec<String> {
        let mut flags = vec![
            "--speculative-algorithm".to_owned(),
            self.algorithm.name().to_owned(),
        ];
        let identity = draft.map(|draft| &draft.identity);
        if let Some(identity) = identity {
            flags.extend([
                "--speculative-draft-model-path".to_owned(),
                identity.repo.clone(),
            ]);
        }

        if let Some(revision) = identity.and_then(|identity| identity.revision.as_ref()) {
            flags.extend([
                "--speculative-draft-model-revision".to_owned(),
                revision.clone(),
            ]);
        }

        for (flag, count) in [
            ("--speculative-num-steps", self.steps),
            ("--speculative-eagle-topk", self.branches),
            ("--speculative-num-draft-tokens", self.tokens),
        ] {
            flags.extend([flag.to_owned(), count.to_string()]);
        }

        flags
    }
}

/// The algorithm that `word` asks for with a draft.
fn drafting_algorithm(
    given: &Parameters,
    word: Option<&str>,
) -> Result<DraftAlgorithm, EngineError> {
    match word {
        Some("STANDALONE") => Ok(DraftAlgorithm::Standalone),
        Some("EAGLE" | "NEXTN") => Ok(DraftAlgorithm::Eagle),
        Some("EAGLE3") => Ok(DraftAlgorithm::Eagle3),
        Some(_) => Err(uncounted(
            given,
            "its memory is not counted; known: STANDALONE, EAGLE, EAGLE3",
        )),
        None => Err(unsupported(
            "a draft needs its algorithm: add --set speculative_algorithm=EAGLE3, or another",
        )),
    }
}

/// Whether the model's own prediction layers can be its draft, in pools that are counted.
fn predicts_itself(architecture: &Architecture) -> bool {
    architecture.mtp_layers > 0 && PREDICTING_CLASSES.contains(&architecture.class.as_str())
}

/// Steps, branches and tokens: as asked, or SGLang's choice for the class.
fn counts(
    given: &Parameters,
    algorithm: DraftAlgorithm,
    architecture: &Architecture,
) -> Result<(u64, u64, u64), EngineError> {
    let asked = (
        count(given, STEPS)?,
        count(given, BRANCHES)?,
        count(given, TOKENS)?,
    );
    let chosen = if algorithm != DraftAlgorithm::Standalone
        && BRANCHING_CLASSES.contains(&architecture.class.as_str())
    {
        (5, 4, 8)
    } else {
        (3, 1, 4)
    };

    match asked {
        (None, None, None) => Ok(chosen),
        // With one branch, SGLang checks the token of each step and one more.
        (Some(steps), Some(1), _) => Ok((steps, 1, steps.saturating_add(1))),
        (Some(steps), Some(branches), Some(tokens)) => Ok((steps, branches, tokens)),
        _ => Err(unsupported(format!(
            "speculative decoding needs {STEPS}, {BRANCHES} and {TOKENS} together, or none of them"
        ))),
    }
}

fn count(given: &Parameters, name: &str) -> Result<Option<u64>, EngineError> {
    match given.positive(name)? {
        Some(count) if count > MAX_COUNT => {
            Err(given.bad(name, format!("must be at most {MAX_COUNT}")))
        }
        other => Ok(other),
    }
}

fn uncounted(given: &Parameters, why: &str) -> EngineError {
    let value = given
        .value(ALGORITHM)
        .map_or_else(String::new, ToString::to_string);

    EngineError::UnsupportedParameter {
        engine: ENGINE,
        name: ALGORITHM.to_owned(),
        value,
        why: why.to_owned(),
    }
}
