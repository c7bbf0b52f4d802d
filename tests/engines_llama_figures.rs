//! llama.cpp's figures against dry runs of its own allocators, exact to the byte where a run prints
//! bytes.
#![allow(clippy::unwrap_used, reason = "test helpers")]

use std::collections::BTreeMap;
use std::sync::LazyLock;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::{DeviceFacts, DeviceKind};
use hf_mem_core::engines::llama_cpp::LlamaCpp;
use hf_mem_core::engines::{
    AskedContext, AskedWorkload, ComponentName, DeviceSupport, Engine, EngineError, EngineRequest,
    EngineVersion, Interval, LaunchDevice, LaunchPlan, Offload, PreparedEngine, Split, Workload,
};
use hf_mem_core::model::{Model, PipelineComponent};
use serde_json::{Value, json};
use support::gguf_corpus::{corpus, descriptions, header, model, parsed};
use support::gguf_writer::{Header, Kv};

mod support {
    pub mod gguf_corpus;
    pub mod gguf_writer;
}

const MIB: u64 = 1 << 20;

/// The build of the dry runs.
static DRY_RUN_BUILD: LazyLock<EngineVersion> = LazyLock::new(|| "b10450".parse().unwrap());

/// A header with only metadata.
fn metadata(family: &str, keys: &[(&str, u32)]) -> Header {
    let mut header = Header::default()
        .with("general.architecture", Kv::Text(family.into()))
        .tensor("output.weight", &[256, 4], 0, 4096);
    for (key, value) in keys {
        header = header.with(&format!("{family}.{key}"), Kv::U32(*value));
    }

    header
}

fn attention(
    layers: u32,
    hidden: u32,
    wide: u32,
    heads: [u32; 3],
    vocabulary: u32,
    context: u32,
) -> Vec<(&'static str, u32)> {
    vec![
        ("block_count", layers),
        ("embedding_length", hidden),
        ("feed_forward_length", wide),
        ("attention.head_count", heads[0]),
        ("attention.head_count_kv", heads[1]),
        ("attention.key_length", heads[2]),
        ("attention.value_length", heads[2]),
        ("vocab_size", vocabulary),
        ("context_length", context),
    ]
}

