//! Arguments of `transcribe` that enter the figures.
//!
//! Source: faster-whisper 1.2.1 `transcribe.py` (`WhisperModel.transcribe`, `get_prompt`).

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::engines::EngineError;
use crate::engines::shared::parameters::Parameters;

/// The arguments as given; what is absent has its default.
#[derive(Clone, Debug)]
pub(super) struct Transcription {
    given: BTreeMap<&'static str, Value>,
    /// Whether the model takes several chunks at once.
    is_batched: bool,
    temperatures: Option<Vec<f64>>,
}

impl Transcription {
    /// Reads and checks the arguments.
    pub(super) fn new(given: &Parameters, is_batched: bool) -> Result<Self, EngineError> {
        let temperatures = temperatures(given)?;
        let mut all = BTreeMap::new();

        for name in ["best_of", "max_new_tokens"] {
            if let Some(count) = given.size(name)? {
                all.insert(name, json!(count));
            }
        }

        for name in ["hotwords", "prefix"] {
            if let Some(text) = given.word(name)? {
                all.insert(name, json!(text));
            }
        }

        if let Some(prompt) = initial_prompt(given)? {
            all.insert("initial_prompt", prompt.clone());
        }

        if let Some(continues) = given.flag("condition_on_previous_text")? {
            all.insert("condition_on_previous_text", json!(continues));
        }

        if let Some(numbers) = &temperatures {
            let value = match given.value("temperature") {
                // A number is written as it was given: 0, not 0.0.
                Some(number @ Value::Number(_)) => number.clone(),
                _ => json!(numbers),
            };
            all.insert("temperature", value);
        }

        Ok(Self {
            given: all,
            is_batched,
            temperatures,
        })
    }

    /// The given arguments, by name.
    pub(super) fn given(&self) -> &BTreeMap<&'static str, Value> {
        &self.given
    }

    /// `max_new_tokens`.
    pub(super) fn max_new_tokens(&self) -> Option<u64> {
        self.given.get("max_new_tokens")?.as_u64()
    }

    /// Candidates of a sampled chunk, where they are given.
    pub(super) fn best_of(&self) -> Option<u64> {
        self.given.get("best_of")?.as_u64()
    }

    /// Whether any temperature is above 0, as in the default list, and each sampled.
    ///
    /// A batch takes the first temperature only, with one candidate.
    pub(super) fn samples(&self) -> bool {
        let is_warm = |numbers: &Vec<f64>| numbers.iter().any(|number| *number > 0.0);
        !self.is_batched && self.temperatures.as_ref().is_none_or(is_warm)
    }

    /// The texts that may precede or follow the task's tokens in a prompt.
    ///
    /// Each has less than half of the model's positions (`get_prompt`). A prefix replaces hotwords.
    pub(super) fn prompts(&self) -> u64 {
        let has = |name: &str| self.given.contains_key(name);
        // `BatchedInferencePipeline` sets it to false.
        let continues = !self.is_batched
            && self
                .given
                .get("condition_on_previous_text")
                .is_none_or(|continues| *continues == Value::Bool(true));

        let has_previous = has("initial_prompt") || continues;
        u64::from(has_previous) + u64::from(has("prefix") || has("hotwords"))
    }
}

/// `initial_prompt`: a text, or the numbers of its tokens.
fn initial_prompt(given: &Parameters) -> Result<Option<&Value>, EngineError> {
    let Some(value) = given.value("initial_prompt") else {
        return Ok(None);
    };

    let is_prompt = match value {
        Value::String(_) => true,
        Value::Array(tokens) => tokens.iter().all(Value::is_u64),
        _ => false,
    };
    if !is_prompt {
        return Err(given.bad("initial_prompt", "must be a text or a list of tokens"));
    }

    Ok(Some(value))
}

/// The given temperatures.
fn temperatures(given: &Parameters) -> Result<Option<Vec<f64>>, EngineError> {
    let Some(value) = given.value("temperature") else {
        return Ok(None);
    };

    let numbers: Option<Vec<f64>> = match value {
        Value::Array(list) => list.iter().map(Value::as_f64).collect(),
        Value::String(text) => text
            .trim_matches(['[', ']'])
            .split(',')
            .map(|number| number.trim().parse().ok())
            .collect(),
        other => other.as_f64().map(|number| vec![number]),
    };

    let is_temperature = |number: &f64| number.is_finite() && *number >= 0.0;
    numbers
        .filter(|numbers| !numbers.is_empty() && numbers.iter().all(is_temperature))
        .map(Some)
        .ok_or_else(|| {
            let why = "must be a number or a list of numbers, none of them negative";
            given.bad("temperature", why)
        })
}
