//! A share of a device that the asker gives an engine, and the cache that an engine has once it is
//! started.

use super::Interval;

/// A share of a device: the engine takes all of it at its start, whatever it needs, and nothing
/// beyond it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// The parameter that sets it, by the engine's own name: `gpu_memory_utilization`.
    pub name: &'static str,
    /// The share in millionths of the device's memory.
    pub millionths: u64,
    /// Bytes that the engine holds in all: the share and what lies outside of it.
    pub taken: Interval,
    /// The part of `taken` that lies outside of the share: what is allocated before the engine
    /// looks how much is free.
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

/// The cache of an engine that was started, in tokens, as engines log it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheCapacity {
    /// Tokens that the cache is expected to hold ("GPU KV cache size" in vLLM's log).
    pub tokens: u64,
    /// Tokens that it holds at the least.
    pub low_tokens: u64,
    /// Sequences of the context in force that it is expected to hold at once, in hundredths
    /// ("Maximum concurrency").
    pub concurrency_hundredths: u64,
}
