//! The mixers of each layer, by the family's rules and the file's keys.
//!
//! Source: llama.cpp `src/llama-hparams.cpp` (`n_embd_k_gqa`, `n_embd_r`, `n_embd_s`,
//! `is_recurrent`) and each model's `load_arch_hparams`.

use super::families::Memory;
use super::keys::Keys;
use crate::model::architecture::{Attention, LatentAttention, Mixer, Recurrent, Span, Unsupported};

/// The head counts of each layer.
pub(super) struct Heads {
    pub(super) query: Vec<u64>,
    pub(super) kv: Vec<u64>,
}

impl Heads {
    /// Reads `attention.head_count` and `attention.head_count_kv`, for all layers or for each.
    ///
    /// KV heads default to query heads.
    pub(super) fn read(keys: &Keys<'_>, layers: u64) -> Result<Self, Unsupported> {
        let query = keys
            .per_layer("attention.head_count", layers)?
            .unwrap_or_else(|| (0..layers).map(|_| 0).collect());
        let kv = keys
            .per_layer("attention.head_count_kv", layers)?
            .unwrap_or_else(|| query.clone());

        Ok(Self { query, kv })
    }

    /// Returns the query heads of `layer`.
    pub(super) fn query_heads(&self, layer: usize) -> u64 {
        self.query.get(layer).copied().unwrap_or(0)
    }

    /// Returns the KV heads of `layer`.
    pub(super) fn kv_heads(&self, layer: usize) -> u64 {
        self.kv.get(layer).copied().unwrap_or(0)
    }
}

/// The file's values that determine the mixer of every layer.
pub(super) struct LayerFacts<'k, 'g> {
    pub(super) keys: &'k Keys<'g>,
    pub(super) hidden: u64,
    pub(super) heads: Heads,
    pub(super) spans: Vec<Span>,
    /// Number of layers with caches of their own. Later layers share one.
    pub(super) own_caches: u64,
    /// The feed-forward width of each layer.
    pub(super) widths: Vec<u64>,
}

/// The mixer of a layer, and a second one that runs in parallel.
type MixerPair = (Mixer, Option<Mixer>);

impl LayerFacts<'_, '_> {
    /// Returns the mixers of `layer`.
    pub(super) fn mixers(&self, memory: Memory, layer: usize) -> Result<MixerPair, Unsupported> {
        if memory == Memory::MambaParallel {
            return Ok((self.attention(layer)?, Some(self.mamba2()?)));
        }

        let second = self.second_memory(memory, layer)?;
        self.single_mixer(memory, layer)
            .map(|mixer| (mixer, second))
    }

    fn single_mixer(&self, memory: Memory, layer: usize) -> Result<Mixer, Unsupported> {
        let has_kv_heads = self.heads.kv_heads(layer) > 0;
        let is_hybrid = matches!(
            memory,
            Memory::MambaHybrid
                | Memory::MambaOrFeedForward
                | Memory::ShortConvolution
                | Memory::Kimi
                | Memory::KimiPooled
        );

        match memory {
            Memory::Kimi | Memory::KimiPooled if has_kv_heads => self.latent(layer, false),
            _ if is_hybrid && has_kv_heads => self.attention(layer),
            Memory::KeysAndValues | Memory::KeysAndValuesIndexed => self.attention(layer),
            Memory::Latent => self.latent(layer, false),
            Memory::LatentIndexed => self.latent(layer, true),
            Memory::LatentMaybeIndexed => {
                let has_indexer = self.keys.optional("attention.indexer.top_k")?.unwrap_or(0) > 0;
                self.latent(layer, has_indexer)
            }
            Memory::LatentShared => self.shared_latent(layer),
            Memory::LatentWindows => self.windowed_latent(layer),
            Memory::Compressed => self.compressed(layer),
            Memory::CompressedShared => self.compressed_shared(layer),
            Memory::Mamba1 => self.mamba1(),
            Memory::MambaHybrid if !self.keys.has("ssm.group_count") => self.mamba1(),
            Memory::MambaOrFeedForward
                if self.widths.get(layer).is_some_and(|width| *width > 0) =>
            {
                Ok(Mixer::None)
            }
            Memory::Mamba2
            | Memory::MambaHybrid
            | Memory::MambaOrFeedForward
            | Memory::MambaParallel => self.mamba2(),
            Memory::DeltaNet | Memory::DeltaNetIndexed if self.is_recurrent(layer, 4)? => {
                self.delta_net()
            }
            Memory::DeltaNet | Memory::DeltaNetIndexed => self.attention(layer),
            Memory::Lightning if self.is_recurrent(layer, 8)? => self.lightning(layer),
            Memory::Lightning => self.attention(layer),
            Memory::Kimi | Memory::KimiPooled => self.kimi(layer),
            Memory::ShortConvolution => {
                let conv = self.keys.positive("shortconv.l_cache")?;
                Ok(Mixer::Recurrent(Recurrent::ShortConv {
                    width: self.hidden,
                    conv,
                }))
            }
            Memory::Rwkv => {
                let head_size = self.keys.positive("wkv.head_size")?;
                // `llama_hparams::token_shift_count` defaults to 2.
                let token_shift = self.keys.optional("token_shift_count")?.unwrap_or(2);
                Ok(Mixer::Recurrent(Recurrent::Rwkv {
                    hidden: self.hidden,
                    head_size,
                    token_shift,
                }))
            }
        }
    }

