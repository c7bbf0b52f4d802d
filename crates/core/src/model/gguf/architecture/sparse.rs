//! Layers whose attention is sparse: indexers, shared and windowed latents, and compressed pasts.
//!
//! Source: llama.cpp `llama_model::create_memory` (`src/llama-model.cpp`), the caches that it
//! creates (`src/llama-kv-cache-{dsa,dsa-iswa,dsv4,msa}.cpp`, `src/llama-memory-hybrid-idx.cpp`),
//! and each model's `load_arch_hparams`.

use super::families::Memory;
use super::mixers::LayerFacts;
use crate::model::architecture::{
    Attention, Indexer, LatentAttention, Mixer, Recurrent, Span, Unsupported,
};

/// The context from which on GLM's layers share indexers if the file does not list them.
const FIRST_SHARED_INDEXERS: u64 = 1 << 20;

/// Cached keys of an indexer over pools: the key, its gate and the pooled key (GLM-5-Next).
const GATED_POOL: u64 = 3;
/// Cached keys of an indexer over pools: the key and the pooled key (Qwen4-Exp).
const PLAIN_POOL: u64 = 2;

impl LayerFacts<'_, '_> {
    /// Returns what a layer remembers in addition to its mixer.
    ///
    /// The keys of an indexer are a head without queries. MiniMax-M3 allocates values for it too,
    /// which nothing reads.
    pub(super) fn second_memory(
        &self,
        memory: Memory,
        layer: usize,
    ) -> Result<Option<Mixer>, Unsupported> {
        let keys = self.keys;
        match memory {
            Memory::KeysAndValuesIndexed => {
                let dense = keys.optional("leading_dense_block_count")?.unwrap_or(0);
                if (layer as u64) < dense {
                    return Ok(None);
                }
                let value = self.head_dim("attention.value_length")?;
                self.index_keys(1, value).map(Some)
            }
            Memory::DeltaNetIndexed if self.is_recurrent(layer, 4)? => self.ngrams(layer),
            Memory::DeltaNetIndexed => {
                let rows = if self.has_pools()? { PLAIN_POOL } else { 1 };
                self.index_keys(rows, 0).map(Some)
            }
            Memory::KimiPooled
                if self.heads.kv_heads(layer) > 0 && self.has_own_indexer(layer)? =>
            {
                self.index_keys(GATED_POOL, 0).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Returns the keys of an indexer, `rows` for each token, as a head without queries.
    fn index_keys(&self, rows: u64, value_dim: u64) -> Result<Mixer, Unsupported> {
        let width = self.keys.positive("attention.indexer.key_length")?;
        Ok(Mixer::Attention(Attention {
            heads: 0,
            kv_heads: 1,
            key_dim: width.saturating_mul(rows),
            value_dim,
            span: Span::Full,
            shares_cache: false,
        }))
    }

    /// Returns whether an indexer pools the keys of several tokens (Qwen4-Exp).
    fn has_pools(&self) -> Result<bool, Unsupported> {
        let layers = self.spans.len() as u64;
        let ratios = self.keys.per_layer("attention.compress_ratios", layers)?;
        Ok(ratios.is_some_and(|ratios| ratios.iter().any(|ratio| *ratio > 0)))
    }

    /// Returns the history of n-gram embeddings in the layers that have them (Qwen4-Exp).
    ///
    /// Source: llama.cpp `llama_hparams::ple_conv_state`.
    fn ngrams(&self, layer: usize) -> Result<Option<Mixer>, Unsupported> {
        let keys = self.keys;
        let listed = keys.numbers("ple.layers")?.unwrap_or_default();
        if !listed.contains(&(layer as u64)) {
            return Ok(None);
        }

        let kernel = keys.positive("ple.conv_kernel")?;
        let rows = (kernel - 1).saturating_mul(keys.positive("ple.ngram_size")?);
        let streams = keys.positive("hyper_connection.count")?;

        Ok(Some(Mixer::Recurrent(Recurrent::ShortConv {
            width: streams.saturating_mul(self.hidden),
            conv: rows.saturating_add(1),
        })))
    }

    /// Returns a latent with an indexer, or only an indexer if another layer's latent serves.
    pub(super) fn shared_latent(&self, layer: usize) -> Result<Mixer, Unsupported> {
        let mut mixer = self.latent(layer, true)?;
        let layers = self.spans.len() as u64;
        let sources = self.keys.per_layer("attention.kv_source_map", layers)?;
        let is_shared = sources.is_some_and(|sources| {
            sources
                .get(layer)
                .is_some_and(|source| *source != layer as u64)
        });

        if let (true, Mixer::Latent(latent)) = (is_shared, &mut mixer) {
            latent.nope_dim = latent.nope_dim.saturating_add(latent.rope_dim);
            (latent.kv_lora_rank, latent.rope_dim) = (0, 0);
        }

        Ok(mixer)
    }

    /// Returns a latent with an indexer, or the latent of a window (dots3.note).
    pub(super) fn windowed_latent(&self, layer: usize) -> Result<Mixer, Unsupported> {
        let keys = self.keys;
        let Some(Span::Sliding { window }) = self.spans.get(layer).copied() else {
            return self.latent(layer, true);
        };

        let rope_dim = match keys.optional("rope.dimension_count_swa")? {
            Some(rope_dim) => rope_dim,
            None => keys.required("rope.dimension_count")?,
        };
        let key = keys.positive("attention.key_length_mla_swa")?;
        let Some(nope_dim) = key.checked_sub(rope_dim) else {
            let why = "smaller than the rotated part";
            return Err(keys.contradiction("attention.key_length_mla_swa", key.to_string(), why));
        };

        Ok(Mixer::Latent(LatentAttention {
            heads: self.heads.query_heads(layer),
            kv_lora_rank: keys.positive("attention.kv_lora_rank_swa")?,
            rope_dim,
            nope_dim,
            value_dim: keys.positive("attention.value_length_mla_swa")?,
            q_lora_rank: keys.optional("attention.q_lora_rank")?,
            indexer: None,
            compress_ratio: None,
            window: Some(window),
        }))
    }

    /// Returns a window of one latent head with its compressed past (DeepSeek V4).
    pub(super) fn compressed(&self, layer: usize) -> Result<Mixer, Unsupported> {
        let ratio = self.compress_ratio(layer)?;
        if !matches!(ratio, 0 | 4 | 128) {
            let why = "not 0, 4 or 128";
            return Err(self.keys.contradiction(
                "attention.compress_ratios",
                ratio.to_string(),
                why,
            ));
        }

        let indexer = (ratio == 4).then(|| self.indexer()).transpose()?;
        self.latent_head(layer, ratio, indexer)
    }

    /// Returns a window of one latent head; layers that own their compressed past have an indexer
    /// (DeepSeek V4.1).
    pub(super) fn compressed_shared(&self, layer: usize) -> Result<Mixer, Unsupported> {
        let ratio = self.compress_ratio(layer)?;
        if ratio > 2 {
            let why = "not 0, 1 or 2";
            return Err(self.keys.contradiction(
                "attention.compress_ratios",
                ratio.to_string(),
                why,
            ));
        }

        let owners = self
            .keys
            .numbers("attention.kv_source_layers")?
            .ok_or_else(|| self.keys.missing("attention.kv_source_layers"))?;
        let owns = ratio > 0 && owners.contains(&(layer as u64));
        let indexer = owns.then(|| self.indexer()).transpose()?;
        self.latent_head(layer, ratio, indexer)
    }

    fn latent_head(
        &self,
        layer: usize,
        ratio: u64,
        indexer: Option<Indexer>,
    ) -> Result<Mixer, Unsupported> {
        let keys = self.keys;
        let head = self.head_dim("attention.key_length")?;
        let rope_dim = keys.optional("rope.dimension_count")?.unwrap_or(head);
        let Some(nope_dim) = head.checked_sub(rope_dim) else {
            let why = "larger than the head";
            return Err(keys.contradiction("rope.dimension_count", rope_dim.to_string(), why));
        };

        Ok(Mixer::Latent(LatentAttention {
            heads: self.heads.query_heads(layer),
            kv_lora_rank: nope_dim,
            rope_dim,
            nope_dim,
            value_dim: head,
            q_lora_rank: keys.optional("attention.q_lora_rank")?,
            indexer,
            compress_ratio: Some(ratio),
            window: Some(keys.positive("attention.sliding_window")?),
        }))
    }

    fn compress_ratio(&self, layer: usize) -> Result<u64, Unsupported> {
        let ratios = self
            .keys
            .numbers("attention.compress_ratios")?
            .ok_or_else(|| self.keys.missing("attention.compress_ratios"))?;
        ratios.get(layer).copied().ok_or_else(|| {
            let why = "shorter than block_count";
            let length = format!("an array of {}", ratios.len());
            self.keys
                .contradiction("attention.compress_ratios", length, why)
        })
    }

    /// Returns the indexer of the layers that have one.
    pub(super) fn indexer(&self) -> Result<Indexer, Unsupported> {
        let keys = self.keys;
        Ok(Indexer {
            head_dim: keys.positive("attention.indexer.key_length")?,
            heads: keys.positive("attention.indexer.head_count")?,
            top_k: keys.positive("attention.indexer.top_k")?,
        })
    }

    /// Returns whether a layer selects tokens itself instead of with an earlier layer's choice.
    ///
    /// Source: llama.cpp `src/models/glm-dsa.cpp` (GLM-5.2 and later; before that, all layers do),
    /// and `load_arch_hparams` of the other families.
    pub(super) fn has_own_indexer(&self, layer: usize) -> Result<bool, Unsupported> {
        if self.keys.family == "deepseek32" {
            return Ok(true);
        }

        let layers = self.spans.len() as u64;
        let Ok(types) = self.keys.per_layer("attention.indexer.types", layers) else {
            // The list may end before the layers for multi-token prediction.
            return self.listed_indexer(layer);
        };
        if let Some(types) = types {
            return Ok(types.get(layer).is_some_and(|full| *full != 0));
        }

        if self.keys.family != "glm-dsa" {
            return Ok(true);
        }

        let context = self.keys.required("context_length")?;
        Ok(context < FIRST_SHARED_INDEXERS || layer < 2 || (layer - 2).is_multiple_of(4))
    }

    /// Returns the same from a list of the decoder's layers only.
    fn listed_indexer(&self, layer: usize) -> Result<bool, Unsupported> {
        let next_token = self.keys.optional("nextn_predict_layers")?.unwrap_or(0);
        let decoders = (self.spans.len() as u64).saturating_sub(next_token);
        let types = self.keys.per_layer("attention.indexer.types", decoders)?;

        Ok(types.is_none_or(|types| types.get(layer).is_some_and(|full| *full != 0)))
    }
}
