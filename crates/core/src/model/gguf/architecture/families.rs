//! The model families of llama.cpp and the kind of cache that each of them has.
//!
//! Source: llama.cpp `src/llama-arch.cpp` (`LLM_ARCH_NAMES`) and each model's `load_arch_hparams`.
//! An unlisted family gets no figures: llama.cpp adds families every month, and their caches
//! differ.

use super::windows::Windows;

/// A family's rules for caches, windows and layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GgufFamily {
    pub(super) memory: Memory,
    pub(super) windows: Windows,
    /// The task of the family's models.
    pub(super) purpose: Purpose,
    /// Number of layers with caches of their own, if the file does not state it (Gemma 3n). Later
    /// layers share the cache of an earlier one.
    pub(super) own_caches: Option<u64>,
    /// Whether `block_count` includes layers for multi-token prediction at the end.
    pub(super) next_token_layers: bool,
}

/// The task of a family's models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Generate,
    /// Embeddings without a cache (`llama_model::create_memory` creates none).
    Encode,
    /// Embeddings with a cache, which llama.cpp creates nonetheless.
    Pool,
    EncodeDecode,
}

/// The memory of past tokens in a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Memory {
    /// Keys and values in every layer that has KV heads.
    KeysAndValues,
    /// A latent if the file has `kv_lora_rank` and the MLA lengths, else keys and values.
    Latent,
    /// The same as [`Memory::Latent`], with an indexer.
    LatentIndexed,
    /// The same as [`Memory::LatentIndexed`], or without an indexer if the file states no `top_k`
    /// (Hunyuan 4).
    LatentMaybeIndexed,
    /// The same as [`Memory::LatentIndexed`], but layers can share the latents of an earlier one
    /// (Mistral Large 4).
    LatentShared,
    /// Latents with an indexer, or other latents of a window (dots3.note).
    LatentWindows,
    /// A window of one latent head, and its compressed past (DeepSeek V4).
    Compressed,
    /// The same as [`Memory::Compressed`], but layers share the past of an earlier one
    /// (DeepSeek V4.1).
    CompressedShared,
    /// Keys and values; layers behind the leading dense ones have an indexer (MiniMax-M3).
    KeysAndValuesIndexed,
    /// Mamba-1 in every layer.
    Mamba1,
    /// Mamba-2 in every layer.
    Mamba2,
    /// Layers without KV heads are Mamba-1 (if the file has no group count) or Mamba-2.
    MambaHybrid,
    /// The same as [`Memory::MambaHybrid`], but a layer with a feed-forward width has no mixer
    /// (Nemotron-H).
    MambaOrFeedForward,
    /// Every layer has both attention and Mamba-2 (Falcon-H1).
    MambaParallel,
    /// Every layer except each n-th is a gated delta net.
    DeltaNet,
    /// The same as [`Memory::DeltaNet`], where attention has an indexer, and n-gram embeddings a
    /// history (Qwen4-Exp).
    DeltaNetIndexed,
    /// Every layer except each n-th is lightning attention.
    Lightning,
    /// Layers without KV heads are Kimi delta attention, the others have latents.
    Kimi,
    /// The same as [`Memory::Kimi`], where latents have an indexer over pools of tokens
    /// (GLM-5-Next).
    KimiPooled,
    /// Layers without KV heads are short convolutions.
    ShortConvolution,
    /// RWKV in every layer.
    Rwkv,
}

const PLAIN: GgufFamily = GgufFamily {
    memory: Memory::KeysAndValues,
    windows: Windows::Never,
    purpose: Purpose::Generate,
    own_caches: None,
    next_token_layers: false,
};

const fn with_memory(memory: Memory) -> GgufFamily {
    GgufFamily { memory, ..PLAIN }
}

const fn with_period(period: u64, default: Option<u64>) -> GgufFamily {
    GgufFamily {
        windows: Windows::Period {
            period,
            full_first: false,
            default,
        },
        ..PLAIN
    }
}

const fn with_full_first(period: u64) -> GgufFamily {
    GgufFamily {
        windows: Windows::Period {
            period,
            full_first: true,
            default: None,
        },
        ..PLAIN
    }
}