    /// Returns the elements of a head.
    ///
    /// They default to the width divided by the query heads of the first layer that has any.
    /// `llama_model::load_hparams` divides by those of layer 0.
    pub(super) fn head_dim(&self, key: &str) -> Result<u64, Unsupported> {
        if let Some(given) = self.keys.optional(key)? {
            return Ok(given);
        }

        let heads = self
            .heads
            .query
            .iter()
            .copied()
            .find(|heads| *heads > 0)
            .unwrap_or(0);

        match self.hidden.checked_div(heads) {
            Some(dim) if self.hidden.is_multiple_of(heads) => Ok(dim),
            _ => {
                let why = "the width does not divide by the heads and the file gives no key_length";
                Err(self
                    .keys
                    .contradiction("attention.head_count", heads.to_string(), why))
            }
        }
    }

    pub(super) fn attention(&self, layer: usize) -> Result<Mixer, Unsupported> {
        let (heads, kv_heads) = (self.heads.query_heads(layer), self.heads.kv_heads(layer));
        if kv_heads == 0 {
            // A skipped or linear block has no cache (Nemotron-NAS).
            return Ok(Mixer::None);
        }

        if heads == 0 || !heads.is_multiple_of(kv_heads) {
            let why = format!("must divide the {heads} query heads of layer {layer}");
            return Err(self.keys.contradiction(
                "attention.head_count_kv",
                kv_heads.to_string(),
                &why,
            ));
        }

        let span = self.spans.get(layer).copied().unwrap_or(Span::Full);
        let has_window_dims =
            matches!(span, Span::Sliding { .. }) && self.keys.has("attention.key_length_swa");
        let (key, value) = if has_window_dims {
            ("attention.key_length_swa", "attention.value_length_swa")
        } else {
            ("attention.key_length", "attention.value_length")
        };

        let shares_cache = layer as u64 >= self.own_caches;
        let (key_dim, value_dim) = (self.head_dim(key)?, self.head_dim(value)?);

        Ok(Mixer::Attention(Attention {
            heads,
            kv_heads,
            key_dim,
            value_dim,
            span,
            shares_cache,
        }))
    }

    pub(super) fn latent(&self, layer: usize, with_indexer: bool) -> Result<Mixer, Unsupported> {
        let keys = self.keys;
        let (Some(kv_lora_rank), Some(key), Some(value)) = (
            keys.optional("attention.kv_lora_rank")?
                .filter(|rank| *rank > 0),
            keys.optional("attention.key_length_mla")?
                .filter(|length| *length > 0),
            keys.optional("attention.value_length_mla")?
                .filter(|length| *length > 0),
        ) else {
            // For older files, llama.cpp expands the latent and caches all heads.
            return self.attention(layer);
        };

        let rope_dim = keys.required("rope.dimension_count")?;
        let Some(nope_dim) = key.checked_sub(rope_dim) else {
            return Err(keys.contradiction(
                "rope.dimension_count",
                rope_dim.to_string(),
                "larger than key_length_mla",
            ));
        };

        let heads = self.heads.query_heads(layer);
        let indexer = if with_indexer && self.has_own_indexer(layer)? {
            Some(self.indexer()?)
        } else {
            None
        };

        Ok(Mixer::Latent(LatentAttention {
            heads,
            kv_lora_rank,
            rope_dim,
            nope_dim,
            value_dim: value,
            q_lora_rank: keys.optional("attention.q_lora_rank")?,
            indexer,
            compress_ratio: None,
            window: None,
        }))
    }

