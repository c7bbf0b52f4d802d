//! The compute buffer: peak live bytes while a micro-batch passes the layers of one device.
//!
//! The formulas come from dry runs of ggml's graph allocator over real model graphs (llama.cpp
//! 0c1e570). With layers on a GPU, the input embedding is in the host's buffer instead, so
//! published figures are one or two rows of the residual stream lower. All tensors are F32 except
//! the flash-attention mask (F16).

use super::cache::{Layout, key_row, value_row};
use super::distinct_layers::CountedLayer;
use super::widths::{absorbed_floats, channels, convolved, dense_width, query_width, sum};
use crate::bytes::Bytes;
use crate::engines::Interval;
use crate::model::Dtype;
use crate::model::architecture::{Architecture, Attention, FeedForward, Layer, Mixer, Span};

/// The reserved graph of one device.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a separate switch")]
pub(crate) struct Graph<'a> {
    pub(crate) architecture: &'a Architecture,
    pub(crate) layout: Layout,
    /// Rows of logits.
    pub(crate) outputs: u64,
    /// Whether the output layer is on this device.
    pub(crate) output: bool,
    /// Whether keys and values are on the devices.
    pub(crate) cache_on_device: bool,
    /// Whether the product of a dense feed-forward's gate and up projections has a third buffer.
    pub(crate) gate_apart: bool,
    /// Bytes of a flash-attention mask's cell, copies included.
    pub(crate) mask_bytes: u64,
    /// The lowest measured buffer, in percent of the formula.
    pub(crate) low_percent: u64,
    /// Whether copies of a quantized cache's rows are part of the buffer.
    pub(crate) half_copies: bool,
    /// Whether devices work as a pipeline, which keeps inputs four times.
    pub(crate) pipeline: bool,
    /// The largest tensor that this device copies from the host to multiply.
    pub(crate) copied: Bytes,
    /// Layers on the host whose large multiplications run on this device.
    pub(crate) on_host: &'a [CountedLayer<'a>],
}

/// Per token: token number and position (I32), and cache slots for keys and values (I64).
const SMALL_INPUTS_PER_TOKEN: u64 = 4 + 4 + 8 + 8;
/// Bytes of a row of output numbers.
const SMALL_INPUTS: u64 = 32;
/// Bytes of a mask's cell in F16.
const HALF: u64 = 2;
/// Copies of a pipeline's inputs (`GGML_SCHED_MAX_COPIES`).
const PIPELINE_COPIES: u64 = 4;

/// Bytes of attention masks: at their peak, and after the cast.
#[derive(Clone, Copy, Debug)]
struct Masks {
    peak: Bytes,
    lasting: Bytes,
}

/// Live bytes of a phase: (on a CPU, on a GPU). The former is the upper bound.
type Phase = (Bytes, Bytes);

