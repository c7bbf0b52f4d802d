//! The releases that an engine's figures cover, and the confidence in a requested version.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

use super::{EngineError, EngineVersion};

/// The confidence in the figures for a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Confidence {
    /// Logs or the engine's own code confirm the figures.
    Verified,
    /// The figures are those of the nearest verified release; the text states the distance.
    Unverified(String),
}

/// The releases of one engine.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Releases {
    numbered_by: Numbering,
    oldest: EngineVersion,
    verified: [EngineVersion; 2],
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "documentation in the file; a test requires it")
    )]
    source: String,
}

/// An engine's numbering scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Numbering {
    /// PEP 440.
    Versions,
    /// A number that counts builds.
    Builds,
}

static TABLE: LazyLock<Result<BTreeMap<String, Releases>, String>> = LazyLock::new(|| {
    toml::from_str(include_str!("profiles/releases.toml")).map_err(|error| error.to_string())
});

/// Checks that `version` has the form of the engine's versions, known or not.
pub fn check_form(engine: &'static str, version: &EngineVersion) -> Result<(), EngineError> {
    releases(engine, version).map(|_| ())
}

/// The confidence in `version` of `engine`; without a version, the newest release counts.
pub fn confidence(
    engine: &'static str,
    version: Option<&EngineVersion>,
) -> Result<Confidence, EngineError> {
    let Some(version) = version else {
        return Ok(Confidence::Verified);
    };

    let releases = releases(engine, version)?;
    let [first, last] = &releases.verified;

    let untagged = releases.numbered_by == Numbering::Builds
        && version.build().is_some_and(|build| build <= 1);
    if version.names_no_release() || untagged {
        return Ok(Confidence::Unverified(format!(
            "{engine} {version} names no release (a build from source without tags reports it): \
             the figures are those of {last}, and their intervals are wider"
        )));
    }

    if version.order(releases.oldest.numbers()).is_lt() {
        let (engine, version, oldest) = (engine, version.to_string(), releases.oldest.to_string());
        return Err(EngineError::UnsupportedVersion {
            engine,
            version,
            oldest,
        });
    }

    let (nearest, relation, end) = if version.order(first.numbers()).is_lt() {
        (first, "older", "oldest")
    } else if version.order(last.numbers()).is_gt() {
        (last, "newer", "newest")
    } else {
        return Ok(Confidence::Verified);
    };

    let distance = distance(version, nearest, releases.numbered_by);
    Ok(Confidence::Unverified(format!(
        "{engine} {version} is {distance} {relation} than {nearest}, the {end} verified release: \
         the figures are those of the nearest profile, and their intervals are wider"
    )))
}

/// The newest verified release of `engine`; `None` for an engine without versions.
pub fn newest_verified(engine: &str) -> Option<&'static EngineVersion> {
    let table = TABLE.as_ref().ok()?;
    table.get(engine).map(|releases| &releases.verified[1])
}

/// Each engine with the first and the last verified release.
pub fn verified_ranges() -> impl Iterator<Item = (&'static str, &'static [EngineVersion; 2])> {
    let tables = TABLE.as_ref().into_iter().flatten();
    tables.map(|(engine, releases)| (engine.as_str(), &releases.verified))
}

/// The releases of `engine`; fails if `version` does not have their form.
fn releases(
    engine: &'static str,
    version: &EngineVersion,
) -> Result<&'static Releases, EngineError> {
    let invalid_version = |why: &str| EngineError::InvalidVersion {
        engine,
        version: version.to_string(),
        why: why.to_owned(),
    };

    let table = TABLE.as_ref().map_err(|error| invalid_version(error))?;
    let releases = table
        .get(engine)
        .ok_or_else(|| invalid_version("it has no versions; leave the version out"))?;

    match releases.numbered_by {
        Numbering::Versions if version.is_build() => {
            Err(invalid_version("builds such as b12032 are llama.cpp's"))
        }
        Numbering::Builds if version.build().is_none() => Err(invalid_version(
            "its versions are build numbers such as b12032 (llama-server --version)",
        )),
        _ => Ok(releases),
    }
}

