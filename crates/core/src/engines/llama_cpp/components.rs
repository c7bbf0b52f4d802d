//! Memory components by rank and on the host.

use super::cache::Layout;
use super::graphs::GraphDevice;
use super::prepared::LlamaCppPrepared;
use crate::bytes::Bytes;
use crate::device::DeviceFacts;
use crate::engines::{Basis, Component, ComponentName, Interval, PreparedEngine, Split, Workload};

impl LlamaCppPrepared<'_> {
    /// The components that no workload changes.
    pub(super) fn fixed_components(
        &self,
        split: &Split,
        rank: usize,
        device: &DeviceFacts,
    ) -> Vec<Component> {
        let mut components = vec![self.stage_weights(split, rank)];

        if rank == 0
            && !self.parameters.no_mmproj_offload
            && let Some(bytes) = self.projector_bytes()
        {
            components.push(Component::exact(
                ComponentName::Weights,
                bytes,
                Basis::Exact,
                "the projector",
            ));

            let images = self.profile.projector_compute();
            let detail = "compute buffer of the projector's largest image";

            components.push(Component::between(
                ComponentName::Activations,
                images,
                Basis::Assumed,
                detail,
            ));
        }

        let context = self.profile.context(device.multiprocessors);
        components.push(Component::between(
            ComponentName::Context,
            context,
            Basis::Calibrated,
            "CUDA context",
        ));

        let libraries = self.profile.libraries(device.capability());
        let detail = "cuBLAS workspace and conversion pool";

        components.push(Component::between(
            ComponentName::Runtime,
            libraries,
            Basis::Calibrated,
            detail,
        ));
        components.extend(self.fixed_draft(split, rank, device));

        components
    }

    /// The weights on the device of `rank`.
    pub(super) fn stage_weights(&self, split: &Split, rank: usize) -> Component {
        let (stage, output, host) = self.stage(split, rank);
        let weights = self.weights.on_stage(&stage, output, host);
        let behind = if output { " and the output layer" } else { "" };
        let detail = format!("layers {}..{}{behind}, as stored", stage.start, stage.end);

        Component::exact(ComponentName::Weights, weights, Basis::Exact, detail)
    }

    /// The components that `workload` adds: cache, states and compute buffer.
    pub(super) fn variable_components(
        &self,
        split: &Split,
        rank: usize,
        workload: Workload,
    ) -> Vec<Component> {
        let (stage, output, host) = self.stage(split, rank);
        let layout = self.effective.layout(workload);
        let layers = self.kinds.within(&stage);
        let mut components = Vec::new();

        if self.cache_on_device() {
            let (cache, states) = self.cache_and_states(&layers, layout);
            let copied = layout.copied_cells(&self.architecture.layers, stage.clone());
            let cache = cache + self.cache_padding(&layers, layout) + copied;
            if self.has_cache() {
                let detail = format!(
                    "{} cells of {}",
                    layout.context.saturating_mul(layout.streams),
                    self.kv_cache_dtype()
                );

                components.push(Component::exact(
                    ComponentName::KvCache,
                    cache,
                    Basis::Formula,
                    detail,
                ));
            }

            if states > Bytes::ZERO {
                let count = layout.slots.saturating_mul(layout.snapshots);
                let detail = format!("{count} states of F32");
                components.push(Component::exact(
                    ComponentName::State,
                    states,
                    Basis::Formula,
                    detail,
                ));
            }
        }

        let on_host = self.kinds.within(&(0..host.layers.min(self.layers)));
        let buffer = if self.profile.reserves_inputs {
            let device = GraphDevice {
                split,
                has_output: output,
                is_first: rank == 0,
            };
            self.reserved_graph(layout, &device, &on_host)
                .buffer(&layers, &self.blocks(&stage))
        } else {
            self.graph(layout, split, output, host, &on_host)
                .buffer(&layers)
        };
        let detail = format!("compute buffer of {} tokens", layout.ubatch);

        components.push(Component::between(
            ComponentName::Activations,
            buffer,
            Basis::Formula,
            detail,
        ));
        components.extend(self.variable_draft(split, rank, workload));

        components
    }

    /// The components in host memory.
    pub(super) fn host_components(&self, split: &Split, workload: Workload) -> Vec<Component> {
        let host = self.host_of(split);
        let layout = self.effective.layout(workload);
        let weights = self.weights.on_host(host, self.output_on_device(host));

        let storage = if self.parameters.no_mmap {
            "allocated"
        } else {
            "mapped from the file"
        };

        let mut components = vec![Component::exact(
            ComponentName::Host,
            weights,
            Basis::Exact,
            format!("weights on the host, {storage}"),
        )];

        if let Some(bytes) = self
            .projector_bytes()
            .filter(|_| self.parameters.no_mmproj_offload)
        {
            components.push(Component::exact(
                ComponentName::Host,
                bytes,
                Basis::Exact,
                "the projector",
            ));
        }

        let on_host_layers = if self.cache_on_device() {
            0..host.layers.min(self.layers)
        } else {
            0..self.layers
        };

        let (cache, states) = self.cache_and_states(&self.kinds.within(&on_host_layers), layout);
        if cache + states > Bytes::ZERO {
            components.push(Component::exact(
                ComponentName::Host,
                cache + states,
                Basis::Formula,
                "cache on the host",
            ));
        }

        let buffers = self.host_buffers(layout, split);
        let detail = "input embedding, masks and logits";
        components.push(Component::between(
            ComponentName::Host,
            buffers,
            Basis::Formula,
            detail,
        ));
        components.extend(self.host_draft(split, workload));

        components
    }

    /// Bytes of the host's compute buffer.
    fn host_buffers(&self, layout: Layout, split: &Split) -> Interval {
        let host = self.host_of(split);
        let on_host_range = 0..host.layers.min(self.layers);
        let on_host = self.kinds.within(&on_host_range);
        let everything = self.kinds.all();

        if self.profile.reserves_inputs {
            let device = GraphDevice {
                split,
                has_output: false,
                is_first: true,
            };
            let graph = self.reserved_graph(layout, &device, &[]);
            let own = graph.host(&everything);
            let layers = graph.buffer(&on_host, &self.blocks(&on_host_range)).high;
            return if on_host.is_empty() {
                own
            } else {
                Interval::new(own.low, own.likely, own.high + layers)
            };
        }

        let graph = self.graph(layout, split, false, host, &on_host);
        let own = graph.host(&everything);
        if on_host.is_empty() {
            Interval::exact(own)
        } else {
            Interval::new(own, own, own + graph.buffer(&on_host).high)
        }
    }
}
