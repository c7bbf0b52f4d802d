//! The compute buffer: the most that is alive at once while a micro-batch goes through the layers
//! of one device.
//!
//! The formulas come from dry runs of ggml's graph allocator over real model graphs (llama.cpp
//! 0c1e570); with layers on a GPU the input embedding is in the host's buffer instead, so that
//! published figures lie one or two rows of the residual stream below them. All tensors are F32 but
//! the flash-attention mask (F16).

use crate::bytes::Bytes;
use crate::engines::Interval;
use crate::engines::llama_cpp::cache::{Layout, key_row, value_row};
use crate::engines::llama_cpp::kinds::CountedTensors;
use crate::model::Dtype;
use crate::model::architecture::{
    Architecture, Attention, FeedForward, LatentAttention, Layer, Mixer, Recurrent, Span,
};

/// What the graph is reserved for, on one device.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub(crate) struct Graph<'a> {
    pub(crate) architecture: &'a Architecture,
    pub(crate) layout: Layout,
    /// Rows of logits.
    pub(crate) outputs: u64,
    /// The output layer is on this device.
    pub(crate) output: bool,
    /// Keys and values are on the devices.
    pub(crate) cache_on_device: bool,
    /// Gate and up projections of a dense feed-forward are multiplied into a third buffer.
    pub(crate) gate_apart: bool,
    /// Bytes of a flash-attention mask's cell.
    pub(crate) mask_bytes: u64,
    /// Lowest seen, in percent of the formula.
    pub(crate) low_percent: u64,
    /// Copies of a quantised cache's rows are part of the buffer.
    pub(crate) half_copies: bool,
    /// Devices that work as a pipeline; inputs are then kept four times.
    pub(crate) pipeline: bool,
    /// The largest tensor that is copied from the host to be multiplied here.
    pub(crate) copied: Bytes,
    /// Layers on the host, whose large multiplications are done here.
    pub(crate) on_host: &'a [CountedTensors<'a>],
}

/// Token numbers and positions (I32), places in the cache for keys and values (I64), and one row of
/// output numbers.
const SMALL_INPUTS_PER_TOKEN: u64 = 4 + 4 + 8 + 8;
const SMALL_INPUTS: u64 = 32;
/// Bytes of a mask's cell that is made in F16 at once.
const HALF: u64 = 2;
/// `GGML_SCHED_MAX_COPIES`.
const PIPELINE_COPIES: u64 = 4;

/// Attention masks: with what they are cast from, and what stays of them.
#[derive(Clone, Copy, Debug)]
struct Masks {
    most: Bytes,
    lasting: Bytes,
}

/// A phase's live bytes: (on a CPU, on a GPU). The former is the upper bound.
type Phase = (Bytes, Bytes);

