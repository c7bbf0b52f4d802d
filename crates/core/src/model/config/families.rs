//! Which model types are understood, and by which rules.
//!
//! Sources: transformers `models/<type>/{configuration,modeling}_<type>.py` and vLLM
//! `model_executor/models/<type>.py`. What is not here must be proved by its tensors (`proof`) or
//! is refused.

use super::families::FamilyKind::{Attention, Encoder, EncoderDecoder, Latent};
use super::families::Rope::{Multimodal, Nowhere, Standard};

/// How a family's layers remember.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FamilyKind {
    /// Every layer has attention; the rule says which of them see a window only.
    Attention(Spans),
    /// Multi-head latent attention; plain attention where `kv_lora_rank` is null.
    Latent,
    /// Two latent attention blocks a layer (LongCat-Flash).
    DoubleLatent,
    /// Compressed latent attention.
    DeepseekV4,
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
    /// Mamba-2 and attention side by side in each layer.
    FalconH1,
    /// Mamba in each layer, shared attention before some.
    Zamba(u8),
    /// One of Mamba-2, attention, dense and experts in each layer (`hybrid_override_pattern`).
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
    /// RWKV of the given generation.
    Rwkv(u8),
    /// Self-attention with cross-attention to an image in some layers.
    Mllama,
    /// No cache at all.
    Encoder,
    /// An encoder and a decoder with cross-attention.
    EncoderDecoder,
}

/// Which attention layers see a window only, where no `layer_types` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spans {
    /// None of them, whatever `sliding_window` says.
    Full,
    /// All of them, when `sliding_window` is set.
    All,
    /// Those that `layer_types` lists; a window without the list is not understood.
    Listed,
    /// Those from `max_window_layers` on, when `use_sliding_window` is true.
    Upper,
    /// All but each n-th; a `sliding_window_pattern` key overrides n.
    AllBut(u64),
    /// As above, and the last layer is always full.
    AllButAndLast(u64),
    /// Chunks where the layer has rope (`no_rope_layers`), n being the default interval of layers
    /// without.
    Chunked(u64),
}

/// Which cos/sin tables an engine keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rope {
    /// None: learned positions, ALiBi or no positions.
    Nowhere,
    /// One, by the scaling that is set.
    Standard,
    /// One of four times the positions (`mrope`).
    Multimodal,
    /// A scaled global and an unscaled local one.
    GlobalAndLocal,
    /// One for each kind of layer, the global one over the whole head.
    Proportional,
    /// 32-bit tables of plain and of compressed layers.
    Compressed,
}

/// One family.
#[derive(Clone, Copy, Debug)]
pub(super) struct Family {
    /// Its model types.
    pub(super) types: &'static [&'static str],
    /// How its layers remember.
    pub(super) kind: FamilyKind,
    /// Its rotary tables.
    pub(super) rope: Rope,
    /// Whether an absent `tie_word_embeddings` means tied.
    pub(super) tied: bool,
}

const TIED: bool = true;
const APART: bool = false;

const fn family(
    types: &'static [&'static str],
    kind: FamilyKind,
    rope: Rope,
    tied: bool,
) -> Family {
    Family {
        types,
        kind,
        rope,
        tied,
    }
}

/// The family of `model_type`.
pub(super) fn find(model_type: &str) -> Option<&'static Family> {
    FAMILIES
        .iter()
        .find(|family| family.types.contains(&model_type))
}

