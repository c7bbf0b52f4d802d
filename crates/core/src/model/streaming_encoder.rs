//! Speech encoders that keep caches of their own.

use crate::bytes::Bytes;

/// A speech encoder that reads a recording in steps and keeps windows of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamingEncoder {
    /// Layers.
    pub layers: u64,
    /// KV heads of a layer.
    pub kv_heads: u64,
    /// Elements of one key or value.
    pub head_dim: u64,
    /// Positions that a layer sees.
    pub window: u64,
    /// Positions for each token of the decoder.
    pub positions_per_token: u64,
    /// Elements that convolutions keep of the last step.
    pub convolved: u64,
    /// Whether it is an audio codec, which runs in 32-bit floats.
    pub is_codec: bool,
}

impl StreamingEncoder {
    /// Elements of the caches after `tokens` tokens of the decoder: windows without the position
    /// that leaves them.
    pub fn elements(&self, tokens: u64) -> Bytes {
        let positions = tokens
            .saturating_mul(self.positions_per_token)
            .min(self.window.saturating_sub(1));
        let keys = Bytes::product([self.layers, 2, self.kv_heads, self.head_dim, positions]);
        keys + Bytes::new(self.convolved)
    }
}
