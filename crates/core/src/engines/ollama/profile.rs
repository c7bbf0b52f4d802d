//! Ollama's constants, from the embedded table.

use serde::Deserialize;

use crate::bytes::Bytes;

const TABLE: &str = include_str!("../profiles/ollama.toml");

/// Constants of Ollama since 0.25.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OllamaProfile {
    pub(crate) num_parallel: u64,
    pub(crate) num_batch: u64,
    pub(crate) num_batch_embedding: u64,
    num_ctx: Vec<(u64, u64)>,
    num_ctx_small: u64,
    pub(crate) minimum_mib: u64,
    pub(crate) gpu_overhead_mib: u64,
    pub(crate) projector_margin_mib: u64,
}

/// Reads the table, or returns why it is unreadable.
pub(crate) fn profile() -> Result<OllamaProfile, String> {
    toml::from_str(TABLE)
        .map_err(|error| format!("the embedded table of Ollama constants cannot be read: {error}"))
}

impl OllamaProfile {
    /// The default context for devices with `total` bytes together.
    pub(crate) fn default_context(&self, total: Bytes) -> u64 {
        let reached = self
            .num_ctx
            .iter()
            .find(|(gib, _)| total >= Bytes::gib(*gib));
        reached.map_or(self.num_ctx_small, |(_, tokens)| *tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_context_follows_memory() {
        let profile = profile().unwrap();
        assert_eq!(profile.default_context(Bytes::gib(8)), 4096);
        assert_eq!(profile.default_context(Bytes::gib(24)), 32_768);
        assert_eq!(profile.default_context(Bytes::gib(48)), 262_144);
    }
}
