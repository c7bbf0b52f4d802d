//! The layers that each family's metadata describes.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use hf_mem_core::model::Unsupported;
use hf_mem_core::model::architecture::{
    Architecture, Attention, FeedForward, Mixer, Recurrent, Span, Task,
};
use hf_mem_core::model::gguf::{Progress, architecture, parse};
use support::gguf_writer::{Header, Kv};

mod support {
    pub mod gguf_writer;
}

fn header(family: &str, layers: u32) -> Header {
    let keys = [
        ("block_count", layers),
        ("context_length", 8192),
        ("embedding_length", 1024),
        ("feed_forward_length", 4096),
        ("attention.head_count", 16),
        ("vocab_size", 1000),
    ];

    let start = Header::default()
        .with("general.architecture", Kv::Text(family.into()))
        .tensor("token_embd.weight", &[32], 0, 128);

    keys.iter().fold(start, |header, (key, value)| {
        header.with(&format!("{family}.{key}"), Kv::U32(*value))
    })
}

/// Adds the family's key to a header whose first pair is the family.
fn with_key(header: Header, key: &str, value: Kv) -> Header {
    let Kv::Text(family) = header.pairs[0].1.clone() else {
        panic!("the family comes first")
    };
    header.with(&format!("{family}.{key}"), value)
}

fn read(header: &Header) -> Result<Architecture, Unsupported> {
    match parse(&header.bytes().0, None).unwrap() {
        Progress::Complete(gguf) => architecture(&gguf),
        Progress::NeedMore { .. } => panic!("a whole header"),
    }
}

fn attention(known: &Architecture, layer: usize) -> &Attention {
    match &known.layers[layer].mixer {
        Mixer::Attention(attention) => attention,
        other => panic!("layer {layer}: {other:?}"),
    }
}

/// Returns one letter for each layer: `f` full, `w` window, `c` chunk, `x` cross,
/// `b` bidirectional.
fn spans(known: &Architecture) -> String {
    let span_letter = |layer: usize| match attention(known, layer).span {
        Span::Full => 'f',
        Span::Sliding { .. } => 'w',
        Span::Chunked { .. } => 'c',
        Span::Cross { .. } => 'x',
        Span::Bidirectional => 'b',
    };

    (0..known.layers.len()).map(span_letter).collect()
}

#[test]
fn head_defaults_match_llama_cpp() {
    let plain = read(&header("llama", 2)).unwrap();
    let Attention {
        heads,
        kv_heads,
        key_dim,
        value_dim,
        ..
    } = *attention(&plain, 0);

    assert_eq!((heads, kv_heads, key_dim, value_dim), (16, 16, 64, 64));
    assert_eq!(
        (plain.tied_embeddings, plain.task),
        (Some(true), Task::Generate)
    );

    let wide = with_key(
        with_key(header("qwen3", 2), "attention.key_length", Kv::U32(128)),
        "attention.head_count_kv",
        Kv::U32(2),
    );

    let Attention {
        kv_heads,
        key_dim,
        value_dim,
        ..
    } = *attention(&read(&wide).unwrap(), 1);

    assert_eq!((kv_heads, key_dim, value_dim), (2, 128, 64));
}

#[test]
fn windows_follow_family_rules() {
    let span_pattern = |family: &str, layers: u32, window: Option<u32>| {
        let header = header(family, layers);
        let header = match window {
            Some(window) => with_key(header, "attention.sliding_window", Kv::U32(window)),
            None => header,
        };
        spans(&read(&header).unwrap())
    };

    assert_eq!(span_pattern("gemma2", 4, None), "wfwf");
    assert_eq!(span_pattern("gemma3", 7, Some(512)), "wwwwwfw");
    assert_eq!(span_pattern("gemma3", 7, None), "fffffff");
    assert_eq!(span_pattern("gpt-oss", 4, Some(128)), "wfwf");
    assert_eq!(span_pattern("cohere2", 5, Some(4096)), "wwwfw");
    assert_eq!(span_pattern("olmo2", 5, Some(0)), "fffff");
    assert_eq!(span_pattern("smallthinker", 5, Some(4096)), "fwwwf");
    assert_eq!(span_pattern("llama4", 5, None), "cccfc");
    assert_eq!(span_pattern("llama4", 5, Some(0)), "fffff");
    assert_eq!(span_pattern("phi3", 3, Some(2047)), "fff");
    assert_eq!(span_pattern("exaone4", 3, Some(4096)), "fff");
    assert_eq!(&span_pattern("exaone4", 64, None)[..5], "wwwfw");
    assert_eq!(span_pattern("bert", 2, None), "bb");

    let read_listed = |flags: Vec<bool>| {
        let header = with_key(
            header("gemma4", 3),
            "attention.sliding_window",
            Kv::U32(512),
        );

        read(&with_key(
            header,
            "attention.sliding_window_pattern",
            Kv::Bools(flags),
        ))
    };

    assert_eq!(spans(&read_listed(vec![true, false, true]).unwrap()), "wfw");
    assert!(matches!(
        read_listed(vec![true]),
        Err(Unsupported::Contradiction { .. })
    ));

    let period = with_key(
        with_key(header("gemma3", 4), "attention.sliding_window", Kv::U32(8)),
        "attention.sliding_window_pattern",
        Kv::U32(2),
    );
    assert_eq!(spans(&read(&period).unwrap()), "wfwf");
}