impl Memory {
    /// Returns the prefixes of keys that contradict the family's rule, without the family's name.
    ///
    /// A newer llama.cpp can add another kind of memory to an old family.
    pub(super) fn foreign_keys(self) -> &'static [&'static str] {
        const STATES: [&str; 7] = [
            "ssm.",
            "wkv.",
            "shortconv.",
            "kda.",
            "attention.recurrent_layers",
            "attention.indexer.",
            "attention.compress_ratios",
        ];

        match self {
            Self::KeysAndValues => &STATES,
            // The rule includes the indexer.
            Self::LatentIndexed
            | Self::LatentMaybeIndexed
            | Self::LatentShared
            | Self::LatentWindows
            | Self::KeysAndValuesIndexed
            | Self::KimiPooled => &["attention.compress_ratios"],
            Self::Compressed | Self::CompressedShared => {
                &["ssm.", "kda.", "attention.kv_lora_rank"]
            }
            Self::DeltaNetIndexed => &["kda.", "wkv.", "shortconv."],
            Self::Latent => &STATES,
            _ => &["attention.indexer.", "attention.compress_ratios"],
        }
    }
}

/// Returns the rules of a family, or `None` for an unlisted one.
pub(super) fn family(name: &str) -> Option<GgufFamily> {
    Some(match name {
        // Families with keys and values of every token in every layer.
        "llama" | "deci" | "falcon" | "grok" | "gpt2" | "gptj" | "gptneox" | "mpt" | "baichuan"
        | "starcoder" | "refact" | "bloom" | "stablelm" | "qwen" | "qwen2" | "qwen2moe"
        | "qwen2vl" | "qwen3" | "qwen3moe" | "qwen3vl" | "qwen3vlmoe" | "phi2" | "phimoe"
        | "plamo" | "codeshell" | "orion" | "internlm2" | "minicpm" | "gemma" | "starcoder2"
        | "xverse" | "command-r" | "dbrx" | "olmo" | "olmoe" | "openelm" | "arctic"
        | "deepseek" | "chatglm" | "glm4" | "bitnet" | "jais" | "jais2" | "nemotron" | "exaone"
        | "granite" | "granitemoe" | "chameleon" | "bailingmoe" | "dots1" | "arcee"
        | "ernie4_5" | "ernie4_5-moe" | "hunyuan-moe" | "hunyuan-dense" | "hunyuan_vl"
        | "smollm3" | "seed_oss" | "grovemoe" | "apertus" | "minimax-m2" | "cogvlm" | "talkie"
        | "pangu-embedded" | "mistral3" | "paddleocr" | "maincoder" | "phi3" | "minicpm3"
        | "plm" | "sensenova_u1" | "qwen3tts" | "pockettts" | "k2-horizon" => PLAIN,
        // Layers that run several times, with a cache for each time.
        "nanbeige" | "hrm_text" => PLAIN,
        "glm4moe" | "bailingmoe2" | "hy_v3" => GgufFamily {
            next_token_layers: true,
            ..PLAIN
        },
        // The last four use masked diffusion: llama.cpp creates no cache for them
        // (`llama_model::create_memory`).
        "bert" | "nomic-bert" | "nomic-bert-moe" | "neo-bert" | "jina-bert-v2" | "jina-bert-v3"
        | "modern-bert" | "eurobert" | "gemma-embedding" | "dream" | "llada" | "llada-moe"
        | "rnd1" | "gemma-embedding2" => GgufFamily {
            purpose: Purpose::Encode,
            ..PLAIN
        },
        "t5encoder" | "llama-embed" | "vllm-decision2" => GgufFamily {
            purpose: Purpose::Pool,
            ..PLAIN
        },
        "t5" => GgufFamily {
            purpose: Purpose::EncodeDecode,
            ..PLAIN
        },
        // Families with windows.
        "gemma2" => with_period(2, Some(4096)),
        "gemma3" => with_period(6, None),
        "gemma3n" => GgufFamily {
            own_caches: Some(20),
            ..with_period(5, None)
        },
        "gemma4" | "flint" | "maple" | "muse-spark" | "granite_swa" | "spark2_5"
        | "maion-coder" | "kolibri1" | "beam" => GgufFamily {
            windows: Windows::Listed,
            ..PLAIN
        },
        "step35" | "mimo2" => GgufFamily {
            windows: Windows::Listed,
            next_token_layers: true,
            ..PLAIN
        },
        "plamo3" => with_period(8, None),
        "exaone-moe" => GgufFamily {
            next_token_layers: true,
            ..with_period(4, None)
        },
        "cohere2moe" => GgufFamily {
            next_token_layers: true,
            ..with_full_first(4)
        },
        "gpt-oss" => with_period(2, None),
        "cohere2" | "olmo2" | "afmoe" | "mellum" | "muse-glimmer" | "limite" => {
            with_period(4, None)
        }
        "smallthinker" | "laguna" => with_full_first(4),
        "llama4" => GgufFamily {
            windows: Windows::Chunks,
            ..PLAIN
        },
        "exaone4" => GgufFamily {
            windows: Windows::LargeOnly,
            ..PLAIN
        },
        // Families with latents.
        "deepseek2" | "mistral4" => GgufFamily {
            next_token_layers: true,
            ..with_memory(Memory::Latent)
        },
        "deepseek2-ocr" => with_memory(Memory::KeysAndValues),
        "deepseek32" | "glm-dsa" => GgufFamily {
            next_token_layers: true,
            ..with_memory(Memory::LatentIndexed)
        },
        "hy_v4" => with_memory(Memory::LatentMaybeIndexed),
        "mistral-large4" => with_memory(Memory::LatentShared),
        "dots3note" => GgufFamily {
            windows: Windows::Listed,
            next_token_layers: true,
            ..with_memory(Memory::LatentWindows)
        },
        "deepseek4" => GgufFamily {
            next_token_layers: true,
            ..with_memory(Memory::Compressed)
        },
        "deepseek41" => with_memory(Memory::CompressedShared),
        "minimax-m3" => with_memory(Memory::KeysAndValuesIndexed),
        // Families with states.
        "mamba" => with_memory(Memory::Mamba1),
        "mamba2" => with_memory(Memory::Mamba2),
        "jamba" | "plamo2" | "granitehybrid" => with_memory(Memory::MambaHybrid),
        "nemotron_h" | "nemotron_h_moe" => GgufFamily {
            next_token_layers: true,
            ..with_memory(Memory::MambaOrFeedForward)
        },
        "falcon-h1" => with_memory(Memory::MambaParallel),
        "qwen3next" | "qwen35" | "qwen35moe" => GgufFamily {
            next_token_layers: true,
            ..with_memory(Memory::DeltaNet)
        },
        "qwen4exp" => GgufFamily {
            next_token_layers: true,
            ..with_memory(Memory::DeltaNetIndexed)
        },
        "minimax-01" => with_memory(Memory::Lightning),
        "kimi-linear" | "kimi-k3" => with_memory(Memory::Kimi),
        "bailingmoe3" => GgufFamily {
            next_token_layers: true,
            ..with_memory(Memory::Kimi)
        },
        "glm5-next" => GgufFamily {
            next_token_layers: true,
            ..with_memory(Memory::KimiPooled)
        },
        "lfm2" | "lfm2moe" => with_memory(Memory::ShortConvolution),
        "lfm3" => GgufFamily {
            windows: Windows::Listed,
            ..with_memory(Memory::ShortConvolution)
        },
        "rwkv6" | "rwkv6qwen2" | "rwkv7" | "arwkv7" => with_memory(Memory::Rwkv),
        _ => return None,
    })
}

/// Returns why a family that llama.cpp has gets no rules, as a clause.
pub(super) fn refusal(name: &str) -> Option<&'static str> {
    Some(match name {
        "eagle3" | "dflash" | "gemma4-assistant" => {
            "a draft, which llama.cpp runs only together with its target"
        }
        "clip" => "a projector, which llama.cpp loads only together with a language model",
        "wavtokenizer-dec" => "a vocoder, whose graph is not modeled",
        "clef" => "a decision model, whose head is not modeled",
        "graniteswitch" => "the layer that routes its adapters has a cache that is not modeled",
        _ => return None,
    })
}
