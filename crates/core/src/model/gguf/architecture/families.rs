//! The families that llama.cpp runs, and how each of them remembers.
//!
//! Source: llama.cpp `src/llama-arch.cpp` (`LLM_ARCH_NAMES`) and each model's `load_arch_hparams`.
//! A family that is not listed here gets no figures: llama.cpp gains some every month, and their
//! caches differ.

use super::windows::Windows;

/// How a family remembers the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GgufFamily {
    pub(super) memory: Memory,
    pub(super) windows: Windows,
    /// What it is for.
    pub(super) purpose: Purpose,
    /// Layers from here on share an earlier layer's cache where the file does not say (Gemma 3n).
    pub(super) own_caches: Option<u64>,
    /// Behind these layers come others for multi-token prediction, counted in `block_count`.
    pub(super) next_token_layers: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Generate,
    /// No cache at all (`llama_model::create_memory` makes none).
    Encode,
    /// Embeddings, over a cache that llama.cpp makes all the same.
    Pool,
    EncodeDecode,
}

/// What a layer keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Memory {
    /// Keys and values in every layer that has KV heads.
    KeysAndValues,
    /// A latent where the file has `kv_lora_rank` and the MLA lengths, else keys and values.
    Latent,
    /// As [`Memory::Latent`], with an indexer beside it.
    LatentIndexed,
    /// Mamba-1 in every layer.
    Mamba1,
    /// Mamba-2 in every layer.
    Mamba2,
    /// Layers without KV heads are Mamba-1 (no group count in the file) or Mamba-2.
    MambaHybrid,
    /// As above, but a layer that has a feed-forward width is only that (Nemotron-H).
    MambaOrFeedForward,
    /// Every layer has attention and Mamba-2 side by side (Falcon-H1).
    MambaBeside,
    /// Every layer but each n-th is a gated delta net.
    DeltaNet,
    /// Layers without KV heads are Kimi delta attention, the others latent.
    Kimi,
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

const fn with(memory: Memory) -> GgufFamily {
    GgufFamily { memory, ..PLAIN }
}

const fn period(period: u64, default: Option<u64>) -> GgufFamily {
    GgufFamily {
        windows: Windows::Period {
            period,
            full_first: false,
            default,
        },
        ..PLAIN
    }
}

const fn full_first(period: u64) -> GgufFamily {
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
    /// Beginnings of keys (after the family's name) that say of a file that it remembers otherwise
    /// than its family's rule has it: a newer llama.cpp may have taught an old family a new memory.
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
            // Their own states are in their rule.
            Self::LatentIndexed => &["ssm.", "attention.compress_ratios"],
            Self::Latent => &STATES,
            _ => &["attention.indexer.", "attention.compress_ratios"],
        }
    }
}

/// The rule of `family`; `None` where we have none.
pub(super) fn family(name: &str) -> Option<GgufFamily> {
    Some(match name {
        // Keys and values of every token in every layer.
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
        | "plm" => PLAIN,
        "glm4moe" | "bailingmoe2" | "hy_v3" => GgufFamily {
            next_token_layers: true,
            ..PLAIN
        },
        // Masked diffusion: llama.cpp builds no cache for them (`llama_model::create_memory`).
        "bert" | "nomic-bert" | "nomic-bert-moe" | "neo-bert" | "jina-bert-v2" | "jina-bert-v3"
        | "modern-bert" | "gemma-embedding" | "dream" | "llada" | "llada-moe" | "rnd1" => {
            GgufFamily {
                purpose: Purpose::Encode,
                ..PLAIN
            }
        }
        "t5encoder" | "eurobert" | "llama-embed" => GgufFamily {
            purpose: Purpose::Pool,
            ..PLAIN
        },
        "t5" => GgufFamily {
            purpose: Purpose::EncodeDecode,
            ..PLAIN
        },
        // Windows.
        "gemma2" => period(2, Some(4096)),
        "gemma3" => period(6, None),
        "gemma3n" => GgufFamily {
            own_caches: Some(20),
            ..period(5, None)
        },
        "gemma4" => GgufFamily {
            windows: Windows::Listed,
            ..PLAIN
        },
        "step35" | "mimo2" => GgufFamily {
            windows: Windows::Listed,
            next_token_layers: true,
            ..PLAIN
        },
        "plamo3" => period(8, None),
        "exaone-moe" => GgufFamily {
            next_token_layers: true,
            ..period(4, None)
        },
        "cohere2moe" => GgufFamily {
            next_token_layers: true,
            ..full_first(4)
        },
        "gpt-oss" => period(2, None),
        "cohere2" | "olmo2" | "afmoe" | "mellum" => period(4, None),
        "smallthinker" | "laguna" => full_first(4),
        "llama4" => GgufFamily {
            windows: Windows::Chunks,
            ..PLAIN
        },
        "exaone4" => GgufFamily {
            windows: Windows::LargeOnly,
            ..PLAIN
        },
        // Latents.
        "deepseek2" | "mistral4" => GgufFamily {
            next_token_layers: true,
            ..with(Memory::Latent)
        },
        "deepseek2-ocr" => with(Memory::KeysAndValues),
        "deepseek32" | "glm-dsa" => GgufFamily {
            next_token_layers: true,
            ..with(Memory::LatentIndexed)
        },
        // States.
        "mamba" => with(Memory::Mamba1),
        "mamba2" => with(Memory::Mamba2),
        "jamba" | "plamo2" | "granitehybrid" => with(Memory::MambaHybrid),
        "nemotron_h" | "nemotron_h_moe" => GgufFamily {
            next_token_layers: true,
            ..with(Memory::MambaOrFeedForward)
        },
        "falcon-h1" => with(Memory::MambaBeside),
        "qwen3next" | "qwen35" | "qwen35moe" => GgufFamily {
            next_token_layers: true,
            ..with(Memory::DeltaNet)
        },
        "kimi-linear" => with(Memory::Kimi),
        "lfm2" | "lfm2moe" => with(Memory::ShortConvolution),
        "rwkv6" | "rwkv6qwen2" | "rwkv7" | "arwkv7" => with(Memory::Rwkv),
        _ => return None,
    })
}
