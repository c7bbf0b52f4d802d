use super::*;
use crate::model::tensors::Storage;
use crate::model::{Dtype, TensorClass};
use writer::{Header, Kv};

#[path = "../../../../../tests/support/gguf_writer.rs"]
mod writer;

fn small_header() -> Header {
    Header::default()
        .with("general.architecture", Kv::Text("llama".into()))
        .with("llama.block_count", Kv::U32(2))
        .with("llama.attention.head_count_kv", Kv::I32s(vec![8, 4]))
        .with("llama.attention.causal", Kv::Bool(true))
        .with("tokenizer.ggml.tokens", Kv::Texts(100))
        .with("tokenizer.chat_template", Kv::Text("x".repeat(5000)))
        .tensor("token_embd.weight", &[256, 100], 12, 144 * 100)
        .tensor("blk.0.attn_q.weight", &[256, 256], 8, 256 * 8 * 34)
        .tensor("blk.1.attn_q.weight", &[256, 256], 8, 256 * 8 * 34)
        .tensor("blk.1.attn_norm.weight", &[10], 0, 40)
}

fn parse_complete(bytes: &[u8], file: Option<u64>) -> Gguf {
    match parse(bytes, file).unwrap() {
        Progress::Complete(gguf) => *gguf,
        Progress::NeedMore { at_least } => panic!("needs {at_least} bytes, has {}", bytes.len()),
    }
}

fn assert_rejected(header: &Header, words: &str) {
    let error = parse(&header.bytes().0, None).unwrap_err().to_string();
    assert!(error.contains(words), "{error}");
}

#[test]
fn values_are_read_and_tensors_folded() {
    let (bytes, data) = small_header().bytes();
    let gguf = parse_complete(&bytes, Some(bytes.len() as u64 + data));
    assert_eq!(gguf.family(), Some("llama"));
    assert_eq!(gguf.metadata.unsigned("llama.block_count"), Some(2));

    assert_eq!(
        gguf.metadata.get("llama.attention.head_count_kv"),
        Some(&Value::Integers(vec![8, 4]))
    );
    assert_eq!(gguf.metadata.truth("llama.attention.causal"), Some(true));

    assert_eq!(
        gguf.metadata.get("tokenizer.ggml.tokens"),
        Some(&Value::Long { length: 100 })
    );
    assert_eq!(
        gguf.metadata.get("tokenizer.chat_template"),
        Some(&Value::Long { length: 5000 })
    );
    assert_eq!(gguf.vocabulary(), Some(100));
    assert_eq!(gguf.content(), Content::Model);
    assert_eq!(gguf.header_bytes, bytes.len() as u64);
    assert_eq!(gguf.data_bytes, Bytes::new(data));
    assert_eq!(gguf.inventory.bytes(), Bytes::new(14_400 + 2 * 69_632 + 40));

    let folded: Vec<_> = gguf
        .inventory
        .classes
        .iter()
        .map(|class| (&*class.pattern, class.count))
        .collect();
    assert_eq!(
        folded,
        [
            ("blk.*.attn_norm.weight", 1),
            ("blk.*.attn_q.weight", 2),
            ("token_embd.weight", 1)
        ]
    );

    assert!(serde_json::to_string(&gguf).unwrap().len() < 2000);
    let back = serde_json::from_str::<Gguf>(&serde_json::to_string(&gguf).unwrap()).unwrap();
    assert_eq!(
        back,
        Gguf {
            table: TablePlace::default(),
            ..gguf
        }
    );
}

#[test]
fn uncovered_bytes_leave_padding_out() {
    let (bytes, data) = small_header().bytes();
    let whole = bytes.len() as u64 + data;
    let uncovered_bytes = |length| parse_complete(&bytes, length).uncovered_bytes;
    assert_eq!(
        (
            uncovered_bytes(None),
            uncovered_bytes(Some(whole)),
            uncovered_bytes(Some(whole + 4096))
        ),
        (0, 0, 4096)
    );

    let (bytes, _) = Header::default()
        .with("general.architecture", Kv::Text("llama".into()))
        .bytes();
    assert_eq!(
        parse_complete(&bytes, Some(bytes.len() as u64 + 5000)).uncovered_bytes,
        5000,
        "no tensor at all"
    );
}

