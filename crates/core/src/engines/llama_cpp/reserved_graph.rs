//! The compute buffers of builds from 12000 on, which reserve every way into the graph.
//!
//! ggml's allocator places tensors of a micro-batch into one address space, so a buffer is the
//! end of its highest tensor: the live ones, and holes that are too small for the next. The rows
//! of the residual stream in the phases, for example four in addition to three rows of a gated
//! feed-forward, are those of llama.cpp b12032's own dry run (`llama_context::graph_reserve`).
//! All tensors are F32 except the flash-attention mask and copies of a quantized cache (F16).
//!
//! Each phase gives the likely end and an upper bound. The bound allows for the holes that other
//! orders of the same tensors leave.

use std::collections::BTreeMap;

use super::blocks::{Blocks, InputPath};
use super::cache::Layout;
use super::distinct_layers::CountedLayer;
use super::widths::sum;
use crate::bytes::Bytes;
use crate::engines::Interval;
use crate::engines::llama_cpp::flash_kernels::AttentionMode;
use crate::model::architecture::{Architecture, Mixer, Span, Task};

/// Per token: token number and position (I32), cache slots (I64), and a mixed batch's numbers.
pub(super) const SMALL_INPUTS_PER_TOKEN: u64 = 28;
/// Per token: positions in three dimensions more (M-RoPE), at most.
const MORE_POSITIONS_PER_TOKEN: u64 = 12;
/// Bytes of output and sequence numbers, at most.
const FEW_INPUTS: u64 = 4096;
/// Bytes of an F16 element.
pub(super) const HALF: u64 = 2;
/// Copies of a pipeline's inputs (`GGML_SCHED_MAX_COPIES`).
pub(super) const PIPELINE_COPIES: u64 = 4;

/// The end of the highest tensor: likely, and at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Peak {
    pub(super) likely: Bytes,
    pub(super) high: Bytes,
}

impl Peak {
    pub(super) fn raise(&mut self, likely: Bytes, high: Bytes) {
        self.likely = self.likely.max(likely);
        self.high = self.high.max(high).max(likely);
    }

    pub(super) fn plus(self, likely: Bytes, more: Bytes) -> Self {
        Self {
            likely: self.likely + likely,
            high: self.high + likely + more,
        }
    }
}

/// The reserved graph of one device.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a separate switch")]
pub(super) struct ReservedGraph<'a> {
    pub(super) architecture: &'a Architecture,
    pub(super) layout: Layout,
    /// Rows of logits.
    pub(super) outputs: u64,
    /// Whether the output layer is computed on this device.
    pub(super) has_output: bool,
    /// Whether keys and values are on the devices.
    pub(super) cache_on_device: bool,
    /// The lowest buffer, in percent of the formula.
    pub(super) low_percent: u64,
    /// Whether devices work as a pipeline, which keeps inputs four times.
    pub(super) is_pipeline: bool,
    /// Whether the device has the first layer.
    pub(super) is_first: bool,
    pub(super) input: InputPath,
    /// Rows of hidden states that outlive the layers, for next-token layers that draft.
    pub(super) kept_rows: u64,
    /// The largest tensor that this device copies from the host to multiply.
    pub(super) copied: Bytes,
    /// Layers on the host, whose large multiplications run on this device, and their blocks.
    pub(super) on_host: &'a [CountedLayer<'a>],
    pub(super) host_blocks: Blocks,
}

