//! Phases of families whose graphs keep more than the residual stream of one layer.
//!
//! Source: the graphs in llama.cpp `src/models/*.cpp`. The factors are those of llama.cpp b12032's
//! own dry run; the bounds allow for what other shapes of the same graph added to it.

use super::compressed::Compressed;
use super::distinct_layers::CountedLayer;
use super::reserved_graph::{Peak, ReservedGraph};
use crate::bytes::Bytes;
use crate::model::architecture::{Architecture, LatentAttention, Mixer, Recurrent};

/// The lowest buffer of an unusual graph, in percent of the formula.
const UNUSUAL_LOW_PERCENT: u64 = 65;
/// The same of a graph that keeps outputs or decays.
const KEPT_LOW_PERCENT: u64 = 75;

/// Whether the dry run had buffers of this architecture that were far below the formula.
fn is_lower(architecture: &str) -> bool {
    matches!(
        architecture,
        "bailingmoe3" | "gemma-embedding2" | "minimax-01"
    )
}

/// Returns a fact that the architecture states as a note; `None` without it.
pub(super) fn noted(architecture: &Architecture, name: &str) -> Option<u64> {
    let notes = architecture.notes.iter();
    notes
        .filter_map(|note| note.split_once('='))
        .find(|(key, _)| *key == name)
        .and_then(|(_, value)| value.parse().ok())
}

