//! [`PreparedEngine`] for CTranslate2.

use std::collections::BTreeMap;

use serde_json::Value;

use super::compute_type::{ComputeType, RequestedType};
use super::overhead::Overhead;
use super::phases::{Phases, WorkerMemory};
use super::settings::Ctranslate2Settings;
use super::sizes::ModelSizes;
use super::weights::{PaddedOutput, padded_output, resident};
use super::{NAME, launch, unsupported};
use crate::bytes::Bytes;
use crate::device::DeviceFacts;
use crate::engines::component::device_sum;
use crate::engines::compute_dtype::dtype_name;
use crate::engines::profile::Profile;
use crate::engines::{
    Basis, CacheCapacity, Component, ComponentName, DeviceSupport, EngineError, EngineRequest,
    IllegalSplit, Interval, Launch, LaunchPlan, Offload, PreparedEngine, Share, Split, Workload,
};
use crate::model::Model;
use crate::model::architecture::Architecture;
use crate::model::ctranslate2::{StoredType, stored_type};

/// The compute capability of the oldest card that CTranslate2 runs on.
const OLDEST_CAPABILITY: u32 = 50;

/// CTranslate2 ready to answer for one model.
pub(super) struct Ctranslate2Prepared<'a> {
    model: &'a Model,
    overhead: Overhead<'a>,
    sizes: ModelSizes,
    stored: StoredType,
    settings: Ctranslate2Settings,
    /// The compute type on the first device, for what the answer says of all.
    compute: ComputeType,
    layers: u32,
}

impl<'a> Ctranslate2Prepared<'a> {
    pub(super) fn new(
        request: &EngineRequest<'a>,
        architecture: &'a Architecture,
        profile: &'a Profile,
    ) -> Result<Self, EngineError> {
        let model = request.model;
        let sizes = ModelSizes::new(architecture)?;
        let settings = Ctranslate2Settings::new(request, &sizes)?;
        let stored = stored_type(&model.inventory)
            .ok_or_else(|| unsupported("the model has no weights whose type is known"))?;
        let capability = request.devices.first().and_then(DeviceFacts::capability);
        let compute = resolve(settings.requested, stored, capability);
        check_kv_cache_dtype(request, compute)?;

        Ok(Self {
            model,
            overhead: Overhead { profile },
            sizes,
            stored,
            settings,
            compute,
            layers: architecture.layer_count(),
        })
    }

    /// The compute type on `device`.
    fn compute_on(&self, device: &DeviceFacts) -> ComputeType {
        resolve(self.settings.requested, self.stored, device.capability())
    }

    /// The type that an old card would fall back to, for a device of unknown capability.
    ///
    /// `None` if the capability is known, or if every card computes in the same type.
    fn fallback_on(&self, device: &DeviceFacts) -> Option<ComputeType> {
        if device.capability().is_some() {
            return None;
        }

        let oldest = resolve(
            self.settings.requested,
            self.stored,
            Some(OLDEST_CAPABILITY),
        );
        (oldest != self.compute_on(device)).then_some(oldest)
    }

    /// The copy of the output layer that each worker makes on `device`.
    fn padded_output(&self, device: &DeviceFacts) -> Option<PaddedOutput> {
        let compute = self.compute_on(device);
        padded_output(
            (self.sizes.vocabulary, self.sizes.width),
            compute,
            compute.size_multiple(device.capability()),
        )
    }

    /// The memory of one worker on `device`.
    fn worker(
        &self,
        device: &DeviceFacts,
        workload: Workload,
    ) -> Result<WorkerMemory, EngineError> {
        let phases = |compute: ComputeType| Phases {
            sizes: &self.sizes,
            settings: &self.settings,
            compute,
        };
        let mut worker = phases(self.compute_on(device)).worker(workload);
        if let Some(fallback) = self.fallback_on(device) {
            let old = phases(fallback).worker(workload);
            worker.cache.high = worker.cache.high.max(old.cache.high);
            worker.step.high = worker.step.high.max(old.step.high);
        }

        if worker.cache.high.overflowed() || worker.step.high.overflowed() {
            let what = "cache and activations";
            return Err(EngineError::Overflow { what });
        }

        Ok(worker)
    }

    fn for_workers(&self, bytes: Interval) -> Interval {
        Interval {
            low: bytes.low * self.settings.workers,
            likely: bytes.likely * self.settings.workers,
            high: bytes.high * self.settings.workers,
        }
    }

    /// The phrase for what the figures hold for each worker.
    fn each_worker(&self) -> String {
        match self.settings.workers {
            1 => String::new(),
            workers => format!(", for each of {workers} workers"),
        }
    }
}

/// The type that a device of `capability` computes in; as if it could, where it refuses.
fn resolve(requested: RequestedType, stored: StoredType, capability: Option<u32>) -> ComputeType {
    // A device that refuses gets the figures of a newer one, and its veto in `device_fitness`.
    requested
        .resolve(stored, capability)
        .or_else(|| requested.resolve(stored, Some(80)))
        .unwrap_or(ComputeType::Float32)
}

/// Checks that the request asks for no cache dtype other than the model's floats.
fn check_kv_cache_dtype(
    request: &EngineRequest<'_>,
    compute: ComputeType,
) -> Result<(), EngineError> {
    match request.asked.kv_cache_dtype.as_deref() {
        None | Some("auto") => Ok(()),
        Some(name) if name == dtype_name(compute.float_dtype()) => Ok(()),
        Some(name) => Err(EngineError::BadParameter {
            engine: NAME,
            name: "kv_cache_dtype".to_owned(),
            value: name.to_owned(),
            why: "the cache has the floats of the compute type".to_owned(),
        }),
    }
}