fn extended(
    mut keys: Vec<(&'static str, u32)>,
    more: &[(&'static str, u32)],
) -> Vec<(&'static str, u32)> {
    keys.extend(more);
    keys
}

fn llama_8b() -> Header {
    metadata(
        "llama",
        &attention(32, 4096, 14336, [32, 8, 128], 128_256, 131_072),
    )
}

fn llama_70b() -> Header {
    metadata(
        "llama",
        &attention(80, 8192, 28672, [64, 8, 128], 128_256, 131_072),
    )
}

fn gemma3_27b() -> Header {
    let keys = attention(62, 5376, 21504, [32, 16, 128], 262_208, 131_072);
    metadata(
        "gemma3",
        &extended(keys, &[("attention.sliding_window", 1024)]),
    )
}

fn gpt_oss_120b() -> Header {
    let keys = attention(36, 2880, 2880, [64, 8, 64], 201_088, 131_072);
    let experts = [
        ("expert_count", 128),
        ("expert_used_count", 4),
        ("expert_feed_forward_length", 2880),
    ];

    metadata(
        "gpt-oss",
        &extended(
            extended(keys, &experts),
            &[("attention.sliding_window", 128)],
        ),
    )
}

fn qwen3_30b() -> Header {
    let keys = attention(48, 2048, 6144, [32, 4, 128], 151_936, 40_960);
    let experts = [
        ("expert_count", 128),
        ("expert_used_count", 8),
        ("expert_feed_forward_length", 768),
    ];

    metadata("qwen3moe", &extended(keys, &experts))
}

fn deepseek_v3() -> Header {
    let keys = attention(61, 7168, 18432, [128, 1, 576], 129_280, 163_840);
    let experts = [
        ("expert_count", 256),
        ("expert_used_count", 8),
        ("expert_feed_forward_length", 2048),
    ];

    let latent = [
        ("attention.kv_lora_rank", 512),
        ("attention.q_lora_rank", 1536),
        ("attention.key_length_mla", 192),
        ("attention.value_length_mla", 128),
        ("rope.dimension_count", 64),
        ("expert_shared_count", 1),
    ];

    metadata("deepseek2", &extended(extended(keys, &experts), &latent))
}

fn qwen3_next() -> Header {
    let keys = attention(48, 2048, 5120, [16, 2, 256], 151_936, 262_144);
    let experts = [
        ("expert_count", 512),
        ("expert_used_count", 10),
        ("expert_feed_forward_length", 512),
    ];

    let states = [
        ("ssm.conv_kernel", 4),
        ("ssm.inner_size", 4096),
        ("ssm.state_size", 128),
        ("ssm.time_step_rank", 32),
        ("ssm.group_count", 16),
    ];

    metadata("qwen3next", &extended(extended(keys, &experts), &states))
}

fn card(multiprocessors: u32) -> DeviceFacts {
    DeviceFacts {
        uuid: "GPU-1".into(),
        index: 0,
        name: "NVIDIA H100 80GB HBM3".into(),
        kind: DeviceKind::Gpu,
        total_bytes: Bytes::gib(80),
        reserved_bytes: None,
        compute_capability: Some((9, 0)),
        multiprocessors: Some(multiprocessors),
        parent_uuid: None,
        pci_bus_id: None,
        numa_node: None,
    }
}

/// Prepares llama.cpp for `model`.
fn prepared<'a>(
    model: &'a Model,
    devices: &'a [DeviceFacts],
    asked: AskedWorkload,
    parameters: &'a BTreeMap<String, Value>,
) -> Result<Box<dyn PreparedEngine + 'a>, EngineError> {
    LlamaCpp.prepare(&EngineRequest {
        model,
        version: Some(&DRY_RUN_BUILD),
        parameters,
        asked,
        devices,
    })
}

fn set(pairs: &[(&str, Value)]) -> BTreeMap<String, Value> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.clone()))
        .collect()
}

fn tokens(context: u64) -> AskedWorkload {
    AskedWorkload {
        context: Some(AskedContext::Tokens(context)),
        ..AskedWorkload::default()
    }
}

fn part(prepared_engine: &dyn PreparedEngine, name: ComponentName) -> Interval {
    let split = prepared_engine.splits(1).unwrap().remove(0);
    let (facts, workload) = (card(132), prepared_engine.workload());
    let mut all = prepared_engine.fixed(&split, 0, &facts).unwrap();
    all.extend(
        prepared_engine
            .variable(&split, 0, &facts, workload)
            .unwrap(),
    );

    all.iter()
        .filter(|part| part.name == name)
        .map(|part| part.bytes)
        .sum()
}

/// Bytes of the cache and states of all layers on one device.
fn cache(header: &Header, context: u64, parameters: &[(&str, Value)]) -> (u64, u64) {
    let (model, devices, parameters) = (model(parsed(header)), [card(132)], set(parameters));
    let prepared_engine = prepared(&model, &devices, tokens(context), &parameters).unwrap();
    let bytes_of = |name| part(&*prepared_engine, name).likely.get();
    (
        bytes_of(ComponentName::KvCache),
        bytes_of(ComponentName::State),
    )
}