/// The language model inside a wrapper whose nested object names no `model_type` of its own.
pub(super) fn inside_wrapper(root_type: &str) -> Option<&'static str> {
    let inner = match root_type {
        "gemma3" => "gemma3_text",
        "gemma3n" => "gemma3n_text",
        "gemma4" => "gemma4_text",
        "gemma4_unified" => "gemma4_unified_text",
        "shieldgemma2" => "gemma3_text",
        "llama4" => "llama4_text",
        "mllama" => "mllama_text_model",
        "llava" | "llava_next" | "llava_next_video" | "video_llava" | "vipllava" | "idefics3"
        | "smolvlm" | "deepseek_vl" | "deepseek_vl_hybrid" | "glmasr" | "janus"
        | "perception_lm" | "voxtral" => "llama",
        "llava_onevision" | "audioflamingo3" | "fast_vlm" | "got_ocr2" | "internvl"
        | "musicflamingo" | "ovis2" | "qwen2_audio" | "video_llama_3" | "vibevoice" => "qwen2",
        "fun_asr_nano" | "lighton_ocr" | "qianfan_ocr" | "qwen3_asr" => "qwen3",
        "idefics2" | "mistral3" | "pixtral" => "mistral",
        "aria" => "aria_text",
        "aya_vision" | "cohere2_vision" => "cohere2",
        "cohere_compass" => "cohere_compass_text",
        "cosmos3_edge" => "cosmos3_edge_text",
        "deepseek_ocr2" => "deepseek_ocr2_text",
        "emu3" => "emu3_text_model",
        "ernie4_5_vl_moe" => "ernie4_5_vl_moe_text",
        "exaone4_5" => "exaone4",
        "glm_ocr" => "glm_ocr_text",
        "granite_speech" | "granite_speech_plus" => "granite",
        "granite4_vision" => "granite4_vision_text",
        "granite_docling" => "granite_docling_text",
        "hunyuan_vl" => "hunyuan_vl_text",
        "hyperclovax_vision_v2" => "hyperclovax",
        "lfm2_vl" => "lfm2",
        "minicpmv4_6" | "minicpmv4_7" | "minicpm_ocr" => "qwen3_5_text",
        "molmo2" => "molmo2_text",
        "muse_glimmer" => "muse_glimmer_text",
        "muse_spark" => "muse_spark_text",
        "nemotron_h_omni" => "nemotron_h",
        "paddleocr_vl" => "paddleocr_vl_text",
        "step3p7" => "step3p5",
        "paligemma" => "gemma",
        "qwen2_vl" => "qwen2_vl_text",
        "qwen2_5_vl" => "qwen2_5_vl_text",
        "qwen3_vl" => "qwen3_vl_text",
        "qwen3_vl_moe" => "qwen3_vl_moe_text",
        "qwen3_5" => "qwen3_5_text",
        "qwen3_5_moe" => "qwen3_5_moe_text",
        "glm4v" | "glm46v" | "glmga" => "glm4v_text",
        "glm4v_moe" => "glm4v_moe_text",
        "kimi_vl" | "kimi_k25" => "deepseek_v3",
        "deepseek_vl_v2" => "deepseek_v2",
        _ => return None,
    };

    Some(inner)
}

