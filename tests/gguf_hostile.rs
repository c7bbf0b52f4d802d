//! Damaged and hostile GGUF headers get an answer or an error with a reason, and never a panic.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::{DeviceFacts, DeviceKind};
use hf_mem_core::engines::llama_cpp::LlamaCpp;
use hf_mem_core::engines::{AskedWorkload, Engine, EngineRequest};
use hf_mem_core::model::gguf::{MAX_HEADER_BYTES, Progress, architecture, parse};
use hf_mem_core::model::{Format, Model};
use proptest::prelude::*;
use support::gguf_writer::{Header, Kv};

mod support {
    pub mod gguf_writer;
}

fn device() -> DeviceFacts {
    DeviceFacts {
        uuid: "GPU-1".into(),
        index: 0,
        name: String::new(),
        kind: DeviceKind::Gpu,
        total_bytes: Bytes::gib(24),
        reserved_bytes: None,
        compute_capability: None,
        multiprocessors: None,
        parent_uuid: None,
        pci_bus_id: None,
        numa_node: None,
    }
}

fn header(family: &str) -> Header {
    let mut header = Header::default().with("general.architecture", Kv::Text(family.into()));
    let keys = [
        ("block_count", 4),
        ("context_length", 4096),
        ("embedding_length", 256),
        ("feed_forward_length", 512),
        ("attention.head_count", 4),
        ("attention.sliding_window", 128),
        ("expert_count", 4),
        ("expert_used_count", 2),
        ("vocab_size", 1000),
        ("ssm.conv_kernel", 4),
        ("ssm.inner_size", 512),
        ("ssm.state_size", 16),
        ("ssm.time_step_rank", 8),
        ("ssm.group_count", 2),
        ("nextn_predict_layers", 1),
    ];

    for (key, value) in keys {
        header = header.with(&format!("{family}.{key}"), Kv::U32(value));
    }

    header = header
        .with(
            &format!("{family}.attention.head_count_kv"),
            Kv::I32s(vec![2, 0, 2, 0]),
        )
        .with(
            &format!("{family}.attention.sliding_window_pattern"),
            Kv::Bools(vec![true, false, true, true]),
        )
        .with("tokenizer.ggml.tokens", Kv::Texts(20))
        .with("general.alignment", Kv::U32(32))
        .tensor("token_embd.weight", &[256, 1000], 12, 144 * 1000);

    for layer in 0..4 {
        header = header
            .tensor(
                &format!("blk.{layer}.attn_q.weight"),
                &[256, 256],
                8,
                256 * 8 * 34,
            )
            .tensor(
                &format!("blk.{layer}.ffn_up_exps.weight"),
                &[256, 512, 4],
                12,
                144 * 512 * 4,
            );
    }

    header
}

/// Parses a header and plans with the model that it describes.
fn parse_and_plan(bytes: &[u8], file_bytes: Option<u64>) {
    let gguf = match parse(bytes, file_bytes) {
        Ok(Progress::Complete(gguf)) => *gguf,
        Ok(Progress::NeedMore { at_least }) => {
            assert!(at_least > bytes.len() as u64 && at_least <= MAX_HEADER_BYTES);
            return;
        }
        Err(error) => {
            assert!(
                error.to_string().len() < 2000,
                "the message is short: {error}"
            );
            return;
        }
    };

    let architecture = architecture(&gguf);
    if let Ok(known) = &architecture {
        assert!(known.layers.len() <= 4096);
    }

    let model = Model::bare("", Format::Gguf, architecture, gguf.inventory);
    let (devices, parameters) = ([device()], BTreeMap::new());

    let request = EngineRequest {
        model: &model,
        version: None,
        parameters: &parameters,
        asked: AskedWorkload::default(),
        devices: &devices,
    };

    let Ok(prepared) = LlamaCpp.prepare(&request) else {
        return;
    };

    for count in 1..4 {
        for split in prepared.splits(count).unwrap_or_default() {
            for rank in 0..split.ranks() {
                let _ = prepared.fixed(&split, rank, &devices[0]);
                let _ = prepared.variable(&split, rank, &devices[0], prepared.workload());
            }
            let _ = prepared.host(&split, prepared.workload());
        }
    }

    let _ = (
        prepared.kv_bytes_per_token(),
        prepared.state_bytes_per_sequence(),
        prepared.assumptions(),
        prepared.parameters(),
    );
}

const FAMILIES: [&str; 8] = [
    "llama",
    "gemma3",
    "gemma4",
    "qwen35",
    "jamba",
    "nemotron_h",
    "lfm2",
    "deepseek2",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn changed_bytes_never_panic(
        family in 0..FAMILIES.len(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        known_length in any::<bool>(),
    ) {
        let (mut bytes, data) = header(FAMILIES[family]).bytes();
        let length = known_length.then_some(bytes.len() as u64 + data);

        for (index, value) in changes {
            let position = index.index(bytes.len());
            bytes[position] = value;
        }

        parse_and_plan(&bytes, length);
    }

    #[test]
    fn changed_words_never_panic(
        family in 0..FAMILIES.len(),
        at in any::<prop::sample::Index>(),
        value in prop_oneof![
            Just(0),
            Just(u64::MAX),
            Just(1 << 63),
            Just(i64::MAX as u64),
            any::<u64>(),
            0..1_000_000_u64,
        ],
        length in prop_oneof![
            Just(None),
            any::<u64>().prop_map(Some),
            (0..1_000_000_u64).prop_map(Some),
        ],
    ) {
        let (mut bytes, _) = header(FAMILIES[family]).bytes();
        let at = at.index(bytes.len() - 8);
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        parse_and_plan(&bytes, length);
    }

    #[test]
    fn cut_and_joined_headers_never_panic(
        family in 0..FAMILIES.len(),
        cut in any::<prop::sample::Index>(),
        from in any::<prop::sample::Index>(),
    ) {
        let (bytes, _) = header(FAMILIES[family]).bytes();
        let mut joined = bytes[..cut.index(bytes.len())].to_vec();
        joined.extend(&bytes[from.index(bytes.len())..]);
        parse_and_plan(&joined, None);
        parse_and_plan(&bytes[..cut.index(bytes.len())], Some(bytes.len() as u64));
    }

    #[test]
    fn strange_values_never_panic(
        family in 0..FAMILIES.len(),
        which in any::<prop::sample::Index>(),
        value in prop_oneof![
            any::<u64>().prop_map(Kv::U64),
            any::<i32>().prop_map(Kv::I32),
            Just(Kv::U64(u64::MAX)),
            Just(Kv::U32(0)),
            any::<bool>().prop_map(Kv::Bool),
            "[a-z0-9]{0,12}".prop_map(Kv::Text),
            prop::collection::vec(any::<i32>(), 0..6).prop_map(Kv::I32s),
            (0..100_000_u32).prop_map(Kv::U32),
        ],
    ) {
        let mut header = header(FAMILIES[family]);
        let which = which.index(header.pairs.len());
        header.pairs[which].1 = value;
        parse_and_plan(&header.bytes().0, None);
    }

    #[test]
    fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut bytes = b"GGUF\x03\0\0\0\x02\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0".to_vec();
        bytes.extend(noise);
        parse_and_plan(&bytes, None);
    }
}