#[test]
fn caches_match_allocator() {
    let one_slot = [("n_parallel", json!(1))];
    let one_slot_cache = |header: &Header, context| cache(header, context, &one_slot).0;
    assert_eq!(one_slot_cache(&llama_8b(), 131_072), 17_179_869_184);

    let quantized_cache = |kind: &str| {
        cache(
            &llama_8b(),
            131_072,
            &[("np", json!(1)), ("ctk", json!(kind)), ("ctv", json!(kind))],
        )
    };

    assert_eq!(quantized_cache("q8_0").0, 9_126_805_504);
    assert_eq!(quantized_cache("q4_0").0, 4_831_838_208);
    assert_eq!(one_slot_cache(&gemma3_27b(), 131_072), 11_391_729_664);
    assert_eq!(cache(&gemma3_27b(), 131_072, &[]).0, 12_700_352_512);

    assert_eq!(
        cache(&gemma3_27b(), 32_768, &[("n_parallel", json!(4))]).0,
        13_354_663_936
    );
    assert_eq!(
        cache(
            &gemma3_27b(),
            131_072,
            &[("np", json!(1)), ("swa_full", json!(true))]
        )
        .0,
        66_571_993_088
    );

    let q8 = [
        ("np", json!(1)),
        ("ctk", json!("q8_0")),
        ("ctv", json!("q8_0")),
    ];
    assert_eq!(cache(&gemma3_27b(), 131_072, &q8).0, 6_051_856_384);
    assert_eq!(one_slot_cache(&gpt_oss_120b(), 131_072), 4_860_149_760);
    assert_eq!(cache(&gpt_oss_120b(), 131_072, &[]).0, 4_869_586_944);
    assert_eq!(one_slot_cache(&deepseek_v3(), 163_840), 11_513_364_480);
    assert_eq!(cache(&qwen3_next(), 131_072, &one_slot).1, 79_036_416);
    assert_eq!(cache(&qwen3_next(), 131_072, &[]).1, 316_145_664);
    let (kv, state) = cache(&qwen3_next(), 131_072, &one_slot);
    assert_eq!(kv + state, 3_300_261_888);
    let (kv, state) = cache(&qwen3_next(), 131_072, &[]);
    assert_eq!(kv + state, 3_537_371_136);
}

/// Mamba-2.8B: 64 layers, F32 states.
#[test]
fn states_are_f32() {
    let keys = [
        ("block_count", 64),
        ("embedding_length", 2560),
        ("feed_forward_length", 0),
        ("attention.head_count", 0),
        ("vocab_size", 50_280),
        ("context_length", 1 << 20),
        ("ssm.conv_kernel", 4),
        ("ssm.inner_size", 5120),
        ("ssm.state_size", 16),
        ("ssm.time_step_rank", 160),
    ];
    assert_eq!(
        cache(&metadata("mamba", &keys), 8192, &[("np", json!(1))]),
        (0, 24_903_680)
    );
}

/// Llama 4 Scout: 36 chunked layers of 48.
#[test]
fn chunked_layers_use_windowed_cache() {
    let keys = attention(48, 5120, 16_384, [40, 8, 128], 202_048, 10_485_760);
    let experts = [
        ("expert_count", 16),
        ("expert_used_count", 1),
        ("expert_feed_forward_length", 8192),
    ];

    let header = metadata("llama4", &extended(keys, &experts));
    let row = 2 * 8 * 128 * 2;
    assert_eq!(
        cache(&header, 131_072, &[("np", json!(1))]).0,
        row * (12 * 131_072 + 36 * (8192 + 512))
    );

    assert_eq!(
        cache(&header, 131_072, &[]).0,
        row * (12 * 131_072 + 36 * (4 * 8192 + 512))
    );
}

/// (header, context, further parameters, MiB of the dry run whose allocator also holds the input
/// embedding, percent by which the formula may exceed it).
type Row = (
    fn() -> Header,
    u64,
    &'static [(&'static str, u64)],
    f64,
    f64,
);

const WITHOUT: (&str, u64) = ("flash_attn", 0);
const LARGE: (&str, u64) = ("n_ubatch", 2048);
const ALL: (&str, u64) = ("n_outputs_max", 512);

