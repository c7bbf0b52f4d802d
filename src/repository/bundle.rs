//! A bundle: all metadata of one model in one small file, for hosts without a Hub.
//!
//! A bundle is gzip around a line of JSON and the metadata as JSON. The line names the format and
//! the SHA-256 of the metadata. A bundle is recognized by its content, whatever its name.

use std::cmp::Ordering;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use hf_mem_core::model::metadata::{MAX_SERIALIZED_BYTES, Metadata, VERSION};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::error::SourceError;
use crate::files::Disk;
use crate::hex;

/// The word that opens a bundle.
const FORMAT: &str = "hf-mem-probe bundle";
/// Maximum length of the first line.
const MAX_LEAD_BYTES: u64 = 4096;
/// Maximum length of a packed bundle. gzip makes incompressible data longer by less than one part
/// in a thousand.
pub(super) const MAX_PACKED_BYTES: u64 =
    MAX_SERIALIZED_BYTES + MAX_SERIALIZED_BYTES / 1024 + MAX_LEAD_BYTES;

/// The first line of a bundle.
#[derive(Debug, Serialize, Deserialize)]
struct Lead {
    format: String,
    version: u32,
    /// A later version may use another hash. Its bundles must fail on the version, not on this
    /// field.
    #[serde(default)]
    sha256: String,
}

/// A bundle in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// The whole file.
    pub bytes: Vec<u8>,
    /// SHA-256 of its content, in hex digits.
    pub sha256: String,
}

/// Whether the file at `path` is a bundle, by its compression or its name. No other kind of model
/// is compressed.
pub(super) fn is_bundle(disk: &Disk, path: &Path) -> bool {
    let gzip = disk
        .read_range(path, 0, 2)
        .is_ok_and(|magic| magic == [0x1f, 0x8b]);
    gzip || path.extension().is_some_and(|ending| ending == "hfmp")
}

/// Packs `metadata` into a bundle: the same bytes for the same metadata.
pub fn pack(metadata: &Metadata) -> Result<Packed, SourceError> {
    let metadata_error = |why: String| SourceError::MissingMetadata {
        what: metadata.identity.repo.clone(),
        why,
    };

    let body = serde_json::to_vec(metadata).map_err(|error| metadata_error(error.to_string()))?;
    if body.len() as u64 > MAX_SERIALIZED_BYTES {
        return Err(metadata_error(format!(
            "its metadata is longer than the {MAX_SERIALIZED_BYTES} bytes that a bundle may hold"
        )));
    }

    let sha256 = hex::encode(&Sha256::digest(&body));
    let lead = Lead {
        format: FORMAT.into(),
        version: VERSION,
        sha256: sha256.clone(),
    };

    let mut lead = serde_json::to_vec(&lead).map_err(|error| metadata_error(error.to_string()))?;
    lead.push(b'\n');
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    let written = packed
        .write_all(&lead)
        .and_then(|()| packed.write_all(&body))
        .and_then(|()| packed.finish());
    let bytes = written.map_err(|error| metadata_error(error.to_string()))?;

    Ok(Packed { bytes, sha256 })
}

/// Writes a bundle atomically, with the permissions that the umask allows. It blocks: only the
/// command line calls it.
pub fn write(packed: &Packed, path: &Path) -> std::io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let anyone = std::fs::Permissions::from_mode(0o666);
    let mut file = tempfile::Builder::new()
        .permissions(anyone)
        .tempfile_in(folder)?;
    file.write_all(&packed.bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;

    Ok(())
}

/// Reads the bundle `packed` from the file at `path`. `file` is `--file` and must be the packed
/// file.
pub(super) fn read(
    packed: &[u8],
    path: &Path,
    file: Option<&str>,
) -> Result<Metadata, SourceError> {
    let metadata_error = |why| SourceError::MissingMetadata {
        what: path.display().to_string(),
        why,
    };

    let metadata = unpack(packed).map_err(metadata_error)?;
    let packed = metadata.identity.file.as_deref();

    match file {
        Some(file) if !packed.is_some_and(|packed| is_named(packed, file)) => {
            let repo = &metadata.identity.repo;
            let holds = packed.map_or_else(|| "no single file".to_owned(), ToOwned::to_owned);
            Err(metadata_error(format!(
                "the bundle holds {holds} of {repo}, not {file}; pack it with --file {file}"
            )))
        }
        _ => Ok(metadata),
    }
}