impl ReservedGraph<'_> {
    /// Residual streams that hyper-connections mix; 1 without them.
    fn mixed_streams(&self) -> u64 {
        noted(self.architecture, "hyper_connection.count").unwrap_or(1)
    }

    /// Bytes of `count` rows of all residual streams.
    pub(super) fn wide_streams(&self, count: u64) -> Bytes {
        self.streams(count.saturating_mul(self.mixed_streams()))
    }

    /// Whether the graph mixes streams, or selects tokens by rules of its own.
    pub(super) fn is_unusual(&self) -> bool {
        self.mixed_streams() > 1
            || self.key_heads() > 0
            || matches!(&*self.architecture.class, "mistral-large4" | "dots3note")
    }

    /// The lowest buffer, in percent of the formula.
    pub(super) fn least_percent(&self) -> u64 {
        let is_kept = self.residual_blocks() > 0 || self.tapped_layers() > 0;
        match self.is_unusual() {
            true => UNUSUAL_LOW_PERCENT.min(self.low_percent),
            false if is_kept || is_lower(&self.architecture.class) => {
                KEPT_LOW_PERCENT.min(self.low_percent)
            }
            false => self.low_percent,
        }
    }

    /// The lowest buffer of the host, in percent of the formula.
    ///
    /// These graphs lack ways of input that others reserve, or keep them on a device.
    pub(super) fn host_low_percent(&self) -> u64 {
        match &*self.architecture.class {
            "qwen4exp" => 15,
            "glm5-next" => 20,
            "deepseek4" | "deepseek41" | "limite" | "gemma-embedding2" => 50,
            _ => self.low_percent,
        }
    }

    /// Blocks of layers whose residuals later layers attend to (Kimi K3); 0 for other families.
    fn residual_blocks(&self) -> u64 {
        noted(self.architecture, "attn_res.block_size").map_or(0, |size| {
            u64::from(self.architecture.layer_count()).div_ceil(size)
        })
    }

    /// Layers whose outputs later layers read (Limite); 0 for other families.
    fn tapped_layers(&self) -> u64 {
        noted(self.architecture, "tapped_layers").unwrap_or(0)
    }

    /// KV heads of MiniMax-M3, each of which has a mask of selected blocks; 0 for other families.
    fn key_heads(&self) -> u64 {
        if self.architecture.class != "minimax-m3" {
            return 0;
        }

        let heads = self
            .architecture
            .mixers(0..u32::MAX)
            .map(|mixer| match mixer {
                Mixer::Attention(attention) => attention.kv_heads,
                _ => 0,
            });
        heads.max().unwrap_or(0)
    }

    /// Tokens of a sequence in a micro-batch.
    fn sequence_tokens(&self) -> u64 {
        self.layout.ubatch.div_ceil(self.layout.slots.max(1))
    }

    /// Bytes of the inputs of lightning attention: decays between the tokens of a sequence.
    pub(super) fn decays(&self, layers: &[CountedLayer<'_>]) -> Bytes {
        let heads = layers
            .iter()
            .flat_map(|(layer, _)| layer.mixers())
            .map(|mixer| match mixer {
                Mixer::Recurrent(Recurrent::Lightning { heads, .. }) => *heads,
                _ => 0,
            });
        let heads = heads.max().unwrap_or(0);
        self.rows(heads.saturating_mul(self.sequence_tokens().saturating_add(2)))
    }

    /// Raises `peak` to the families' own phases; `base` is the feed-forwards' peak.
    pub(super) fn family_phases(&self, layers: &[CountedLayer<'_>], base: Peak, peak: &mut Peak) {
        if self.mixed_streams() > 1 {
            let mixing = self.wide_streams(15).scale(1, 2);
            peak.raise(mixing, self.wide_streams(19).scale(1, 2) + self.streams(4));
            peak.high = peak.high.max(base.high + self.wide_streams(2));
        }

        self.selection(layers, peak);

        let decays = self.decays(layers);
        if decays > Bytes::ZERO {
            peak.raise(decays * 2 + self.streams(10), decays * 2 + self.streams(15));
        }

        if decays > Bytes::ZERO {
            peak.high += self.streams(6);
        }

        let heads = self.key_heads();
        if heads > 0 {
            let cells = self.rows(self.layout.context);
            let masks = cells * heads;
            let likely = if self.layout.slots == 1 {
                masks * 2 + cells
            } else {
                Bytes::ZERO
            };
            peak.raise(likely, masks * 3 + cells * 2 + self.streams(12));
        }

        let (blocks, tapped) = (self.residual_blocks(), self.tapped_layers());
        if blocks > 0 {
            peak.likely += self.streams(blocks / 2);
            peak.high += self.streams(blocks.saturating_mul(2).saturating_add(7));
        }

        if tapped > 0 {
            peak.likely += self.streams(tapped);
            peak.high += self.streams(tapped.saturating_add(6));
        }
    }

    /// Raises the upper bound by what the selection of tokens takes in families with indexers.
    fn selection(&self, layers: &[CountedLayer<'_>], peak: &mut Peak) {
        let cells = self.rows(self.layout.context);
        match &*self.architecture.class {
            "glm5-next" if self.layout.slots > 1 => peak.high += cells * 3,
            "glm5-next" => peak.high += cells,
            "qwen4exp" if self.layout.slots > 1 => peak.high += cells.scale(1, 4),
            "hy_v4" | "dots3note" => peak.high += cells.scale(1, 2),
            "mistral-large4" => peak.high += cells,
            _ => {}
        }

        if self.layout.attention.is_flash() || self.architecture.class != "mistral-large4" {
            return;
        }

        let mixers = layers.iter().flat_map(|(layer, _)| layer.mixers());
        let scores = mixers.map(|mixer| match mixer {
            Mixer::Latent(latent) => cells * latent.heads,
            _ => Bytes::ZERO,
        });
        peak.high += scores.max().unwrap_or(Bytes::ZERO);
    }

    /// The phase of an attention over a window and a compressed past.
    pub(super) fn compressed_attention(&self, latent: &LatentAttention, peak: &mut Peak) {
        let past = self.rows(self.past_cells(latent));
        let cells = self
            .layout
            .latent_cells(latent)
            .saturating_add(self.past_cells(latent));
        let scores = self.rows(cells.saturating_mul(latent.heads));
        let queries = self.rows(latent.heads.saturating_mul(latent.value_dim));
        let more = if self.layout.slots > 1 {
            past * 3
        } else {
            Bytes::ZERO
        };

        if self.layout.attention.is_flash() {
            // Queries can be much wider than the streams.
            let likely = queries.scale(9, 4) + self.wide_streams(1);
            let high = queries.scale(7, 2) + self.wide_streams(2);
            peak.raise(
                likely.max(self.wide_streams(6)) + past * 2,
                high.max(self.wide_streams(9)) + past * 6 + more,
            );
        } else {
            let twice = if latent.compress_ratio.is_some_and(|ratio| ratio < 4) {
                2
            } else {
                1
            };
            peak.raise(
                scores.scale(twice + 1, 2) + self.wide_streams(6),
                scores * twice + (queries * 4).max(self.wide_streams(9)) + past * 2 + more,
            );
        }
    }

    /// Cells of the compressed past that a layer attends to.
    pub(super) fn past_cells(&self, latent: &LatentAttention) -> u64 {
        Compressed::new(latent).cells(self.layout.context)
    }

    /// Rows that a device keeps of what others pass to it, in addition to the residual stream:
    /// likely, and at most.
    pub(super) fn passed_inputs(&self) -> Peak {
        let mixed = self.mixed_streams();
        // Hunyuan 4 passes the weights of its streams apart.
        let rows = if self.architecture.class == "hy_v4" {
            25
        } else {
            7
        };
        let others = self.streams(mixed.saturating_sub(1).saturating_mul(rows));
        let likely = if self.is_first { Bytes::ZERO } else { others };
        let more = if mixed > 1 {
            self.wide_streams(if rows > 7 { 8 } else { 4 })
        } else {
            Bytes::ZERO
        };

        let kept = self.residual_blocks().saturating_add(self.tapped_layers());
        let kept = self.streams(kept.saturating_mul(4));
        let masks = match (self.key_heads(), self.is_first) {
            (0, _) | (_, true) => Bytes::ZERO,
            _ => self.rows(self.layout.context) * 7,
        };
        let selected = match &*self.architecture.class {
            "dots3note" | "mistral-large4" => self.rows(self.layout.context) * 5,
            _ => Bytes::ZERO,
        };
        Peak {
            likely: likely + masks,
            high: likely + more + kept + masks * 2 + selected,
        }
    }
}
