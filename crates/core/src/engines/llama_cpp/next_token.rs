//! A model's own next-token layers as its draft: a second context over the same weights.
//!
//! Source: llama.cpp b12032 `common/speculative.cpp` (`common_speculative_init_result`),
//! `src/llama-model.cpp` (`create_memory`, `nextn_flags`), `graph_mtp` of `src/models/*.cpp`.

use std::ops::Range;

use super::blocks::Blocks;
use super::cache::{CELL_PADDING, Layout};
use super::draft::bad_draft;
use super::graphs::GraphDevice;
use super::prepared::LlamaCppPrepared;
use super::reserved_graph::ReservedGraph;
use crate::bytes::Bytes;
use crate::engines::{Basis, Component, ComponentName, EngineError, Interval, Split, Workload};
use crate::model::architecture::{FeedForward, LatentAttention, Layer, Mixer, Span};

/// Families whose draft contexts the dry run confirms.
const CONFIRMED: [&str; 7] = [
    "deepseek32",
    "glm-dsa",
    "glm4moe",
    "hy_v3",
    "qwen35",
    "qwen35moe",
    "qwen3next",
];

/// Which next-token layers of a file are loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NextTokenLayers {
    /// None.
    Skipped,
    /// Those of the families whose loader does not skip them.
    ByFamily,
    /// All: they draft.
    Drafting,
}

impl NextTokenLayers {
    /// Whether the layers are left out; `family_skips` is whether the family's loader does so.
    pub(super) fn are_skipped(self, family_skips: bool) -> bool {
        match self {
            Self::Skipped => true,
            Self::ByFamily => family_skips,
            Self::Drafting => false,
        }
    }
}

/// The draft context of next-token layers.
#[derive(Debug)]
pub(crate) struct NextTokenDraft {
    /// A next-token layer; all are equal.
    layer: Layer,
    range: Range<u32>,
}

impl NextTokenDraft {
    /// Prepares the next-token layers of `target`.
    pub(super) fn new(target: &LlamaCppPrepared<'_>) -> Result<Self, EngineError> {
        let family = &*target.architecture.class;
        let count = target.next_token_layers();
        let refuse = |why: &str| Err(bad_draft(&target.parameters, why));
        if count == 0
            || !target
                .weights
                .has_stem("nextn.eh_proj", &target.next_token_range())
        {
            return refuse("the file has no next-token layers");
        }
        if !CONFIRMED.contains(&family) || count > 1 {
            return refuse(
                "the draft context of this family, or of several layers, is not counted",
            );
        }

        let range = target.next_token_range();
        let Some(mixer) = own_mixer(target) else {
            return refuse("the attention of its next-token layers is unknown");
        };
        let draft = Self {
            layer: Layer {
                mixer,
                second_mixer: None,
                feed_forward: FeedForward::None,
                passes: 1,
            },
            range,
        };
        draft.check_rows(target)?;

        Ok(draft)
    }

    /// Checks the width of the cache against the projections in the file.
    fn check_rows(&self, target: &LlamaCppPrepared<'_>) -> Result<(), EngineError> {
        let (stem, width) = match &self.layer.mixer {
            Mixer::Attention(attention) => (
                "attn_k",
                attention.kv_heads.saturating_mul(attention.key_dim),
            ),
            Mixer::Latent(latent) => (
                "attn_kv_a_mqa",
                latent.kv_lora_rank.saturating_add(latent.rope_dim),
            ),
            Mixer::Recurrent(_) | Mixer::None => ("", 0),
        };

        let stored = target.weights.stem_size(stem, &self.range).second;
        if stored == width {
            return Ok(());
        }

        let why = format!("its next-token layers have keys of {stored} elements, not {width}");
        Err(bad_draft(&target.parameters, &why))
    }

    /// The layout of the draft's cache.
    fn layout(target: &LlamaCppPrepared<'_>, workload: Workload) -> Layout {
        let layout = target.effective.layout(workload);
        let [keys, values] = target.parameters.draft.cache_types();
        let ubatch = target.parameters.draft.n_ubatch.unwrap_or(layout.ubatch);
        let total = layout.context.saturating_mul(layout.streams);

        Layout {
            keys,
            values,
            ubatch: ubatch.min(target.effective.n_batch).min(total),
            snapshots: 1,
            ..layout
        }
    }

    /// Bytes of the draft's cache, padding included.
    fn cache(&self, layout: Layout) -> Bytes {
        let mixer = &self.layer.mixer;
        let count = u64::from(self.range.end - self.range.start);

        (layout.layer(mixer, None) + layout.padding(mixer)) * count
    }

