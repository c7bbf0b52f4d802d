//! DeepSeek V4's caches: compressed latents, windows, compressor states and indexer keys in packed
//! groups.
//!
//! Source: vLLM 0.33 `models/deepseek_v4/*`; checked on a log that serves 1.19 sequences of
//! 1,048,576 tokens in 8.28 GiB at 4096 tokens a step.

use std::ops::Range;

use crate::bytes::Bytes;
use crate::engines::shared::cache::{CacheKind, CacheLayers};

/// Bytes of one compressed state: 448 elements in 8 bits, 64 rotary ones in 16 bits, and scales.
const STATE_BYTES: u64 = 584;
/// Pages are rounded up to whole states of the plain latent, in bytes.
const PAGE_STEP: u64 = 576;
/// Tokens of a block of the compressed caches.
const BLOCK_TOKENS: u64 = 256;
/// Tokens of a block of the window cache.
const WINDOW_BLOCK_TOKENS: u64 = 64;
/// Bytes of a page of compressor states: 4 tokens x 2 x 2 x 512 in 32 bits, or 8 x 2 x 512.
const COMPRESSOR_PAGE: u64 = 32_768;
/// Bytes that the indexer's own compressor states add to such a page.
const INDEXER_COMPRESSOR_PAGE: u64 = 8_192;

/// The caches of a model with `compress_ratios`.
#[derive(Clone, Debug)]
pub(super) struct CompressedCache {
    /// The index and the compression ratio of each latent kind.
    ratios: Vec<(usize, u64)>,
    window: u64,
    indexer_bytes: u64,
}

impl CompressedCache {
    /// Returns the compressed caches of DeepSeek V4's layers; `None` if `layers` have none.
    pub(super) fn new(layers: &CacheLayers) -> Option<Self> {
        let mut found = Self {
            ratios: Vec::new(),
            window: 128,
            indexer_bytes: 132,
        };

        for (index, kind) in layers.kinds().iter().enumerate() {
            let CacheKind::Latent(latent) = kind else {
                return None;
            };
            found.ratios.push((index, latent.compress_ratio?));
            found.window = latent.window.unwrap_or(found.window);
            if let Some(indexer) = latent.indexer {
                found.indexer_bytes = indexer.head_dim + indexer.head_dim.div_ceil(128) * 4;
            }
        }

        (!found.ratios.is_empty()).then_some(found)
    }

    /// Bytes of one block of 256 tokens on a rank that holds `range`.
    pub(super) fn bytes_per_block(&self, layers: &CacheLayers, range: &Range<u32>) -> Bytes {
        let sum: Bytes = self
            .ratios
            .iter()
            .map(|(kind, ratio)| self.page_bytes(*ratio) * layers.layers(*kind, range))
            .sum();

        // A stage with window layers alone still needs a block for their pages.
        sum.max(Bytes::new((BLOCK_TOKENS / 4) * STATE_BYTES).round_up(PAGE_STEP))
    }

    /// Bytes of one layer's page of 256 tokens at a compression ratio; 0 for a window layer.
    fn page_bytes(&self, ratio: u64) -> Bytes {
        if ratio == 0 {
            return Bytes::ZERO;
        }

        let states = Bytes::new((BLOCK_TOKENS / ratio.min(BLOCK_TOKENS)).max(1));
        let main = (states * STATE_BYTES).round_up(PAGE_STEP);
        if is_indexed(ratio) {
            main + states * self.indexer_bytes
        } else {
            main
        }
    }

