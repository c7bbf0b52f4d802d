//! What each layer keeps, from the family's rule and the file's keys.
//!
//! Source: llama.cpp `src/llama-hparams.cpp` (`n_embd_k_gqa`, `n_embd_r`, `n_embd_s`,
//! `is_recurrent`) and each model's `load_arch_hparams`.

use super::families::Memory;
use super::keys::Keys;
use crate::model::architecture::{
    Attention, Indexer, LatentAttention, Mixer, Recurrent, Span, Unsupported,
};

/// Head counts by layer.
pub(super) struct Heads {
    pub(super) query: Vec<u64>,
    pub(super) kv: Vec<u64>,
}

impl Heads {
    /// `attention.head_count` and `attention.head_count_kv`, for one or all layers; KV heads
    /// default to query heads.
    pub(super) fn read(keys: &Keys<'_>, layers: u64) -> Result<Self, Unsupported> {
        let none = || (0..layers).map(|_| 0).collect();
        let query = keys
            .per_layer("attention.head_count", layers)?
            .unwrap_or_else(none);
        let kv = keys
            .per_layer("attention.head_count_kv", layers)?
            .unwrap_or_else(|| query.clone());

        Ok(Self { query, kv })
    }

    fn of(&self, layer: usize) -> (u64, u64) {
        let at = |heads: &[u64]| heads.get(layer).copied().unwrap_or(0);
        (at(&self.query), at(&self.kv))
    }
}

/// The facts that every layer's mixer is made of.
pub(super) struct Facts<'k, 'g> {
    pub(super) keys: &'k Keys<'g>,
    pub(super) hidden: u64,
    pub(super) heads: Heads,
    pub(super) spans: Vec<Span>,
    /// Layers with caches of their own; the ones behind them share.
    pub(super) own_caches: u64,
    /// Feed-forward widths by layer.
    pub(super) widths: Vec<u64>,
}

/// What one layer keeps: its mixer and a second one beside it.
type Pair = (Mixer, Option<Mixer>);

impl Facts<'_, '_> {
    /// The mixers of `layer`.
    pub(super) fn mixers(&self, memory: Memory, layer: usize) -> Result<Pair, Unsupported> {
        let (_, kv_heads) = self.heads.of(layer);
        let alone = |mixer: Mixer| Ok((mixer, None));

        let mixed = matches!(
            memory,
            Memory::MambaHybrid
                | Memory::MambaOrFeedForward
                | Memory::ShortConvolution
                | Memory::Kimi
        );

        match memory {
            Memory::Kimi if kv_heads > 0 => alone(self.latent(layer, false)?),
            _ if mixed && kv_heads > 0 => alone(self.attention(layer)?),
            Memory::KeysAndValues => alone(self.attention(layer)?),
            Memory::Latent => alone(self.latent(layer, false)?),
            Memory::LatentIndexed => alone(self.latent(layer, true)?),
            Memory::Mamba1 => alone(self.mamba(false)?),
            Memory::MambaHybrid => alone(self.mamba(self.keys.has("ssm.group_count"))?),
            Memory::MambaOrFeedForward
                if self.widths.get(layer).is_some_and(|width| *width > 0) =>
            {
                alone(Mixer::None)
            }
            Memory::Mamba2 | Memory::MambaOrFeedForward => alone(self.mamba(true)?),
            Memory::MambaBeside => Ok((self.attention(layer)?, Some(self.mamba(true)?))),
            Memory::DeltaNet => {
                if self.is_delta_net(layer)? {
                    alone(self.delta_net()?)
                } else {
                    alone(self.attention(layer)?)
                }
            }
            Memory::Kimi => alone(self.kimi(layer)?),
            Memory::ShortConvolution => {
                let conv = self.keys.positive("shortconv.l_cache")?;
                alone(Mixer::Recurrent(Recurrent::ShortConv {
                    width: self.hidden,
                    conv,
                }))
            }
            Memory::Rwkv => {
                let head_size = self.keys.positive("wkv.head_size")?;
                // `llama_hparams::token_shift_count` is 2 where the file does not say.
                let token_shift = self.keys.optional("token_shift_count")?.unwrap_or(2);
                alone(Mixer::Recurrent(Recurrent::Rwkv {
                    hidden: self.hidden,
                    head_size,
                    token_shift,
                }))
            }
        }
    }

    /// Elements of a head: the key, else the width divided by the query heads of the first layer
    /// that has any (`llama_model::load_hparams` divides by those of layer 0).
    fn head_dim(&self, key: &str) -> Result<u64, Unsupported> {
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

    fn attention(&self, layer: usize) -> Result<Mixer, Unsupported> {
        let (heads, kv_heads) = self.heads.of(layer);
        if kv_heads == 0 {
            // No cache: a skipped or linear block (Nemotron-NAS).
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
        let windowed =
            matches!(span, Span::Sliding { .. }) && self.keys.has("attention.key_length_swa");
        let (key, value) = if windowed {
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

    fn latent(&self, layer: usize, with_indexer: bool) -> Result<Mixer, Unsupported> {
        let keys = self.keys;
        let (Some(kv_lora_rank), Some(key), Some(value)) = (
            keys.optional("attention.kv_lora_rank")?
                .filter(|rank| *rank > 0),
            keys.optional("attention.key_length_mla")?
                .filter(|length| *length > 0),
            keys.optional("attention.value_length_mla")?
                .filter(|length| *length > 0),
        ) else {
            // Older files: llama.cpp expands the latent and caches all heads.
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

        let (heads, _) = self.heads.of(layer);
        let indexer = if with_indexer {
            Some(Indexer {
                head_dim: keys.positive("attention.indexer.key_length")?,
                heads: keys.positive("attention.indexer.head_count")?,
                top_k: keys.positive("attention.indexer.top_k")?,
            })
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

    fn mamba(&self, second: bool) -> Result<Mixer, Unsupported> {
        let keys = self.keys;
        let conv = keys.positive("ssm.conv_kernel")?;

        let (inner, state) = (
            keys.positive("ssm.inner_size")?,
            keys.positive("ssm.state_size")?,
        );
        if !second {
            return Ok(Mixer::Recurrent(Recurrent::Mamba1 { inner, state, conv }));
        }

        let (heads, groups) = (
            keys.positive("ssm.time_step_rank")?,
            keys.required("ssm.group_count")?,
        );
        let head_dim = self.divided(inner, heads)?;

        Ok(Mixer::Recurrent(Recurrent::Mamba2 {
            inner,
            heads,
            head_dim,
            state,
            groups,
            conv,
        }))
    }

    fn divided(&self, inner: u64, heads: u64) -> Result<u64, Unsupported> {
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

    fn is_delta_net(&self, layer: usize) -> Result<bool, Unsupported> {
        let layers = self.spans.len() as u64;
        if let Some(flags) = self.keys.per_layer("attention.recurrent_layers", layers)? {
            return Ok(flags.get(layer).is_some_and(|flag| *flag != 0));
        }

        let interval = self.keys.optional("full_attention_interval")?.unwrap_or(4);
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
            value_dim: self.divided(inner, value_heads)?,
            conv: keys.positive("ssm.conv_kernel")?,
        }))
    }

    fn kimi(&self, layer: usize) -> Result<Mixer, Unsupported> {
        let (heads, _) = self.heads.of(layer);
        let head_dim = self.keys.positive("kda.head_dim")?;
        let conv = self.keys.positive("ssm.conv_kernel")?;

        Ok(Mixer::Recurrent(Recurrent::Kda {
            heads,
            head_dim,
            conv,
        }))
    }
}