#[test]
fn shorter_prefix_needs_more() {
    let (bytes, data) = small_header().bytes();
    let whole = parse_complete(&bytes, None);

    for length in 0..bytes.len() {
        match parse(&bytes[..length], Some(bytes.len() as u64 + data)).unwrap() {
            Progress::NeedMore { at_least } => {
                assert!(
                    at_least > length as u64 && at_least <= bytes.len() as u64,
                    "{at_least} at {length}: more than the prefix, but not more than the header"
                );
            }
            // The padding after the table can be absent.
            Progress::Complete(gguf) => assert!(*gguf == whole && bytes.len() - length < 32),
        }
    }
}

#[test]
fn absurd_claims_are_rejected() {
    let claiming_header = |tensors: u64, pairs: u64| {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend(tensors.to_le_bytes());
        bytes.extend(pairs.to_le_bytes());
        bytes
    };

    for (tensors, pairs) in [(u64::MAX, 0), (0, u64::MAX), (1 << 40, 3), (3, 1 << 24)] {
        let error = parse(&claiming_header(tensors, pairs), None).unwrap_err();
        assert!(matches!(error, GgufError::Absurd { .. }), "{error}");
    }

    let array_start =
        |item: u32, count: u64| [&item.to_le_bytes()[..], &count.to_le_bytes()[..]].concat();
    for raw in [
        array_start(8, u64::MAX),
        array_start(0, 1 << 60),
        array_start(9, 1 << 50),
        array_start(10, (1 << 61) + 1),
    ] {
        let (bytes, _) = Header::default().with("a", Kv::Raw(9, raw)).bytes();
        assert!(matches!(parse(&bytes, None), Err(GgufError::Absurd { .. })));
    }

    let (bytes, _) = Header::default()
        .with("a", Kv::Raw(8, u64::MAX.to_le_bytes().to_vec()))
        .bytes();
    assert!(matches!(parse(&bytes, None), Err(GgufError::Absurd { .. })));
}

#[test]
fn array_depth_is_bounded() {
    let nested_header = |depth: usize| {
        let mut raw = Vec::new();
        for _ in 0..depth {
            raw.extend(9_u32.to_le_bytes());
            raw.extend(1_u64.to_le_bytes());
        }
        raw.extend(0_u32.to_le_bytes());
        raw.extend(0_u64.to_le_bytes());
        Header::default().with("a", Kv::Raw(9, raw)).bytes().0
    };

    assert_eq!(
        parse_complete(&nested_header(2), None).metadata.length("a"),
        Some(1)
    );
    assert!(matches!(
        parse(&nested_header(1000), None),
        Err(GgufError::Metadata { .. })
    ));
}

#[test]
fn unknown_types_are_sized_by_offsets() {
    let header = small_header()
        .tensor("blk.0.ffn_up.weight", &[256, 4], 137, 640)
        .tensor("z", &[4], 0, 16);
    let (bytes, data) = header.bytes();
    let gguf = parse_complete(&bytes, Some(bytes.len() as u64 + data));

    let unknown = UnknownType {
        id: 137,
        tensors: 1,
        first: "blk.0.ffn_up.weight".into(),
    };

    assert_eq!(gguf.unknown_types, [unknown]);
    let class: &TensorClass = gguf
        .inventory
        .classes
        .iter()
        .find(|class| class.dtype().is_none())
        .unwrap();

    assert_eq!(
        (class.bytes(), &class.storage),
        (Bytes::new(640), &Storage::Unknown("ggml type 137".into()))
    );

    // The size of the last tensor follows only from the length of the file.
    let (bytes, data) = small_header().tensor("z", &[4], 137, 64).bytes();
    let error = parse(&bytes, None).unwrap_err();
    assert!(
        error.to_string().contains("cannot size tensor type 137"),
        "{error}"
    );

    assert!(matches!(
        parse(&bytes, Some(bytes.len() as u64 + data)),
        Ok(Progress::Complete(_))
    ));
}