#[test]
fn gemma_4_windows_have_other_heads() {
    let mut gemma = with_key(
        header("gemma4", 4),
        "attention.sliding_window",
        Kv::U32(512),
    );
    gemma = with_key(
        gemma,
        "attention.sliding_window_pattern",
        Kv::Bools(vec![true, true, false, true]),
    );

    gemma = with_key(gemma, "attention.head_count_kv", Kv::I32s(vec![8, 8, 2, 8]));
    gemma = with_key(gemma, "attention.shared_kv_layers", Kv::U32(1));

    for (key, value) in [
        ("key_length", 512),
        ("value_length", 512),
        ("key_length_swa", 256),
        ("value_length_swa", 256),
    ] {
        gemma = with_key(gemma, &format!("attention.{key}"), Kv::U32(value));
    }

    let known = read(&gemma).unwrap();
    let heads_of = |layer| {
        let attention = attention(&known, layer);
        (
            attention.kv_heads,
            attention.key_dim,
            attention.shares_cache,
        )
    };

    assert_eq!(
        [heads_of(0), heads_of(2), heads_of(3)],
        [(8, 256, false), (2, 512, false), (8, 256, true)]
    );
}

#[test]
fn gemma_3n_shares_after_twenty_layers() {
    let known = read(&with_key(
        header("gemma3n", 30),
        "attention.sliding_window",
        Kv::U32(512),
    ))
    .unwrap();
    assert!(!attention(&known, 19).shares_cache && attention(&known, 20).shares_cache);
}

fn with_states(mut header: Header) -> Header {
    for (key, value) in [
        ("conv_kernel", 4),
        ("inner_size", 2048),
        ("state_size", 128),
        ("time_step_rank", 16),
        ("group_count", 8),
    ] {
        header = with_key(header, &format!("ssm.{key}"), Kv::U32(value));
    }

    header
}

