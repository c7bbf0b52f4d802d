//! Headers from the optional corpus of GGUF descriptions (`../shared/hub/gguf`).
#![allow(
    unreachable_pub,
    dead_code,
    missing_docs,
    reason = "shared by test binaries, each using a part"
)]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::missing_panics_doc,
    reason = "helpers of tests"
)]

use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use hf_mem_core::model::gguf::{Gguf, Progress, parse};
use hf_mem_core::model::{Format, Identity, Model};
use serde_json::Value;

use super::gguf_writer::{Header, Kv};

/// Returns the folder of the corpus, if it exists.
pub fn corpus() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/hub/gguf");
    if path.is_dir() {
        return Some(path);
    }
    println!("skipped: {} does not exist", path.display());
    None
}

fn unpacked(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    GzDecoder::new(std::fs::File::open(path).unwrap())
        .read_to_end(&mut bytes)
        .unwrap();
    bytes
}

/// Returns the file name and content of all descriptions.
pub fn descriptions(corpus: &Path) -> Vec<(String, Value)> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(corpus.join("described"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();

    let read_description = |path: PathBuf| {
        let name = path
            .file_name()
            .unwrap()
            .to_string_lossy()
            .trim_end_matches(".json.gz")
            .to_owned();
        (name, serde_json::from_slice(&unpacked(&path)).unwrap())
    };

    paths.into_iter().map(read_description).collect()
}

/// Returns the real headers: file name, bytes and length of the whole file.
pub fn real_headers(corpus: &Path) -> Vec<(String, Vec<u8>, u64)> {
    let sources: Value =
        serde_json::from_slice(&std::fs::read(corpus.join("real/sources.json")).unwrap()).unwrap();
    let listed = sources.as_array().unwrap().iter();
    listed
        .filter_map(|source| {
            let name = source["file"].as_str()?;
            let length = source["full_file_bytes"].as_u64()?;
            Some((
                name.to_owned(),
                unpacked(&corpus.join("real").join(name)),
                length,
            ))
        })
        .collect()
}

/// Returns the header of a made model.
pub fn made_header(corpus: &Path, name: &str) -> Vec<u8> {
    packed_header(&corpus.join("made"), name)
}

/// Returns the header of the model `name` from a folder of packed headers.
pub fn packed_header(folder: &Path, name: &str) -> Vec<u8> {
    unpacked(&folder.join(format!("{name}.header.gguf.gz")))
}

fn kv(value: &Value) -> Kv {
    let (kind, value) = (value[0].as_str().unwrap(), &value[1]);
    match kind {
        "UINT16" => Kv::U16(u16::try_from(value.as_u64().unwrap()).unwrap()),
        "UINT32" => Kv::U32(u32::try_from(value.as_u64().unwrap()).unwrap()),
        "UINT64" => Kv::U64(value.as_u64().unwrap()),
        "INT32" => Kv::I32(i32::try_from(value.as_i64().unwrap()).unwrap()),
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the description holds 32-bit floats"
        )]
        "FLOAT32" => Kv::F32(value.as_f64().unwrap() as f32),
        "BOOL" => Kv::Bool(value.as_bool().unwrap()),
        "STRING" => Kv::Text(value.as_str().unwrap().to_owned()),
        "ARRAY" => {
            let items = value.as_array().unwrap();
            match items.first() {
                Some(Value::Bool(_)) => {
                    Kv::Bools(items.iter().map(|item| item.as_bool().unwrap()).collect())
                }
                _ => Kv::I32s(
                    items
                        .iter()
                        .map(|item| i32::try_from(item.as_i64().unwrap()).unwrap())
                        .collect(),
                ),
            }
        }
        other => panic!("kind {other}"),
    }
}

/// Returns the header of a file that is not split.
pub fn header(description: &Value) -> Header {
    let mut header = Header::default();
    for (key, value) in description["kv"].as_object().unwrap() {
        header = header.with(key, kv(value));
    }

    header = header.with(
        "tokenizer.ggml.tokens",
        Kv::Texts(description["tokenizer"]["n"].as_u64().unwrap()),
    );
    for tensor in description["tensors"].as_array().unwrap() {
        let dimensions: Vec<u64> = tensor[1]
            .as_array()
            .unwrap()
            .iter()
            .map(|side| side.as_u64().unwrap())
            .collect();

        let dtype = hf_mem_core::model::Dtype::ALL
            .iter()
            .copied()
            .find(|dtype| dtype.name() == tensor[2].as_str().unwrap())
            .unwrap();
        let bytes = dtype.stored(dimensions.iter().product()).unwrap().get();

        header = header.tensor(
            tensor[0].as_str().unwrap(),
            &dimensions,
            dtype.ggml_id().unwrap(),
            bytes,
        );
    }

    header
}

/// Parses a header that must be valid.
pub fn parsed(header: &Header) -> Gguf {
    let (bytes, data) = header.bytes();
    whole(&bytes, bytes.len() as u64 + data)
}

/// Parses bytes that must be a whole header.
pub fn whole(bytes: &[u8], file_bytes: u64) -> Gguf {
    match parse(bytes, Some(file_bytes)).unwrap() {
        Progress::Complete(gguf) => *gguf,
        Progress::NeedMore { at_least } => panic!("needs {at_least} bytes"),
    }
}

/// Returns the model that the daemon builds from a GGUF file.
pub fn model(gguf: Gguf) -> Model {
    Model {
        identity: Identity {
            repo: "owner/name-GGUF".into(),
            file: Some("name-Q8_0.gguf".into()),
            ..Identity::default()
        },
        format: Format::Gguf,
        architecture: hf_mem_core::model::gguf::architecture(&gguf),
        parameters: Some(gguf.inventory.elements()),
        inventory: gguf.inventory,
        weight_files: 1,
        components: Vec::new(),
        adapter: None,
        asks_for_pooling: false,
        draft: None,
        variants: Vec::new(),
        assumptions: Vec::new(),
        contradiction: None,
        warnings: Vec::new(),
    }
}
