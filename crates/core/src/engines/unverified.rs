//! An engine at an unverified version.
//!
//! The figures are those of the nearest profile, as assumptions with wider intervals.
//!
//! The widths follow from how far neighboring profiles differ. Weights and other figures read from
//! headers do not change with the release. Neither does the cache of a model with full attention
//! only: all 32 rates that vLLM logged follow one formula.

use std::collections::BTreeMap;

use serde_json::Value;

use super::component::device_sum;
use super::{
    Basis, CacheCapacity, Component, ComponentName, DeviceSupport, EngineError, IllegalSplit,
    Interval, Launch, LaunchPlan, PreparedEngine, Share, Split, Workload,
};
use crate::bytes::Bytes;
use crate::device::DeviceFacts;
use crate::model::Model;
use crate::model::architecture::{Mixer, Span};

/// Percent by which a component other than weights and cache may differ at another release.
///
/// The largest steps between neighboring vLLM profiles are 0.11 to 0.8 and 0.14 to 0.19. For
/// Qwen3-8B on an H100, the likely sum of one is up to 1.73 times the high end of the other.
/// Rounded up.
const OVERHEAD_PERCENT: u64 = 200;

/// The same for caches with windows, latents or states, whose page rules change with releases.
///
/// vLLM 0.33's own planner keeps up to 29 % more (Mamba-2 hybrids) than the rules here, which logs
/// of earlier releases confirm. Rounded up.
const CACHE_PERCENT: u64 = 130;

/// An engine at a version outside of the verified range.
pub(super) struct Unverified<'a> {
    inner: Box<dyn PreparedEngine + 'a>,
    /// Whether every layer has full attention, so that all releases cache the same.
    plain_cache: bool,
    warning: String,
}

impl<'a> Unverified<'a> {
    pub(super) fn new(inner: Box<dyn PreparedEngine + 'a>, model: &Model, warning: String) -> Self {
        let plain_cache = model.architecture.as_ref().is_ok_and(|architecture| {
            architecture
                .mixers(0..architecture.layer_count())
                .all(has_full_attention)
        });

        Self {
            inner,
            plain_cache,
            warning,
        }
    }

    /// Widens the component's interval for the unverified version.
    fn widen(&self, part: Component) -> Component {
        let percent = match part.name {
            // Every release loads the same weights; host memory holds weights too.
            ComponentName::Weights | ComponentName::Host => return part,
            _ if part.basis == Basis::Exact => return part,
            ComponentName::KvCache | ComponentName::State if self.plain_cache => 100,
            ComponentName::KvCache | ComponentName::State => CACHE_PERCENT,
            _ => OVERHEAD_PERCENT,
        };

        let Interval { low, likely, high } = part.bytes;
        let bytes = Interval {
            low: low.scale(100, percent),
            likely,
            high: high.scale(percent, 100),
        };

        Component {
            bytes,
            basis: part.basis.max(Basis::Assumed),
            ..part
        }
    }
}

fn has_full_attention(mixer: &Mixer) -> bool {
    matches!(mixer, Mixer::Attention(attention) if attention.span == Span::Full)
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
        self.inner.assumptions()
    }

    fn warnings(&self) -> Vec<String> {
        let mut all = self.inner.warnings();
        all.push(self.warning.clone());
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
        self.inner.host(split, workload)
    }

    fn must_be_available(&self, split: &Split, device: &DeviceFacts, sum: Interval) -> Interval {
        self.inner.must_be_available(split, device, sum)
    }

    fn share(&self, split: &Split, rank: usize, device: &DeviceFacts) -> Option<Share> {
        self.inner.share(split, rank, device)
    }

    fn capacity(&self, _plan: &LaunchPlan<'_>) -> Result<Option<CacheCapacity>, EngineError> {
        // The engine's own count does not cover the unverified version, and a count that is too
        // high is worse than none.
        Ok(None)
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
        let (none, devices) = (BTreeMap::new(), [sample::device()]);
        let asked = sample::tokens(8192);

        let request = crate::engines::EngineRequest {
            model,
            version: Some(&version),
            parameters: &none,
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
    fn unverified_version_widens_all_but_weights() {
        let model = model(None);
        let ((silent, known), (warnings, unknown)) = (asked(&model, "0.33"), asked(&model, "0.34"));
        assert!(silent.is_empty());

        assert!(
            matches!(&warnings[..], [warning] if warning.contains("1 minor release newer than 0.33")),
            "{warnings:?}"
        );

        for (before, after) in known.iter().zip(&unknown) {
            assert_eq!(after.bytes.likely, before.bytes.likely, "{:?}", after.name);
            match after.name {
                ComponentName::Weights => assert_eq!(before, after),
                ComponentName::KvCache => {
                    assert_eq!((after.bytes, after.basis), (before.bytes, Basis::Assumed));
                }
                _ => {
                    assert_eq!(
                        (after.basis, after.bytes.high),
                        (Basis::Assumed, before.bytes.high * 2),
                        "{after:?}"
                    );
                    assert!(after.bytes.low <= before.bytes.low, "{after:?}");
                }
            }
        }
    }

    #[test]
    fn unverified_version_widens_windowed_cache() {
        let model = model(Some(1024));
        let cache_at = |version| sample::sum(&asked(&model, version).1, ComponentName::KvCache);
        assert_eq!(cache_at("0.34").high, cache_at("0.33").high.scale(130, 100));
    }
}