/// Whether `--file` names `path`, by its whole name or by a quantization in it. `Q4_K` is no part
/// of `Q4_K_M`.
fn is_named(path: &str, wanted: &str) -> bool {
    let (path, wanted) = (path.to_ascii_lowercase(), wanted.to_ascii_lowercase());
    path.match_indices(&wanted).any(|(at, found)| {
        let (before, after) = (
            path.get(..at).unwrap_or_default(),
            path.get(at + found.len()..).unwrap_or_default(),
        );
        is_boundary(before.chars().next_back()) && is_boundary(after.chars().next())
    })
}

fn is_boundary(character: Option<char>) -> bool {
    character.is_none_or(|character| !character.is_ascii_alphanumeric() && character != '_')
}

/// Reads a bundle from any reader. Bounds the unpacked size and checks the hash. The error says
/// what is wrong.
pub fn unpack(packed: impl std::io::Read) -> Result<Metadata, String> {
    let max = MAX_SERIALIZED_BYTES + MAX_LEAD_BYTES;
    let mut text = Vec::new();
    let mut unpacked = GzDecoder::new(packed).take(max + 1);
    let outcome = unpacked.read_to_end(&mut text);

    let first_line = text
        .iter()
        .take(4096)
        .position(|&byte| byte == b'\n')
        .map(|at| (&text[..at], &text[at + 1..]));
    let lead: Option<Lead> =
        first_line.and_then(|(lead, _)| hf_mem_core::strict_json::from_slice(lead).ok());
    let (Some(lead), Some((_, body))) = (lead.filter(|lead| lead.format == FORMAT), first_line)
    else {
        return Err(
            "it is not a bundle of this program, or its beginning is damaged; pack it again".into(),
        );
    };

    match lead.version.cmp(&VERSION) {
        Ordering::Equal => {}
        Ordering::Greater => {
            let version = lead.version;
            return Err(format!(
                "the bundle has version {version} and this program reads {VERSION}; \
                 update it, or pack again with this version"
            ));
        }
        Ordering::Less => {
            let version = lead.version;
            return Err(format!(
                "the bundle has the old version {version}, this program reads {VERSION}; pack it again"
            ));
        }
    }

    outcome.map_err(|error| format!("the bundle is damaged: {error}; copy it again"))?;
    if text.len() as u64 > max {
        return Err(format!(
            "the bundle unpacks to more than {max} bytes, more than any model's metadata has"
        ));
    }

    if lead.sha256 != hex::encode(&Sha256::digest(body)) {
        return Err("the bundle is damaged: its content does not have the hash that it names; copy it again".into());
    }

    hf_mem_core::strict_json::from_slice(body)
        .map_err(|error| format!("the bundle cannot be read: {error}; pack it again"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_file_matches_name_or_quantization() {
        for (path, asked, named) in [
            ("a/tiny-Q4_K_M.gguf", "a/tiny-Q4_K_M.gguf", true),
            ("a/tiny-Q4_K_M.gguf", "tiny-Q4_K_M.gguf", true),
            ("a/tiny-Q4_K_M.gguf", "q4_k_m", true),
            ("tiny-UD-Q4_K_XL.gguf", "UD-Q4_K_XL", true),
            ("tiny-Q4_K_M.gguf", "Q4_K", false),
            ("tiny-IQ4_XS.gguf", "Q4_XS", false),
            ("tiny-Q4_K_M.gguf", "Q8_0", false),
        ] {
            assert_eq!(is_named(path, asked), named, "{path} {asked}");
        }
    }

    #[test]
    fn number_survives_packing_exactly() {
        // All digits: a fast parser would read another number than the one that is written from it.
        let metadata = serde_json::json!({
            "version": VERSION, "format": "safetensors", "gated": false,
            "identity": {"repo": "a/b", "revision": null, "commit": null, "file": null},
            "files": [], "siblings": [], "projectors": [], "tensors": [], "unreadable": {}, "components": [],
            "base_model": null, "gguf": null, "hub_totals": null, "evidence": {"kind": "every_header"}, "doubts": [],
            "documents": {"config.json": {"hidden_size": "NUMBER"}}
        });
        let text = metadata
            .to_string()
            .replace("\"NUMBER\"", &format!("4096{}", "9".repeat(64)));
        let read: Metadata = serde_json::from_str(&text).unwrap();
        let packed = pack(&read).unwrap();
        assert_eq!(unpack(packed.bytes.as_slice()), Ok(read));
    }
}