#[test]
fn contradictions_are_rejected_with_reason() {
    assert_rejected(
        &small_header().with("llama.block_count", Kv::U32(3)),
        "twice",
    );
    assert_rejected(
        &small_header().tensor("token_embd.weight", &[4], 0, 16),
        "twice",
    );

    assert_rejected(
        &small_header().tensor("x", &[100], 12, 144),
        "do not fill Q4_K blocks of 256",
    );
    assert_rejected(
        &small_header().tensor("x", &[1, 1, 1, 1, 1], 0, 4),
        "5 dimensions",
    );

    assert_rejected(
        &small_header().tensor("x", &[1 << 40, 1 << 40], 0, 4),
        "2^63 elements",
    );
    assert_rejected(
        &small_header().with("general.alignment", Kv::U32(48)),
        "power of two",
    );
    assert_rejected(
        &small_header().with("k", Kv::Raw(13, vec![0; 8])),
        "value type 13",
    );
    let (bytes, data) = small_header().bytes();
    let short = parse(&bytes, Some(bytes.len() as u64 + data - 200)).unwrap_err();
    assert!(
        short.to_string().contains("the download is incomplete"),
        "{short}"
    );

    assert!(matches!(
        parse(b"GGUF\x01\0\0\0", None),
        Err(GgufError::Version { version: 1, .. })
    ));
    assert!(matches!(
        parse(b"GGUF\0\0\0\x03", None),
        Err(GgufError::Version { version: 3, .. })
    ));

    assert!(matches!(
        parse(b"PK\x03\x04", None),
        Err(GgufError::Magic(_))
    ));
}

#[test]
fn overlapping_tensors_are_rejected() {
    let mut header = small_header();
    header.tensors[1].3 = 32;
    let error = parse(&header.bytes().0, None).unwrap_err();
    assert!(
        error.to_string().contains("inside the tensor before it"),
        "{error}"
    );
}

#[test]
fn only_complete_parts_combine() {
    let parse_part = |index: u16, header: Header| {
        let header = header
            .with("split.no", Kv::U16(index))
            .with("split.count", Kv::U16(2));
        parse_complete(
            &header.with("split.tensors.count", Kv::I32(5)).bytes().0,
            None,
        )
    };

    let first = parse_part(0, small_header());
    let second = parse_part(
        1,
        Header::default().tensor("blk.2.attn_q.weight", &[256, 256], 8, 69_632),
    );
    let whole = combine(vec![second.clone(), first.clone()]).unwrap();
    assert_eq!(whole.inventory.tensors(), 5);
    assert_eq!((whole.part, whole.family()), (None, Some("llama")));

    let queries = whole
        .inventory
        .classes
        .iter()
        .find(|class| &*class.pattern == "blk.*.attn_q.weight")
        .unwrap();
    assert_eq!(
        (queries.count, queries.count_in(&(2..3)), queries.dtype()),
        (3, 1, Some(Dtype::Q8_0))
    );

    assert!(
        combine(vec![first.clone()])
            .unwrap_err()
            .to_string()
            .contains("1 of 2 parts")
    );

    assert!(combine(vec![first.clone(), first]).is_err());
    assert!(combine(vec![second]).is_err());
    assert!(combine(Vec::new()).is_err());
}

#[test]
fn part_names_are_parsed_and_listed() {
    let name = PartName::read("Q4/m-Q4_K_M-00002-of-00003.gguf").unwrap();
    assert_eq!((name.stem, name.index, name.count), ("Q4/m-Q4_K_M", 1, 3));

    assert_eq!(
        name.all().nth(2).as_deref(),
        Some("Q4/m-Q4_K_M-00003-of-00003.gguf")
    );

    for other in [
        "m.gguf",
        "m-00004-of-00003.gguf",
        "m-00000-of-00003.gguf",
        "m-1-of-2.gguf",
        "m-00001-of-00002.bin",
    ] {
        assert_eq!(PartName::read(other), None, "{other}");
    }
}

#[test]
fn content_follows_type_and_architecture() {
    let content_of = |pairs: &[(&str, &str)]| {
        let header = pairs.iter().fold(Header::default(), |header, (key, text)| {
            header.with(key, Kv::Text((*text).into()))
        });
        parse_complete(&header.bytes().0, None).content()
    };

    assert_eq!(
        content_of(&[("general.architecture", "clip")]),
        Content::Projector
    );
    assert_eq!(
        content_of(&[("general.type", "mmproj")]),
        Content::Projector
    );
    assert_eq!(content_of(&[("general.type", "adapter")]), Content::Adapter);

    assert_eq!(
        content_of(&[("general.architecture", "llama")]),
        Content::Vocabulary
    );
}