const COMPUTE: &[Row] = &[
    (llama_8b, 4096, &[], 120.0, 0.1),
    (llama_8b, 32_768, &[], 148.0, 0.1),
    (llama_8b, 131_072, &[], 244.0, 0.1),
    (llama_8b, 131_072, &[LARGE], 976.1, 0.1),
    (llama_8b, 8192, &[WITHOUT], 572.0, 4.0),
    (llama_8b, 32_768, &[ALL], 266.5, 6.1),
    (llama_70b, 4096, &[], 236.0, 0.1),
    (llama_70b, 131_072, &[], 360.0, 0.1),
    (llama_70b, 32_768, &[LARGE], 1056.1, 0.1),
    (llama_70b, 32_768, &[WITHOUT], 4244.0, 4.0),
    (llama_70b, 32_768, &[ALL], 282.5, 11.4),
    (qwen3_30b, 4096, &[], 92.0, 5.0),
    (qwen3_30b, 32_768, &[], 120.0, 5.0),
    (qwen3_30b, 131_072, &[], 216.0, 5.0),
    (qwen3_30b, 32_768, &[LARGE], 480.1, 5.0),
    (qwen3_30b, 32_768, &[WITHOUT], 2142.0, 4.0),
    (qwen3_30b, 32_768, &[ALL], 304.8, 2.7),
    (gemma3_27b, 4096, &[], 171.0, 1.0),
    (gemma3_27b, 131_072, &[], 295.0, 1.0),
    (gemma3_27b, 131_072, &[LARGE], 1186.0, 1.0),
    (gemma3_27b, 32_768, &[WITHOUT], 2179.0, 4.0),
    (gemma3_27b, 32_768, &[ALL], 543.5, 3.0),
    (gpt_oss_120b, 4096, &[], 97.1, 0.1),
    (gpt_oss_120b, 131_072, &[], 221.1, 0.1),
    (gpt_oss_120b, 131_072, &[LARGE], 890.6, 0.1),
    (gpt_oss_120b, 32_768, &[WITHOUT], 4198.0, 4.0),
    (gpt_oss_120b, 32_768, &[ALL], 409.6, 2.0),
    (deepseek_v3, 4096, &[], 412.0, 3.0),
    (deepseek_v3, 131_072, &[], 536.0, 3.0),
    (deepseek_v3, 32_768, &[LARGE], 1760.0, 3.0),
    (deepseek_v3, 32_768, &[WITHOUT], 8648.0, 4.0),
    (deepseek_v3, 32_768, &[ALL], 440.0, 3.0),
    (qwen3_next, 4096, &[], 92.1, 26.0),
    (qwen3_next, 131_072, &[], 216.1, 26.0),
    (qwen3_next, 32_768, &[WITHOUT], 1130.0, 4.0),
    (qwen3_next, 32_768, &[ALL], 340.8, 26.0),
];

#[test]
fn compute_buffers_cover_dry_run() {
    let mut wrong = Vec::new();
    for (header, context, parameters, measured, above) in COMPUTE {
        let (model, devices) = (model(parsed(&header())), [card(132)]);
        let mut all: Vec<(&str, Value)> = parameters
            .iter()
            .map(|(name, value)| (*name, json!(value)))
            .collect();
        all.push(("n_parallel", json!(1)));
        let all = set(&all);
        let prepared_engine = prepared(&model, &devices, tokens(*context), &all).unwrap();

        #[expect(
            clippy::cast_precision_loss,
            reason = "a comparison with a printed figure"
        )]
        let high = part(&*prepared_engine, ComponentName::Activations)
            .high
            .get() as f64
            / MIB as f64;

        // The dry run prints tenths of a MiB.
        if high < measured - 0.06 || high > measured * (1.0 + above / 100.0) + 0.06 {
            wrong.push(format!(
                "{} {context} {parameters:?}: {high:.1}, measured {measured}",
                prepared_engine.parameters()["n_ctx"]
            ));
        }
    }

    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn compute_buffers_match_dry_run_bytes() {
    let buffer_of = |header: &Header, context| {
        let (model, devices, parameters) =
            (model(parsed(header)), [card(132)], set(&[("np", json!(1))]));
        let prepared_engine = prepared(&model, &devices, tokens(context), &parameters).unwrap();
        part(&*prepared_engine, ComponentName::Activations)
    };

    assert_eq!(
        buffer_of(&llama_8b(), 131_072).high,
        Bytes::new(255_864_864)
    );
    let mixture = buffer_of(&qwen3_30b(), 32_768);
    assert!(
        mixture.low <= Bytes::new(125_841_440) && Bytes::new(125_841_440) <= mixture.high,
        "{mixture:?}"
    );
}

