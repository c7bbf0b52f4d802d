//! A hash for keys that are this program's own numbers: planning looks figures up thousands of
//! times for one answer, and most of that time went into the standard library's hash, which is made
//! to withstand hostile keys.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map by such keys.
pub(super) type QuickMap<K, V> = HashMap<K, V, BuildHasherDefault<QuickHasher>>;

/// Multiplies and rotates, as the Rust compiler's own tables do (`rustc-hash`).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct QuickHasher(u64);

impl Hasher for QuickHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(u64::from(value));
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = self
            .0
            .wrapping_add(value)
            .wrapping_mul(0xf135_7aea_2e62_a9c5);
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }

    fn finish(&self) -> u64 {
        // The upper bits are the well mixed ones, and the map takes its place from the lower.
        self.0.rotate_left(26)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::hash::{BuildHasher, BuildHasherDefault};

    use super::*;

    #[test]
    fn neighbouring_keys_fall_apart() {
        let build = BuildHasherDefault::<QuickHasher>::default();
        let hashes = (0_u32..64)
            .flat_map(|a| (0_usize..64).map(move |b| (a, b)))
            .map(|key| build.hash_one(key));
        let places: BTreeSet<u64> = hashes.map(|hash| hash % (1 << 16)).collect();
        assert!(places.len() > 3900, "{} places for 4096 keys", places.len());
    }
}