#[test]
fn empty_table_needs_no_padding() {
    let header = Header::default().with("general.architecture", Kv::Text("llama".into()));
    let (bytes, _) = header.bytes();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    assert!(end < bytes.len(), "the header has padding to cut off");

    assert_eq!(
        parse_complete(&bytes[..end], Some(end as u64)).content(),
        Content::Vocabulary
    );
}

#[test]
fn table_is_found_by_consistency() {
    let reference = small_header();
    let (bytes, data) = reference.bytes();
    let whole = parse_complete(&bytes, Some(bytes.len() as u64 + data));

    // The same tensors in other types, after longer metadata.
    let mut other = reference.clone().with(
        "general.quantized_by",
        Kv::Text("someone else, at length".into()),
    );
    other.tensors[0] = ("token_embd.weight".into(), vec![256, 100], 14, 210 * 100);
    other.tensors[1] = ("blk.0.attn_q.weight".into(), vec![256, 256], 12, 256 * 144);
    let (header, other_data) = other.bytes();
    let length = header.len() as u64 + other_data;
    let mut file = header.clone();
    file.resize(file.len() + 4096, 7);
    let start = usize::try_from(whole.table.start).unwrap() - 100;
    let end = start + usize::try_from(whole.table.bytes).unwrap() + 400;
    let found = find_table(&file[start..end], start as u64, length, &whole.metadata).unwrap();
    assert_eq!(
        found.inventory,
        parse_complete(&header, Some(length)).inventory
    );

    assert_eq!(
        (found.header_bytes, found.data_bytes.get()),
        (header.len() as u64, other_data)
    );
    assert!(same_tensors(&found.inventory, &whole.inventory));

    // No table is found with another file length, a late start or an early end of the window.
    assert_eq!(
        find_table(
            &file[start..end],
            start as u64,
            length + 64,
            &whole.metadata
        ),
        None
    );

    assert_eq!(
        find_table(
            &file[start + 240..end],
            start as u64 + 240,
            length,
            &whole.metadata
        ),
        None
    );

    assert_eq!(
        find_table(
            &file[start..start + 300],
            start as u64,
            length,
            &whole.metadata
        ),
        None
    );

    // Without its last tensor, the file is another model.
    let mut less = reference;
    less.tensors.pop();
    let (bytes, data) = less.bytes();
    let less = parse_complete(&bytes, Some(bytes.len() as u64 + data));
    assert!(!same_tensors(&less.inventory, &whole.inventory));
}

proptest::proptest! {
    /// The search ends without a panic on any window.
    #[test]
    fn damaged_windows_never_panic(
        damage in proptest::collection::vec((0_usize..2048, proptest::prelude::any::<u8>()), 0..40),
        cut in 0_usize..2048,
        start in proptest::prelude::any::<u64>(),
        length in proptest::prelude::any::<u64>(),
    ) {
        let (mut bytes, data) = small_header().bytes();
        let whole = parse_complete(&bytes, Some(bytes.len() as u64 + data));
        let from = usize::try_from(whole.table.start).unwrap().saturating_sub(64);
        bytes.drain(..from);

        for (at, value) in damage {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }

        let _ = find_table(&bytes[cut.min(bytes.len())..], start, length, &whole.metadata);
        let _ = find_table(&bytes, from as u64, length, &whole.metadata);
    }
}

#[test]
fn search_gives_up_on_hostile_window() {
    // Every info begins a table: each has offset 0, and the next one could follow it.
    let mut info = 1_u64.to_le_bytes().to_vec();
    info.extend(b"a");
    info.extend(1_u32.to_le_bytes());
    info.extend(8_u64.to_le_bytes());
    info.extend(0_u32.to_le_bytes());
    info.extend(0_u64.to_le_bytes());
    let window = info.repeat((1 << 20) / info.len());
    assert_eq!(
        find_table(&window, 0, u64::MAX / 2, &Metadata::default()),
        None
    );
}
