//! Speculative decoding as asked: the method, its tokens, and whether it needs a draft.
//!
//! Source: vLLM 0.33 `config/speculative.py` (`SpeculativeConfig`).

use serde_json::{Map, Value, json};

use super::refusal::{ENGINE, unsupported};
use crate::engines::shared::parameters::Parameters;
use crate::engines::{EngineError, EngineVersion};
use crate::model::{Architecture, Model};

/// The parameter that holds the configuration.
const CONFIG: &str = "speculative_config";

/// The parameter that holds the number of tokens alone.
const TOKENS: &str = "num_speculative_tokens";

/// The first release whose drafts are counted: its model runner and its groups are verified.
const FIRST_COUNTED: &[u32] = &[0, 33];

/// The keys of the configuration that enter the figures or change no memory.
const COUNTED_KEYS: &[&str] = &[
    "method",
    "model",
    "revision",
    TOKENS,
    "draft_tensor_parallel_size",
    "prompt_lookup_max",
    "prompt_lookup_min",
];

/// The method that proposes tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SpeculationMethod {
    /// The model's own next-token predictor.
    OwnLayers,
    /// A whole model.
    DraftModel,
    /// A head that reads the model's hidden states.
    Eagle,
    /// A head that reads the hidden states of several layers.
    Eagle3,
    /// Text that occurred before.
    Ngram,
}

impl SpeculationMethod {
    /// Whether vLLM loads a draft for it.
    pub(super) const fn needs_draft(self) -> bool {
        matches!(self, Self::DraftModel | Self::Eagle | Self::Eagle3)
    }

    /// Whether the draft reads the model's hidden states, and shares its embedding.
    pub(super) const fn is_eagle(self) -> bool {
        matches!(self, Self::Eagle | Self::Eagle3)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::OwnLayers => "mtp",
            Self::DraftModel => "draft_model",
            Self::Eagle => "eagle",
            Self::Eagle3 => "eagle3",
            Self::Ngram => "ngram",
        }
    }
}

/// The most tokens of a step. Buffers that grow with them are not counted one by one; this many are
/// within the interval.
const MAX_TOKENS: u64 = 256;

/// Speculative decoding in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct VllmSpeculation {
    pub(super) method: SpeculationMethod,
    /// Tokens that a step proposes.
    pub(super) tokens: u64,
    /// Whether a predictor is known to take the model's embedding and output head instead of those
    /// in its checkpoint (`v1/worker/gpu/spec_decode/eagle/utils.py`).
    pub(super) shares_vocabulary: bool,
    /// The draft's tensor-parallel degree as asked.
    pub(super) draft_tensor: Option<u64>,
    /// The longest and shortest text that n-grams look up, as asked.
    lookup: (Option<u64>, Option<u64>),
}

impl VllmSpeculation {
    /// Reads what `given` asks for; `None` without speculative decoding.
    pub(super) fn read(
        given: &Parameters,
        version: Option<&EngineVersion>,
        architecture: &Architecture,
        draft: Option<&Model>,
    ) -> Result<Option<Self>, EngineError> {
        let config = config(given)?;
        let tokens = tokens(given, &config)?;
        if config.is_empty() && tokens.is_none() && draft.is_none() {
            return Ok(None);
        }

        if config.is_empty() && tokens == Some(0) && draft.is_none() {
            return Ok(None);
        }

        let method = match config.get("method") {
            Some(word) => method_of_word(given, word)?,
            None => match draft {
                Some(draft) => method_of_draft(draft),
                None => SpeculationMethod::OwnLayers,
            },
        };
        check_draft(given, &config, method, draft)?;

        let is_old = version.is_some_and(|version| !version.is_at_least(FIRST_COUNTED));
        if is_old && method != SpeculationMethod::OwnLayers {
            return Err(unsupported(format!(
                "speculative decoding by {} is counted for vLLM 0.33 and later",
                method.name()
            )));
        }

        if method == SpeculationMethod::OwnLayers && architecture.mtp_layers == 0 {
            return Err(given.bad(
                if config.is_empty() { TOKENS } else { CONFIG },
                "the model has no prediction layers of its own; name a draft model with --draft",
            ));
        }

        // A predictor states how many tokens it proposes; a draft does not.
        let own =
            (method == SpeculationMethod::OwnLayers).then_some(u64::from(architecture.mtp_layers));
        let Some(tokens) = tokens.or(own).filter(|tokens| *tokens > 0) else {
            return Err(unsupported(
                "speculative decoding needs the number of tokens that a step proposes: add \
                 --set num_speculative_tokens=3",
            ));
        };

        Ok(Some(Self {
            method,
            tokens,
            shares_vocabulary: !is_old,
            draft_tensor: count(given, &config, "draft_tensor_parallel_size")?,
            lookup: (
                count(given, &config, "prompt_lookup_max")?,
                count(given, &config, "prompt_lookup_min")?,
            ),
        }))
    }