#[test]
fn hybrids_mix_states_and_attention() {
    let mamba = Mixer::Recurrent(Recurrent::Mamba2 {
        inner: 2048,
        heads: 16,
        head_dim: 128,
        state: 128,
        groups: 8,
        conv: 4,
    });

    let alternating_header = |family: &str| {
        with_key(
            with_states(header(family, 4)),
            "attention.head_count_kv",
            Kv::I32s(vec![0, 4, 0, 4]),
        )
    };

    let granite = read(&alternating_header("granitehybrid")).unwrap();
    assert_eq!(granite.layers[0].mixer, mamba);
    assert_eq!(attention(&granite, 1).kv_heads, 4);
    let mut nemotron = alternating_header("nemotron_h");
    nemotron
        .pairs
        .retain(|(key, _)| !key.ends_with("feed_forward_length"));

    let nemotron = read(&with_key(
        nemotron,
        "feed_forward_length",
        Kv::I32s(vec![0, 0, 8192, 0]),
    ))
    .unwrap();
    assert_eq!(nemotron.layers[0].mixer, mamba);
    assert_eq!(nemotron.layers[2].mixer, Mixer::None);

    assert_eq!(
        nemotron.layers[2].feed_forward,
        FeedForward::Dense { width: 8192 }
    );
    assert_eq!(nemotron.layers[0].feed_forward, FeedForward::None);
    let falcon = read(&with_states(header("falcon-h1", 2))).unwrap();
    assert_eq!(falcon.layers[1].second_mixer, Some(mamba));
    attention(&falcon, 1);

    let delta = Mixer::Recurrent(Recurrent::GatedDelta {
        key_heads: 8,
        value_heads: 16,
        key_dim: 128,
        value_dim: 128,
        conv: 4,
    });

    let qwen = read(&with_key(
        with_states(header("qwen35", 9)),
        "nextn_predict_layers",
        Kv::U32(1),
    ))
    .unwrap();
    assert_eq!((qwen.layers.len(), qwen.mtp_layers), (8, 1));

    assert_eq!(
        qwen.layers
            .iter()
            .map(|layer| layer.mixer == delta)
            .collect::<Vec<_>>(),
        [true, true, true, false, true, true, true, false]
    );

    let interval = read(&with_key(
        with_states(header("qwen35", 4)),
        "full_attention_interval",
        Kv::U32(2),
    ))
    .unwrap();
    assert_eq!(interval.layers[2].mixer, delta);
    attention(&interval, 1);

    let lfm = with_key(
        with_key(header("lfm2", 2), "shortconv.l_cache", Kv::U32(3)),
        "attention.head_count_kv",
        Kv::I32s(vec![0, 8]),
    );
    assert_eq!(
        read(&lfm).unwrap().layers[0].mixer,
        Mixer::Recurrent(Recurrent::ShortConv {
            width: 1024,
            conv: 3
        })
    );

    let rwkv = read(&with_key(header("rwkv7", 2), "wkv.head_size", Kv::U32(64))).unwrap();
    assert_eq!(
        rwkv.layers[0].mixer,
        Mixer::Recurrent(Recurrent::Rwkv {
            hidden: 1024,
            head_size: 64,
            token_shift: 2
        })
    );
}

#[test]
fn kimi_and_deepseek_have_latents() {
    let with_latent = |header: Header| {
        let keys = [
            ("kv_lora_rank", 512),
            ("key_length_mla", 192),
            ("value_length_mla", 128),
        ];
        let header = keys.iter().fold(header, |header, (key, value)| {
            with_key(header, &format!("attention.{key}"), Kv::U32(*value))
        });

        with_key(header, "rope.dimension_count", Kv::U32(64))
    };

    let mut kimi = with_latent(header("kimi-linear", 2));
    kimi = with_key(
        with_key(kimi, "kda.head_dim", Kv::U32(128)),
        "ssm.conv_kernel",
        Kv::U32(4),
    );

    let kimi = read(&with_key(
        kimi,
        "attention.head_count_kv",
        Kv::I32s(vec![0, 1]),
    ))
    .unwrap();
    assert_eq!(
        kimi.layers[0].mixer,
        Mixer::Recurrent(Recurrent::Kda {
            heads: 16,
            head_dim: 128,
            conv: 4
        })
    );

    let Mixer::Latent(latent) = &kimi.layers[1].mixer else {
        panic!("latent")
    };

    assert_eq!(
        (
            latent.kv_lora_rank,
            latent.rope_dim,
            latent.nope_dim,
            latent.value_dim
        ),
        (512, 64, 128, 128)
    );

    // Files from before mid-2025 lack these lengths, so all heads are cached.
    let old = with_key(
        header("deepseek2", 1),
        "attention.kv_lora_rank",
        Kv::U32(512),
    );
    attention(&read(&old).unwrap(), 0);
    let mut sparse = with_latent(header("glm-dsa", 3));
    assert!(matches!(read(&sparse), Err(Unsupported::Missing { .. })));

    for (key, value) in [("key_length", 128), ("head_count", 32), ("top_k", 2048)] {
        sparse = with_key(sparse, &format!("attention.indexer.{key}"), Kv::U32(value));
    }

    let sparse = read(&with_key(sparse, "nextn_predict_layers", Kv::U32(1))).unwrap();
    assert!(matches!(
        &sparse.layers[1].mixer,
        Mixer::Latent(latent) if latent.indexer.is_some_and(|indexer| indexer.head_dim == 128)
    ));
}

