//! [`PreparedEngine`] for the logical minimum.

use std::collections::BTreeMap;

use serde_json::Value;

use super::ReferencePrepared;
use crate::bytes::Bytes;
use crate::device::DeviceFacts;
use crate::engines::layer_weights::covers;
use crate::engines::{
    Basis, CacheCapacity, Component, ComponentName, DeviceSupport, EngineError, IllegalSplit,
    Interval, Launch, LaunchPlan, Offload, PreparedEngine, Share, Split, Workload, logical,
};
use crate::model::Architecture;

impl PreparedEngine for ReferencePrepared<'_> {
    fn profile(&self) -> &'static str {
        "logical"
    }

    fn parameters(&self) -> BTreeMap<String, Value> {
        BTreeMap::new()
    }

    fn workload(&self) -> Workload {
        self.workload
    }

    fn kv_cache_dtype(&self) -> String {
        self.element_name.clone()
    }

    fn kv_bytes_per_token(&self) -> Bytes {
        self.architecture.map_or(Bytes::ZERO, |architecture| {
            logical::per_token(architecture, self.workload.context, self.element)
        })
    }

    fn state_bytes_per_sequence(&self) -> Bytes {
        self.architecture.map_or(Bytes::ZERO, |architecture| {
            logical::states(architecture, 0..architecture.layer_count(), self.dtype)
        })
    }

    fn assumptions(&self) -> Vec<String> {
        self.assumptions.clone()
    }

    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    fn splits(&self, devices: u32) -> Result<Vec<Split>, IllegalSplit> {
        let layers = self.layers();
        if devices == 1 {
            return Ok(vec![Split::single(layers)]);
        }

        if self.architecture.is_some_and(Architecture::is_looped) {
            return Err(IllegalSplit(
                "splitting a model that runs its layers several times is not supported".to_owned(),
            ));
        }

        Ok(vec![Split::by_layers(devices, layers)?])
    }

    fn check(&self, split: &Split) -> Result<(), IllegalSplit> {
        if split.tensor != 1 || split.expert_parallel {
            return illegal("the reference splits by layers only");
        }

        if split.offload != Offload::None {
            return illegal("the reference offloads nothing");
        }

        covers(&split.stages, self.layers())
    }

    fn uneven(&self) -> bool {
        true
    }

    fn moves_to_host(&self) -> bool {
        false
    }

    fn ranks_are_processes(&self) -> bool {
        false
    }

    fn least_default_context(&self) -> Option<u64> {
        None
    }

    fn device_fitness(&self, _device: &DeviceFacts) -> DeviceSupport {
        DeviceSupport::Able
    }

    fn fixed(
        &self,
        split: &Split,
        rank: usize,
        device: &DeviceFacts,
    ) -> Result<Vec<Component>, EngineError> {
        let bytes = self.fixed_sum(split, rank, device)?;
        let detail = format!(
            "{} tensors in {} files, as stored",
            self.model.inventory.tensors(),
            self.model.weight_files
        );

        Ok(vec![Component::between(
            ComponentName::Weights,
            bytes,
            Basis::Exact,
            detail,
        )])
    }

    fn fixed_sum(
        &self,
        split: &Split,
        rank: usize,
        _device: &DeviceFacts,
    ) -> Result<Interval, EngineError> {
        let bytes = self.weights.stage(&split.stages, split.stage_of(rank).0);
        if bytes.overflowed() {
            Err(EngineError::Overflow { what: "weights" })
        } else {
            Ok(Interval::exact(bytes))
        }
    }

    fn variable(
        &self,
        split: &Split,
        rank: usize,
        _device: &DeviceFacts,
        workload: Workload,
    ) -> Result<Vec<Component>, EngineError> {
        let (cache, states) = self.cache_and_states(split, rank, workload)?;
        let held = format!(
            "{} x {} tokens in {}",
            workload.sequences, workload.context, self.element_name
        );
        let mut components = Vec::new();
        if cache > Bytes::ZERO {
            components.push(Component::exact(
                ComponentName::KvCache,
                cache,
                Basis::Formula,
                held,
            ));
        }

        if states > Bytes::ZERO {
            let detail = format!("{} sequences", workload.sequences);
            components.push(Component::exact(
                ComponentName::State,
                states,
                Basis::Formula,
                detail,
            ));
        }

        Ok(components)
    }

    fn variable_sum(
        &self,
        split: &Split,
        rank: usize,
        _device: &DeviceFacts,
        workload: Workload,
    ) -> Result<Interval, EngineError> {
        let (cache, states) = self.cache_and_states(split, rank, workload)?;
        Ok(Interval::exact(cache + states))
    }

    fn host(&self, _split: &Split, _workload: Workload) -> Result<Vec<Component>, EngineError> {
        Ok(Vec::new())
    }

    fn must_be_available(&self, _split: &Split, _device: &DeviceFacts, sum: Interval) -> Interval {
        sum
    }

    fn share(&self, _split: &Split, _rank: usize, _device: &DeviceFacts) -> Option<Share> {
        None
    }

    fn capacity(&self, _plan: &LaunchPlan<'_>) -> Result<Option<CacheCapacity>, EngineError> {
        Ok(None)
    }

    fn launch(&self, _plan: &LaunchPlan<'_>) -> Launch {
        Launch::default()
    }
}

fn illegal(why: &str) -> Result<(), IllegalSplit> {
    Err(IllegalSplit(why.to_owned()))
}
