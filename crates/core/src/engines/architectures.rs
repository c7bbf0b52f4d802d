//! The architectures that only some releases of an engine have.
//!
//! The tables are written from the engines' own registries (`referees/architecture_tables.py`). A
//! release without a model's class may still run it through transformers' own class: the engine's
//! generic class.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

use super::{EngineError, EngineVersion};
use crate::model::Architecture;
use crate::model::architecture::{Attention, Mixer, Span};

/// The registry of one engine.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Registry {
    /// Releases whose registry was read, the oldest first.
    releases: Vec<EngineVersion>,
    /// For each architecture the first release that has it and, if it was removed, the first one
    /// without it.
    architectures: BTreeMap<String, Vec<EngineVersion>>,
}

/// An engine's generic class: the first release that runs each kind of model through it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GenericClass {
    /// The engine's name in sentences.
    name: String,
    /// Plain decoders.
    dense: Option<EngineVersion>,
    /// Mixtures of experts.
    experts: Option<EngineVersion>,
    /// Models with a vision or audio tower.
    multimodal: Option<EngineVersion>,
    /// Latent attention.
    latents: Option<EngineVersion>,
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "documentation in the file; a test requires it")
    )]
    source: String,
}

/// A registry with its generic class.
struct Table {
    registry: Registry,
    generic: GenericClass,
}

// Each table is read when its engine is first asked for: a command asks for one.
static VLLM: LazyLock<Result<Table, String>> =
    LazyLock::new(|| read_table("vllm", include_str!("profiles/architectures/vllm.toml")));
static SGLANG: LazyLock<Result<Table, String>> =
    LazyLock::new(|| read_table("sglang", include_str!("profiles/architectures/sglang.toml")));

/// The table of `engine`; `None` for an engine without one.
fn table(engine: &str) -> Option<&'static Result<Table, String>> {
    match engine {
        "vllm" => Some(&VLLM),
        "sglang" => Some(&SGLANG),
        _ => None,
    }
}

fn read_table(engine: &str, registry: &str) -> Result<Table, String> {
    let mut generic: BTreeMap<String, GenericClass> =
        toml::from_str(include_str!("profiles/architectures/generic.toml"))
            .map_err(|error| error.to_string())?;
    let generic = generic
        .remove(engine)
        .ok_or_else(|| format!("{engine} has no generic class"))?;
    let registry = toml::from_str(registry).map_err(|error| error.to_string())?;

    Ok(Table { registry, generic })
}

/// Checks that `version` of `engine` has the model's class, or runs it through its generic class.
///
/// In the second case the result is a warning. Without a version, the newest release counts.
pub(crate) fn check(
    engine: &'static str,
    version: Option<&EngineVersion>,
    architecture: &Architecture,
) -> Result<Option<String>, EngineError> {
    let Some(Ok(table)) = table(engine) else {
        return Ok(None);
    };

    let class = &*architecture.class;
    let name = &table.generic.name;
    let why = match table.registry.presence(class, version) {
        Presence::Listed => return Ok(None),
        Presence::Later(first) => format!("{name} has {class} since {first}"),
        Presence::Removed(first) => format!("{name} has no class {class} since {first}"),
    };

    if table.generic.runs(version, architecture) {
        return Ok(Some(format!(
            "{why}: this release runs it through transformers' own class, if your transformers \
             has one"
        )));
    }

    Err(EngineError::Unsupported { engine, why })
}

/// Whether a release lists an architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence<'t> {
    /// It does, or nothing is known of it.
    Listed,
    /// Only since this release.
    Later(&'t EngineVersion),
    /// No longer since this release.
    Removed(&'t EngineVersion),
}

impl Registry {
    fn presence(&self, class: &str, version: Option<&EngineVersion>) -> Presence<'_> {
        let span = self.architectures.get(class).map_or(&[][..], Vec::as_slice);

        if let (Some(first), Some(version)) = (span.first(), version)
            && version.order(first.numbers()).is_lt()
            && !self.may_lead_to(version, first)
        {
            return Presence::Later(first);
        }

        match span.get(1) {
            Some(end) if version.is_none_or(|version| version.is_at_least(end.numbers())) => {
                Presence::Removed(end)
            }
            _ => Presence::Listed,
        }
    }
}

impl Registry {
    /// Whether `version` is a build on the way to `release`, which may have its classes already.
    fn may_lead_to(&self, version: &EngineVersion, release: &EngineVersion) -> bool {
        let place = self.releases.iter().position(|known| known == release);
        let before = place
            .and_then(|place| place.checked_sub(1))
            .and_then(|place| self.releases.get(place));

        version.is_development()
            && before.is_some_and(|before| version.is_at_least(before.numbers()))
    }
}

