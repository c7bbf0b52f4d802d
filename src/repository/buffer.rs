//! A byte buffer whose memory returns to the system when it is freed.
//!
//! glibc keeps what a long text took: after the first one of some MiB, it takes all others up to 32
//! MiB from its heap. The heap shrinks only if no live allocation lies behind the gap. So a long
//! text has pages of its own.

use std::ops::Deref;

use memmap2::MmapMut;

/// Maximum length of a text in the heap.
const MAX_HEAP_BYTES: usize = 64 << 10;

/// Bytes that grow at their end.
#[derive(Debug)]
pub(super) struct Buffer(BufferPages);

#[derive(Debug)]
enum BufferPages {
    Heap(Vec<u8>),
    /// Anonymous pages, and how many of their bytes are in use.
    Pages(MmapMut, usize),
}

impl Buffer {
    pub(super) fn new() -> Self {
        Self(BufferPages::Heap(Vec::new()))
    }

    /// Creates an empty buffer with room for `bytes`. Pages take memory only once they are written
    /// to, so a hostile length takes none. The caller bounds it all the same.
    pub(super) fn with_room(bytes: u64) -> Self {
        let mut buffer = Self::new();
        buffer.reserve(usize::try_from(bytes).unwrap_or(0));
        buffer
    }

    /// Appends `bytes`.
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        match &mut self.0 {
            BufferPages::Heap(all) => all.extend_from_slice(bytes),
            BufferPages::Pages(pages, length) => {
                let end = length.saturating_add(bytes.len());
                if let Some(free) = pages.get_mut(*length..end) {
                    free.copy_from_slice(bytes);
                    *length = end;
                }
            }
        }
    }

    /// Makes room for `more` bytes. If the system has no pages left, uses the heap.
    fn reserve(&mut self, more: usize) {
        let needed = self.len().saturating_add(more);
        let room = match &self.0 {
            BufferPages::Heap(_) => MAX_HEAP_BYTES,
            BufferPages::Pages(pages, _) => pages.len(),
        };

        if needed <= room {
            return;
        }

        let grown = needed.max(room.saturating_mul(2));
        let length = self.len();

        match MmapMut::map_anon(grown) {
            Ok(mut pages) => {
                if let Some(start) = pages.get_mut(..length) {
                    start.copy_from_slice(self);
                }
                self.0 = BufferPages::Pages(pages, length);
            }
            Err(_) if matches!(self.0, BufferPages::Pages(..)) => {
                self.0 = BufferPages::Heap(self.to_vec());
            }
            Err(_) => {}
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            BufferPages::Heap(bytes) => bytes,
            BufferPages::Pages(pages, length) => pages.get(..*length).unwrap_or_default(),
        }
    }
}

impl From<Vec<u8>> for Buffer {
    fn from(bytes: Vec<u8>) -> Self {
        Self(BufferPages::Heap(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_unchanged_by_growth() {
        let bytes: Vec<u8> = (0..=250).cycle().take(5 * MAX_HEAP_BYTES + 7).collect();
        for room in [0, 10, bytes.len() as u64, u64::MAX] {
            let mut buffer = Buffer::with_room(room);
            for chunk in bytes.chunks(1000) {
                buffer.extend(chunk);
            }
            assert!(*buffer == *bytes, "room for {room}");
        }
    }

    #[test]
    fn long_text_has_its_own_pages() {
        let mut buffer = Buffer::from(vec![1; MAX_HEAP_BYTES]);
        assert!(matches!(buffer.0, BufferPages::Heap(_)));
        buffer.extend(&[2]);
        assert!(matches!(buffer.0, BufferPages::Pages(..)));

        assert_eq!(
            (buffer.len(), buffer[MAX_HEAP_BYTES]),
            (MAX_HEAP_BYTES + 1, 2)
        );
    }
}