#[test]
fn quantized_cache_adds_fp16_copies() {
    let buffer_with = |kind: &str| {
        let parameters = set(&[("np", json!(1)), ("ctk", json!(kind)), ("ctv", json!(kind))]);
        let (model, devices) = (model(parsed(&llama_8b())), [card(132)]);
        let prepared_engine = prepared(&model, &devices, tokens(131_072), &parameters).unwrap();
        part(&*prepared_engine, ComponentName::Activations)
            .likely
            .get()
    };

    assert_eq!(buffer_with("q8_0") - buffer_with("f16"), 512 * MIB);
    assert_eq!(buffer_with("bf16") - buffer_with("f16"), 512 * MIB);
}

#[test]
fn weights_match_file_tensors() {
    let Some(corpus) = corpus() else { return };
    for (name, description) in descriptions(&corpus) {
        let gguf = parsed(&header(&description));
        assert_eq!(
            gguf.data_bytes.get(),
            description["data_bytes"].as_u64().unwrap(),
            "{name}"
        );

        assert_eq!(
            gguf.inventory.elements(),
            description["total_params"].as_u64().unwrap(),
            "{name}"
        );

        let stored = gguf.inventory.bytes().get();
        match name.rsplit("__").next().unwrap() {
            "Meta-Llama-3.1-8B-Instruct-Q8_0" => assert_eq!(stored, 8_532_934_656 + 256),
            "Qwen3-30B-A3B-Q8_0" => assert_eq!(stored, 32_477_962_240),
            "gpt-oss-120b-mxfp4" => assert_eq!(stored, 63_374_323_968),
            _ => {}
        }

        let (model, devices, parameters) = (model(gguf), [card(132)], BTreeMap::new());
        let prepared_engine = prepared(&model, &devices, tokens(4096), &parameters)
            .unwrap_or_else(|why| panic!("{name}: {why}"));
        let split = prepared_engine.splits(1).unwrap().remove(0);
        let host: Bytes = prepared_engine
            .host(&split, prepared_engine.workload())
            .unwrap()
            .iter()
            .take(1)
            .map(|part| part.bytes.high)
            .sum();

        println!(
            "{name}: device {} host {host}",
            part(&*prepared_engine, ComponentName::Weights).likely
        );
    }
}

#[test]
fn device_shares_add_up_to_whole() {
    let Some(corpus) = corpus() else { return };
    for (name, description) in descriptions(&corpus) {
        let model = model(parsed(&header(&description)));
        let (devices, parameters) = ([card(132)], BTreeMap::new());
        let prepared_engine = prepared(&model, &devices, tokens(4096), &parameters).unwrap();
        let total_over = |count: u32| {
            let split = prepared_engine.splits(count).unwrap().remove(0);
            prepared_engine.check(&split).unwrap();

            let bytes_on = |rank| {
                let mut all = prepared_engine.fixed(&split, rank, &devices[0]).unwrap();
                all.extend(
                    prepared_engine
                        .variable(&split, rank, &devices[0], prepared_engine.workload())
                        .unwrap(),
                );

                let wanted = [
                    ComponentName::Weights,
                    ComponentName::KvCache,
                    ComponentName::State,
                ];

                all.into_iter()
                    .filter(|part| wanted.contains(&part.name))
                    .map(|part| part.bytes.likely)
                    .sum::<Bytes>()
            };

            (0..count as usize).map(bytes_on).sum::<Bytes>().get()
        };

        // Every device holds the RoPE factors: some hundred bytes.
        assert!(total_over(3) - total_over(1) <= 1024, "{name}");
        assert!(total_over(2) >= total_over(1), "{name}");
    }
}

