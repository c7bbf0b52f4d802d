//! The first line of a file of leases: what it is, how long and with which checksum; and, with a
//! checksum of its own, when the last of its promises ends, so that this is known where the rest
//! cannot be read.
//!
//! Every version writes it so: after a downgrade, too, one knows how long to wait.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::clock::{Boottime, Now};
use super::ledger::Saved;

const FORMAT: &str = "hf-mem-probe leases";
const VERSION: u32 = 1;
pub(super) const LONGEST: usize = 4096;

/// When the promises in a file end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderGrant {
    /// The boot that its moments are counted from.
    pub boot_id: String,
    /// When the file was written.
    pub saved_at: Now,
    /// When the last of its leases ends, as it was written; `None`: none was alive.
    pub last_end: Option<Boottime>,
}

impl HeaderGrant {
    fn of(saved: &Saved) -> Self {
        let alive = saved.leases.iter().filter(|lease| lease.is_live());
        let last_end = alive.map(|lease| lease.expires_at).max();

        Self {
            boot_id: saved.boot_id.clone(),
            saved_at: saved.saved_at,
            last_end,
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
    /// Not in files of old.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    promised: Option<HeaderGrant>,
    /// Of this line without it; it comes last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    check: Option<String>,
    /// Whether that is wrong.
    #[serde(skip)]
    damaged: bool,
}

impl LedgerHeader {
    /// The line, its end included.
    pub(super) fn line(saved: &Saved, body: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
        let promised = Some(HeaderGrant::of(saved));
        let length = body.len() as u64;
        let (format, sha256) = (FORMAT.to_owned(), digest(body));
        let header = Self {
            format,
            version: VERSION,
            length,
            sha256,
            promised,
            check: None,
            damaged: false,
        };

        let mut line = serde_json::to_vec(&header)?;
        let check = check(&line);
        line.pop();
        line.extend(check);
        line.push(b'\n');

        Ok(line)
    }

    /// The header in a file's content, where it is one of ours, and what follows it.
    pub(super) fn read(content: &[u8]) -> Result<(Self, &[u8]), String> {
        let end = content.iter().take(LONGEST).position(|byte| *byte == b'\n');
        let Some((line, body)) = end.and_then(|end| content.split_at_checked(end)) else {
            return Err("its first line is not ours".to_owned());
        };

        let mut header: Self = hf_mem_core::strict_json::from_slice(line)
            .map_err(|_| "its first line is not ours".to_owned())?;
        if header.format != FORMAT {
            return Err("it holds something else than leases".to_owned());
        }

        if header.check.is_some() || header.promised.is_some() {
            let bare = line
                .len()
                .checked_sub(check(b"").len())
                .and_then(|length| line.get(..length));
            let whole = bare.map(|bare| [bare, &check(&[bare, b"}"].concat())].concat());
            header.damaged = whole.as_deref() != Some(line);
        }

        Ok((header, body.get(1..).unwrap_or_default()))
    }

    /// Whether the rest of the file is what was written.
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
                "it is torn: {} bytes where {} were written",
                body.len(),
                self.length
            ));
        }

        if self.sha256 != digest(body) {
            return Err("its checksum is wrong".to_owned());
        }

        Ok(())
    }

    /// When its promises end, where it says so.
    pub(super) fn promised(self) -> Option<HeaderGrant> {
        self.promised.filter(|_| !self.damaged)
    }
}

/// How a line ends that is `bare` without it.
fn check(bare: &[u8]) -> Vec<u8> {
    format!(",\"check\":\"{}\"}}", digest(bare)).into_bytes()
}

fn digest(bytes: &[u8]) -> String {
    crate::hex::encode(&Sha256::digest(bytes))
}
