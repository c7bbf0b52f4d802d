//! The known model types and their rules.
//!
//! Sources: transformers `models/<type>/{configuration,modeling}_<type>.py` and vLLM
//! `model_executor/models/<type>.py`. The tensors of any other type must confirm ordinary attention
//! (`unlisted_family`), otherwise the type is rejected.

mod encoder_types;
mod plain_decoders;
mod table;
mod wrappers;

use self::table::FAMILIES;
pub(super) use self::wrappers::inside_wrapper;

/// The kinds of layers that a family has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FamilyKind {
    /// Attention in every layer. The rule states which layers see only a window.
    Attention(Spans),
    /// Multi-head latent attention, or plain attention if `kv_lora_rank` is null.
    Latent,
    /// Two latent attention blocks per layer (LongCat-Flash).
    DoubleLatent,
    /// Compressed latent attention.
    DeepseekV4,
    /// Latent attention with an indexer in some layers (`indexer_types`).
    HyV4,
    /// Latent attention with shared latents and layers without rope (`kv_source_layers`).
    MistralLarge4,
    /// Latent attention of two sizes, one with a window (`per_layer_config`, `swa_*`).
    Dots3,
    /// Kimi delta attention with latent attention and an indexer over pools (`index_kpool`).
    Glm5Next,
    /// Attention with an indexer in some layers (`sparse_attention_config`).
    MinimaxM3,
    /// Blocks listed one by one (`block_configs`).
    BlockList,
    /// Attention layers of two sizes (`hybrid_layer_pattern`, `swa_*`).
    MimoV2,
    /// Attention layers of two sizes (`attention_other_setting`).
    Step,
    /// Mamba-1 layers only.
    Mamba1,
    /// Mamba-2 layers only.
    Mamba2,
    /// Mamba-1 with attention every few layers.
    Jamba,
    /// Mamba-2 or attention in each layer (`attn_layer_indices`, `layer_types`).
    Bamba,
    /// Mamba-2 and attention in parallel in each layer.
    FalconH1,
    /// Mamba in each layer, with shared attention before some of them, in the given generation.
    Zamba(u8),
    /// Mamba-2, attention, dense or experts in each layer (`hybrid_override_pattern`).
    NemotronH,
    /// Mamba-2 with attention every `mamba_step`.
    Plamo2,
    /// Gated delta net with attention every `full_attention_interval`.
    GatedDelta,
    /// Kimi delta attention with latent attention (`linear_attn_config`).
    KimiLinear,
    /// Lightning attention with attention (`attn_type_list`, `layer_types`).
    MiniMax01,
    /// Lightning attention with attention or latent attention every `layer_group_size`.
    BailingLinear,
    /// Short convolutions with attention.
    Lfm2,
    /// Attention with short convolutions over its keys, values and outputs.
    Inkling,
    /// Attention over convolved queries and keys.
    Zaya,
    /// Two stacks of layers, looped over.
    HrmText,
    /// Layers of which the middle ones are looped over.
    Dory,
    /// Gated delta net with indexed attention and n-gram embeddings.
    Qwen4Exp,
    /// RWKV of the given generation.
    Rwkv(u8),
    /// Self-attention with cross-attention to an image in some layers.
    Mllama,
    /// Encoder layers without a cache.
    Encoder,
    /// An encoder and a decoder with cross-attention.
    EncoderDecoder,
    /// An encoder and a decoder with windows and cross-attention (`decoder`, `encoder`).
    T5Gemma,
    /// A decoder with cross-attention to speech, to images, or to a nested encoder.
    CrossDecoder,
}

/// Which attention layers see only a window, if `layer_types` is absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spans {
    /// No layer, whatever `sliding_window` is.
    Full,
    /// All layers, if `sliding_window` is set.
    All,
    /// The layers that `layer_types` lists. A window without the list is an error.
    Listed,
    /// The layers from `max_window_layers` on, if `use_sliding_window` is true.
    Upper,
    /// All layers except each n-th. A `sliding_window_pattern` key overrides n.
    AllBut(u64),
    /// Like [`Spans::AllBut`], but the last layer is always full.
    AllButAndLast(u64),
    /// Layers with rope see a chunk (`no_rope_layers`). By default, each n-th layer has no rope.
    Chunked(u64),
}

/// The cos/sin tables that an engine keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rope {
    /// No table: learned positions, ALiBi or no positions.
    Absent,
    /// A single table, with the configured scaling.
    Standard,
    /// A single table with four times the positions (`mrope`).
    Multimodal,
    /// A scaled global table and an unscaled local one.
    GlobalAndLocal,
    /// A table for each kind of layer. The global one covers the whole head.
    Proportional,
    /// Two 32-bit tables, for plain and for compressed layers.
    Compressed,
}

/// A family of model types that share their rules.
#[derive(Clone, Copy, Debug)]
pub(super) struct Family {
    /// The family's model types.
    pub(super) types: &'static [&'static str],
    /// The kinds of layers.
    pub(super) kind: FamilyKind,
    /// The rotary tables.
    pub(super) rope: Rope,
    /// Whether embeddings are tied if `tie_word_embeddings` is absent.
    pub(super) tied: bool,
}

/// Returns the family of `model_type`.
pub(super) fn find(model_type: &str) -> Option<&'static Family> {
    FAMILIES
        .iter()
        .find(|family| family.types.contains(&model_type))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn model_types_are_unique() {
        let mut types: Vec<_> = FAMILIES.iter().flat_map(|family| family.types).collect();
        let count = types.len();
        types.sort_unstable();
        types.dedup();
        assert_eq!(types.len(), count);
    }
}