#[test]
fn offload_moves_weights_to_host() {
    let Some(corpus) = corpus() else { return };
    let all = descriptions(&corpus);
    let (_, description) = all
        .iter()
        .find(|(name, _)| name.contains("Qwen3-30B-A3B-Q8_0"))
        .unwrap();
    let model = model(parsed(&header(description)));
    let (devices, parameters) = ([card(132)], BTreeMap::new());
    let prepared_engine = prepared(&model, &devices, tokens(4096), &parameters).unwrap();

    let bytes_with = |offload| {
        let split = Split {
            offload,
            ..prepared_engine.splits(1).unwrap().remove(0)
        };

        prepared_engine.check(&split).unwrap();
        let sum_of = |parts: Vec<hf_mem_core::engines::Component>, name| {
            parts
                .iter()
                .filter(|part| part.name == name)
                .map(|part| part.bytes.likely.get())
                .sum::<u64>()
        };

        let device = sum_of(
            prepared_engine.fixed(&split, 0, &devices[0]).unwrap(),
            ComponentName::Weights,
        );
        let cache = sum_of(
            prepared_engine
                .variable(&split, 0, &devices[0], prepared_engine.workload())
                .unwrap(),
            ComponentName::KvCache,
        );

        let host = prepared_engine
            .host(&split, prepared_engine.workload())
            .unwrap()
            .remove(0)
            .bytes
            .likely
            .get();

        (device, cache, host)
    };

    let none = bytes_with(Offload::None);
    let half = bytes_with(Offload::Experts { layers: 24 });
    let experts = bytes_with(Offload::Experts { layers: 48 });

    // 3 matrices of 128 experts of 2048 x 768, Q8_0, in 24 layers.
    let half_bytes = 24 * 3 * 128 * 2048 * 768 * 34 / 32;
    assert_eq!(half.2 - none.2, half_bytes);

    // On the device, each tensor pads its rows of 768 once.
    let assert_padding = |layers: u64, moved: u64, bytes: u64| {
        assert!(moved >= bytes && moved <= bytes + layers * 3 * 512);
    };

    assert_padding(24, none.0 - half.0, half_bytes);
    assert_padding(48, none.0 - experts.0, 2 * half_bytes);
    assert_eq!(half.1, none.1, "the cache stays on the device");
    let layers = bytes_with(Offload::Layers { layers: 12 });
    assert_eq!(layers.1, none.1 / 48 * 36);
    let nothing = bytes_with(Offload::Layers { layers: 49 });
    assert_eq!((nothing.0, nothing.1), (0, 0));
    assert_eq!(nothing.2, model.inventory.bytes().get());
}

#[test]
fn tied_embedding_is_held_twice() {
    let header = metadata("llama", &attention(2, 256, 512, [4, 4, 64], 1000, 4096));
    let mut tied = header.clone();
    tied.tensors = vec![(
        "token_embd.weight".into(),
        vec![256, 1000],
        8,
        256 * 1000 / 32 * 34,
    )];

    let (model, devices, parameters) = (model(parsed(&tied)), [card(132)], BTreeMap::new());
    let prepared_engine = prepared(&model, &devices, tokens(512), &parameters).unwrap();

    // 256 is not a multiple of 512, so the device's copy has half a row more, and 128 bytes of
    // alignment.
    let on_device = (256_u64 * 1000 / 32 * 34 + 256 / 32 * 34).next_multiple_of(128);
    assert_eq!(
        part(&*prepared_engine, ComponentName::Weights).likely.get(),
        on_device
    );
    let host = prepared_engine
        .host(
            &prepared_engine.splits(1).unwrap()[0],
            prepared_engine.workload(),
        )
        .unwrap();
    assert_eq!(host[0].bytes.likely.get(), 256 * 1000 / 32 * 34);
}

#[test]
fn need_grows_with_workload() {
    for header in [llama_8b(), gemma3_27b(), deepseek_v3(), qwen3_next()] {
        let (model, devices, parameters) = (model(parsed(&header)), [card(132)], BTreeMap::new());
        let prepared_engine = prepared(&model, &devices, tokens(4096), &parameters).unwrap();
        let split = prepared_engine.splits(1).unwrap().remove(0);
        let need_for = |context, sequences| {
            let all = prepared_engine
                .variable(&split, 0, &devices[0], Workload { context, sequences })
                .unwrap();
            all.iter().map(|part| part.bytes.high).sum::<Bytes>()
        };

        for sequences in [1, 2, 4, 5, 8] {
            for context in [1, 255, 256, 257, 1000, 4096, 32_768, 131_072] {
                assert!(need_for(context, sequences) <= need_for(context + 1, sequences));
                assert!(need_for(context, sequences) <= need_for(context, sequences + 1));
            }
        }
    }
}

