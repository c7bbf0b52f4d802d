//! A read position in a prefix of a file.
//!
//! Its errors distinguish a header that is longer than the prefix from an invalid one.

use super::{GgufError, MAX_HEADER_BYTES};

/// Why parsing stopped.
#[derive(Debug)]
pub(super) enum Stop {
    /// The header is longer than the prefix.
    Short {
        /// Minimum length of the header, from the start of the file.
        at_least: u64,
    },
    /// The header is invalid.
    Bad(GgufError),
}

impl From<GgufError> for Stop {
    fn from(error: GgufError) -> Self {
        Self::Bad(error)
    }
}

/// A position in a prefix of a file.
#[derive(Debug)]
pub(super) struct Cursor<'p> {
    prefix: &'p [u8],
    position: usize,
}

impl<'p> Cursor<'p> {
    pub(super) fn new(prefix: &'p [u8]) -> Self {
        Self {
            prefix,
            position: 0,
        }
    }

    /// Returns the number of bytes read.
    pub(super) fn position(&self) -> u64 {
        self.position as u64
    }

    /// Reads the next `count` bytes.
    pub(super) fn take(&mut self, count: u64) -> Result<&'p [u8], Stop> {
        let end = self.position().saturating_add(count);
        let slice = usize::try_from(end)
            .ok()
            .and_then(|end| self.prefix.get(self.position..end));

        match slice {
            Some(slice) => {
                self.position += slice.len();
                Ok(slice)
            }
            None if end > MAX_HEADER_BYTES => Err(absurd("a length", "", count)),
            None => Err(Stop::Short { at_least: end }),
        }
    }

    /// Reads the next `N` bytes.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        let bytes = self.take(N as u64)?;
        let mut array = [0; N];
        array.copy_from_slice(bytes);
        Ok(array)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Stop> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Stop> {
        self.array().map(u64::from_le_bytes)
    }

    /// Reads the bytes of a string of at most `limit` bytes.
    pub(super) fn string(&mut self, limit: u64, what: &'static str) -> Result<&'p [u8], Stop> {
        let length = self.u64()?;
        if length > limit {
            Err(absurd(what, "", length))
        } else {
            self.take(length)
        }
    }

    /// Returns an error if `count` further items of at least `min_bytes` exceed any header.
    pub(super) fn expect(
        &self,
        count: u64,
        min_bytes: u64,
        what: &'static str,
        name: &str,
    ) -> Result<(), Stop> {
        let end = count
            .saturating_mul(min_bytes)
            .saturating_add(self.position());
        if end > MAX_HEADER_BYTES {
            Err(absurd(what, name, count))
        } else {
            Ok(())
        }
    }
}

fn absurd(what: &'static str, name: &str, claimed: u64) -> Stop {
    let name = if name.is_empty() {
        String::new()
    } else {
        format!("'{name}' ")
    };

    Stop::Bad(GgufError::Absurd {
        what,
        name,
        claimed,
        limit: "a header",
    })
}

/// Returns at most 80 bytes of a file's text, escaped for a message.
pub(super) fn shown(bytes: &[u8]) -> String {
    let head = bytes.get(..80).unwrap_or(bytes);
    let text = String::from_utf8_lossy(head).escape_debug().to_string();
    if head.len() < bytes.len() {
        format!("{text}...")
    } else {
        text
    }
}
