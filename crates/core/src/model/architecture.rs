//! A language model's architecture, in the field's terms and free of any file format.
//!
//! Both `config.json` and GGUF metadata are read into this one shape, and engines know no other. A
//! layer states what it must remember of the past (its [`Mixer`]) and how wide its feed-forward is.
//! A fact that neither the configuration nor its model class states is `None`. An unknown mixer
//! makes the whole reading an [`Unsupported`], never a guess.

use super::dtype::Dtype;
use super::quantization::Quantization;
use super::streaming_encoder::StreamingEncoder;
pub use super::unsupported::Unsupported;

/// A language or encoder model, from its configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Architecture {
    /// The class (`Qwen3ForCausalLM`) or GGUF architecture (`qwen3`).
    pub class: String,
    /// `model_type` of the language model itself (the nested one of a multimodal configuration).
    pub model_type: String,
    /// `model_type` at the root of the configuration. It differs from `model_type` for multimodal
    /// wrappers.
    pub root_model_type: String,
    /// What the model is for; decides the default engine and whether there is a cache at all.
    pub task: Task,
    /// Width of the residual stream (h).
    pub hidden_size: u64,
    /// Dense feed-forward width (I).
    pub intermediate_size: u64,
    /// Vocabulary rows as configured (V), before any engine's padding.
    pub vocab_size: u64,
    /// Query heads (H), the largest of any layer.
    pub heads: u64,
    /// The longest sequence the model is configured for, with scaling applied.
    ///
    /// `None` if no key states it. Source: vLLM `config/model.py`, `_get_and_verify_max_len`.
    pub max_context: Option<u64>,
    /// Decoder layers in order (encoder layers for encoder models); length is L.
    pub layers: Vec<Layer>,
    /// Encoder of an encoder-decoder model.
    pub encoder: Option<Encoder>,
    /// Mixture-of-experts facts shared by all expert layers.
    pub experts: Option<Experts>,
    /// The distinct RoPE tables that an engine keeps.
    pub rope: Vec<RopeTable>,
    /// Whether embedding and output head are one tensor, where the configuration or its class says.
    pub tied_embeddings: Option<bool>,
    /// `dtype`/`torch_dtype` of the configuration.
    pub dtype: Option<Dtype>,
    /// dtype that the configuration demands for recurrent states, if it does.
    pub state_dtype: Option<Dtype>,
    /// Vision tower, where there is one.
    pub vision: Option<VisionTower>,
    /// Whether there is an audio tower.
    pub audio: bool,
    /// A speech encoder with caches of its own.
    pub streaming_encoder: Option<StreamingEncoder>,
    /// Multi-token-prediction layers stored behind the last decoder layer.
    pub mtp_layers: u32,
    /// Weight (and KV) quantization.
    pub quantization: Option<Quantization>,
    /// Facts that only one engine family needs (`use_sliding_window`, `is_hybrid_swa`), as
    /// `key=value`.
    pub notes: Vec<String>,
}

/// What a model is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Text generation, multimodal input or not.
    Generate,
    /// Encoder-only: embeddings, classification, reranking; no cache.
    Encode,
    /// A causal decoder used for pooling (embedding or reward). Engines still allocate a cache for
    /// it.
    Pool,
    /// Encoder-decoder (T5, BART, Whisper).
    EncodeDecode,
}

/// One decoder layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// How it mixes tokens and what it must remember.
    pub mixer: Mixer,
    /// A second mixer in the same layer, parallel to the first or before it.
    ///
    /// Falcon-H1 and Hymba have attention and Mamba; decoder layers may have cross-attention.
    pub second_mixer: Option<Mixer>,
    /// What follows the mixer.
    pub feed_forward: FeedForward,
    /// Number of times that one pass over the tokens runs the layer (HRM, Dory, Inkling 2 Mini).
    ///
    /// Each time has caches and states of its own. 1 for other models.
    pub passes: u32,
}

impl Layer {
    /// Iterates over the layer's one or two mixers, once for each pass.
    pub fn mixers(&self) -> impl Iterator<Item = &Mixer> {
        (0..self.passes)
            .flat_map(|_| std::iter::once(&self.mixer).chain(self.second_mixer.as_ref()))
    }
}

/// How a layer mixes tokens.
#[derive(Clone, Debug, PartialEq)]
pub enum Mixer {
    /// Keys and values per head.
    Attention(Attention),
    /// Multi-head latent attention.
    Latent(LatentAttention),
    /// A state of fixed size per sequence.
    Recurrent(Recurrent),
    /// None: the layer is feed-forward only (Nemotron-H) or a skipped block (Nemotron-NAS).
    None,
}