#[test]
fn launch_line_matches_answer() {
    let model = model(parsed(&llama_8b()));
    let (first, mut second) = (card(132), card(132));
    second.uuid = "GPU-2".into();
    let devices = [first, second];

    let asked = AskedWorkload {
        sequences: Some(2),
        kv_cache_dtype: Some("q8_0".into()),
        ..tokens(8000)
    };

    let parameters = BTreeMap::new();
    let prepared_engine = prepared(&model, &devices, asked, &parameters).unwrap();

    let split = Split {
        tensor: 1,
        stages: vec![0..20, 20..33],
        expert_parallel: false,
        offload: Offload::Layers { layers: 3 },
    };

    let launch_device = |facts| LaunchDevice {
        facts,
        available: Bytes::ZERO,
        required: Bytes::ZERO,
        free: None,
    };

    let plans = [launch_device(&devices[0]), launch_device(&devices[1])];
    let launch = prepared_engine.launch(&LaunchPlan {
        split: &split,
        workload: prepared_engine.workload(),
        devices: &plans,
    });

    let line = launch.args.join(" ");
    assert_eq!(
        line,
        "llama-server -hf owner/name-GGUF -hff name-Q8_0.gguf -c 16384 -np 2 -b 2048 -ub 512 -fa on -ctk q8_0 -ctv q8_0 \
         -ngl 30 -ts 17,13 --fit off"
    );

    assert_eq!(launch.env["CUDA_VISIBLE_DEVICES"], "GPU-1,GPU-2");
}

#[test]
fn invalid_requests_state_reason() {
    let assert_rejected = |model: &Model, parameters: &[(&str, Value)], words: &str| {
        let (devices, parameters) = ([card(132)], set(parameters));
        let error = prepared(model, &devices, tokens(4096), &parameters)
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains(words), "{error}");
    };

    let mut other = model(parsed(&llama_8b()));
    assert_rejected(
        &other,
        &[("flash_attn", json!("off")), ("type_v", json!("q8_0"))],
        "needs flash attention",
    );

    assert_rejected(
        &other,
        &[("n_ctx", json!(100))],
        "less than the requested 1 x 4096 tokens",
    );

    other.format = hf_mem_core::model::Format::Safetensors;
    assert_rejected(&other, &[], "llama.cpp runs GGUF files");

    assert_rejected(
        &model(parsed(&metadata("brand-new", &[]))),
        &[],
        "general.architecture = brand-new",
    );

    let strange = llama_8b().tensor("blk.0.x.weight", &[256], 137, 64);
    assert_rejected(&model(parsed(&strange)), &[], "cannot size tensor type");
}

#[test]
fn fit_margin_is_required() {
    let (model, devices) = (model(parsed(&llama_8b())), [card(132)]);
    let sum = Interval::exact(Bytes::gib(10));
    let parameters = set(&[("fit", json!(false))]);
    let prepared_engine = prepared(&model, &devices, tokens(4096), &parameters).unwrap();
    assert_eq!(
        prepared_engine.must_be_available(&Split::single(32), &devices[0], sum),
        sum
    );
    assert_eq!(
        prepared_engine.device_fitness(&devices[0]),
        DeviceSupport::Able
    );
    let parameters = BTreeMap::new();
    let prepared_engine = prepared(&model, &devices, tokens(4096), &parameters).unwrap();

    // 1024 MiB, which include the libraries' 32 and up to 300 MiB.
    let sum = Interval::new(
        Bytes::gib(10),
        Bytes::gib(10) + Bytes::mib(100),
        Bytes::gib(10) + Bytes::mib(300),
    );
    assert_eq!(
        prepared_engine
            .must_be_available(&Split::single(32), &devices[0], sum)
            .high,
        Bytes::gib(10) + Bytes::mib(1024 - 32)
    );
}