    /// The configuration for the command line, with the name of the draft if there is one.
    pub(super) fn config(&self, draft: Option<&Model>) -> Value {
        let mut config = json!({"method": self.method.name(), TOKENS: self.tokens});
        let known = [
            ("draft_tensor_parallel_size", self.draft_tensor),
            ("prompt_lookup_max", self.lookup.0),
            ("prompt_lookup_min", self.lookup.1),
        ];
        for (key, value) in known {
            if let Some(value) = value {
                config[key] = value.into();
            }
        }

        if let Some(draft) = draft {
            config["model"] = draft.identity.repo.clone().into();
            if let Some(revision) = &draft.identity.revision {
                config["revision"] = revision.clone().into();
            }
        }

        config
    }
}

/// The error for a configuration whose memory is not counted.
fn uncounted(given: &Parameters, why: impl Into<String>) -> EngineError {
    let value = given
        .value(CONFIG)
        .map_or_else(String::new, Value::to_string);

    EngineError::UnsupportedParameter {
        engine: ENGINE,
        name: CONFIG.to_owned(),
        value,
        why: why.into(),
    }
}

/// The configuration as an object; empty if not given.
fn config(given: &Parameters) -> Result<Map<String, Value>, EngineError> {
    let parsed = match given.value(CONFIG) {
        None | Some(Value::Null) => return Ok(Map::new()),
        Some(Value::Object(config)) => Some(config.clone()),
        Some(Value::String(text)) => serde_json::from_str(text).ok(),
        Some(_) => None,
    };

    let Some(config) = parsed else {
        return Err(given.bad(CONFIG, "must be an object"));
    };

    match config
        .keys()
        .find(|key| !COUNTED_KEYS.contains(&key.as_str()))
    {
        Some(key) => Err(uncounted(
            given,
            format!("the memory of its key {key} is not counted"),
        )),
        None => Ok(config),
    }
}

fn count(
    given: &Parameters,
    config: &Map<String, Value>,
    key: &str,
) -> Result<Option<u64>, EngineError> {
    match config.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64().filter(|count| (1..=1 << 16).contains(count)) {
            Some(count) => Ok(Some(count)),
            None => Err(given.bad(CONFIG, format!("{key} must be from 1 to 65536"))),
        },
    }
}

/// Whether the memory of a `speculative_config` is counted: of its method, with a draft that it
/// names, and of every other key.
pub fn counts_speculation(config: &Value) -> bool {
    let Some(config) = config.as_object() else {
        return false;
    };

    let has_counted_keys = config
        .keys()
        .all(|key| COUNTED_KEYS.contains(&key.as_str()));
    let names_draft = config.contains_key("model");
    let method = config.get("method").map(parse_method);

    has_counted_keys
        && match method {
            Some(Some(method)) => method.needs_draft() == names_draft,
            Some(None) => false,
            None => true,
        }
}

