//! The graphs of a prepared model's devices and host.

use std::ops::Range;

use super::blocks::Blocks;
use super::cache::Layout;
use super::compute::Graph;
use super::distinct_layers::CountedLayer;
use super::prepared::LlamaCppPrepared;
use super::reserved_graph::ReservedGraph;
use super::weights::OnHost;
use crate::engines::Split;

/// A device of a split, for its graph.
#[derive(Clone, Debug)]
pub(super) struct GraphDevice<'a> {
    pub(super) split: &'a Split,
    /// Whether the output layer is on the device.
    pub(super) has_output: bool,
    /// Whether the device has the first layer.
    pub(super) is_first: bool,
}

impl LlamaCppPrepared<'_> {
    /// Rows of logits that a graph reserves.
    fn output_rows(&self, layout: Layout) -> u64 {
        let rows = if self.profile.outputs_for_slots_only {
            layout.slots.saturating_mul(self.outputs_per_sequence())
        } else {
            layout.ubatch
        };

        let given = self.parameters.n_outputs_max.unwrap_or(rows);
        given.min(layout.ubatch)
    }

    /// The lowest measured buffer, in percent of the formula.
    fn low_percent(&self) -> u64 {
        let [dense, mixture] = self.profile.low_percent;
        if self.architecture.experts.is_some() {
            mixture
        } else {
            dense
        }
    }

    /// Whether no tensor and no cache of the model is on the host.
    fn is_on_devices(&self, host: OnHost) -> bool {
        host == OnHost::default() && self.cache_on_device()
    }

    /// The blocks of the layers in `range`.
    pub(super) fn blocks(&self, range: &Range<u32>) -> Blocks {
        let layers = self.kinds.within(range);
        Blocks::new(&self.weights, self.architecture, &layers, range)
    }

    /// The graph that builds from 12000 on reserve.
    pub(super) fn reserved_graph<'g>(
        &'g self,
        layout: Layout,
        device: &GraphDevice<'_>,
        on_host: &'g [CountedLayer<'g>],
    ) -> ReservedGraph<'g> {
        let host = self.host_of(device.split);
        let stages = device.split.stages.len();
        let output_on_device = self.output_on_device(host);

        ReservedGraph {
            architecture: self.architecture,
            layout,
            outputs: self.output_rows(layout),
            // A device multiplies the host's output layer too, with a copy of its weights.
            has_output: device.has_output || !output_on_device,
            cache_on_device: self.cache_on_device(),
            low_percent: self.low_percent(),
            is_pipeline: stages > 1 && self.is_on_devices(host),
            is_first: device.is_first,
            input: self.input,
            kept_rows: if self.parameters.draft.next_token {
                2
            } else {
                0
            },
            copied: self.weights.largest_on_host(host, output_on_device),
            on_host,
            host_blocks: self.blocks(&(0..host.layers.max(host.experts).min(self.layers))),
        }
    }

    pub(super) fn graph<'g>(
        &'g self,
        layout: Layout,
        split: &Split,
        output: bool,
        host: OnHost,
        on_host: &'g [CountedLayer<'g>],
    ) -> Graph<'g> {
        Graph {
            architecture: self.architecture,
            layout,
            outputs: self.output_rows(layout),
            // A device multiplies the host's output layer too, with a copy of its weights.
            output: output || !self.output_on_device(host),
            cache_on_device: self.cache_on_device(),
            gate_apart: self.profile.gate_apart,
            mask_bytes: self.profile.mask_bytes,
            low_percent: self.low_percent(),
            half_copies: self.profile.half_copies_in_buffer,
            pipeline: split.stages.len() > 1 && self.is_on_devices(host),
            copied: self
                .weights
                .largest_on_host(host, self.output_on_device(host)),
            on_host,
        }
    }
}
