//! A writer of valid and invalid GGUF headers for tests.
#![allow(
    unreachable_pub,
    dead_code,
    missing_docs,
    reason = "shared by test binaries, each using a part"
)]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

/// A metadata value.
#[derive(Clone, Debug)]
pub enum Kv {
    U16(u16),
    U32(u32),
    U64(u64),
    I32(i32),
    F32(f32),
    Bool(bool),
    Text(String),
    I32s(Vec<i32>),
    U32s(Vec<u32>),
    Bools(Vec<bool>),
    Texts(u64),
    /// A type id and the raw bytes of the value.
    Raw(u32, Vec<u8>),
}

/// A header under construction.
#[derive(Clone, Debug, Default)]
pub struct Header {
    pub pairs: Vec<(String, Kv)>,
    /// Name, dimensions, type id and bytes of data.
    pub tensors: Vec<(String, Vec<u64>, u32, u64)>,
}

fn write_text(out: &mut Vec<u8>, value: &str) {
    out.extend((value.len() as u64).to_le_bytes());
    out.extend(value.as_bytes());
}

fn write_array_start(out: &mut Vec<u8>, item: u32, count: usize) {
    out.extend(item.to_le_bytes());
    out.extend((count as u64).to_le_bytes());
}

impl Header {
    /// Adds a pair.
    pub fn with(mut self, key: &str, value: Kv) -> Self {
        self.pairs.push((key.to_owned(), value));
        self
    }

    /// Adds a tensor of `bytes` bytes.
    pub fn tensor(mut self, name: &str, dimensions: &[u64], type_id: u32, bytes: u64) -> Self {
        self.tensors
            .push((name.to_owned(), dimensions.to_vec(), type_id, bytes));
        self
    }

    /// Returns the header's bytes with padding, and the number of data bytes after it.
    pub fn bytes(&self) -> (Vec<u8>, u64) {
        let mut out = b"GGUF".to_vec();
        out.extend(3_u32.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.pairs.len() as u64).to_le_bytes());

        for (key, value) in &self.pairs {
            write_text(&mut out, key);
            write_value(&mut out, value);
        }

        let mut offset = 0_u64;
        for (name, dimensions, type_id, bytes) in &self.tensors {
            write_text(&mut out, name);
            out.extend(u32::try_from(dimensions.len()).unwrap().to_le_bytes());
            for side in dimensions {
                out.extend(side.to_le_bytes());
            }
            out.extend(type_id.to_le_bytes());
            out.extend(offset.to_le_bytes());
            offset = (offset + bytes).next_multiple_of(32);
        }

        out.resize(out.len().next_multiple_of(32), 0);
        (out, offset)
    }
}

fn write_value(out: &mut Vec<u8>, value: &Kv) {
    let kind: u32 = match value {
        Kv::U16(_) => 2,
        Kv::U32(_) => 4,
        Kv::I32(_) => 5,
        Kv::F32(_) => 6,
        Kv::Bool(_) => 7,
        Kv::Text(_) => 8,
        Kv::U64(_) => 10,
        Kv::Raw(kind, _) => *kind,
        _ => 9,
    };

    out.extend(kind.to_le_bytes());
    match value {
        Kv::U16(value) => out.extend(value.to_le_bytes()),
        Kv::U32(value) => out.extend(value.to_le_bytes()),
        Kv::U64(value) => out.extend(value.to_le_bytes()),
        Kv::I32(value) => out.extend(value.to_le_bytes()),
        Kv::F32(value) => out.extend(value.to_le_bytes()),
        Kv::Bool(value) => out.push(u8::from(*value)),
        Kv::Text(value) => write_text(out, value),
        Kv::I32s(items) => {
            write_array_start(out, 5, items.len());
            for item in items {
                out.extend(item.to_le_bytes());
            }
        }
        Kv::U32s(items) => {
            write_array_start(out, 4, items.len());
            for item in items {
                out.extend(item.to_le_bytes());
            }
        }
        Kv::Bools(items) => {
            write_array_start(out, 7, items.len());
            for item in items {
                out.push(u8::from(*item));
            }
        }
        Kv::Texts(count) => {
            write_array_start(out, 8, usize::try_from(*count).unwrap());
            for index in 0..*count {
                write_text(out, &format!("t{index}"));
            }
        }
        Kv::Raw(_, bytes) => out.extend(bytes),
    }
}