/// The number of tokens, in the configuration or as a parameter of its own.
fn tokens(given: &Parameters, config: &Map<String, Value>) -> Result<Option<u64>, EngineError> {
    let alone = given.count(TOKENS)?;
    let inside = count(given, config, TOKENS)?;
    if let Some(tokens) = alone.max(inside).filter(|tokens| *tokens > MAX_TOKENS) {
        return Err(given.bad(
            if alone.is_some() { TOKENS } else { CONFIG },
            format!("{tokens} tokens a step are more than {MAX_TOKENS}, the most that is counted"),
        ));
    }

    match (alone, inside) {
        (Some(alone), Some(inside)) if alone != inside => Err(given.bad(
            TOKENS,
            format!("{CONFIG} says {inside}; give one of the two"),
        )),
        (alone, inside) => Ok(inside.or(alone)),
    }
}

fn method_of_word(given: &Parameters, word: &Value) -> Result<SpeculationMethod, EngineError> {
    parse_method(word).ok_or_else(|| {
        uncounted(
            given,
            "the memory of its method is not counted; known: draft_model, eagle, eagle3, mtp, \
             ngram",
        )
    })
}

fn parse_method(word: &Value) -> Option<SpeculationMethod> {
    match word.as_str()? {
        "draft_model" => Some(SpeculationMethod::DraftModel),
        "eagle" => Some(SpeculationMethod::Eagle),
        "eagle3" => Some(SpeculationMethod::Eagle3),
        "ngram" => Some(SpeculationMethod::Ngram),
        // Each family's own word is an old name of `mtp`.
        word if word == "mtp" || word.ends_with("_mtp") => Some(SpeculationMethod::OwnLayers),
        _ => None,
    }
}

/// The method that vLLM takes for a draft if the configuration names none: by the repository's name
/// (`SpeculativeConfig.__post_init__`), else a whole model.
fn method_of_draft(draft: &Model) -> SpeculationMethod {
    let name = draft.identity.repo.to_lowercase();
    let class = draft
        .architecture
        .as_ref()
        .map_or("", |architecture| architecture.class.as_str());

    if class.contains("Eagle3") || name.contains("eagle3") {
        SpeculationMethod::Eagle3
    } else if class.contains("Eagle") || name.contains("eagle-") {
        SpeculationMethod::Eagle
    } else {
        SpeculationMethod::DraftModel
    }
}

/// Checks that the draft that the method needs is there, and is the configuration's.
fn check_draft(
    given: &Parameters,
    config: &Map<String, Value>,
    method: SpeculationMethod,
    draft: Option<&Model>,
) -> Result<(), EngineError> {
    if method == SpeculationMethod::OwnLayers && config.contains_key("model") && draft.is_none() {
        let why =
            "the model's own layers need no model: leave it out, or name a draft with --draft";
        return Err(uncounted(given, why));
    }

    let Some(draft) = draft else {
        if method.needs_draft() || config.contains_key("model") {
            return Err(uncounted(given, "name its draft with --draft MODEL"));
        }

        return Ok(());
    };

    if !method.needs_draft() {
        return Err(unsupported(format!(
            "speculative decoding by {} loads no draft, but one is named: {}",
            method.name(),
            draft.identity.repo
        )));
    }

    if let Some(revision) = config.get("revision").filter(|value| !value.is_null())
        && revision.as_str() != draft.identity.revision.as_deref()
    {
        let why =
            "its revision is not that of the named draft: add it to --draft, as MODEL@REVISION";
        return Err(given.bad(CONFIG, why));
    }

    match config.get("model") {
        Some(Value::Null) | None => Ok(()),
        Some(named) if named.as_str() != Some(&draft.identity.repo) => Err(given.bad(
            CONFIG,
            format!(
                "its model is not the draft that is named: {}",
                draft.identity.repo
            ),
        )),
        _ => Ok(()),
    }
}