    fn mamba1(&self) -> Result<Mixer, Unsupported> {
        let conv = self.keys.positive("ssm.conv_kernel")?;
        let inner = self.keys.positive("ssm.inner_size")?;
        let state = self.keys.positive("ssm.state_size")?;

        Ok(Mixer::Recurrent(Recurrent::Mamba1 { inner, state, conv }))
    }

    fn mamba2(&self) -> Result<Mixer, Unsupported> {
        let conv = self.keys.positive("ssm.conv_kernel")?;
        let inner = self.keys.positive("ssm.inner_size")?;
        let state = self.keys.positive("ssm.state_size")?;
        let heads = self.keys.positive("ssm.time_step_rank")?;
        let groups = self.keys.required("ssm.group_count")?;
        let head_dim = self.state_head_dim(inner, heads)?;

        Ok(Mixer::Recurrent(Recurrent::Mamba2 {
            inner,
            heads,
            head_dim,
            state,
            groups,
            conv,
        }))
    }

    /// Returns the elements of a state head.
    fn state_head_dim(&self, inner: u64, heads: u64) -> Result<u64, Unsupported> {
        if inner.is_multiple_of(heads) {
            Ok(inner / heads)
        } else {
            Err(self.keys.contradiction(
                "ssm.inner_size",
                inner.to_string(),
                "does not divide by ssm.time_step_rank",
            ))
        }
    }

    /// Returns whether a layer has a state; without keys, all but each `default`-th have.
    pub(super) fn is_recurrent(&self, layer: usize, default: u64) -> Result<bool, Unsupported> {
        let layers = self.spans.len() as u64;
        if let Some(flags) = self.keys.per_layer("attention.recurrent_layers", layers)? {
            return Ok(flags.get(layer).is_some_and(|flag| *flag != 0));
        }

        let interval = self
            .keys
            .optional("full_attention_interval")?
            .unwrap_or(default);
        if interval == 0 {
            return Err(self.keys.contradiction(
                "full_attention_interval",
                "0".to_owned(),
                "must be larger",
            ));
        }

        Ok(!(layer as u64 + 1).is_multiple_of(interval))
    }

    fn delta_net(&self) -> Result<Mixer, Unsupported> {
        let keys = self.keys;
        let (inner, value_heads) = (
            keys.positive("ssm.inner_size")?,
            keys.positive("ssm.time_step_rank")?,
        );

        Ok(Mixer::Recurrent(Recurrent::GatedDelta {
            key_heads: keys.positive("ssm.group_count")?,
            value_heads,
            key_dim: keys.positive("ssm.state_size")?,
            value_dim: self.state_head_dim(inner, value_heads)?,
            conv: keys.positive("ssm.conv_kernel")?,
        }))
    }

    /// Returns lightning attention, whose state has one square for each query head.
    fn lightning(&self, layer: usize) -> Result<Mixer, Unsupported> {
        Ok(Mixer::Recurrent(Recurrent::Lightning {
            heads: self.heads.query_heads(layer),
            head_dim: self.head_dim("attention.key_length")?,
        }))
    }

    fn kimi(&self, layer: usize) -> Result<Mixer, Unsupported> {
        let heads = self.heads.query_heads(layer);
        let head_dim = self.keys.positive("kda.head_dim")?;
        let conv = self.keys.positive("ssm.conv_kernel")?;

        Ok(Mixer::Recurrent(Recurrent::Kda {
            heads,
            head_dim,
            conv,
        }))
    }
}
