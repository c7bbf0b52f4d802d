//! Overlapping tiles of an image, which wait decoded until all are.
//!
//! Source: diffusers 0.42.1 `models/autoencoders/*.py` (`tiled_decode`): rows of tiles from the
//! top, each from the left.

use crate::bytes::Bytes;

/// Tiles of a decoder, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tiles {
    /// A tile's side; at the right and lower edges tiles are smaller.
    pub(super) side: u64,
    /// From the start of one tile to that of the next.
    pub(super) stride: u64,
}

impl Tiles {
    /// Whether an image is larger than a tile.
    pub(super) fn divide(self, width: u64, height: u64) -> bool {
        width > self.side || height > self.side
    }

    /// Pixels of the tiles that are decoded before the last one of full size.
    pub(super) fn before_last_full(self, width: u64, height: u64) -> Bytes {
        let (high, wide) = (height.min(self.side), width.min(self.side));
        let rows = self.full_tiles(height).saturating_sub(1);
        let columns = self.full_tiles(width).saturating_sub(1);
        self.covered(width) * high * rows + Bytes::product([columns, wide, high])
    }

    /// Pixels of all tiles.
    pub(super) fn all(self, width: u64, height: u64) -> Bytes {
        self.covered(width) * self.covered(height).get()
    }

    /// Tiles of full size along `length` pixels; 1 if even the first is smaller.
    fn full_tiles(self, length: u64) -> u64 {
        length.saturating_sub(self.side) / self.stride.max(1) + 1
    }

    /// The sum of the sides of all tiles along `length` pixels.
    fn covered(self, length: u64) -> Bytes {
        let full = self.full_tiles(length);
        let count = length.div_ceil(self.stride.max(1));
        let smaller = (full..count).map(|tile| {
            let start = tile.saturating_mul(self.stride);
            Bytes::new(length.saturating_sub(start).min(self.side))
        });

        Bytes::new(length.min(self.side)) * full + smaller.sum()
    }
}
