//! The host's part in a reserved graph: its own buffer, and copies for layers that it holds.

use super::cache::value_row;
use super::distinct_layers::CountedLayer;
use super::flash_kernels::AttentionMode;
use super::reserved_graph::{PIPELINE_COPIES, Peak, ReservedGraph, SMALL_INPUTS_PER_TOKEN};
use super::widths::sum;
use crate::bytes::Bytes;
use crate::engines::Interval;
use crate::model::architecture::Mixer;

impl ReservedGraph<'_> {
    /// Adds the phases of layers whose tensors or caches are on the host.
    ///
    /// The device multiplies large batches for them, with copies of their weights, and attends with
    /// copies of their keys and values.
    pub(super) fn host_phases(&self, layers: &[CountedLayer<'_>], own: Peak, peak: &mut Peak) {
        // Only the first device works for the host.
        let on_host = if self.is_first { self.on_host } else { &[] };
        let blocks = &self.host_blocks;
        let base = self.feed_forward(blocks);
        if self.is_first && (blocks.dense.width > 0 || blocks.expert.width > 0) {
            let active = self
                .architecture
                .experts
                .map_or(0, |experts| experts.active);
            // Each copied weight begins a part of the graph, so one is live at a time.
            let copied = blocks.expert.largest_bytes.max(blocks.dense.largest_bytes);
            peak.raise(
                base.likely + copied,
                base.high + copied + self.streams(active.saturating_mul(2).saturating_add(5)),
            );
        }

        if self.copied > Bytes::ZERO {
            peak.raise(self.copied, self.copied + base.high);
        }

        let without_cache = if self.cache_on_device {
            on_host
        } else {
            layers
        };
        for mixer in without_cache.iter().flat_map(|(layer, _)| layer.mixers()) {
            if self.is_uncached() {
                continue;
            }

            let attention = self.host_attention(mixer);
            let cache = self.copied_cache(mixer);
            let base = if self.cache_on_device { base } else { own };
            let high = (cache.scale(3, 2) + self.streams(5)) + attention.max(base.high);
            let indexed = matches!(mixer, Mixer::Latent(latent) if latent.indexer.is_some());
            let scores = if indexed && !self.layout.attention.is_flash() {
                attention
            } else {
                self.unprobed_scores(layers, on_host, mixer)
            };
            peak.raise(attention + cache, high + scores);
        }

        let passes_streams = self.input.has_streams && !on_host.is_empty();
        if passes_streams {
            peak.high += self.streams(45);
        }
    }

    /// Bytes of a layer's cache and states, copied to the device.
    ///
    /// A latent is copied twice, as key and as value.
    fn copied_cache(&self, mixer: &Mixer) -> Bytes {
        let cache = self.layout.layer(mixer, None) + self.layout.states(mixer);
        match mixer {
            Mixer::Latent(_) => cache.scale(5, 2),
            _ => cache,
        }
    }

    /// Bytes of an attention over a copied cache.
    fn host_attention(&self, mixer: &Mixer) -> Bytes {
        let mut peak = Peak::default();
        self.attention(mixer, &self.host_blocks, Peak::default(), &mut peak);
        if let Mixer::Recurrent(recurrent) = mixer {
            self.recurrent(recurrent, &mut peak);
        }

        peak.likely
    }

    /// Inputs that each layer of a PLaMo 2 pipeline has: its small norms are on the host.
    pub(super) fn layer_inputs(&self, layers: &[CountedLayer<'_>]) -> Peak {
        if !self.is_pipeline || self.architecture.class != "plamo2" {
            return Peak::default();
        }

        let count = layers.iter().map(|(_, count)| count).sum::<u64>();
        Peak {
            likely: self.streams(count.saturating_mul(4)),
            high: self.streams(count.saturating_mul(7)),
        }
    }

    /// Bytes of the host's own buffer; `layers` are all of the model's.
    ///
    /// It has the ways in (token numbers, embeddings, and both), masks, and logits that are copied
    /// out.
    pub(super) fn host(&self, layers: &[CountedLayer<'_>]) -> Interval {
        let path = self.input;
        let masks = self.masks(layers);
        let copies = if self.is_pipeline { PIPELINE_COPIES } else { 1 };
        let rows = if self.is_pipeline { 10 } else { 4 };
        let extra = sum([
            path.added_rows,
            path.deepstack.saturating_mul(2),
            u64::from(path.per_layer > 0),
        ]);
        let input = self.streams(sum([rows, extra])) + self.rows(path.per_layer);

        let small = Bytes::new(self.layout.ubatch) * SMALL_INPUTS_PER_TOKEN;
        let indices = match self.layout.attention {
            AttentionMode::Scores if !self.is_uncached() => self.rows(2) * widest_value(layers),
            _ => Bytes::ZERO,
        };
        let logits = Bytes::product([4, self.layout.slots, self.architecture.vocab_size]);

        let small = small + self.decays(layers);
        let likely = (masks.likely + small) * copies + input + indices;
        // Attention of Mistral Large 4 has masks of its own in addition.
        let more = match &*self.architecture.class {
            "mistral-large4" => (masks.high + small) * copies * 3,
            _ => (masks.high + small) * copies,
        };
        let host = Interval::new(
            likely.scale(self.host_low_percent(), 100),
            likely,
            likely + more + logits + self.streams(3),
        );

        let parts = self.layer_inputs(layers);
        let scores = self.scores_on_host(layers);
        let attention = match self.layout.attention {
            AttentionMode::FlashOnHost => self.attention_on_host(layers),
            _ => Peak::default(),
        };
        Interval::new(
            host.low,
            host.likely + attention.likely + parts.likely,
            host.high + attention.high + parts.high + scores,
        )
    }

    /// Scores of a hybrid model, parts of which are on the host.
    ///
    /// The probe for flash attention can then find its attention on another backend than its layers
    /// (LFM3, Qwen4-Exp), and turns it off.
    fn unprobed_scores(
        &self,
        layers: &[CountedLayer<'_>],
        on_host: &[CountedLayer<'_>],
        mixer: &Mixer,
    ) -> Bytes {
        let Mixer::Attention(attention) = mixer else {
            return Bytes::ZERO;
        };
        if !layers.iter().chain(on_host).any(has_state) {
            return Bytes::ZERO;
        }

        let cells = self.cells(attention.span);
        self.rows(cells.saturating_mul(attention.heads.saturating_add(2)))
    }

    /// Scores that the host may compute for a hybrid model whose cache it holds.
    ///
    /// The probe for flash attention then finds Jamba's and PLaMo 2's on another backend than their
    /// layers, and turns it off; not for every shape.
    fn scores_on_host(&self, layers: &[CountedLayer<'_>]) -> Bytes {
        let mixers = || layers.iter().flat_map(|(layer, _)| layer.mixers());
        let is_hybrid = mixers().any(|mixer| matches!(mixer, Mixer::Recurrent(_)));
        let has_unprobed = self.host_blocks.queries > 0 && layers.iter().any(has_state);
        if !is_hybrid || (self.cache_on_device && !has_unprobed) {
            return Bytes::ZERO;
        }

        let scores = mixers().map(|mixer| match mixer {
            Mixer::Attention(attention) => {
                let cells = self.cells(attention.span);
                self.rows(cells.saturating_mul(attention.heads.saturating_add(1)))
            }
            _ => Bytes::ZERO,
        });
        scores.max().unwrap_or(Bytes::ZERO)
    }

    /// Flash attention that no device can compute: the host takes copies of a layer's cache.
    fn attention_on_host(&self, layers: &[CountedLayer<'_>]) -> Peak {
        let mut peak = Peak::default();
        for mixer in layers.iter().flat_map(|(layer, _)| layer.mixers()) {
            let plain = self.queries(mixer);
            let cache = self.layout.layer(mixer, None);
            peak.raise(cache + plain, cache + plain * 2);
        }

        peak
    }
}

/// Whether a layer has a recurrent state.
fn has_state((layer, _): &CountedLayer<'_>) -> bool {
    layer
        .mixers()
        .any(|mixer| matches!(mixer, Mixer::Recurrent(_)))
}

/// Elements of the widest value row, whose cache slots are listed one by one if transposed.
fn widest_value(layers: &[CountedLayer<'_>]) -> u64 {
    let mixers = layers.iter().flat_map(|(layer, _)| layer.mixers());
    mixers
        .filter_map(|mixer| match mixer {
            Mixer::Attention(attention) => Some(value_row(attention)),
            _ => None,
        })
        .max()
        .unwrap_or(0)
}
