//! Sizes of a pickled PyTorch file without unpickling: it is a ZIP whose members `*/data/N` are the
//! raw storages.
//!
//! Two reads from the end of the file return the central directory. Types and shapes are in the
//! pickle itself and are not read. Files older than PyTorch 1.6 are no ZIP files. Their length
//! counts as the size of the weights, which is some kilobytes too much.

use hf_mem_core::bytes::Bytes;
use hf_mem_core::model::tensors::{InventoryBuilder, Storage};
use hf_mem_core::model::weight_files::WeightFile;

use super::Files;
use super::headers::bad_header;
use crate::admission::read_limits;
use crate::admission::read_limits::ReadSlot;
use crate::repository::buffer::Buffer;
use crate::repository::error::SourceError;

/// Length of the first read. The end record (22 bytes), its ZIP64 companions (20 + 56) and the
/// longest comment would be 65 KiB; PyTorch writes no comment.
const TAIL_BYTES: u64 = 64 << 10;
/// Bytes around each storage: its local header with name and padding, and its share of the pickle
/// that describes it.
const AROUND_STORAGE_BYTES: u64 = 1 << 10;
/// Maximum length of the directory: some 100 000 storages.
const MAX_DIRECTORY_BYTES: u64 = 16 << 20;

/// The storages of one file.
#[derive(Debug)]
pub(super) struct Storages {
    bytes: Vec<u64>,
    /// Bytes of the file outside of the storages, their headers and the directory.
    pub(super) uncovered_bytes: u64,
    pub(super) warnings: Vec<String>,
}

impl Storages {
    /// Adds each storage as a tensor of unknown type.
    pub(super) fn add_to(&self, component: &str, inventory: &mut InventoryBuilder) {
        for &bytes in &self.bytes {
            inventory.add(
                component,
                "data",
                Storage::Unknown("pickled".into()),
                &[bytes],
                Bytes::new(bytes),
            );
        }
    }
}

/// Reads the ZIP directory of `file`.
pub(super) async fn storages(
    source: &impl Files,
    file: &WeightFile,
    slot: &ReadSlot,
) -> Result<Storages, SourceError> {
    let Some(length) = file.bytes else {
        return Err(bad_header(
            source,
            file,
            "its length is unknown, and only its length gives the size of a pickled file".into(),
        ));
    };

    let tail_start = length.saturating_sub(TAIL_BYTES);
    let tail = source
        .range(&file.path, tail_start, length - tail_start)
        .await?;
    let Some((start, size)) = directory_place(&tail) else {
        let warnings = vec!["not a ZIP file: its length counts as the size of its weights".into()];
        return Ok(Storages {
            bytes: vec![length],
            uncovered_bytes: 0,
            warnings,
        });
    };

    if size > MAX_DIRECTORY_BYTES || start.checked_add(size).is_none_or(|end| end > length) {
        return Err(bad_header(
            source,
            file,
            format!("its ZIP directory claims {size} bytes at {start}"),
        ));
    }

    slot.hold(size).await;
    let permit = read_limits::unparsed(size).await;

    let directory = match start.checked_sub(tail_start) {
        Some(offset) => slice(&tail, offset, size).map(|inside| Buffer::from(inside.to_vec())),
        None => Some(source.range(&file.path, start, size).await?),
    };

    let parse_members = move || directory.as_deref().and_then(members);
    let bytes = read_limits::work(size, (permit, slot.clone()), parse_members).await;
    let bytes =
        bytes.ok_or_else(|| bad_header(source, file, "its ZIP directory is damaged".into()))?;
    let warnings =
        vec!["types and shapes of pickled weights are unknown, only their sizes are read".into()];
    let storages = bytes.iter().copied().fold(0, u64::saturating_add);
    let around = size.saturating_add(AROUND_STORAGE_BYTES.saturating_mul(bytes.len() as u64));
    let uncovered_bytes = length.saturating_sub(storages).saturating_sub(around);

    Ok(Storages {
        bytes,
        uncovered_bytes,
        warnings,
    })
}

/// Returns start and size of the central directory, from the end of the file. ZIP64 fields take
/// precedence.
fn directory_place(tail: &[u8]) -> Option<(u64, u64)> {
    let end = tail
        .windows(4)
        .rposition(|window| window == b"PK\x05\x06")?;
    let record = tail.get(end..)?;
    let (size, start) = (u32_at(record, 12)?, u32_at(record, 16)?);
    if size != u32::MAX && start != u32::MAX {
        return Some((u64::from(start), u64::from(size)));
    }

    let wide = tail
        .get(..end)?
        .windows(4)
        .rposition(|window| window == b"PK\x06\x06")?;
    let record = tail.get(wide..)?;

    Some((u64_at(record, 48)?, u64_at(record, 40)?))
}