impl PreparedEngine for Ctranslate2Prepared<'_> {
    fn profile(&self) -> &str {
        &self.overhead.profile.name
    }

    fn parameters(&self) -> BTreeMap<String, Value> {
        self.settings.parameters(self.compute.name())
    }

    fn workload(&self) -> Workload {
        self.settings.workload
    }

    fn kv_cache_dtype(&self) -> String {
        dtype_name(self.compute.float_dtype()).to_owned()
    }

    fn kv_bytes_per_token(&self) -> Bytes {
        Phases {
            sizes: &self.sizes,
            settings: &self.settings,
            compute: self.compute,
        }
        .per_token()
    }

    fn state_bytes_per_sequence(&self) -> Bytes {
        Bytes::ZERO
    }

    fn assumptions(&self) -> Vec<String> {
        self.settings.assumptions.clone()
    }

    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    fn splits(&self, devices: u32) -> Result<Vec<Split>, IllegalSplit> {
        if devices == 1 {
            return Ok(vec![Split::single(self.layers)]);
        }

        Err(one_device())
    }

    fn check(&self, split: &Split) -> Result<(), IllegalSplit> {
        if split.ranks() != 1 || split.expert_parallel || split.offload != Offload::None {
            return Err(one_device());
        }

        Ok(())
    }

    fn uneven(&self) -> bool {
        false
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

    fn device_fitness(&self, device: &DeviceFacts) -> DeviceSupport {
        let (requested, capability) = (self.settings.requested, device.capability());
        let Some(compute) = requested.resolve(self.stored, capability) else {
            return DeviceSupport::Unable(format!(
                "CTranslate2 refuses compute_type={} on this device; compute_type=default falls \
                 back to what it has",
                requested.name()
            ));
        };

        let is_as_stored = compute.name() == self.stored.name();
        if requested == RequestedType::Default && !is_as_stored {
            return DeviceSupport::Degraded(format!(
                "CTranslate2 converts {} to {} on this device, which has no such arithmetic",
                self.stored.name(),
                compute.name()
            ));
        }

        DeviceSupport::Able
    }

    fn fixed(
        &self,
        _split: &Split,
        _rank: usize,
        device: &DeviceFacts,
    ) -> Result<Vec<Component>, EngineError> {
        let compute = self.compute_on(device);
        let weights = resident(&self.model.inventory, compute);
        if weights.overflowed() {
            return Err(EngineError::Overflow { what: "weights" });
        }

        let detail = format!(
            "{} variables as {}",
            self.model.inventory.tensors(),
            compute.name()
        );
        let mut parts = vec![match self.fallback_on(device) {
            None => Component::exact(ComponentName::Weights, weights, Basis::Formula, detail),
            Some(fallback) => {
                let most = resident(&self.model.inventory, fallback).max(weights);
                Component::between(
                    ComponentName::Weights,
                    Interval::new(weights, weights, most),
                    Basis::Assumed,
                    format!("{detail}, or as {} on an old card", fallback.name()),
                )
            }
        }];

        if let Some(padded) = self.padded_output(device) {
            let detail = format!(
                "the output layer again, padded to {} rows{}",
                padded.rows,
                self.each_worker()
            );
            // Only the engine's code confirms the copy, no measurement.
            let copies = padded.bytes * self.settings.workers;
            if copies.overflowed() {
                return Err(EngineError::Overflow { what: "weights" });
            }

            parts.push(Component::between(
                ComponentName::Weights,
                Interval::new(Bytes::ZERO, copies, copies),
                Basis::Formula,
                detail,
            ));
        }

        parts.push(Component::between(
            ComponentName::Runtime,
            self.for_workers(self.overhead.workspace(device)?),
            Basis::Assumed,
            "cuBLAS workspaces",
        ));
        parts.push(self.overhead.context(device)?);

        Ok(parts)
    }

    fn variable(
        &self,
        _split: &Split,
        _rank: usize,
        device: &DeviceFacts,
        workload: Workload,
    ) -> Result<Vec<Component>, EngineError> {
        let workload = self.settings.filled(workload);
        let worker = self.worker(device, workload)?;
        let cache = self.for_workers(worker.cache);
        let step = self.for_workers(worker.step);
        let text_cache = worker.text_cache * self.settings.workers;
        let pool = self.overhead.pool(cache.plus(step), text_cache)?;

        let detail = format!(
            "{} x ({} tokens x {} hypotheses and {} positions of audio x {}){}",
            workload.sequences,
            workload.context,
            self.settings.hypotheses(),
            self.sizes.positions,
            self.settings.audio_copies(),
            self.each_worker()
        );

        Ok(vec![
            Component::between(ComponentName::KvCache, cache, Basis::Formula, detail),
            Component::between(
                ComponentName::Activations,
                step,
                Basis::Assumed,
                format!(
                    "encoding {} chunks of 30 s, then decoding",
                    workload.sequences
                ),
            ),
            Component::between(
                ComponentName::Runtime,
                pool,
                Basis::Assumed,
                "CUDA's memory pool",
            ),
        ])
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

    fn launch(&self, plan: &LaunchPlan<'_>) -> Launch {
        launch::launch(self.model, &self.settings, plan)
    }
}

fn one_device() -> IllegalSplit {
    IllegalSplit("CTranslate2 runs a model on one device; more devices hold a copy each".to_owned())
}
