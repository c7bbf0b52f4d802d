//! Widths of feed-forward blocks, and the tensors behind a model's input, as the file has them.
//!
//! Metadata does not state every width: OLMoE's experts are as wide as the dense key says, and
//! whether a block has a gate follows from its tensors only.

use std::ops::Range;

use super::distinct_layers::CountedLayer;
use super::weights::Weights;
use super::widths::query_width;
use crate::bytes::Bytes;
use crate::model::architecture::{Architecture, FeedForward, Mixer, Recurrent, Span};

/// A feed-forward block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Block {
    /// Elements of a row between the projections; 0 without such a block.
    pub(super) width: u64,
    /// Whether a gate projection runs in addition to the up projection.
    pub(super) has_gate: bool,
    /// Elements of a row that enters the block; 0 if no tensor tells.
    pub(super) input: u64,
    /// Bytes of the largest projection.
    pub(super) largest_bytes: Bytes,
}

/// The blocks of a range of layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a separate fact")]
pub(super) struct Blocks {
    pub(super) dense: Block,
    /// All active experts of a token: the width of one expert.
    pub(super) expert: Block,
    pub(super) shared: Block,
    /// The widest row of queries.
    pub(super) queries: u64,
    /// Whether attention and feed-forward read the same input (Command R, Falcon).
    pub(super) is_parallel: bool,
    /// Whether any layer has a state.
    pub(super) is_recurrent: bool,
    /// Whether any layer has a gated delta net.
    pub(super) has_delta_net: bool,
    /// Whether any layer sees a window only.
    pub(super) has_windows: bool,
    /// Layers that skip their attention (Nemotron-NAS).
    pub(super) skipped_attentions: u64,
}

impl Blocks {
    /// The blocks of `range`, whose kinds are `layers`.
    pub(super) fn new(
        weights: &Weights,
        architecture: &Architecture,
        layers: &[CountedLayer<'_>],
        range: &Range<u32>,
    ) -> Self {
        let is_normed = |stem| weights.has_stem(stem, range);
        let mixers = || layers.iter().flat_map(|(layer, _)| layer.mixers());
        let is_recurrent = mixers().any(|mixer| matches!(mixer, Mixer::Recurrent(_)));

        let mut blocks = Self {
            dense: block(weights, range, ""),
            expert: block(weights, range, "_exps"),
            shared: block(weights, range, "_shexp"),
            queries: mixers().map(query_width).max().unwrap_or(0),
            is_parallel: mixers().all(|mixer| *mixer != Mixer::None)
                && is_normed("attn_norm")
                && !is_normed("ffn_norm")
                && !is_normed("post_attention_norm"),
            is_recurrent,
            has_delta_net: mixers()
                .any(|mixer| matches!(mixer, Mixer::Recurrent(Recurrent::GatedDelta { .. }))),
            has_windows: mixers().any(|mixer| {
                matches!(mixer, Mixer::Attention(attention)
                    if matches!(attention.span, Span::Sliding { .. } | Span::Chunked { .. }))
            }),
            skipped_attentions: if is_recurrent {
                0
            } else {
                skipped_attentions(layers)
            },
        };

        blocks.complete(architecture, layers);
        blocks
    }

    /// Takes widths from the metadata if the file has no such tensors: headers in parts.
    fn complete(&mut self, architecture: &Architecture, layers: &[CountedLayer<'_>]) {
        let no_tensors = self.dense.width == 0 && self.expert.width == 0;
        for (layer, _) in layers.iter().filter(|_| no_tensors) {
            match (layer.feed_forward, architecture.experts) {
                (FeedForward::Dense { width }, _) => raise_width(&mut self.dense, width),
                (FeedForward::Experts, Some(experts)) => {
                    raise_width(&mut self.expert, experts.width);
                    raise_width(&mut self.shared, experts.shared_width);
                }
                (FeedForward::Experts, None) | (FeedForward::None, _) => {}
            }
        }
    }
}

fn skipped_attentions(layers: &[CountedLayer<'_>]) -> u64 {
    let skipping = layers
        .iter()
        .filter(|(layer, _)| layer.mixer == Mixer::None);
    skipping.map(|(_, count)| count).sum()
}

fn raise_width(block: &mut Block, width: u64) {
    block.width = block.width.max(width);
    block.has_gate = true;
}

/// The block whose tensors end in `kind`.
fn block(weights: &Weights, range: &Range<u32>, kind: &str) -> Block {
    let tensor = |name: &str| weights.stem_size(&format!("ffn_{name}{kind}"), range);
    let (down, up, gate) = (tensor("down"), tensor("up"), tensor("gate"));
    let fused = tensor("gate_up");

    Block {
        width: if down.first > 0 {
            down.first
        } else {
            up.second
        },
        // A fused up projection is twice as wide.
        has_gate: gate.first > 0 || fused.first > 0 || (down.first > 0 && up.second > down.first),
        input: up.first.max(fused.first),
        largest_bytes: up.bytes.max(gate.bytes).max(fused.bytes).max(down.bytes),
    }
}

/// The way of the input to the first layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct InputPath {
    /// Elements of the embeddings that each layer gets on its own (Gemma 3n and 4).
    pub(super) per_layer: u64,
    /// Whether layers pass several streams (Gemma 3n).
    pub(super) has_streams: bool,
    /// Rows that are added to the embedding on the host: positions and token types.
    pub(super) added_rows: u64,
    /// Layers that get features of an image in addition (Qwen3-VL).
    pub(super) deepstack: u64,
}

impl InputPath {
    pub(super) fn new(weights: &Weights, architecture: &Architecture) -> Self {
        let deepstack = architecture
            .notes
            .iter()
            .find_map(|note| note.strip_prefix("n_deepstack_layers=")?.parse().ok());

        Self {
            per_layer: weights.per_layer_width(),
            has_streams: weights.row("altup_proj.weight") > 0,
            added_rows: u64::from(weights.row("position_embd.weight") > 0)
                + u64::from(weights.row("token_types.weight") > 0),
            deepstack: deepstack.unwrap_or(0),
        }
    }
}
