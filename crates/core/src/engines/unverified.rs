//! An engine whose release or rules are not verified.
//!
//! At a release outside of the verified range, the overheads are those of the nearest profile, as
//! assumptions with wider intervals. Whatever the release, weights and caches get the width of each
//! rule that [`verified`](super::verified) does not list for it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::component::device_sum;
use super::memory_rule::MemoryRule;
use super::verified::{AssumedRule, assumed_rules};
use super::{
    Basis, CacheCapacity, Component, ComponentName, DeviceSupport, EngineError, EngineVersion,
    IllegalSplit, Interval, Launch, LaunchPlan, PreparedEngine, Share, Split, Workload,
};
use crate::bytes::Bytes;
use crate::device::DeviceFacts;
use crate::model::Model;
use crate::model::architecture::{Attention, Mixer, Span};

/// Percent by which a component other than weights and cache may differ at another release.
///
/// The largest steps between neighboring vLLM profiles are 0.11 to 0.8 and 0.14 to 0.19. For
/// Qwen3-8B on an H100, the likely sum of one is up to 1.73 times the high end of the other.
/// Rounded up.
const OVERHEAD_PERCENT: u64 = 200;

/// An engine at a release outside of the verified range, or with rules that are not verified.
pub(super) struct Unverified<'a> {
    inner: Box<dyn PreparedEngine + 'a>,
    verification: Verification<'a>,
    /// The width of the weights.
    weights: Widening,
    /// The width of caches and states.
    cache: Widening,
    assumed: Vec<AssumedRule>,
}

/// The confidence in the release of an engine.
#[derive(Clone, Debug)]
pub(super) struct Verification<'a> {
    pub(super) engine: &'static str,
    /// The requested release; without one, the newest verified.
    pub(super) version: &'a EngineVersion,
    /// Whether the release is outside of the verified range.
    pub(super) is_outside: bool,
    /// Warnings about the release.
    pub(super) warnings: Vec<String>,
}

/// By how much a component's interval grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Widening {
    /// Percent of the high end; the inverse of the low end.
    percent: u64,
    /// The most that a cache without windows keeps: numerator and denominator of a factor.
    whole: (u64, u64),
}

impl Widening {
    const NONE: Self = Self {
        percent: 100,
        whole: (1, 1),
    };

    /// The widest of `rules`.
    fn of<'r>(rules: impl Iterator<Item = &'r AssumedRule>) -> Self {
        Self {
            percent: rules.map(|rule| rule.percent).max().unwrap_or(100),
            ..Self::NONE
        }
    }

    fn apply(self, bytes: Interval) -> Interval {
        let (kept, windowed) = self.whole;
        Interval {
            low: bytes.low.scale(100, self.percent),
            likely: bytes.likely,
            high: bytes.high.scale(self.percent, 100).scale(kept, windowed),
        }
    }
}

/// Wraps `inner` if the release or a rule of the model is not verified.
pub(super) fn widen_unverified<'a>(
    inner: Box<dyn PreparedEngine + 'a>,
    model: &Model,
    verification: Verification<'a>,
) -> Box<dyn PreparedEngine + 'a> {
    let mut rules = BTreeSet::from([MemoryRule::Weights]);
    if let Ok(architecture) = &model.architecture {
        rules.extend(MemoryRule::of_cache(architecture, &inner.kv_cache_dtype()));
    }

    let assumed = assumed_rules(verification.engine, verification.version, rules);
    if assumed.is_empty() && !verification.is_outside && verification.warnings.is_empty() {
        return inner;
    }

    let (weights, caches): (Vec<_>, Vec<_>) = assumed
        .iter()
        .partition(|assumed| assumed.rule == MemoryRule::Weights);
    let mut cache = Widening::of(caches.iter().copied());
    if caches.iter().any(|assumed| assumed.whole_windows) {
        cache.whole = whole_windows(model, &*inner);
    }

    Box::new(Unverified {
        weights: Widening::of(weights.into_iter()),
        cache,
        inner,
        verification,
        assumed,
    })
}