/// Attention with a cache of keys and values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attention {
    /// Query heads of this layer.
    pub heads: u64,
    /// KV heads of this layer (Hk); 1 for multi-query.
    pub kv_heads: u64,
    /// Elements of one key head (d).
    pub key_dim: u64,
    /// Elements of one value head (dv).
    pub value_dim: u64,
    /// Which tokens the layer can see.
    pub span: Span,
    /// The layer reuses an earlier layer's cache and owns none (Gemma 3n and 4).
    pub shares_cache: bool,
}

/// Which tokens an attention layer can see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// All earlier tokens.
    Full,
    /// The last `window` tokens.
    Sliding {
        /// Tokens seen.
        window: u64,
    },
    /// The tokens of the same chunk (Llama 4).
    Chunked {
        /// Tokens in a chunk.
        chunk: u64,
    },
    /// The encoder's output: keys and values of up to `tokens` encoder tokens.
    Cross {
        /// Encoder tokens at most.
        tokens: u64,
    },
    /// All tokens in both directions, without a cache (encoders).
    Bidirectional,
}

/// Multi-head latent attention (DeepSeek V2 and related models).
///
/// All heads share one latent vector per token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LatentAttention {
    /// Query heads.
    pub heads: u64,
    /// Latent rank (r). In DeepSeek V4, the part of its one latent head that is not rotated.
    pub kv_lora_rank: u64,
    /// Rotary part, cached along with the latent.
    pub rope_dim: u64,
    /// Non-rotary part of a query or key head.
    pub nope_dim: u64,
    /// Elements of one value head.
    pub value_dim: u64,
    /// Rank of the compressed query, if the model compresses queries.
    pub q_lora_rank: Option<u64>,
    /// Sparse-attention indexer (DeepSeek V3.2, GLM-5).
    pub indexer: Option<Indexer>,
    /// DeepSeek V4's tokens per compressed state (4, 128), or 0 for layers with only a window.
    /// `None` for other models.
    pub compress_ratio: Option<u64>,
    /// Tokens that the layer sees: DeepSeek V4's window, or that of a windowed latent (dots3).
    pub window: Option<u64>,
}

/// The key indexer of sparse latent attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Indexer {
    /// Elements of the indexer's key.
    pub head_dim: u64,
    /// Number of indexer heads.
    pub heads: u64,
    /// Number of tokens that the indexer selects.
    pub top_k: u64,
}

/// A recurrent state per sequence (vLLM `model_executor/layers/mamba/mamba_utils.py`).
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "fields are the papers' own symbols, given in each variant's text"
)]
pub enum Recurrent {
    /// Mamba-1: `inner` channels, `state` per channel, a convolution over `conv` tokens.
    Mamba1 { inner: u64, state: u64, conv: u64 },
    /// Mamba-2: `inner` = heads x head_dim, `groups` of B and C.
    Mamba2 {
        inner: u64,
        heads: u64,
        head_dim: u64,
        state: u64,
        groups: u64,
        conv: u64,
    },
    /// Gated delta net (Qwen3-Next, Qwen3.5).
    GatedDelta {
        key_heads: u64,
        value_heads: u64,
        key_dim: u64,
        value_dim: u64,
        conv: u64,
    },
    /// Kimi delta attention.
    Kda {
        heads: u64,
        head_dim: u64,
        conv: u64,
    },
    /// Lightning attention (MiniMax-01).
    Lightning { heads: u64, head_dim: u64 },
    /// Short convolution (LFM2) over `conv` tokens of `width` channels.
    ShortConv { width: u64, conv: u64 },
    /// Short convolutions over keys and values (`heads` x `head_dim`) and over the outputs of
    /// attention and feed-forward (`hidden`), in 32-bit floats (Inkling).
    ConvStreams {
        heads: u64,
        head_dim: u64,
        hidden: u64,
        conv: u64,
    },
    /// The last `rows` inputs of `width` channels, and `vector` elements of the last token (ZAYA's
    /// convolved attention, the n-gram embeddings of Qwen4-Exp).
    PastInputs { width: u64, rows: u64, vector: u64 },
    /// RWKV: `token_shift` rows of h and h x head_size.
    Rwkv {
        hidden: u64,
        head_size: u64,
        token_shift: u64,
    },
}

