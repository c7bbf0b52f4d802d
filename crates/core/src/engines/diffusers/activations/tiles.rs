//! Overlapping tiles of an image, which wait decoded until all are.
//!
//! Source: diffusers 0.42.1 `models/autoencoders/*.py` (`tiled_decode`): rows of tiles from the
//! top, each from the left.

use crate::bytes::Bytes;

/// Tiles along one axis, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Axis {
    /// A tile's side; the last tiles are smaller.
    pub(super) side: u64,
    /// From the start of one tile to that of the next.
    pub(super) stride: u64,
}

/// Tiles of a decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tiles {
    pub(super) wide: Axis,
    pub(super) high: Axis,
}

impl Tiles {
    /// Square tiles.
    pub(super) const fn square(side: u64, stride: u64) -> Self {
        let axis = Axis { side, stride };
        Self {
            wide: axis,
            high: axis,
        }
    }

    /// Width and height of the largest tile of an image; `None` if the image is one tile.
    pub(super) fn largest(self, width: u64, height: u64) -> Option<(u64, u64)> {
        let divides = width > self.wide.side || height > self.high.side;
        divides.then(|| (width.min(self.wide.side), height.min(self.high.side)))
    }

    /// Pixels of the tiles that are decoded before the last one of full size.
    pub(super) fn before_last_full(self, width: u64, height: u64) -> Bytes {
        let (high, wide) = (height.min(self.high.side), width.min(self.wide.side));
        let rows = self.high.full(height).saturating_sub(1);
        let columns = self.wide.full(width).saturating_sub(1);
        self.wide.covered(width) * high * rows + Bytes::product([columns, wide, high])
    }

    /// Pixels of all tiles.
    pub(super) fn all(self, width: u64, height: u64) -> Bytes {
        self.wide.covered(width) * self.high.covered(height).get()
    }
}

impl Axis {
    /// Tiles of full size along `length` pixels; 1 if even the first is smaller.
    fn full(self, length: u64) -> u64 {
        length.saturating_sub(self.side) / self.stride.max(1) + 1
    }

    /// The sum of the sides of all tiles along `length` pixels.
    fn covered(self, length: u64) -> Bytes {
        let full = self.full(length);
        let count = length.div_ceil(self.stride.max(1));
        let smaller = (full..count).map(|tile| {
            let start = tile.saturating_mul(self.stride);
            Bytes::new(length.saturating_sub(start).min(self.side))
        });

        Bytes::new(length.min(self.side)) * full + smaller.sum()
    }
}