#[test]
fn projector_is_on_first_device() {
    let mut model = model(parsed(&llama_8b()));
    model.components.push(PipelineComponent {
        name: "mmproj".into(),
        class: "mmproj-F16.gguf".into(),
        bytes: Bytes::mib(800),
        config: None,
    });

    let (devices, parameters) = ([card(132)], BTreeMap::new());
    let prepared_engine = prepared(&model, &devices, tokens(4096), &parameters).unwrap();
    let split = prepared_engine.splits(2).unwrap().remove(0);
    let projector_bytes = |rank| {
        let parts = prepared_engine.fixed(&split, rank, &devices[0]).unwrap();
        parts
            .iter()
            .filter(|part| part.detail.contains("projector"))
            .map(|part| part.bytes.low)
            .sum::<Bytes>()
    };

    assert_eq!(projector_bytes(0), Bytes::mib(800 + 100));
    assert_eq!(projector_bytes(1), Bytes::ZERO);
    assert_eq!(
        prepared_engine.parameters()["mmproj"],
        json!("mmproj-F16.gguf")
    );
}

#[test]
fn fixed_tensor_split_is_used() {
    let (model, devices) = (model(parsed(&llama_8b())), [card(132)]);
    let parameters = set(&[("ts", json!("3,1")), ("ngl", json!(20))]);
    let prepared_engine = prepared(&model, &devices, tokens(4096), &parameters).unwrap();
    assert!(!prepared_engine.uneven());
    assert_eq!(
        prepared_engine.splits(2).unwrap()[0].stages,
        [0..28, 28..33]
    );
    assert!(prepared_engine.splits(3).is_err());

    let cache_on = |rank| {
        let parts = prepared_engine
            .variable(
                &prepared_engine.splits(2).unwrap()[0],
                rank,
                &devices[0],
                prepared_engine.workload(),
            )
            .unwrap();
        parts
            .iter()
            .find(|part| part.name == ComponentName::KvCache)
            .unwrap()
            .bytes
            .likely
            .get()
    };

    // Layers 0 to 12 are on the host.
    assert_eq!(
        (cache_on(0), cache_on(1)),
        (15 * 4096 * 4096, 4 * 4096 * 4096)
    );
}

#[test]
fn cast_mask_counts_twice() {
    let (model, devices, parameters) = (model(parsed(&llama_8b())), [card(132)], BTreeMap::new());
    let buffer_at = |version: Option<&str>| {
        let asked = tokens(131_072);
        let version = version.map(|version| version.parse().unwrap());
        let request = EngineRequest {
            model: &model,
            version: version.as_ref(),
            parameters: &parameters,
            asked,
            devices: &devices,
        };

        let prepared_engine = LlamaCpp.prepare(&request).unwrap();
        let split = prepared_engine.splits(1).unwrap().remove(0);
        let parts = prepared_engine
            .variable(&split, 0, &devices[0], prepared_engine.workload())
            .unwrap();

        parts
            .iter()
            .find(|part| part.name == ComponentName::Activations)
            .unwrap()
            .bytes
    };

    let small = Bytes::new(512 * 24 + 32);

    // 384 MiB of masks in F32 and F16, and four rows of the residual stream; build 3943 printed
    // 416.0 MiB.
    assert_eq!(buffer_at(Some("b3943")).likely, Bytes::mib(416) + small);

    // Later builds make the mask in F16: 128 MiB in addition to a feed-forward of 108.
    assert_eq!(
        buffer_at(Some("b10450")).likely,
        Bytes::mib(128 + 108) + small
    );

    // Vulkan keeps both masks to the end, in addition to the logits of a whole micro-batch.
    assert!(
        buffer_at(Some("b5781")).high
            >= Bytes::mib(384) + Bytes::new(4 * 512 * 128_256 + 4 * 512 * 4096 * 4)
    );
}