impl GenericClass {
    /// Whether `version` runs `architecture` through the generic class.
    fn runs(&self, version: Option<&EngineVersion>, architecture: &Architecture) -> bool {
        let Some(needs) = self.needs(architecture) else {
            return false;
        };

        needs.into_iter().all(|since| match (since, version) {
            (Some(since), Some(version)) => version.is_at_least(since.numbers()),
            (Some(_), None) => true,
            (None, _) => false,
        })
    }

    /// The releases that bring what the architecture needs; `None` for mixers that no generic class
    /// has.
    fn needs(&self, architecture: &Architecture) -> Option<Vec<Option<&EngineVersion>>> {
        let mut needs = vec![self.dense.as_ref()];
        if architecture.experts.is_some() {
            needs.push(self.experts.as_ref());
        }

        if architecture.vision.is_some() || architecture.audio {
            needs.push(self.multimodal.as_ref());
        }

        for mixer in architecture.mixers(0..architecture.layer_count()) {
            match mixer {
                Mixer::Attention(Attention {
                    span: Span::Full | Span::Sliding { .. } | Span::Bidirectional,
                    ..
                }) => {}
                Mixer::Latent(latent)
                    if latent.indexer.is_none() && latent.compress_ratio.is_none() =>
                {
                    needs.push(self.latents.as_ref());
                }
                _ => return None,
            }
        }

        Some(needs)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::model::{Inventory, config};

    fn checked(engine: &'static str, version: &str, config: &Value) -> Result<bool, String> {
        let architecture = config::architecture(config, None, &Inventory::default()).unwrap();
        let version = version.parse().unwrap();
        check(engine, Some(&version), &architecture)
            .map(|warning| warning.is_some())
            .map_err(|error| error.to_string())
    }

    fn gated_delta() -> Value {
        json!({"architectures": ["Qwen3NextForCausalLM"], "model_type": "qwen3_next"})
    }

    fn dense(class: &str) -> Value {
        json!({"architectures": [class], "model_type": "llama"})
    }

    #[test]
    fn tables_are_ordered_and_sourced() {
        for engine in ["vllm", "sglang"] {
            let table = table(engine).unwrap().as_ref().unwrap();
            let releases = &table.registry.releases;
            let newest = releases.last().unwrap();
            let pairs = releases.windows(2);
            assert!(
                pairs
                    .map(|pair| pair[0].order(pair[1].numbers()))
                    .all(std::cmp::Ordering::is_lt),
                "{engine}"
            );

            for (class, span) in &table.registry.architectures {
                assert!((1..=2).contains(&span.len()), "{class}");
                assert!(
                    span.iter()
                        .all(|version| version.order(newest.numbers()).is_le())
                );
            }
            assert!(table.generic.source.len() > 10, "{engine}");
        }
    }

    #[test]
    fn class_of_later_release_is_refused() {
        let refused = checked("vllm", "0.9.2", &gated_delta()).unwrap_err();
        assert!(
            refused.contains("vLLM has Qwen3NextForCausalLM since 0.10.2"),
            "{refused}"
        );

        for version in ["0.10", "0.10.2", "0.10.2rc1", "0.33", "0.1.dev17+g1a2b3c4"] {
            assert_eq!(
                checked("vllm", version, &gated_delta()),
                Ok(false),
                "{version}"
            );
        }

        let refused = checked("sglang", "0.5.1", &gated_delta()).unwrap_err();
        assert!(
            refused.contains("SGLang has Qwen3NextForCausalLM since"),
            "{refused}"
        );
    }

    #[test]
    fn development_build_may_have_next_classes() {
        assert_eq!(
            checked("vllm", "0.10.2rc2.dev5+gabcdef1", &gated_delta()),
            Ok(false)
        );
        assert_eq!(checked("vllm", "0.10.1.dev9", &gated_delta()), Ok(false));
        assert!(checked("vllm", "0.9.2.dev9", &gated_delta()).is_err());
    }

    #[test]
    fn generic_class_runs_plain_decoders() {
        assert_eq!(
            checked("vllm", "0.8.5", &dense("SmolLM3ForCausalLM")),
            Ok(true)
        );
        assert!(checked("vllm", "0.6.6", &dense("SmolLM3ForCausalLM")).is_err());
        assert_eq!(
            checked("vllm", "0.33", &dense("LlamaForCausalLM")),
            Ok(false)
        );
        assert_eq!(
            checked("vllm", "0.33", &dense("UnknownForCausalLM")),
            Ok(false)
        );
    }

    #[test]
    fn removed_class_is_refused_or_generic() {
        assert_eq!(
            checked("vllm", "0.24", &dense("PersimmonForCausalLM")),
            Ok(false)
        );
        assert_eq!(
            checked("vllm", "0.33", &dense("PersimmonForCausalLM")),
            Ok(true)
        );
    }
}