#[test]
fn layers_with_router_have_experts() {
    let mut mixture = with_key(
        with_key(header("glm4moe", 4), "expert_count", Kv::U32(8)),
        "expert_used_count",
        Kv::U32(2),
    );
    mixture = with_key(
        with_key(mixture, "expert_feed_forward_length", Kv::U32(512)),
        "expert_shared_count",
        Kv::U32(1),
    );

    mixture = with_key(mixture, "nextn_predict_layers", Kv::U32(1));
    for layer in 1..4 {
        mixture = mixture.tensor(
            &format!("blk.{layer}.ffn_gate_inp.weight"),
            &[1024, 8],
            0,
            1024 * 8 * 4,
        );
    }

    let known = read(&mixture).unwrap();
    let kinds: Vec<_> = known
        .layers
        .iter()
        .map(|layer| layer.feed_forward)
        .collect();

    assert_eq!(
        kinds,
        [
            FeedForward::Dense { width: 4096 },
            FeedForward::Experts,
            FeedForward::Experts
        ]
    );

    let experts = known.experts.unwrap();
    assert_eq!(
        (
            experts.count,
            experts.active,
            experts.width,
            experts.shared_width
        ),
        (8, 2, 512, 512)
    );
}

#[test]
fn task_follows_family_and_pooling() {
    let task_of = |header: Header| read(&header).unwrap().task;
    assert_eq!(task_of(header("nomic-bert", 2)), Task::Encode);
    assert_eq!(task_of(header("t5", 2)), Task::EncodeDecode);

    assert_eq!(
        task_of(with_key(header("qwen3", 2), "pooling_type", Kv::U32(3))),
        Task::Pool
    );
    assert_eq!(task_of(header("eurobert", 2)), Task::Encode);
    assert_eq!(task_of(header("llama-embed", 2)), Task::Pool);
    assert_eq!(task_of(header("rnd1", 2)), Task::Encode);
    assert_eq!(task_of(header("talkie", 2)), Task::Generate);

    let with_prediction = read(&with_key(
        header("hy_v3", 5),
        "nextn_predict_layers",
        Kv::U32(1),
    ))
    .unwrap();
    assert_eq!(
        (with_prediction.layers.len(), with_prediction.mtp_layers),
        (4, 1)
    );
}

fn assert_rejected(header: &Header, words: &str) {
    let error = read(header).unwrap_err().to_string();
    assert!(error.contains(words), "{error}");
}

#[test]
fn unsupported_keys_are_named() {
    assert_rejected(
        &header("unheard-of", 2),
        "general.architecture = unheard-of",
    );
    assert_rejected(&header("eagle3", 2), "a draft, which llama.cpp runs only");
    assert_rejected(&header("clip", 2), "a projector");

    // Keys that contradict the family's rule.
    assert_rejected(
        &with_key(header("llama", 2), "ssm.state_size", Kv::U32(16)),
        "llama.ssm.state_size is not understood",
    );
    assert!(read(&with_key(header("llama", 2), "ssm.state_size", Kv::U32(0))).is_ok());

    assert_rejected(
        &with_key(header("glm4moe", 2), "attention.indexer.top_k", Kv::U32(16)),
        "glm4moe.attention.indexer.top_k",
    );
    assert_rejected(
        &with_key(
            header("deepseek2", 2),
            "attention.indexer.head_count",
            Kv::U32(16),
        ),
        "attention.indexer.head_count",
    );

    assert_rejected(
        &with_key(
            header("qwen35", 4),
            "attention.compress_ratios",
            Kv::I32s(vec![4; 4]),
        ),
        "compress_ratios",
    );

    assert_rejected(
        &Header::default().tensor("a", &[1], 0, 4),
        "general.architecture is missing",
    );
}

fn without_key(key: &str) -> Header {
    let mut header = header("llama", 2);
    header.pairs.retain(|(name, _)| !name.ends_with(key));
    header
}

#[test]
fn invalid_values_are_named() {
    assert_rejected(&without_key("block_count"), "llama.block_count is missing");
    assert_rejected(
        &without_key("embedding_length"),
        "llama.embedding_length is missing",
    );
    assert_rejected(&without_key("vocab_size"), "llama.vocab_size is missing");
    let with_changed = |key: &str, value: Kv| with_key(without_key(key), key, value);
    assert_rejected(&with_changed("block_count", Kv::U32(0)), "must be larger");

    assert_rejected(
        &with_changed("block_count", Kv::U32(1 << 30)),
        "more layers than any model has",
    );
    assert_rejected(
        &with_changed("embedding_length", Kv::Text("x".into())),
        "not one whole number",
    );

    assert_rejected(
        &with_changed("attention.head_count", Kv::U32(7)),
        "does not divide by the heads",
    );
    assert_rejected(
        &with_changed("attention.head_count", Kv::I32s(vec![16])),
        "not as long as there are layers",
    );

    assert_rejected(
        &with_key(header("llama", 2), "attention.head_count_kv", Kv::U32(3)),
        "must divide the 16 query heads",
    );
    assert_rejected(
        &with_key(
            header("llama", 2),
            "attention.head_count_kv",
            Kv::I32s(vec![-1, 2]),
        ),
        "negative",
    );

    assert_rejected(
        &with_changed("context_length", Kv::U64(1 << 50)),
        "too large to be meant",
    );
    assert_rejected(&header("mamba2", 2), "ssm.conv_kernel is missing");

    assert_rejected(
        &with_key(header("qwen35", 4), "nextn_predict_layers", Kv::U32(4)),
        "not fewer than block_count",
    );
}