impl ReservedGraph<'_> {
    /// Bytes of `floats` F32 values for each token of the micro-batch.
    pub(super) fn rows(&self, floats: u64) -> Bytes {
        Bytes::product([4, self.layout.ubatch, floats])
    }

    /// Copies of the inputs: one for each micro-batch in flight.
    pub(super) fn input_copies(&self) -> u64 {
        if self.is_pipeline { PIPELINE_COPIES } else { 1 }
    }

    /// Bytes of `count` rows of the residual stream.
    pub(super) fn streams(&self, count: u64) -> Bytes {
        self.rows(self.architecture.hidden_size.saturating_mul(count))
    }

    /// Whether attention reads no cache.
    pub(super) fn is_uncached(&self) -> bool {
        self.architecture.task == Task::Encode
            || matches!(&*self.architecture.class, "llama-embed" | "t5encoder")
    }

    /// Cells that a layer of `span` attends to.
    pub(super) fn cells(&self, span: Span) -> u64 {
        match span {
            _ if self.is_uncached() => self.layout.ubatch,
            Span::Bidirectional => self.layout.ubatch,
            Span::Full | Span::Sliding { .. } | Span::Chunked { .. } => self.layout.cells(span),
            Span::Cross { tokens } => tokens,
        }
    }

    /// Bytes of the masks of `layers`: likely, and at most.
    pub(super) fn masks(&self, layers: &[CountedLayer<'_>]) -> Peak {
        let (mut full, mut windowed, mut indexed) = (0_u64, 0_u64, 0);
        let mut compressed = BTreeMap::new();
        for mixer in layers.iter().flat_map(|(layer, _)| layer.mixers()) {
            match mixer {
                Mixer::Attention(attention) => match attention.span {
                    Span::Sliding { .. } | Span::Chunked { .. } => {
                        windowed = windowed.max(self.cells(attention.span));
                    }
                    span => full = full.max(self.cells(span)),
                },
                Mixer::Latent(latent) if latent.compress_ratio.is_some() => {
                    windowed = windowed.max(self.layout.latent_cells(latent));
                    compressed.insert(latent.compress_ratio, self.past_cells(latent));
                }
                Mixer::Latent(latent) if latent.window.is_some() => {
                    windowed = windowed.max(self.layout.latent_cells(latent));
                }
                Mixer::Latent(latent) => {
                    full = full.max(self.layout.context);
                    if latent.indexer.is_some() && !self.layout.attention.is_flash() {
                        indexed = self.layout.context;
                    }
                }
                Mixer::Recurrent(_) | Mixer::None => {}
            }
        }

        let cell = if self.layout.attention.is_flash() {
            HALF
        } else {
            4
        };
        let past = compressed
            .values()
            .fold(0, |sum: u64, cells| sum.saturating_add(*cells));
        let cells = sum([full, windowed, past]);
        let masks = Bytes::product([self.layout.ubatch, cells, cell])
            + Bytes::product([self.layout.ubatch, indexed, HALF]);

        // Encoders with windows have a second mask.
        let second = if self.is_uncached() {
            Bytes::product([self.layout.ubatch, full, cell])
        } else {
            Bytes::ZERO
        };

        Peak {
            likely: masks,
            high: masks + second,
        }
    }

    /// Bytes of the buffer on a device that holds `layers` with `blocks`.
    pub(super) fn buffer(&self, layers: &[CountedLayer<'_>], blocks: &Blocks) -> Interval {
        let own = self.phases(layers, blocks);
        let mut all = own;
        self.host_phases(layers, own, &mut all);

        let masks = match (layers, self.is_first) {
            ([], true) => self.masks(self.on_host),
            _ => self.masks(layers),
        };
        let tokens = Bytes::new(self.layout.ubatch);
        let small = tokens * SMALL_INPUTS_PER_TOKEN;
        let more = tokens * MORE_POSITIONS_PER_TOKEN + Bytes::new(FEW_INPUTS);
        let decays = self.decays(layers);
        let inputs = Peak {
            likely: masks.likely + small + decays,
            high: masks.high + small + more + decays,
        };

        let copies = self.input_copies();
        let pipeline = self.pipeline_inputs(layers, blocks);
        let least = own.likely.max(all.likely.scale(3, 4));
        // Without attention on the device, the graph falls into parts, and holes close.
        let least = match self.layout.attention {
            AttentionMode::FlashOnHost => own.likely.scale(1, 2),
            _ => least,
        };
        let low = least + inputs.likely * copies + pipeline.likely.scale(1, 2);
        // Attention on the host cuts these graphs into more parts than others.
        let high = match self.layout.attention {
            AttentionMode::FlashOnHost if self.is_unusual() => all.high.scale(3, 2),
            _ => all.high,
        };
        Interval::new(
            low.scale(self.least_percent(), 100),
            inputs.likely * copies + all.likely + pipeline.likely,
            inputs.high * copies + high + pipeline.high,
        )
    }

    /// Rows that a pipeline keeps for each micro-batch in flight.
    ///
    /// The first device takes the three ways of input four times, the others what the device before
    /// them passes on.
    pub(super) fn pipeline_inputs(&self, layers: &[CountedLayer<'_>], blocks: &Blocks) -> Peak {
        if !self.is_pipeline {
            return Peak::default();
        }

        let mut likely = match (self.is_first, self.is_uncached()) {
            (true, _) => {
                let deepstack = self.input.deepstack.saturating_mul(PIPELINE_COPIES);
                self.streams(deepstack.saturating_add(12))
            }
            (false, true) => self.streams(3),
            (false, false) => self.streams(7),
        };
        let mut more = self.streams(if blocks.expert.width > 0 { 8 } else { 4 });

        let mixers = || layers.iter().flat_map(|(layer, _)| layer.mixers());
        if mixers().any(|mixer| matches!(mixer, Mixer::Recurrent(_))) {
            more += self.streams(6);
        }

        if self.input.has_streams {
            likely += self.streams(45);
            more += self.streams(45);
        }

        if self.is_biased() {
            let bias = self.layout.ubatch.saturating_mul(self.architecture.heads);
            more += self.rows(bias.saturating_mul(PIPELINE_COPIES));
        }

        let passed = self.passed_inputs();
        likely += passed.likely;
        more += passed.high.less(passed.likely).unwrap_or(Bytes::ZERO);

        let parts = self.layer_inputs(layers);
        likely += parts.likely;
        more += parts.high.less(parts.likely).unwrap_or(Bytes::ZERO);

        Peak {
            likely,
            high: likely + more,
        }
    }
}