/// What follows the mixer in a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedForward {
    /// A dense block of this width.
    Dense {
        /// Intermediate width of this layer.
        width: u64,
    },
    /// Routed experts, sized by [`Experts`].
    Experts,
    /// No feed-forward.
    None,
}

/// Mixture-of-experts facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Experts {
    /// Routed experts of a layer (E).
    pub count: u64,
    /// Experts a token goes through (k).
    pub active: u64,
    /// Width of one expert (Im).
    pub width: u64,
    /// Total width of the shared experts, in addition to the routed ones. 0 if the configuration
    /// states that there are none.
    pub shared_width: u64,
}

/// A cos/sin table that an engine computes once and keeps.
///
/// It has `positions x rotary_dim` elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RopeTable {
    /// Rows: the positions that the engine's table covers. Scaling may extend them beyond the
    /// context.
    pub positions: u64,
    /// Whether positions have several axes, for images and videos: engines then make room for
    /// more positions.
    pub multimodal: bool,
    /// Elements of a row.
    pub rotary_dim: u64,
    /// Whether the table uses 32-bit floats whatever the model's dtype.
    pub float32: bool,
}

/// The encoder half of an encoder-decoder model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoder {
    /// Number of layers.
    pub layers: u32,
    /// Maximum number of tokens that it emits for one item (Whisper 1500).
    pub max_tokens: u64,
}

/// A vision tower's sizes, limited to those that determine its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VisionTower {
    /// Layers.
    pub layers: u64,
    /// Width.
    pub hidden_size: u64,
    /// Feed-forward width.
    pub intermediate_size: u64,
    /// Attention heads.
    pub heads: u64,
    /// Tokens of the largest single item after merging, if the configuration states them.
    pub tokens_per_item: Option<u64>,
    /// Patches of that item before merging.
    pub patches_per_item: Option<u64>,
}

impl Architecture {
    /// Whether one pass over the tokens runs some layers several times.
    pub fn is_looped(&self) -> bool {
        self.layers.iter().any(|layer| layer.passes > 1)
    }

    /// Number of decoder layers (L).
    pub fn layer_count(&self) -> u32 {
        u32::try_from(self.layers.len()).unwrap_or(u32::MAX)
    }

    /// The context before longrope scaling, which is the default of engines.
    ///
    /// Source: vLLM `_get_and_verify_max_len`.
    pub fn original_context(&self) -> Option<u64> {
        self.number_noted("original_max_position_embeddings=")
    }

    /// Elements of a token's latent in a family that this tree reads as expanded heads, because
    /// vLLM caches those (MiniCPM3).
    pub fn cached_latent(&self) -> Option<u64> {
        self.number_noted("cached_latent=")
    }

    /// Elements of a token's entry in the cache of an indexer that keeps more than its key
    /// (GLM-5.3-Flash in transformers).
    pub fn packed_index_elements(&self) -> Option<u64> {
        self.number_noted("packed_index_elements=")
    }

    /// Tokens that share one key of an indexer (GLM-5.3-Flash in vLLM).
    pub fn index_pool(&self) -> Option<u64> {
        self.number_noted("index_pool=")
    }

    /// Whether transformers keeps an indexer's keys in 32-bit floats (dots3).
    pub fn has_float32_index_keys(&self) -> bool {
        self.notes
            .iter()
            .any(|note| note == "float32_index_keys=true")
    }

    /// The number of the note that begins with `key`.
    fn number_noted(&self, key: &str) -> Option<u64> {
        self.notes
            .iter()
            .find_map(|note| note.strip_prefix(key)?.parse().ok())
    }

    /// Learned tokens before each prompt, which full attention caches (CPM-Ant).
    pub fn prefix_tokens(&self) -> u64 {
        self.notes
            .iter()
            .find_map(|note| note.strip_prefix("prefix_tokens=")?.parse().ok())
            .unwrap_or(0)
    }

    /// Experts that compute nothing, in addition to the routed ones (LongCat-Flash).
    pub fn zero_experts(&self) -> Option<u64> {
        self.number_noted("zero_expert_num=")
    }

    /// Iterates over the mixers of the layers in `range`, including second mixers.
    pub fn mixers(&self, range: std::ops::Range<u32>) -> impl Iterator<Item = &Mixer> {
        let from = (range.start as usize).min(self.layers.len());
        let to = (range.end as usize).clamp(from, self.layers.len());
        self.layers[from..to].iter().flat_map(Layer::mixers)
    }
}