    /// Bytes of the draft's cache for one token of one stream.
    pub(super) fn bytes_per_token(&self, target: &LlamaCppPrepared<'_>) -> Bytes {
        let layout = Layout {
            streams: 1,
            ..Self::layout(target, target.effective.workload)
        };
        let longer = Layout {
            context: layout.context.saturating_add(CELL_PADDING),
            ..layout
        };

        let block = self.cache(longer).less(self.cache(layout));
        block.map_or(Bytes::OVERFLOW, |bytes| bytes.div_ceil(CELL_PADDING))
    }

    fn graph<'g>(
        target: &'g LlamaCppPrepared<'_>,
        layout: Layout,
        split: &Split,
    ) -> ReservedGraph<'g> {
        let device = GraphDevice {
            split,
            has_output: true,
            is_first: false,
        };
        let graph = target.reserved_graph(layout, &device, &[]);

        ReservedGraph {
            outputs: layout.slots.min(layout.ubatch),
            kept_rows: 0,
            copied: Bytes::ZERO,
            host_blocks: Blocks::default(),
            ..graph
        }
    }

    /// Bytes of the compute buffer on the device of the layers.
    ///
    /// The layers' own part is at most as in the model's graph. The dry run shows as little as a
    /// sixth of it.
    fn buffer(&self, target: &LlamaCppPrepared<'_>, layout: Layout, split: &Split) -> Interval {
        let layers = [(&self.layer, 1)];
        let graph = Self::graph(target, layout, split);
        let buffer = graph.buffer(&layers, &target.blocks(&self.range));
        let masks = graph.masks(&layers).likely * graph.input_copies();
        let own = buffer.likely.less(masks).unwrap_or(Bytes::ZERO);

        Interval {
            low: (masks + own.scale(1, 6)).min(buffer.low),
            ..buffer
        }
    }

    /// Bytes of the host's buffer: masks, and one or two rows of the residual stream.
    fn host_buffer(
        &self,
        target: &LlamaCppPrepared<'_>,
        layout: Layout,
        split: &Split,
    ) -> Interval {
        let layers = [(&self.layer, 1)];
        let graph = Self::graph(target, layout, split);
        let masks = graph.masks(&layers).likely * graph.input_copies();
        let rows = if graph.is_pipeline { 5 } else { 2 };
        let likely = masks + graph.streams(rows);

        Interval::new(
            masks + graph.streams(1),
            likely,
            graph.host(&layers).high.max(likely),
        )
    }

    /// The components on the device of `rank`.
    pub(super) fn on_device(
        &self,
        target: &LlamaCppPrepared<'_>,
        split: &Split,
        rank: usize,
        workload: Workload,
    ) -> Vec<Component> {
        if !split.is_last_stage(rank) {
            return Vec::new();
        }

        let layout = Self::layout(target, workload);
        let mut components = Vec::new();
        if target.cache_on_device() {
            components.push(Component::exact(
                ComponentName::KvCache,
                self.cache(layout),
                Basis::Formula,
                "draft: cache of the next-token layers",
            ));
        }

        let buffer = self.buffer(target, layout, split);
        components.push(Component::between(
            ComponentName::Activations,
            buffer,
            Basis::Formula,
            "draft: compute buffer",
        ));

        components
    }

    /// The components in host memory.
    pub(super) fn on_host(
        &self,
        target: &LlamaCppPrepared<'_>,
        split: &Split,
        workload: Workload,
    ) -> Vec<Component> {
        let layout = Self::layout(target, workload);
        let mut components = Vec::new();
        if !target.cache_on_device() {
            components.push(Component::exact(
                ComponentName::Host,
                self.cache(layout),
                Basis::Formula,
                "draft: cache on the host",
            ));
        }

        let buffers = self.host_buffer(target, layout, split);
        components.push(Component::between(
            ComponentName::Host,
            buffers,
            Basis::Formula,
            "draft: input embedding, masks and logits",
        ));

        components
    }
}

/// The attention of the next-token layers: that of the last layer with attention, whole and
/// without an indexer.
fn own_mixer(target: &LlamaCppPrepared<'_>) -> Option<Mixer> {
    let layers = &target.architecture.layers;
    layers.iter().rev().find_map(|layer| match &layer.mixer {
        Mixer::Attention(attention) if attention.span == Span::Full => {
            Some(Mixer::Attention(attention.clone()))
        }
        Mixer::Latent(latent) => Some(Mixer::Latent(LatentAttention {
            indexer: None,
            ..latent.clone()
        })),
        _ => None,
    })
}
