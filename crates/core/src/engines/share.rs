//! The share of a device that a parameter reserves, and the cache that a started engine has.

use super::Interval;

/// A reserved share of a device.
///
/// The engine takes all of it at its start, whatever it needs, and nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// The parameter that sets it, by the engine's own name: `gpu_memory_utilization`.
    pub name: &'static str,
    /// The share in millionths of the device's memory.
    pub millionths: u64,
    /// Bytes that the engine holds in all: the share and the memory outside it.
    pub taken: Interval,
    /// The part of `taken` outside the share: what is allocated before the engine reads the free
    /// memory.
    pub outside: Interval,
}

impl Share {
    /// The share as the parameter's value: `0.9`.
    pub fn value(&self) -> f64 {
        decimal(self.millionths)
    }
}

impl std::fmt::Display for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} = {}", self.name, self.value())
    }
}

/// Millionths as a decimal.
#[expect(
    clippy::cast_precision_loss,
    reason = "a share is at most a million millionths"
)]
pub fn decimal(millionths: u64) -> f64 {
    millionths as f64 / 1_000_000.0
}

/// The cache of a started engine in tokens, as engines log it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheCapacity {
    /// Expected tokens in the cache ("GPU KV cache size" in vLLM's log).
    pub tokens: u64,
    /// Lowest expected tokens in the cache.
    pub low_tokens: u64,
    /// Expected concurrent sequences of the effective context, in hundredths ("Maximum
    /// concurrency").
    pub concurrency_hundredths: u64,
}
