//! Invalid GGUF files: one JSON object that names the fault, exit code 3, little memory.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::gguf_writer::{Header, Kv};
use super::run::{Outcome, program};

/// The process's limit of address space. Thread stacks and the program itself take most of it.
const ADDRESS_SPACE_KIB: u64 = 700 << 10;

/// Asks about `path` with only as much memory as a bounded reader needs.
fn ask(path: &Path) -> Outcome {
    let own = program();
    let mut command = Command::new("sh");
    command.current_dir(env!("CARGO_MANIFEST_DIR")).env_clear();

    command.envs(
        own.get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    let script = format!(
        "ulimit -v {ADDRESS_SPACE_KIB}; exec \"$0\" fits \"$1\" --gpus 24GiB --local --json"
    );
    command
        .arg("-c")
        .arg(script)
        .arg(own.get_program())
        .arg(path);

    command.output().unwrap().into()
}

fn head(version: u32, tensors: u64, pairs: u64) -> Vec<u8> {
    let mut bytes = b"GGUF".to_vec();
    bytes.extend(version.to_le_bytes());
    bytes.extend(tensors.to_le_bytes());
    bytes.extend(pairs.to_le_bytes());
    bytes
}

fn text(out: &mut Vec<u8>, value: &str) {
    out.extend((value.len() as u64).to_le_bytes());
    out.extend(value.as_bytes());
}

/// Returns a header with one pair of the given type and bytes.
fn pair(kind: u32, value: &[u8]) -> Vec<u8> {
    let mut bytes = head(3, 0, 1);
    text(&mut bytes, "a.key");
    bytes.extend(kind.to_le_bytes());
    bytes.extend(value);
    bytes
}

/// Returns the type and count of an array's items.
fn array(item: u32, count: u64) -> Vec<u8> {
    [&item.to_le_bytes()[..], &count.to_le_bytes()].concat()
}

fn tensor(shape: &[u64], type_id: u32) -> Vec<u8> {
    Header::default()
        .with("general.architecture", Kv::Text("llama".into()))
        .tensor("a.weight", shape, type_id, 0)
        .bytes()
        .0
}

fn twice(key: &str) -> Vec<u8> {
    Header::default()
        .with(key, Kv::U32(1))
        .with(key, Kv::U32(2))
        .tensor("a", &[32], 0, 128)
        .bytes()
        .0
}

#[test]
fn invalid_headers_are_named() {
    let mut nested = Vec::new();
    for _ in 0..64 {
        nested.extend(array(9, 1));
    }

    let split_part = |no: u16, count: u16| {
        let header = Header::default()
            .with("split.no", Kv::U16(no))
            .with("split.count", Kv::U16(count));
        header.tensor("a", &[32], 0, 128).bytes().0
    };

    let mut overlapping = Header::default()
        .tensor("a", &[32], 0, 128)
        .tensor("b", &[32], 0, 128)
        .bytes()
        .0;

    // The last bytes of the table are the second tensor's offset, which points into the first.
    let offset = overlapping.len() - overlapping.len() % 32;
    let at = (0..offset)
        .rev()
        .find(|&at| overlapping[at..].starts_with(&128_u64.to_le_bytes()))
        .unwrap();
    overlapping[at..at + 8].copy_from_slice(&32_u64.to_le_bytes());

    let with_alignment = |value: u32| {
        Header::default()
            .with("general.alignment", Kv::U32(value))
            .tensor("a", &[32], 0, 128)
            .bytes()
            .0
    };

    let big_endian = [&b"GGUF"[..], &3_u32.to_be_bytes(), &[0; 16]].concat();
    let cases: [(&str, Vec<u8>, &str); 24] = [
        (
            "empty",
            Vec::new(),
            "truncated|incomplete|not complete|0 bytes",
        ),
        ("magic", b"GGML\x03\0\0\0".to_vec(), "not a GGUF file"),
        ("version 1", head(1, 0, 0), "32-bit lengths"),
        ("version 9", head(9, 0, 0), "newer than this program"),
        ("big-endian", big_endian, "big-endian"),
        ("cut", head(3, 1, 1), "incomplete"),
        ("pairs", head(3, 0, u64::MAX), "damaged or hostile"),
        ("tensors", head(3, 1 << 40, 0), "damaged or hostile"),
        (
            "key length",
            [head(3, 0, 1), (1_u64 << 60).to_le_bytes().to_vec()].concat(),
            "hostile|incomplete",
        ),
        (
            "text length",
            pair(8, &(16_u64 << 30).to_le_bytes()),
            "hostile|incomplete",
        ),
        (
            "array of bytes",
            pair(9, &array(0, 16 << 30)),
            "hostile|incomplete",
        ),
        (
            "array of texts",
            pair(9, &array(8, u64::MAX)),
            "hostile|incomplete",
        ),
        (
            "array of floats",
            pair(9, &array(6, u64::MAX / 2)),
            "hostile|incomplete",
        ),
        ("nested arrays", pair(9, &nested), "nested more than"),
        ("unknown kind", pair(77, &[0; 8]), "type 77|kind 77|77"),
        ("key twice", twice("a.key"), "twice"),
        (
            "dimensions",
            tensor(&[1 << 32, 1 << 32], 0),
            "2^63 elements",
        ),
        ("ragged rows", tensor(&[100, 2], 12), "do not fill"),
        ("retired type", tensor(&[256, 2], 31), "31"),
        (
            "data beyond the file",
            tensor(&[1 << 20, 1 << 10], 0),
            "incomplete",
        ),
        ("alignment 0", with_alignment(0), "power of two"),
        ("alignment 3", with_alignment(3), "power of two"),
        ("part 5 of 3", split_part(5, 3), "of 3"),
        ("overlap", overlapping, "lies inside|not a multiple"),
    ];

    let folder = tempfile::tempdir().unwrap();
    for (name, mut bytes, says) in cases {
        let path = folder.path().join("m.gguf");

        // The bytes after the header are data. Cases that are not about missing data get 1 KiB.
        if !["empty", "cut", "data beyond the file"].contains(&name) {
            bytes.resize(bytes.len() + 1024, 0);
        }

        fs::write(&path, bytes).unwrap();
        let outcome = ask(&path);
        assert_eq!(outcome.code, 3, "{name}: {} {}", outcome.out, outcome.err);
        let whole = outcome.json().to_string();
        assert!(
            says.split('|').any(|word| whole.contains(word)),
            "{name}: {whole}"
        );

        assert!(
            outcome.err.lines().all(|line| !line.contains("panicked")),
            "{name}: {}",
            outcome.err
        );
    }
}

#[test]
fn huge_header_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");

    // The file is as long as its array claims, so only the header limit rejects it.
    for (item, count) in [(0, 16_u64 << 30), (8, 2 << 30)] {
        fs::write(&path, pair(9, &array(item, count))).unwrap();
        fs::File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(17 << 30)
            .unwrap();

        let outcome = ask(&path);
        assert_eq!(outcome.code, 3, "{} {}", outcome.out, outcome.err);

        assert!(
            outcome.out.contains("damaged or hostile"),
            "{}",
            outcome.out
        );
    }
}
