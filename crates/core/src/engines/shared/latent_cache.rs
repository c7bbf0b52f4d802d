//! Cache bytes of latent attention, for vLLM and SGLang.

use super::dtype::KvDtype;
use crate::bytes::Bytes;
use crate::model::architecture::{Indexer, LatentAttention};

/// Bytes of a latent and its indexer key for one token in one layer (vLLM `MLAAttentionSpec`,
/// `layers/sparse_attn_indexer.py`).
///
/// Some layers of a `sparse` model have indexers, whose choice the other layers share (GLM-5.2).
/// All its latents have the sparse backend's layout, and only layers with an indexer keep its keys.
pub(crate) fn latent_bytes(latent: &LatentAttention, kv: KvDtype, sparse: bool) -> Bytes {
    let (rank, rope) = (latent.kv_lora_rank, latent.rope_dim);
    if !sparse {
        return Bytes::new(kv.head_bytes(rank.saturating_add(rope)));
    }

    let state = match kv {
        // fp8_ds_mla: latent in 8 bits, a 4-byte scale for each 128, the rotary part in 16 bits.
        KvDtype::Fp8 => rank + rank.div_ceil(128) * 4 + rope * 2,
        // nvfp4_ds_mla: 352 bytes for 512 + 64.
        KvDtype::Nvfp4 => rank / 2 + rank / 16 + rope,
        other => other.head_bytes(rank.saturating_add(rope)),
    };

    Bytes::new(state) + latent.indexer.map_or(Bytes::ZERO, indexer_key_bytes)
}

/// Bytes of an indexer's key: 8 bits an element, and a 4-byte scale for each 128.
fn indexer_key_bytes(indexer: Indexer) -> Bytes {
    Bytes::new(indexer.head_dim) + Bytes::new(indexer.head_dim.div_ceil(128)) * 4
}
