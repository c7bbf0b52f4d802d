//! A bundle: all the metadata of one model in one small file, for hosts without a Hub.
//!
//! gzip around a line of JSON that names the format and the SHA-256 of what follows, then the metadata as JSON. A bundle
//! is known by its content, whatever its name.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::error::SourceError;
use super::local::io;
use super::metadata::{MAX_SERIALISED_BYTES, Metadata, VERSION};
use super::token::hex;

/// The word that opens a bundle.
const FORMAT: &str = "hf-mem-probe bundle";
/// The longest first line.
const MAX_LEAD_BYTES: u64 = 4096;

/// The first line of a bundle.
#[derive(Debug, Serialize, Deserialize)]
struct Lead {
    format: String,
    version: u32,
    sha256: String,
}

/// Whether the file at `path` opens as a bundle does.
pub(super) fn is_bundle(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    let mut start = [0; 64];
    let mut unpacked = GzDecoder::new(file.take(MAX_LEAD_BYTES));
    let mut have = 0;
    while have < start.len() {
        match unpacked.read(&mut start[have..]) {
            Ok(0) | Err(_) => break,
            Ok(more) => have += more,
        }
    }
    String::from_utf8_lossy(&start[..have]).contains(FORMAT)
}

/// The bytes of a bundle of `metadata`: the same for the same metadata.
pub fn pack(metadata: &Metadata) -> Result<Vec<u8>, SourceError> {
    let refuse = |why: String| SourceError::MissingMetadata { what: metadata.identity.repo.clone(), why };
    let body = serde_json::to_vec(metadata).map_err(|error| refuse(error.to_string()))?;
    let lead = Lead { format: FORMAT.into(), version: VERSION, sha256: hex(&Sha256::digest(&body)) };
    let mut lead = serde_json::to_vec(&lead).map_err(|error| refuse(error.to_string()))?;
    lead.push(b'\n');
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    let written = packed.write_all(&lead).and_then(|()| packed.write_all(&body)).and_then(|()| packed.finish());
    written.map_err(|error| refuse(error.to_string()))
}

/// Reads the bundle at `path`.
pub(super) fn read(path: &Path) -> Result<Metadata, SourceError> {
    let file = File::open(path).map_err(|error| io(path, &error))?;
    unpack(file).map_err(|why| SourceError::MissingMetadata { what: path.display().to_string(), why })
}

/// Reads a bundle from any reader; its unpacked size is bounded, its hash checked. The error says what is wrong.
pub fn unpack(packed: impl std::io::Read) -> Result<Metadata, String> {
    let mut text = Vec::new();
    let mut unpacked = GzDecoder::new(packed).take(MAX_SERIALISED_BYTES + MAX_LEAD_BYTES);
    unpacked.read_to_end(&mut text).map_err(|error| format!("the bundle is damaged: {error}"))?;
    let at = text.iter().take(4096).position(|&byte| byte == b'\n').ok_or("it is not a bundle")?;
    let (lead, body) = (&text[..at], &text[at + 1..]);
    let lead: Lead = serde_json::from_slice(lead).map_err(|error| format!("it is not a bundle: {error}"))?;
    if lead.format != FORMAT {
        return Err("it is not a bundle".into());
    }
    if lead.version != VERSION {
        let version = lead.version;
        return Err(format!(
            "the bundle has version {version}, this program reads {VERSION}; pack it again with this one"
        ));
    }
    if lead.sha256 != hex(&Sha256::digest(body)) {
        return Err("the bundle is damaged: its content does not have the hash that it names".into());
    }
    serde_json::from_slice(body).map_err(|error| format!("the bundle cannot be read: {error}"))
}