/// The distance of `version` from `bound`: `2 minor releases`.
fn distance(version: &EngineVersion, bound: &EngineVersion, numbered_by: Numbering) -> String {
    let pairs = version.numbers().iter().zip(bound.numbers());
    let mut steps = pairs.map(|(own, other)| own.abs_diff(*other)).enumerate();
    let (place, count) = steps.find(|(_, step)| *step > 0).unwrap_or((0, 0));
    let unit = match (numbered_by, place) {
        (Numbering::Builds, _) => "build",
        (_, 0) => "major release",
        (_, 1) => "minor release",
        _ => "patch release",
    };

    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engines::Engines;

    fn asked(engine: &'static str, version: &str) -> Result<Confidence, EngineError> {
        confidence(engine, Some(&version.parse().unwrap()))
    }

    #[test]
    fn table_names_engines_with_sources() {
        let table = TABLE.as_ref().unwrap();
        let engines = Engines::embedded().unwrap();
        for (name, releases) in table {
            engines.by_name(name).unwrap();
            let [first, last] = &releases.verified;
            assert!(
                first.order(releases.oldest.numbers()).is_ge()
                    && last.order(first.numbers()).is_ge(),
                "{name}"
            );
            assert!(!releases.source.is_empty(), "{name}");
        }

        assert_eq!(table.len(), 7);
    }

    #[test]
    fn verified_versions_pass() {
        for (engine, version) in [
            ("vllm", "0.33"),
            ("vllm", "v0.33.1+cu128"),
            ("vllm", "0.19.2rc1.dev134+gfe9c3d6c5"),
            ("vllm", "0.7"),
            ("sglang", "0.5.3.post1"),
            ("llama.cpp", "b10450"),
            ("llama.cpp", "b12032"),
            ("llama.cpp", "8179"),
            ("ollama", "0.25.1-3-g1a2b3c4"),
            ("transformers", "5"),
            ("diffusers", "0.36.0"),
            ("diffusers", "0.42.1"),
            ("ctranslate2", "4.8.1"),
        ] {
            assert_eq!(
                asked(engine, version),
                Ok(Confidence::Verified),
                "{engine}@{version}"
            );
        }

        assert_eq!(confidence("reference", None), Ok(Confidence::Verified));
    }

    #[test]
    fn distance_is_named_outside_range() {
        for (engine, version, says) in [
            ("vllm", "9.9", "9 major releases newer than 0.33"),
            ("vllm", "0.34.0rc1", "1 minor release newer than 0.33"),
            ("vllm", "0.5.0.post1", "2 minor releases older than 0.7"),
            ("sglang", "0.5.25", "2 patch releases newer than 0.5.23"),
            ("sglang", "0.4.7.post1", "1 minor release older than 0.5"),
            ("llama.cpp", "13000", "968 builds newer than b12032"),
            ("llama.cpp", "b3943", "57 builds older than b4000"),
            ("ollama", "0.33.1", "3 minor releases newer than 0.30"),
            ("transformers", "4.57.1", "1 major release older than 5.23"),
            ("diffusers", "0.44.0", "2 minor releases newer than 0.42"),
            ("vllm", "0.1.dev17+g1a2b3c4", "names no release"),
            ("llama.cpp", "1", "names no release"),
            ("ollama", "0.0.0", "names no release"),
        ] {
            match asked(engine, version) {
                Ok(Confidence::Unverified(warning)) => assert!(warning.contains(says), "{warning}"),
                other => panic!("{engine}@{version}: {other:?}"),
            }
        }
    }

    #[test]
    fn releases_before_evidence_are_unsupported() {
        for (engine, version) in [
            ("vllm", "0.3.3"),
            ("sglang", "0.1"),
            ("llama.cpp", "b941"),
            ("ollama", "0.6.8"),
            ("transformers", "3.5"),
        ] {
            let error = asked(engine, version).unwrap_err();
            assert!(
                matches!(error, EngineError::UnsupportedVersion { .. }),
                "{engine}@{version}: {error}"
            );
        }
    }

    #[test]
    fn other_engines_forms_are_invalid() {
        for (engine, version) in [
            ("vllm", "b12032"),
            ("llama.cpp", "0.33"),
            ("ollama", "b3171"),
            ("reference", "1.0"),
        ] {
            let error = asked(engine, version).unwrap_err();
            assert!(
                matches!(error, EngineError::InvalidVersion { .. }),
                "{engine}@{version}: {error}"
            );
        }
    }
}