impl Graph<'_> {
    /// Bytes of `floats` F32 values for each token of the micro-batch.
    fn rows(&self, floats: u64) -> Bytes {
        Bytes::product([4, self.layout.ubatch, floats])
    }

    fn mask(&self, cells: u64) -> Bytes {
        let bytes = if self.layout.attention.is_flash() {
            self.mask_bytes
        } else {
            4
        };
        Bytes::product([self.layout.ubatch, cells, bytes])
    }

    /// Bytes of the masks of `layers`: one for full and one for windowed layers.
    pub(crate) fn masks(&self, layers: &[CountedLayer<'_>]) -> Bytes {
        let mut full = 0;
        let mut windowed = 0;

        for mixer in layers.iter().flat_map(|(layer, _)| layer.mixers()) {
            match mixer {
                Mixer::Attention(Attention {
                    span: Span::Bidirectional,
                    ..
                }) => full = full.max(self.layout.ubatch),
                Mixer::Attention(Attention {
                    span: Span::Full, ..
                })
                | Mixer::Latent(_) => full = self.layout.context,
                Mixer::Attention(attention) => {
                    windowed = windowed.max(self.layout.cells(attention.span));
                }
                Mixer::Recurrent(_) | Mixer::None => {}
            }
        }

        self.mask(full) + self.mask(windowed)
    }

    /// Bytes of the buffer on a device that holds `layers`.
    pub(crate) fn buffer(&self, layers: &[CountedLayer<'_>]) -> Interval {
        let hidden = self.architecture.hidden_size;
        let masks = self.masks(layers);
        let lasting = self.lasting(masks);
        let mut phases: Vec<Phase> = Vec::new();

        if lasting < masks {
            // During the cast both masks are live, with four rows of the residual stream (five on a
            // CPU).
            phases.push((
                masks + self.rows(hidden.saturating_mul(5)),
                masks + self.rows(hidden.saturating_mul(4)),
            ));
        }

        let masks = Masks {
            peak: masks,
            lasting,
        };

        for (layer, _) in layers {
            self.feed_forward(layer, masks, &mut phases);
            for mixer in layer.mixers() {
                self.mixer(mixer, masks, &mut phases);
            }
        }

        if self.output {
            phases.push(self.output_phase(layers, masks));
        }

        let high = phases
            .iter()
            .map(|phase| phase.0)
            .max()
            .unwrap_or(Bytes::ZERO);

        let likely = phases
            .iter()
            .map(|phase| phase.1)
            .max()
            .unwrap_or(Bytes::ZERO);

        let extra = self.extra_inputs(layers, masks);
        let low = likely.scale(self.low_percent, 100);
        Interval::new(
            low + extra.low,
            likely + extra.likely,
            high.max(likely) + extra.high,
        )
    }

    /// The phase in which the output layer computes the logits.
    fn output_phase(&self, layers: &[CountedLayer<'_>], masks: Masks) -> Phase {
        let hidden = self.architecture.hidden_size;
        let logits = Bytes::product([4, self.outputs, self.architecture.vocab_size]);

        // Two rows of the residual stream are live with the logits, and up to four if logits
        // are scaled; hybrids keep more.
        let states = layers
            .iter()
            .map(|(layer, _)| convolved(&layer.mixer))
            .max()
            .unwrap_or(0);

        // Early graphs of delta nets kept copies of the convolution's input.
        let copies = if masks.lasting < masks.peak { 4 } else { 2 };
        let stream = sum([hidden.saturating_mul(4), states.saturating_mul(copies)]);

        // Vulkan reorders the graph, so a mask that is cast stays live to the end.
        let cast = if masks.lasting < masks.peak {
            masks.peak
        } else {
            Bytes::ZERO
        };

        (
            logits + self.rows(stream) + cast,
            logits + self.rows(hidden),
        )
    }

    /// Bytes in addition to the largest phase: inputs, copies, and operands of the host's layers.
    fn extra_inputs(&self, layers: &[CountedLayer<'_>], masks: Masks) -> Interval {
        let hidden = self.architecture.hidden_size;
        let small =
            Bytes::new(self.layout.ubatch) * SMALL_INPUTS_PER_TOKEN + Bytes::new(SMALL_INPUTS);
        let mut extra = small + self.copied;
        let mut widest_extra = extra;

        if self.half_copies {
            let copies = layers
                .iter()
                .map(|(layer, _)| self.half_copy(layer))
                .max()
                .unwrap_or(Bytes::ZERO);
            extra += copies;
            widest_extra += copies;
        }

        let mut least_extra = extra;
        if self.pipeline {
            // Each micro-batch in flight keeps the inputs of a split. The number of residual-stream
            // inputs among them varies.
            let inputs = masks.peak * (PIPELINE_COPIES - 1);
            let streams = self.rows(hidden.saturating_mul(PIPELINE_COPIES));
            least_extra += inputs.scale(1, 2);
            extra += inputs + streams;
            widest_extra += inputs + streams * 2;
        }
        // Work for the host's layers copies its operands: a layer's cache and its feed-forward.
        let operand_bytes = |(layer, _): &CountedLayer<'_>| {
            self.layout.layer(&layer.mixer, None)
                + self.rows(sum([dense_width(layer), hidden.saturating_mul(3)]))
        };

        widest_extra += self
            .on_host
            .iter()
            .map(operand_bytes)
            .max()
            .unwrap_or(Bytes::ZERO);

        Interval {
            low: least_extra,
            likely: extra,
            high: widest_extra,
        }
    }

    /// Mask bytes that stay live during a phase: only the F16 copy if masks are cast from F32.
    fn lasting(&self, masks: Bytes) -> Bytes {
        if self.layout.attention.is_flash() {
            masks.scale(HALF, self.mask_bytes.max(HALF))
        } else {
            masks
        }
    }

    /// Adds the phases of a feed-forward.
    fn feed_forward(&self, layer: &Layer, masks: Masks, phases: &mut Vec<Phase>) {
        let hidden = self.architecture.hidden_size;
        let queries = query_width(&layer.mixer);

        let mut add_phase = |floats: u64, less: u64| {
            let rows = self.rows(floats);
            phases.push((
                rows + masks.peak,
                rows.less(self.rows(less)).unwrap_or(rows) + masks.lasting,
            ));
        };

        match (layer.feed_forward, self.architecture.experts) {
            (FeedForward::Dense { width }, _) => {
                let written_over = if self.gate_apart { 0 } else { width };
                let floats = sum([width.saturating_mul(3), hidden.saturating_mul(3), queries]);
                add_phase(floats, hidden.saturating_add(written_over));
            }
            (FeedForward::Experts, Some(experts)) => {
                let width = experts.active.saturating_mul(experts.width);
                add_phase(
                    sum([width.saturating_mul(3), hidden.saturating_mul(3), queries]),
                    hidden,
                );
                let routed = experts.active.saturating_mul(hidden).saturating_mul(2);
                add_phase(sum([routed, hidden.saturating_mul(5), queries]), hidden);
            }
            (FeedForward::Experts, None) | (FeedForward::None, _) => {}
        }
    }

    /// Adds the phase of a mixer.
    fn mixer(&self, mixer: &Mixer, masks: Masks, phases: &mut Vec<Phase>) {
        let hidden = self.architecture.hidden_size;
        match mixer {
            Mixer::Attention(attention) => {
                let queries = attention
                    .heads
                    .saturating_mul(attention.key_dim.max(attention.value_dim));
                if self.layout.attention.is_flash() {
                    let kv = sum([key_row(attention), value_row(attention)]);
                    let rows = self.rows(sum([hidden * 2, queries.saturating_mul(4), kv]));
                    phases.push((
                        rows + masks.peak,
                        rows.less(self.rows(hidden)).unwrap_or(rows) + masks.lasting,
                    ));
                } else if self.cache_on_device {
                    // 3.5 h + 2 H d in plain models; norms around attention and gates after it
                    // raise it to this.
                    let stream = sum([hidden.saturating_mul(5), queries.saturating_mul(3)]);
                    let on_gpu = sum([hidden * 2, queries.saturating_mul(2)]);

                    self.scores(
                        attention.heads,
                        attention.span,
                        (stream, on_gpu),
                        masks.peak,
                        phases,
                    );
                }
            }
            Mixer::Latent(latent) => {
                let absorbed = sum([
                    hidden * 3,
                    latent.heads.saturating_mul(absorbed_floats(latent)),
                ]);

                if self.layout.attention.is_flash() {
                    let rows = self.rows(absorbed);
                    phases.push((rows + masks.peak, rows + masks.lasting));
                } else if self.cache_on_device {
                    self.scores(
                        latent.heads,
                        Span::Full,
                        (absorbed, absorbed),
                        masks.peak,
                        phases,
                    );
                }
            }
            Mixer::Recurrent(recurrent) => {
                let bytes = self.rows(sum([hidden * 3, channels(recurrent).saturating_mul(6)]));
                phases.push((bytes, bytes));
            }
            Mixer::None => {}
        }
    }

    /// Adds the phase of all heads' scores, which exist only without flash attention.
    fn scores(
        &self,
        heads: u64,
        span: Span,
        other_floats: (u64, u64),
        masks: Bytes,
        phases: &mut Vec<Phase>,
    ) {
        let cells = if span == Span::Bidirectional {
            self.layout.ubatch
        } else {
            self.layout.cells(span)
        };

        let scores = self.rows(cells.saturating_mul(heads)) + masks;
        phases.push((
            scores + self.rows(other_floats.0),
            scores + self.rows(other_floats.1),
        ));
    }

    /// Bytes of the FP16 copies of one layer's keys and values, if they are not FP16 already
    /// (`ggml_cuda_flash_attn_ext_get_alloc_size`).
    fn half_copy(&self, layer: &Layer) -> Bytes {
        if !self.layout.attention.is_flash() || !self.cache_on_device {
            return Bytes::ZERO;
        }

        let copy_bytes = |dtype: Dtype, row: u64, cells: u64| {
            if dtype == Dtype::F16 {
                Bytes::ZERO
            } else {
                Bytes::product([HALF, row, cells])
            }
        };

        match &layer.mixer {
            Mixer::Attention(attention) => {
                let cells = self.layout.cells(attention.span);
                copy_bytes(self.layout.keys, key_row(attention), cells)
                    + copy_bytes(self.layout.values, value_row(attention), cells)
            }
            Mixer::Latent(latent) => copy_bytes(
                self.layout.keys,
                sum([latent.kv_lora_rank, latent.rope_dim]),
                self.layout.context,
            ),
            Mixer::Recurrent(_) | Mixer::None => Bytes::ZERO,
        }
    }

    /// Bytes of the host's own buffer: input embedding, second masks, and the logits that are
    /// copied out.
    pub(crate) fn host(&self, layers: &[CountedLayer<'_>]) -> Bytes {
        let logits = Bytes::product([4, self.layout.slots, self.architecture.vocab_size]);
        self.rows(self.architecture.hidden_size) + self.masks(layers) + logits
    }
}