/// Tokens of a sequence that all attention layers keep without windows, and with windows.
///
/// A window also holds the tokens of a step.
fn whole_windows(model: &Model, prepared: &dyn PreparedEngine) -> (u64, u64) {
    let Ok(architecture) = &model.architecture else {
        return (1, 1);
    };

    let context = prepared.workload().context;
    let parameters = prepared.parameters();
    let step = parameters
        .get("max_num_batched_tokens")
        .and_then(Value::as_u64)
        .unwrap_or(0);

    let mut kept = (0_u64, 0_u64);
    for mixer in architecture.mixers(0..architecture.layer_count()) {
        let Mixer::Attention(Attention { span, .. }) = mixer else {
            continue;
        };
        let windowed = match *span {
            Span::Sliding { window: kept } | Span::Chunked { chunk: kept } => {
                kept.saturating_add(step).min(context)
            }
            Span::Full | Span::Cross { .. } | Span::Bidirectional => context,
        };
        kept = (
            kept.0.saturating_add(context),
            kept.1.saturating_add(windowed),
        );
    }

    (kept.0.max(1), kept.1.max(1))
}

impl Unverified<'_> {
    /// Widens the component's interval for what is not verified.
    fn widen(&self, part: Component) -> Component {
        let widening = match part.name {
            // Host memory holds weights.
            ComponentName::Weights | ComponentName::Host => self.weights,
            ComponentName::KvCache | ComponentName::State => self.cache,
            _ if self.verification.is_outside => Widening {
                percent: OVERHEAD_PERCENT,
                ..Widening::NONE
            },
            _ => Widening::NONE,
        };

        if widening == Widening::NONE {
            return part;
        }

        let detail = match self.assumed_names(part.name) {
            Some(names) => format!("{}; not verified: {names}", part.detail),
            None => part.detail,
        };

        Component {
            bytes: widening.apply(part.bytes),
            basis: part.basis.max(Basis::Assumed),
            detail,
            ..part
        }
    }

    /// The tokens of a cache whose every token is as wide as the interval's high end.
    fn fewest_tokens(&self, tokens: u64) -> u64 {
        let (kept, windowed) = self.cache.whole;
        let wide = u128::from(tokens)
            .saturating_mul(100)
            .saturating_mul(u128::from(windowed))
            / (u128::from(self.cache.percent) * u128::from(kept));
        u64::try_from(wide).unwrap_or(tokens)
    }

    /// The names of the assumed rules behind `component`; `None` without any.
    fn assumed_names(&self, component: ComponentName) -> Option<String> {
        let is_cache = matches!(component, ComponentName::KvCache | ComponentName::State);
        let is_weights = matches!(component, ComponentName::Weights | ComponentName::Host);
        let names: Vec<&str> = self
            .assumed
            .iter()
            .filter(|assumed| match assumed.rule {
                MemoryRule::Weights => is_weights,
                _ => is_cache,
            })
            .map(|assumed| assumed.rule.name())
            .collect();

        (!names.is_empty()).then(|| names.join(", "))
    }

    /// The sentence of one assumed rule.
    fn sentence(&self, assumed: &AssumedRule) -> String {
        format!(
            "the rule for {} is not verified for {} {}, so their interval is {} % wider at both \
             ends: {}",
            assumed.rule.name(),
            self.verification.engine,
            self.verification.version,
            assumed.percent - 100,
            assumed.reason
        )
    }
}