const FAMILIES: &[Family] = &[
    // Plain decoders.
    family(
        &[
            "llama",
            "Yi",
            "aquila",
            "internlm",
            "internlm2",
            "internlm3",
            "qwen",
            "baichuan",
            "deepseek",
            "chatglm",
            "glm",
            "glm4",
            "glm4_moe",
            "gpt_neox",
            "bitnet",
            "chameleon",
            "molmo",
            "step3_text",
            "step3_vl",
            "ernie4_5_vl_moe_text",
            "ernie4_5_moe_vl",
            "gptj",
            "codegen",
            "stablelm",
            "stablelm_epoch",
            "persimmon",
            "phi",
            "granite",
            "granitemoe",
            "granitemoeshared",
            "olmo",
            "olmo2",
            "olmoe",
            "flex_olmo",
            "exaone",
            "nemotron",
            "arctic",
            "grok-1",
            "xverse",
            "orion",
            "hunyuan_v1_dense",
            "hunyuan_v1_moe",
            "hunyuan",
            "bailing_moe",
            "bailing_moe_v2",
            "ernie4_5",
            "ernie4_5_moe",
            "seed_oss",
            "dots1",
            "minimax_m2",
            "apertus",
            "arcee",
            "helium",
            "telechat",
            "telechat2",
            "TeleFLM",
            "mimo",
            "PanguEmbedded",
            "pangu_embedded",
            "skywork",
            "nanochat",
            "jais2",
            "ministral3",
            "voxtral_text",
            "fuyu",
            "aria_text",
            "cosmos3_edge_text",
            "deepseek_ocr2_text",
            "diffllama",
            "emu3_text_model",
            "granite4_vision_text",
            "granite_docling_text",
            "hunyuan_vl_text",
            "hy_v3",
            "hyperclovax",
            "iquestcoder",
            "molmo2_text",
            "solar_open",
        ],
        Attention(Spans::Full),
        Standard,
        APART,
    ),
    family(
        &[
            "falcon",
            "RefinedWeb",
            "RefinedWebModel",
            "minicpm",
            "cohere",
            "dbrx",
            "openelm",
            "gemma",
            "gemma_text",
        ],
        Attention(Spans::Full),
        Standard,
        TIED,
    ),
    family(
        &[
            "gpt2",
            "gpt_bigcode",
            "gpt_neo",
            "bloom",
            "opt",
            "mpt",
            "xglm",
            "biogpt",
            "jais",
            "openai-gpt",
        ],
        Attention(Spans::Full),
        Nowhere,
        TIED,
    ),
    family(&["jetmoe"], Attention(Spans::Full), Standard, TIED),
    family(
        &["glm4v_text", "glm4v_moe_text", "glm_ocr_text"],
        Attention(Spans::Full),
        Multimodal,
        APART,
    ),
    family(
        &["paddleocr_vl_text"],
        Attention(Spans::Full),
        Multimodal,
        TIED,
    ),
    family(
        &[
            "mistral",
            "mixtral",
            "phi3",
            "phi3_v",
            "phimoe",
            "phi4mm",
            "phi4_multimodal",
            "solar",
            "ministral",
        ],
        Attention(Spans::All),
        Standard,
        APART,
    ),
    family(&["starcoder2"], Attention(Spans::All), Standard, TIED),
    family(
        &[
            "qwen2",
            "qwen3",
            "qwen2_moe",
            "qwen3_moe",
            "smollm3",
            "minicpmv",
            "minicpmo",
        ],
        Attention(Spans::Upper),
        Standard,
        APART,
    ),
    family(
        &[
            "qwen2_vl",
            "qwen2_vl_text",
            "qwen2_5_vl",
            "qwen2_5_vl_text",
            "qwen3_vl_text",
            "qwen3_vl_moe_text",
            "qwen2_5_omni_text",
            "qwen3_omni_moe_text",
        ],
        Attention(Spans::Upper),
        Multimodal,
        APART,
    ),
    // Windows in some layers.
    family(
        &["gemma2", "vaultgemma"],
        Attention(Spans::AllBut(2)),
        Standard,
        TIED,
    ),
    family(
        &["gemma3_text"],
        Attention(Spans::AllBut(6)),
        Rope::GlobalAndLocal,
        TIED,
    ),
    family(
        &["gemma3n_text"],
        Attention(Spans::AllBut(5)),
        Rope::GlobalAndLocal,
        TIED,
    ),
    family(
        &["gemma4_text", "gemma4_unified_text"],
        Attention(Spans::AllButAndLast(6)),
        Rope::Proportional,
        TIED,
    ),
    family(&["gpt_oss"], Attention(Spans::AllBut(2)), Standard, APART),
    family(&["cohere2"], Attention(Spans::AllBut(4)), Standard, TIED),
    family(
        &["olmo3", "exaone4", "exaone_moe", "afmoe"],
        Attention(Spans::AllBut(4)),
        Standard,
        APART,
    ),
    family(
        &[
            "granite_swa",
            "granitemoe_swa",
            "mellum",
            "laguna",
            "beam",
            "flint",
            "muse_glimmer_text",
            "muse_spark_text",
            "cwm",
        ],
        Attention(Spans::Listed),
        Standard,
        APART,
    ),
    family(
        &["cohere2_moe", "cohere_compass_text"],
        Attention(Spans::Listed),
        Standard,
        TIED,
    ),
    family(
        &["llama4_text"],
        Attention(Spans::Chunked(4)),
        Standard,
        APART,
    ),
    family(
        &["mimo_v2_flash", "mimo_v2"],
        FamilyKind::MimoV2,
        Standard,
        APART,
    ),
    family(&["step3p5"], FamilyKind::Step, Standard, APART),
    family(
        &["nemotron-nas", "deci"],
        FamilyKind::BlockList,
        Standard,
        APART,
    ),
    family(&["mllama_text_model"], FamilyKind::Mllama, Standard, APART),
    // One latent vector for all heads.
    family(
        &[
            "deepseek_v2",
            "deepseek_v3",
            "deepseek_v32",
            "kimi_k2",
            "glm_moe_dsa",
            "glm4_moe_lite",
            "pangu_ultra_moe",
            "minicpm3",
            "mistral4",
            "axk1",
            "youtu",
        ],
        Latent,
        Standard,
        APART,
    ),
    family(
        &["longcat_flash"],
        FamilyKind::DoubleLatent,
        Standard,
        APART,
    ),
    family(
        &["deepseek_v4"],
        FamilyKind::DeepseekV4,
        Rope::Compressed,
        APART,
    ),
    // States.
    family(
        &["mamba", "falcon_mamba", "mamba_ssm"],
        FamilyKind::Mamba1,
        Nowhere,
        TIED,
    ),
    family(&["mamba2"], FamilyKind::Mamba2, Nowhere, TIED),
    family(&["jamba"], FamilyKind::Jamba, Nowhere, APART),
    family(&["bamba"], FamilyKind::Bamba, Standard, APART),
    family(&["granitemoehybrid"], FamilyKind::Bamba, Standard, APART),
    family(&["falcon_h1"], FamilyKind::FalconH1, Standard, APART),
    family(&["zamba"], FamilyKind::Zamba(1), Nowhere, TIED),
    family(&["zamba2"], FamilyKind::Zamba(2), Standard, TIED),
    family(&["nemotron_h"], FamilyKind::NemotronH, Nowhere, APART),
    family(&["plamo2"], FamilyKind::Plamo2, Standard, APART),
    family(&["qwen3_next"], FamilyKind::GatedDelta, Standard, APART),
    family(&["olmo_hybrid"], FamilyKind::GatedDelta, Standard, APART),
    family(
        &["qwen3_5_text", "qwen3_5_moe_text"],
        FamilyKind::GatedDelta,
        Multimodal,
        APART,
    ),
    family(&["kimi_linear"], FamilyKind::KimiLinear, Nowhere, APART),
    family(
        &["minimax", "minimax_text_01", "minimax_m1"],
        FamilyKind::MiniMax01,
        Standard,
        APART,
    ),
    family(
        &["bailing_moe_linear", "bailing_hybrid"],
        FamilyKind::BailingLinear,
        Standard,
        APART,
    ),
    family(&["lfm2", "lfm2_moe"], FamilyKind::Lfm2, Standard, TIED),
    family(&["rwkv"], FamilyKind::Rwkv(4), Nowhere, APART),
    family(
        &["rwkv6", "rwkv6qwen2"],
        FamilyKind::Rwkv(6),
        Nowhere,
        APART,
    ),
    family(&["rwkv7"], FamilyKind::Rwkv(7), Nowhere, APART),
    // Encoders.
    family(
        &[
            "bert",
            "roberta",
            "xlm-roberta",
            "camembert",
            "distilbert",
            "mpnet",
            "electra",
            "albert",
            "deberta",
            "deberta-v2",
            "nomic_bert",
            "hubert",
            "wav2vec2",
            "wav2vec2-bert",
            "esm",
            "xlm-roberta-xl",
            "wavlm",
            "mobilebert",
            "roformer",
        ],
        Encoder,
        Nowhere,
        TIED,
    ),
    family(
        &[
            "modernbert",
            "new",
            "eurobert",
            "gte",
            "neobert",
            "jina_bert",
            "NewModel",
        ],
        Encoder,
        Standard,
        TIED,
    ),
    family(
        &[
            "t5",
            "mt5",
            "umt5",
            "bart",
            "mbart",
            "whisper",
            "m2m_100",
            "marian",
            "pegasus",
            "blenderbot",
        ],
        EncoderDecoder,
        Nowhere,
        TIED,
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_type_stands_twice() {
        let mut types: Vec<_> = FAMILIES.iter().flat_map(|family| family.types).collect();
        let count = types.len();
        types.sort_unstable();
        types.dedup();
        assert_eq!(types.len(), count);
    }
}
