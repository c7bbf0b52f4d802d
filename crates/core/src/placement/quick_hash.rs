//! A fast hash for keys that are the program's own numbers.
//!
//! Planning looks figures up thousands of times for one answer. With the standard library's hash,
//! which resists hostile keys, most of the time was spent in the hash.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map with such keys.
pub(super) type QuickMap<K, V> = HashMap<K, V, BuildHasherDefault<QuickHasher>>;

/// A hasher that multiplies and rotates, as the Rust compiler's own tables do (`rustc-hash`).
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
        // The upper bits are well mixed; the map uses the lower ones.
        self.0.rotate_left(26)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::hash::{BuildHasher, BuildHasherDefault};

    use super::*;

    #[test]
    fn neighboring_keys_spread() {
        let build = BuildHasherDefault::<QuickHasher>::default();
        let hashes = (0_u32..64)
            .flat_map(|a| (0_usize..64).map(move |b| (a, b)))
            .map(|key| build.hash_one(key));
        let places: BTreeSet<u64> = hashes.map(|hash| hash % (1 << 16)).collect();
        assert!(places.len() > 3900, "{} places for 4096 keys", places.len());
    }
}
