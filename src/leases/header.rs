//! The first line of a file of leases: its format, length and checksum, and when its last lease
//! ends. The line has its own checksum, so that the end is known even if the rest cannot be read.
//!
//! Every version writes this line, so that a daemon also knows after a downgrade how long to wait.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::clock::{Boottime, Timestamp};
use super::ledger::Saved;

const FORMAT: &str = "hf-mem-probe leases";
const VERSION: u32 = 1;
pub(super) const MAX_BYTES: usize = 4096;

/// When the last lease in a file ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastLeaseEnd {
    /// The boot that its boot times belong to.
    pub boot_id: String,
    /// When the file was written.
    pub saved_at: Timestamp,
    /// When the last live lease ends; `None`: none was live.
    #[serde(rename = "last_end")]
    pub ends_at: Option<Boottime>,
}

impl LastLeaseEnd {
    fn of(saved: &Saved) -> Self {
        let live = saved.leases.iter().filter(|lease| lease.is_live());
        let ends_at = live.map(|lease| lease.expires_at).max();

        Self {
            boot_id: saved.boot_id.clone(),
            saved_at: saved.saved_at,
            ends_at,
        }
    }
}

/// The first line.
#[derive(Serialize, Deserialize)]
pub(super) struct LedgerHeader {
    format: String,
    version: u32,
    length: u64,
    sha256: String,
    /// Absent in files of old versions.
    #[serde(rename = "promised", default, skip_serializing_if = "Option::is_none")]
    last_end: Option<LastLeaseEnd>,
    /// The checksum of this line without this field, which comes last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    check: Option<String>,
    /// Whether that checksum is wrong.
    #[serde(skip)]
    damaged: bool,
}

impl LedgerHeader {
    /// Encodes the line, including its newline.
    pub(super) fn line(saved: &Saved, body: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
        let last_end = Some(LastLeaseEnd::of(saved));
        let length = body.len() as u64;
        let (format, sha256) = (FORMAT.to_owned(), digest(body));
        let header = Self {
            format,
            version: VERSION,
            length,
            sha256,
            last_end,
            check: None,
            damaged: false,
        };

        let mut line = serde_json::to_vec(&header)?;
        let check = checksum_field(&line);
        line.pop();
        line.extend(check);
        line.push(b'\n');

        Ok(line)
    }

    /// Decodes the header in a file's content. Returns it and what follows it.
    pub(super) fn read(content: &[u8]) -> Result<(Self, &[u8]), String> {
        let end = content
            .iter()
            .take(MAX_BYTES)
            .position(|byte| *byte == b'\n');
        let Some((line, body)) = end.and_then(|end| content.split_at_checked(end)) else {
            return Err("its first line is not a header of this program".to_owned());
        };

        let mut header: Self = hf_mem_core::strict_json::from_slice(line)
            .map_err(|_| "its first line is not a header of this program".to_owned())?;
        if header.format != FORMAT {
            return Err("it contains something other than leases".to_owned());
        }

        if header.check.is_some() || header.last_end.is_some() {
            let bare = line
                .len()
                .checked_sub(checksum_field(b"").len())
                .and_then(|length| line.get(..length));
            let expected =
                bare.map(|bare| [bare, &checksum_field(&[bare, b"}"].concat())].concat());
            header.damaged = expected.as_deref() != Some(line);
        }

        Ok((header, body.get(1..).unwrap_or_default()))
    }

    /// Checks that the rest of the file is what was written.
    pub(super) fn matches(&self, body: &[u8]) -> Result<(), String> {
        if self.version != VERSION {
            return Err(format!(
                "it was written by another version (format {}, this one is {VERSION})",
                self.version
            ));
        }

        if self.damaged {
            return Err("its first line is damaged".to_owned());
        }

        if self.length != body.len() as u64 {
            return Err(format!(
                "it is torn: {} bytes instead of {}",
                body.len(),
                self.length
            ));
        }

        if self.sha256 != digest(body) {
            return Err("its checksum is wrong".to_owned());
        }

        Ok(())
    }

    /// When the last lease ends, if the line is intact.
    pub(super) fn last_end(self) -> Option<LastLeaseEnd> {
        self.last_end.filter(|_| !self.damaged)
    }
}

/// Returns the end of a line: the checksum of `bare`, which is the line without it.
fn checksum_field(bare: &[u8]) -> Vec<u8> {
    format!(",\"check\":\"{}\"}}", digest(bare)).into_bytes()
}

fn digest(bytes: &[u8]) -> String {
    crate::hex::encode(&Sha256::digest(bytes))
}