impl Graph<'_> {
    /// `floats` F32 values for each token of the micro-batch.
    fn rows(&self, floats: u64) -> Bytes {
        Bytes::product([4, self.layout.ubatch, floats])
    }

    fn mask(&self, cells: u64) -> Bytes {
        let bytes = if self.layout.flash_attention {
            self.mask_bytes
        } else {
            4
        };
        Bytes::product([self.layout.ubatch, cells, bytes])
    }

    /// The masks of `layers`: one for full and one for windowed layers.
    pub(crate) fn masks(&self, layers: &[CountedTensors<'_>]) -> Bytes {
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

    /// The buffer of a device that holds `layers`.
    pub(crate) fn buffer(&self, layers: &[CountedTensors<'_>]) -> Interval {
        let hidden = self.architecture.hidden_size;
        let masks = self.masks(layers);
        let lasting = self.lasting(masks);
        let mut phases: Vec<Phase> = Vec::new();

        if lasting < masks {
            // While the mask is cast both are alive, beside four rows of the residual stream (five
            // on a CPU).
            phases.push((
                masks + self.rows(hidden.saturating_mul(5)),
                masks + self.rows(hidden.saturating_mul(4)),
            ));
        }

        let masks = Masks {
            most: masks,
            lasting,
        };

        for (layer, _) in layers {
            self.feed_forward(layer, masks, &mut phases);
            for mixer in layer.mixers() {
                self.mixer(mixer, masks, &mut phases);
            }
        }

        if self.output {
            let logits = Bytes::product([4, self.outputs, self.architecture.vocab_size]);

            // Two rows of the residual stream beside them, up to four where logits are scaled;
            // hybrids keep more.
            let states = layers
                .iter()
                .map(|(layer, _)| convolved(&layer.mixer))
                .max()
                .unwrap_or(0);

            // The first graphs of delta nets kept copies of what they convolve.
            let kept = if masks.lasting < masks.most { 4 } else { 2 };
            let beside = sum([hidden.saturating_mul(4), states.saturating_mul(kept)]);

            // Vulkan orders the graph anew, so that a mask which is cast lives to its end.
            let cast = if masks.lasting < masks.most {
                masks.most
            } else {
                Bytes::ZERO
            };

            phases.push((
                logits + self.rows(beside) + cast,
                logits + self.rows(hidden),
            ));
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
            // Inputs of a split are kept for each micro-batch in flight; which of the residual
            // stream's are varies.
            let inputs = masks.most * (PIPELINE_COPIES - 1);
            let streams = self.rows(hidden.saturating_mul(PIPELINE_COPIES));
            least_extra += inputs.scale(1, 2);
            extra += inputs + streams;
            widest_extra += inputs + streams * 2;
        }
        // Work for the host's layers brings its operands along: a layer's cache and its
        // feed-forward.
        let brought = |(layer, _): &CountedTensors<'_>| {
            self.layout.layer(&layer.mixer, 0)
                + self.rows(sum([wide(layer), hidden.saturating_mul(3)]))
        };

        widest_extra += self
            .on_host
            .iter()
            .map(brought)
            .max()
            .unwrap_or(Bytes::ZERO);

        let low = likely.scale(self.low_percent, 100);
        Interval::new(
            low + least_extra,
            likely + extra,
            high.max(likely) + widest_extra,
        )
    }

    /// What of the masks is alive beside a phase: where they come in F32 and are cast, only the F16
    /// copy.
    fn lasting(&self, masks: Bytes) -> Bytes {
        if self.layout.flash_attention {
            masks.scale(HALF, self.mask_bytes.max(HALF))
        } else {
            masks
        }
    }

    fn feed_forward(&self, layer: &Layer, masks: Masks, phases: &mut Vec<Phase>) {
        let hidden = self.architecture.hidden_size;
        let queries = query_width(&layer.mixer);

        let mut phase = |floats: u64, less: u64| {
            let rows = self.rows(floats);
            phases.push((
                rows + masks.most,
                rows.less(self.rows(less)).unwrap_or(rows) + masks.lasting,
            ));
        };

        match (layer.feed_forward, self.architecture.experts) {
            (FeedForward::Dense { width }, _) => {
                let written_over = if self.gate_apart { 0 } else { width };
                let floats = sum([width.saturating_mul(3), hidden.saturating_mul(3), queries]);
                phase(floats, hidden.saturating_add(written_over));
            }
            (FeedForward::Experts, Some(experts)) => {
                let width = experts.active.saturating_mul(experts.width);
                phase(
                    sum([width.saturating_mul(3), hidden.saturating_mul(3), queries]),
                    hidden,
                );
                let routed = experts.active.saturating_mul(hidden).saturating_mul(2);
                phase(sum([routed, hidden.saturating_mul(5), queries]), hidden);
            }
            (FeedForward::Experts, None) | (FeedForward::None, _) => {}
        }
    }

    fn mixer(&self, mixer: &Mixer, masks: Masks, phases: &mut Vec<Phase>) {
        let hidden = self.architecture.hidden_size;
        match mixer {
            Mixer::Attention(attention) => {
                let queries = attention
                    .heads
                    .saturating_mul(attention.key_dim.max(attention.value_dim));
                if self.layout.flash_attention {
                    let kv = sum([key_row(attention), value_row(attention)]);
                    let rows = self.rows(sum([hidden * 2, queries.saturating_mul(4), kv]));
                    phases.push((
                        rows + masks.most,
                        rows.less(self.rows(hidden)).unwrap_or(rows) + masks.lasting,
                    ));
                } else if self.cache_on_device {
                    // 3.5 h + 2 H d in plain models; norms around and gates behind attention take
                    // up to this.
                    let beside = sum([hidden.saturating_mul(5), queries.saturating_mul(3)]);
                    let on_gpu = sum([hidden * 2, queries.saturating_mul(2)]);

                    self.scores(
                        attention.heads,
                        attention.span,
                        (beside, on_gpu),
                        masks.most,
                        phases,
                    );
                }
            }
            Mixer::Latent(latent) => {
                let absorbed = sum([
                    hidden * 3,
                    latent.heads.saturating_mul(absorbed_floats(latent)),
                ]);

                if self.layout.flash_attention {
                    let rows = self.rows(absorbed);
                    phases.push((rows + masks.most, rows + masks.lasting));
                } else if self.cache_on_device {
                    self.scores(
                        latent.heads,
                        Span::Full,
                        (absorbed, absorbed),
                        masks.most,
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

    /// Without flash attention the scores of all heads are written out.
    fn scores(
        &self,
        heads: u64,
        span: Span,
        beside: (u64, u64),
        masks: Bytes,
        phases: &mut Vec<Phase>,
    ) {
        let cells = if span == Span::Bidirectional {
            self.layout.ubatch
        } else {
            self.layout.cells(span)
        };

        let scores = self.rows(cells.saturating_mul(heads)) + masks;
        phases.push((scores + self.rows(beside.0), scores + self.rows(beside.1)));
    }

    /// FP16 copies of one layer's keys and values, where they are not FP16 already
    /// (`ggml_cuda_flash_attn_ext_get_alloc_size`).
    fn half_copy(&self, layer: &Layer) -> Bytes {
        if !self.layout.flash_attention || !self.cache_on_device {
            return Bytes::ZERO;
        }

        let half = |dtype: Dtype, row: u64, cells: u64| {
            let copied = dtype != Dtype::F16;
            if copied {
                Bytes::product([2, row, cells])
            } else {
                Bytes::ZERO
            }
        };

        match &layer.mixer {
            Mixer::Attention(attention) => {
                let cells = self.layout.cells(attention.span);
                half(self.layout.keys, key_row(attention), cells)
                    + half(self.layout.values, value_row(attention), cells)
            }
            Mixer::Latent(latent) => half(
                self.layout.keys,
                sum([latent.kv_lora_rank, latent.rope_dim]),
                self.layout.context,
            ),
            Mixer::Recurrent(_) | Mixer::None => Bytes::ZERO,
        }
    }

    /// What the host's own buffer takes beside the devices': input embedding, second masks, and the
    /// rows of logits that are copied out.
    pub(crate) fn host(&self, layers: &[CountedTensors<'_>]) -> Bytes {
        let logits = Bytes::product([4, self.layout.slots, self.architecture.vocab_size]);
        self.rows(self.architecture.hidden_size) + self.masks(layers) + logits
    }
}

fn sum<const N: usize>(parts: [u64; N]) -> u64 {
    parts.into_iter().fold(0, u64::saturating_add)
}

/// A dense feed-forward's width.
fn wide(layer: &Layer) -> u64 {
    match layer.feed_forward {
        FeedForward::Dense { width } => width,
        FeedForward::Experts | FeedForward::None => 0,
    }
}

/// Elements of a token's queries.
fn query_width(mixer: &Mixer) -> u64 {
    match mixer {
        Mixer::Attention(attention) => attention.heads.saturating_mul(attention.value_dim),
        Mixer::Latent(latent) => latent.heads.saturating_mul(latent.value_dim),
        Mixer::Recurrent(recurrent) => channels(recurrent),
        Mixer::None => 0,
    }
}

/// Floats of one head while queries are taken into the latent space: 1504 for rank 512, rotary 64
/// and 128 beside it.
fn absorbed_floats(latent: &LatentAttention) -> u64 {
    let latent_row = sum([latent.kv_lora_rank, latent.rope_dim]);
    sum([
        latent_row.saturating_mul(2),
        latent.nope_dim.saturating_mul(2),
        latent.rope_dim,
        32,
    ])
}

/// Channels that a gated delta net convolves: values, and keys twice.
fn convolved(mixer: &Mixer) -> u64 {
    match *mixer {
        Mixer::Recurrent(Recurrent::GatedDelta {
            key_heads,
            value_heads,
            key_dim,
            value_dim,
            ..
        }) => sum([
            value_heads.saturating_mul(value_dim),
            key_heads.saturating_mul(key_dim).saturating_mul(2),
        ]),
        _ => 0,
    }
}

/// Channels that a recurrent layer works on.
fn channels(recurrent: &Recurrent) -> u64 {
    match *recurrent {
        Recurrent::Mamba1 { inner, .. } => inner,
        Recurrent::Mamba2 {
            inner,
            groups,
            state,
            ..
        } => sum([inner, groups.saturating_mul(state).saturating_mul(2)]),
        Recurrent::GatedDelta {
            value_heads,
            value_dim,
            ..
        } => value_heads.saturating_mul(value_dim),
        Recurrent::Kda {
            heads, head_dim, ..
        }
        | Recurrent::Lightning { heads, head_dim } => heads.saturating_mul(head_dim),
        Recurrent::ShortConv { width, .. } => width,
        Recurrent::Rwkv { hidden, .. } => hidden,
    }
}