impl PreparedEngine for Unverified<'_> {
    fn profile(&self) -> &str {
        self.inner.profile()
    }

    fn parameters(&self) -> BTreeMap<String, Value> {
        self.inner.parameters()
    }

    fn workload(&self) -> Workload {
        self.inner.workload()
    }

    fn kv_cache_dtype(&self) -> String {
        self.inner.kv_cache_dtype()
    }

    fn kv_bytes_per_token(&self) -> Bytes {
        self.inner.kv_bytes_per_token()
    }

    fn state_bytes_per_sequence(&self) -> Bytes {
        self.inner.state_bytes_per_sequence()
    }

    fn assumptions(&self) -> Vec<String> {
        let mut all = self.inner.assumptions();
        all.extend(self.assumed.iter().map(|assumed| self.sentence(assumed)));
        all
    }

    fn warnings(&self) -> Vec<String> {
        let mut all = self.inner.warnings();
        all.extend(self.verification.warnings.iter().cloned());
        all
    }

    fn splits(&self, devices: u32) -> Result<Vec<Split>, IllegalSplit> {
        self.inner.splits(devices)
    }

    fn check(&self, split: &Split) -> Result<(), IllegalSplit> {
        self.inner.check(split)
    }

    fn uneven(&self) -> bool {
        self.inner.uneven()
    }

    fn moves_to_host(&self) -> bool {
        self.inner.moves_to_host()
    }

    fn ranks_are_processes(&self) -> bool {
        self.inner.ranks_are_processes()
    }

    fn least_default_context(&self) -> Option<u64> {
        self.inner.least_default_context()
    }

    fn device_fitness(&self, device: &DeviceFacts) -> DeviceSupport {
        self.inner.device_fitness(device)
    }

    fn fixed(
        &self,
        split: &Split,
        rank: usize,
        device: &DeviceFacts,
    ) -> Result<Vec<Component>, EngineError> {
        let parts = self.inner.fixed(split, rank, device)?;
        Ok(parts.into_iter().map(|part| self.widen(part)).collect())
    }

    fn variable(
        &self,
        split: &Split,
        rank: usize,
        device: &DeviceFacts,
        workload: Workload,
    ) -> Result<Vec<Component>, EngineError> {
        let parts = self.inner.variable(split, rank, device, workload)?;
        Ok(parts.into_iter().map(|part| self.widen(part)).collect())
    }

    fn fixed_sum(
        &self,
        split: &Split,
        rank: usize,
        device: &DeviceFacts,
    ) -> Result<Interval, EngineError> {
        Ok(device_sum(&self.fixed(split, rank, device)?))
    }

    fn variable_sum(
        &self,
        split: &Split,
        rank: usize,
        device: &DeviceFacts,
        workload: Workload,
    ) -> Result<Interval, EngineError> {
        Ok(device_sum(&self.variable(split, rank, device, workload)?))
    }

    fn host(&self, split: &Split, workload: Workload) -> Result<Vec<Component>, EngineError> {
        let parts = self.inner.host(split, workload)?;
        Ok(parts.into_iter().map(|part| self.widen(part)).collect())
    }

    fn must_be_available(&self, split: &Split, device: &DeviceFacts, sum: Interval) -> Interval {
        self.inner.must_be_available(split, device, sum)
    }

    fn share(&self, split: &Split, rank: usize, device: &DeviceFacts) -> Option<Share> {
        self.inner.share(split, rank, device)
    }

    fn capacity(&self, plan: &LaunchPlan<'_>) -> Result<Option<CacheCapacity>, EngineError> {
        // The engine's own count does not cover a release outside of the range, and a count that is
        // too high is worse than none.
        if self.verification.is_outside {
            return Ok(None);
        }

        let capacity = self.inner.capacity(plan)?;
        Ok(capacity.map(|capacity| CacheCapacity {
            low_tokens: self.fewest_tokens(capacity.low_tokens),
            ..capacity
        }))
    }

    fn launch(&self, plan: &LaunchPlan<'_>) -> Launch {
        self.inner.launch(plan)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::engines::{EngineVersion, by_name, prepare, sample};
    use crate::model::Dtype;

    fn model(window: Option<u64>) -> Model {
        let config = json!({
            "architectures": ["MistralForCausalLM"], "model_type": "mistral", "hidden_size": 4096,
            "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
            "vocab_size": 32_000, "max_position_embeddings": 8192, "sliding_window": window, "torch_dtype": "bfloat16"
        });

        let tensors = [(
            "",
            "model.embed_tokens.weight",
            Dtype::BF16,
            &[32_000, 4096][..],
        )];

        sample::model(&config, sample::inventory(&tensors))
    }

    /// Warnings and components of `model` on vLLM at `version`.
    fn asked(model: &Model, version: &str) -> (Vec<String>, Vec<Component>) {
        let version: EngineVersion = version.parse().unwrap();
        let step = BTreeMap::from([("max_num_batched_tokens".to_owned(), json!(2048))]);
        let devices = [sample::device()];
        let asked = sample::tokens(8192);

        let request = crate::engines::EngineRequest {
            model,
            version: Some(&version),
            parameters: &step,
            asked,
            devices: &devices,
        };

        let prepared = prepare(by_name("vllm").unwrap(), &request).unwrap();
        let split = Split::single(32);
        let parts = sample::components(&*prepared, &split, 0);
        let fixed = prepared.fixed_sum(&split, 0, &devices[0]).unwrap();
        let variable = prepared
            .variable_sum(&split, 0, &devices[0], prepared.workload())
            .unwrap();
        assert_eq!(device_sum(&parts), fixed.plus(variable));

        (prepared.warnings(), parts)
    }

    #[test]
    fn unverified_version_widens_every_component() {
        let model = model(None);
        let ((silent, known), (warnings, unknown)) = (asked(&model, "0.33"), asked(&model, "0.34"));
        assert!(silent.is_empty());

        assert!(
            matches!(&warnings[..], [warning] if warning.contains("1 minor release newer than 0.33")),
            "{warnings:?}"
        );

        for (before, after) in known.iter().zip(&unknown) {
            assert_eq!(after.bytes.likely, before.bytes.likely, "{:?}", after.name);
            let percent = match after.name {
                ComponentName::Weights | ComponentName::KvCache => 102,
                _ => 200,
            };
            assert_eq!(
                (after.basis, after.bytes.high),
                (Basis::Assumed, before.bytes.high.scale(percent, 100)),
                "{after:?}"
            );
            assert!(after.bytes.low < before.bytes.low || before.bytes.low == Bytes::ZERO);
        }
    }

    #[test]
    fn unverified_version_widens_windowed_cache() {
        let model = model(Some(1024));
        let cache_at = |version| sample::sum(&asked(&model, version).1, ComponentName::KvCache);
        assert_eq!(cache_at("0.34").high, cache_at("0.33").high.scale(130, 100));
    }

    #[test]
    fn unverified_rule_names_itself() {
        let model = model(Some(1024));
        let part_at = |version| {
            let (warnings, parts) = asked(&model, version);
            assert!(warnings.is_empty(), "{version} is in the verified range");
            parts
                .into_iter()
                .find(|part| part.name == ComponentName::KvCache)
                .unwrap()
        };

        let (verified, assumed) = (part_at("0.19"), part_at("0.14"));
        assert_eq!(verified.bytes.low, verified.bytes.high);
        assert_eq!(
            (assumed.basis, assumed.bytes.high),
            (Basis::Assumed, assumed.bytes.likely.scale(130, 100))
        );
        assert!(
            assumed
                .detail
                .ends_with("not verified: caches of sliding windows"),
            "{}",
            assumed.detail
        );
    }

    #[test]
    fn early_release_may_keep_windows_whole() {
        // 8192 tokens in place of a window of 1024 and a step of 2048.
        let model = model(Some(1024));
        let part = sample::sum(&asked(&model, "0.8").1, ComponentName::KvCache);
        assert!(part.high >= part.likely * 2, "{part:?}");

        // A window as long as the context keeps no less.
        let part = sample::sum(
            &asked(&self::model(Some(8192)), "0.8").1,
            ComponentName::KvCache,
        );
        assert_eq!(part.high, part.likely.scale(105, 100));
    }
}