#[test]
fn window_list_can_omit_prediction_layers() {
    let header = with_key(header("mimo2", 5), "attention.sliding_window", Kv::U32(128));
    let header = with_key(
        header,
        "attention.sliding_window_pattern",
        Kv::Bools(vec![false, true, true, true]),
    );

    let known = read(&with_key(header, "nextn_predict_layers", Kv::U32(1))).unwrap();
    assert_eq!((spans(&known).as_str(), known.mtp_layers), ("fwww", 1));
}

/// Families of llama.cpp (`LLM_ARCH_NAMES`) that get figures.
const SUPPORTED: &str = "\
    llama llama4 deci falcon grok gpt2 gptj gptneox mpt baichuan starcoder refact bert \
    modern-bert nomic-bert nomic-bert-moe neo-bert jina-bert-v2 jina-bert-v3 eurobert bloom \
    stablelm qwen qwen2 qwen2moe qwen2vl qwen3 qwen3moe qwen3next qwen3vl qwen3vlmoe qwen35 \
    qwen35moe phi2 phi3 phimoe plamo plamo2 plamo3 codeshell orion internlm2 minicpm minicpm3 \
    gemma gemma2 gemma3 gemma3n gemma4 gemma-embedding starcoder2 mamba mamba2 jamba falcon-h1 \
    xverse command-r cohere2 cohere2moe dbrx olmo olmo2 olmoe openelm arctic deepseek deepseek2 \
    deepseek2-ocr deepseek32 chatglm glm4 glm4moe glm-dsa bitnet t5 t5encoder jais jais2 \
    nemotron nemotron_h nemotron_h_moe exaone exaone4 exaone-moe rwkv6 rwkv6qwen2 rwkv7 arwkv7 \
    granite granitemoe granitehybrid chameleon plm bailingmoe bailingmoe2 dots1 arcee afmoe \
    laguna ernie4_5 ernie4_5-moe hunyuan-moe hunyuan-dense hunyuan_vl hy_v3 smollm3 gpt-oss \
    lfm2 lfm2moe dream smallthinker llada llada-moe seed_oss grovemoe apertus minimax-m2 cogvlm \
    rnd1 pangu-embedded mistral3 mistral4 paddleocr mimo2 step35 llama-embed maincoder \
    kimi-linear talkie mellum sensenova_u1 flint vllm-decision2 qwen4exp gemma-embedding2 maple \
    muse-glimmer muse-spark deepseek4 deepseek41 granite_swa bailingmoe3 dots3note hy_v4 lfm3 \
    minimax-01 hrm_text limite minimax-m3 mistral-large4 spark2_5 maion-coder kimi-k3 glm5-next \
    nanbeige qwen3tts pockettts k2-horizon beam kolibri1";
/// Families of llama.cpp that are rejected.
///
/// They are draft models that use another model's states (EAGLE-3, DFlash, Gemma 4's assistant), a
/// projector, a vocoder, a decision head, and a router of adapters with a cache of its own.
const REJECTED: &str = "gemma4-assistant eagle3 dflash wavtokenizer-dec clip clef graniteswitch";

#[test]
fn every_family_is_supported_or_rejected() {
    let is_rejected = |family: &str| match read(&header(family, 4)) {
        Err(Unsupported::Family { key, .. }) => panic!("{family}: {key}"),
        Err(Unsupported::Unconfirmed { .. }) => true,
        _ => false,
    };

    for family in SUPPORTED.split_whitespace() {
        assert!(!is_rejected(family), "{family}");
    }

    for family in REJECTED.split_whitespace() {
        assert!(is_rejected(family), "{family}");
    }

    assert_eq!(
        (
            SUPPORTED.split_whitespace().count(),
            REJECTED.split_whitespace().count()
        ),
        (160, 7)
    );
}