    /// Blocks of one sequence of `context` tokens with `in_flight` tokens in flight.
    pub(super) fn blocks(&self, layers: &CacheLayers, context: u64, in_flight: u64) -> u64 {
        let all = 0..u32::MAX;
        let block = self.bytes_per_block(layers, &all).get().max(1);
        let window_page = Bytes::new(WINDOW_BLOCK_TOKENS * STATE_BYTES)
            .round_up(PAGE_STEP)
            .get();

        let count_blocks = |layers: u64, page: u64, window: u64, tokens: u64| {
            let groups = layers.div_ceil((block / page).max(1));
            let retained = window
                .saturating_sub(1)
                .saturating_add(in_flight)
                .min(context);
            groups.saturating_mul(retained.div_ceil(tokens) + 1)
        };

        let total: u64 = self
            .ratios
            .iter()
            .map(|(kind, _)| layers.layers(*kind, &all))
            .sum();
        let mut sum = context.div_ceil(BLOCK_TOKENS).saturating_add(count_blocks(
            total,
            window_page,
            self.window,
            WINDOW_BLOCK_TOKENS,
        ));

        for (kind, ratio) in self.ratios.iter().filter(|(_, ratio)| *ratio > 0) {
            // A fine compressor sees two of its own strides, a coarse one sees one.
            let (page, window, tokens) = if is_indexed(*ratio) {
                (COMPRESSOR_PAGE + INDEXER_COMPRESSOR_PAGE, 2 * ratio, 4)
            } else {
                (COMPRESSOR_PAGE, *ratio, 8)
            };

            let layers = layers.layers(*kind, &all);
            sum = sum.saturating_add(count_blocks(layers, page, window, tokens));
        }

        sum
    }
}

/// Whether an indexer searches the layers of this ratio: the finely compressed ones alone.
const fn is_indexed(ratio: u64) -> bool {
    ratio > 0 && ratio < 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Architecture;
    use crate::model::architecture::{FeedForward, Indexer, LatentAttention, Layer, Mixer, Task};

    fn layer(ratio: u64) -> Layer {
        let indexer = (ratio == 4).then_some(Indexer {
            head_dim: 128,
            heads: 64,
            top_k: 512,
        });

        let mixer = Mixer::Latent(LatentAttention {
            heads: 64,
            kv_lora_rank: 448,
            rope_dim: 64,
            nope_dim: 448,
            value_dim: 512,
            q_lora_rank: Some(1024),
            indexer,
            compress_ratio: Some(ratio),
            window: Some(128),
        });

        Layer {
            mixer,
            second_mixer: None,
            feed_forward: FeedForward::Experts,
            passes: 1,
        }
    }

    /// DeepSeek-V4-Flash: 2 window layers, 21 finely and 20 coarsely compressed ones.
    fn flash() -> CacheLayers {
        let ratios = std::iter::repeat_n(0, 2)
            .chain(std::iter::repeat_n(4, 21))
            .chain(std::iter::repeat_n(128, 20));
        let config = serde_json::json!({ "model_type": "llama", "num_hidden_layers": 1 });
        let any =
            crate::model::config::architecture(&config, None, &crate::model::Inventory::default())
                .unwrap();
        let architecture = Architecture {
            layers: ratios.map(layer).collect(),
            task: Task::Generate,
            ..any
        };

        CacheLayers::new(&architecture, 0)
    }

    #[test]
    fn v4_flash_block_bytes() {
        let layers = flash();
        let cache = CompressedCache::new(&layers).unwrap();
        assert_eq!(
            cache.bytes_per_block(&layers, &(0..43)),
            Bytes::new(998_208)
        );
        assert_eq!(
            cache.bytes_per_block(&layers, &(0..2)),
            Bytes::new(37_440),
            "a stage with window layers alone still holds their pages"
        );
    }

    #[test]
    fn blocks_grow_with_step() {
        let layers = flash();
        let cache = CompressedCache::new(&layers).unwrap();
        let flight = 2 * 4096;

        let expected = 4096
            + 2 * (8319_u64.div_ceil(64) + 1)
            + (8199_u64.div_ceil(4) + 1)
            + (8319_u64.div_ceil(8) + 1);
        assert_eq!(cache.blocks(&layers, 1_048_576, flight), expected);
    }
}