/// Returns the sizes of the members that are storages, or `None` if the directory is damaged.
fn members(mut directory: &[u8]) -> Option<Vec<u64>> {
    let mut sizes = Vec::new();
    while !directory.is_empty() {
        if directory.get(..4)? != b"PK\x01\x02" {
            return None;
        }

        let length_at = |offset| u16_at(directory, offset).map(usize::from);
        let (name, extra, comment) = (length_at(28)?, length_at(30)?, length_at(32)?);
        let name_text = directory.get(46..46 + name)?;
        let mut size = u64::from(u32_at(directory, 24)?);
        if size == u64::from(u32::MAX) {
            size = wide_size(directory.get(46 + name..46 + name + extra)?)?;
        }

        if is_storage(name_text) {
            sizes.push(size);
        }

        directory = directory.get(46 + name + extra + comment..)?;
    }

    Some(sizes)
}

/// Returns the uncompressed size from a ZIP64 extra field, where it comes first.
fn wide_size(mut extra: &[u8]) -> Option<u64> {
    loop {
        let (id, length) = (u16_at(extra, 0)?, usize::from(u16_at(extra, 2)?));
        if id == 1 {
            return u64_at(extra, 4);
        }
        extra = extra.get(4 + length..)?;
    }
}

/// Whether a member is a storage: `archive/data/17`, not `archive/data.pkl`.
fn is_storage(name: &[u8]) -> bool {
    let mut parts = name.rsplit(|&byte| byte == b'/');
    let number = parts.next().unwrap_or_default();
    !number.is_empty() && number.iter().all(u8::is_ascii_digit) && parts.next() == Some(b"data")
}

fn slice(bytes: &[u8], start: u64, length: u64) -> Option<&[u8]> {
    let start = usize::try_from(start).ok()?;
    bytes.get(start..start.checked_add(usize::try_from(length).ok()?)?)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|chunk| u16::from_le_bytes(*chunk))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|chunk| u32::from_le_bytes(*chunk))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|chunk| u64::from_le_bytes(*chunk))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, size: u32, extra: &[u8]) -> Vec<u8> {
        let mut bytes = b"PK\x01\x02".to_vec();
        bytes.resize(20, 0);
        bytes.extend(size.to_le_bytes());
        bytes.extend(size.to_le_bytes());
        bytes.extend(u16::try_from(name.len()).expect("short").to_le_bytes());
        bytes.extend(u16::try_from(extra.len()).expect("short").to_le_bytes());
        bytes.resize(46, 0);
        bytes.extend(name.as_bytes());
        bytes.extend(extra);

        bytes
    }

    #[test]
    fn only_storages_are_counted() {
        let mut directory = member("archive/data.pkl", 77, &[]);
        directory.extend(member("archive/data/0", 4096, &[]));
        let wide = [&[1, 0, 8, 0][..], &(5_u64 << 32).to_le_bytes()].concat();
        directory.extend(member("archive/data/1", u32::MAX, &wide));
        directory.extend(member("archive/version", 2, &[]));
        assert_eq!(members(&directory), Some(vec![4096, 5 << 32]));
        directory.pop();
        assert_eq!(members(&directory), None);
    }

    /// A file that consists of its last bytes.
    struct Zip(Vec<u8>);

    impl Files for Zip {
        fn name(&self) -> &'static str {
            "a/b"
        }

        async fn whole(&self, _path: &str, _limit: u64) -> Result<Buffer, SourceError> {
            Ok(Buffer::new())
        }

        /// Returns all bytes, whatever range is requested.
        async fn range(
            &self,
            _path: &str,
            _start: u64,
            _length: u64,
        ) -> Result<Buffer, SourceError> {
            Ok(self.0.clone().into())
        }

        fn concurrency(&self) -> usize {
            1
        }

        fn prefer_inference(&self) -> bool {
            false
        }
    }

    #[tokio::test]
    async fn bytes_outside_storages_are_uncovered() {
        let directory = member("archive/data/0", 4096, &[]);
        let size = u32::try_from(directory.len()).expect("short");
        let length = 100_000_u32;
        let start = length - size - 22;
        let mut zip = directory;
        zip.extend(b"PK\x05\x06");
        zip.extend([0; 8]);
        zip.extend(size.to_le_bytes());
        zip.extend(start.to_le_bytes());
        zip.extend([0, 0]);

        // The first read covers the end of the file only.
        let mut tail = vec![0; usize::try_from(TAIL_BYTES).expect("small") - zip.len()];
        tail.extend(zip);

        let file = WeightFile {
            path: "model.bin".into(),
            component: String::new(),
            bytes: Some(length.into()),
        };

        let read = storages(&Zip(tail), &file, &ReadSlot::take().await)
            .await
            .expect("read");
        assert_eq!(
            (read.bytes, read.uncovered_bytes),
            (vec![4096], 100_000 - 4096 - u64::from(size) - 1024)
        );
    }

    #[test]
    fn end_record_points_at_directory() {
        let mut tail = b"....PK\x05\x06".to_vec();
        tail.resize(16, 0);
        tail.extend(300_u32.to_le_bytes());
        tail.extend(9000_u32.to_le_bytes());
        tail.extend([0, 0]);
        assert_eq!(directory_place(&tail), Some((9000, 300)));
        assert_eq!(directory_place(b"PK\x05"), None);
    }
}
