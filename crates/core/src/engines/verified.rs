//! The rules that a referee or logs confirm, by engine and release, and how far the others may be
//! off.
//!
//! A figure may be certain (`low = likely = high`) only where this table lists its rule.

use std::sync::LazyLock;

use serde::Deserialize;

use super::EngineVersion;
use super::memory_rule::MemoryRule;

/// A rule that is not verified for the release, and the width that it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AssumedRule {
    /// The rule.
    pub(super) rule: MemoryRule,
    /// Percent of the likely figure at the high end; the low end is the inverse.
    pub(super) percent: u64,
    /// Whether the high end keeps every token of windowed layers too.
    pub(super) whole_windows: bool,
    /// The reason of that width.
    pub(super) reason: &'static str,
}

/// The table of `verified_rules.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleTable {
    verified: Vec<VerifiedRules>,
    assumed: Vec<Width>,
}

/// Rules that hold for a range of releases.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifiedRules {
    /// The engine.
    pub engine: String,
    /// The rules.
    pub rules: Vec<MemoryRule>,
    /// The first release.
    pub from: EngineVersion,
    /// The last release, included.
    pub to: EngineVersion,
    /// The referee or the logs that confirm them.
    pub evidence: String,
}

/// The width of rules that are not verified.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Width {
    /// The engine; every engine without one.
    engine: Option<String>,
    /// The rules; every rule without one.
    #[serde(default)]
    rules: Vec<MemoryRule>,
    /// The first release after those that the width is for.
    before: Option<EngineVersion>,
    percent: u64,
    #[serde(default)]
    whole_windows: bool,
    reason: String,
}

static TABLE: LazyLock<Result<RuleTable, String>> = LazyLock::new(|| {
    toml::from_str(include_str!("profiles/verified_rules.toml")).map_err(|error| error.to_string())
});

/// Percent if the table cannot be read, which a test excludes.
const UNKNOWN_PERCENT: u64 = 200;

/// All lines of the table.
pub fn verified_rules() -> &'static [VerifiedRules] {
    TABLE.as_ref().map_or(&[], |table| &table.verified)
}

/// The rules of `rules` that are not verified for `version` of `engine`.
pub(super) fn assumed_rules(
    engine: &str,
    version: &EngineVersion,
    rules: impl IntoIterator<Item = MemoryRule>,
) -> Vec<AssumedRule> {
    let is_verified = |rule: MemoryRule| {
        verified_rules()
            .iter()
            .any(|line| line.covers(engine, rule, version))
    };

    rules
        .into_iter()
        .filter(|rule| !is_verified(*rule))
        .map(|rule| width(engine, version, rule))
        .collect()
}

/// The width of `rule`: the first line of the table that applies.
fn width(engine: &str, version: &EngineVersion, rule: MemoryRule) -> AssumedRule {
    let widths = TABLE.as_ref().map_or(&[][..], |table| &table.assumed);
    let found = widths
        .iter()
        .find(|width| width.applies(engine, version, rule));

    found.map_or(
        AssumedRule {
            rule,
            percent: UNKNOWN_PERCENT,
            whole_windows: false,
            reason: "no width is known",
        },
        |width| AssumedRule {
            rule,
            percent: width.percent,
            whole_windows: width.whole_windows,
            reason: &width.reason,
        },
    )
}

impl VerifiedRules {
    /// Whether the line verifies `rule` of `engine` at `version`.
    fn covers(&self, engine: &str, rule: MemoryRule, version: &EngineVersion) -> bool {
        self.engine == engine
            && self.rules.contains(&rule)
            && version.order(self.from.numbers()).is_ge()
            && version.order(self.to.numbers()).is_le()
    }
}

impl Width {
    fn applies(&self, engine: &str, version: &EngineVersion, rule: MemoryRule) -> bool {
        self.engine.as_ref().is_none_or(|name| name == engine)
            && (self.rules.is_empty() || self.rules.contains(&rule))
            && self
                .before
                .as_ref()
                .is_none_or(|end| version.order(end.numbers()).is_lt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engines::Engines;

    fn assumed(engine: &str, version: &str, rule: MemoryRule) -> Vec<AssumedRule> {
        assumed_rules(engine, &version.parse().unwrap(), [rule])
    }

    #[test]
    fn table_names_engines_with_evidence() {
        let table = TABLE.as_ref().unwrap();
        let engines = Engines::embedded().unwrap();
        for line in &table.verified {
            engines.by_name(&line.engine).unwrap();
            assert!(line.to.order(line.from.numbers()).is_ge(), "{line:?}");
            assert!(line.evidence.len() > 10 && !line.rules.is_empty());
        }

        for width in &table.assumed {
            assert!(width.percent > 100 && width.reason.len() > 10, "{width:?}");
        }

        let last = table.assumed.last().unwrap();
        assert!(last.engine.is_none() && last.rules.is_empty() && last.before.is_none());
    }

    /// The page lists every line of the table, in its order.
    #[test]
    fn page_lists_verified_rules() {
        let page = include_str!("../../../../docs/accuracy.md");
        for line in verified_rules() {
            let rules: Vec<&str> = line.rules.iter().map(|rule| rule.name()).collect();
            let row = format!(
                "| {} | {} to {} | {} | {} |",
                line.engine,
                line.from,
                line.to,
                rules.join(", "),
                line.evidence
            );
            assert!(page.contains(&row), "docs/accuracy.md lacks: {row}");
        }
    }

    #[test]
    fn rules_hold_inside_their_releases() {
        let full = MemoryRule::FullAttention;
        for version in ["0.7", "0.19.1", "0.33.0"] {
            assert_eq!(assumed("vllm", version, full), []);
        }

        for version in ["0.6.6", "0.34", "0.1.dev17+g1a2b3c4"] {
            assert_eq!(assumed("vllm", version, full).len(), 1, "{version}");
        }
    }

    #[test]
    fn early_windows_may_be_kept_whole() {
        let windows = MemoryRule::SlidingWindows;
        assert!(assumed("vllm", "0.8.5", windows)[0].whole_windows);
        assert!(!assumed("vllm", "0.34", windows)[0].whole_windows);
    }
}
