//! DeepSeek V4's caches: compressed latents, windows, compressor states and indexer keys in packed
//! groups.
//!
//! Source: vLLM 0.33 `models/deepseek_v4/*`; checked on a log that serves 1.19 sequences of
//! 1,048,576 tokens in 8.28 GiB at 4096 tokens a step.

use std::ops::Range;

use crate::bytes::Bytes;
use crate::engines::shared::cache::{CacheKind, CacheLayers};

/// Bytes of one compressed state: 448 in 8 bits, 64 rotary in 16 bits, scales.
const STATE_BYTES: u64 = 584;
/// Pages are rounded to whole states of the plain latent.
const PAGE_STEP: u64 = 576;
/// Tokens of a block of the compressed caches.
const BLOCK_TOKENS: u64 = 256;
/// Tokens of a block of the window cache.
const WINDOW_BLOCK_TOKENS: u64 = 64;
/// Bytes of a page of compressor states: 4 tokens x 2 x 2 x 512 in 32 bits, or 8 x 2 x 512.
const COMPRESSOR_PAGE: u64 = 32_768;
/// The indexer's own compressor states beside them.
const INDEXER_COMPRESSOR_PAGE: u64 = 8_192;

/// The caches of a model with `compress_ratios`.
#[derive(Clone, Debug)]
pub(super) struct CompressedCache {
    /// (kind, ratio) for each latent kind.
    ratios: Vec<(usize, u64)>,
    window: u64,
    indexer_bytes: u64,
}

impl CompressedCache {
    /// The caches, if `layers` are of this family.
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
        let page = |ratio: u64| match ratio {
            0 => Bytes::ZERO,
            ratio => {
                let states = Bytes::new((BLOCK_TOKENS / ratio.min(BLOCK_TOKENS)).max(1));
                let main = (states * STATE_BYTES).round_up(PAGE_STEP);
                // Only the finely compressed layers are searched by an indexer.
                if indexed(ratio) {
                    main + states * self.indexer_bytes
                } else {
                    main
                }
            }
        };

        let sum: Bytes = self
            .ratios
            .iter()
            .map(|(kind, ratio)| page(*ratio) * layers.layers(*kind, range))
            .sum();

        // A stage of window layers only still needs a block to hold their pages.
        sum.max(Bytes::new((BLOCK_TOKENS / 4) * STATE_BYTES).round_up(PAGE_STEP))
    }

    /// Blocks of one sequence of `context` tokens with `in_flight` tokens on their way.
    pub(super) fn blocks(&self, layers: &CacheLayers, context: u64, in_flight: u64) -> u64 {
        let all = 0..u32::MAX;
        let block = self.bytes_per_block(layers, &all).get().max(1);
        let window_page = Bytes::new(WINDOW_BLOCK_TOKENS * STATE_BYTES)
            .round_up(PAGE_STEP)
            .get();

        let kinds = || {
            self.ratios
                .iter()
                .map(|(kind, ratio)| (layers.layers(*kind, &all), *ratio))
        };

        let groups = |layers: u64, page: u64| match layers {
            0 => 0,
            layers => layers.div_ceil((block / page).max(1)),
        };

        let windowed = |window: u64, tokens: u64| {
            window
                .saturating_sub(1)
                .saturating_add(in_flight)
                .min(context)
                .div_ceil(tokens)
                + 1
        };

        let mut sum = context.div_ceil(BLOCK_TOKENS);
        let total: u64 = kinds().map(|(layers, _)| layers).sum();
        sum = sum.saturating_add(
            groups(total, window_page).saturating_mul(windowed(self.window, WINDOW_BLOCK_TOKENS)),
        );

        for (layers, ratio) in kinds().filter(|(_, ratio)| *ratio > 0) {
            // A compressor sees two of its own strides when it is fine, one when it is coarse.
            let (page, window, tokens) = if indexed(ratio) {
                (COMPRESSOR_PAGE + INDEXER_COMPRESSOR_PAGE, 2 * ratio, 4)
            } else {
                (COMPRESSOR_PAGE, ratio, 8)
            };
            sum = sum.saturating_add(groups(layers, page).saturating_mul(windowed(window, tokens)));
        }

        sum
    }
}

const fn indexed(ratio: u64) -> bool {
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
    fn a_block_of_v4_flash() {
        let layers = flash();
        let cache = CompressedCache::new(&layers).unwrap();
        assert_eq!(
            cache.bytes_per_block(&layers, &(0..43)),
            Bytes::new(998_208)
        );
        // A stage of window layers alone still holds their pages.
        assert_eq!(cache.bytes_per_block(&layers, &(0..2)), Bytes::new(37_440));
    }

    #[test]
    fn the_step_dominates_the_context() {
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
