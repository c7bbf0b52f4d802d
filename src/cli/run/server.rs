//! The servers whose command lines are understood.

use hf_mem_core::engines::shared::parameter_names::ParameterList;

use super::server_flags::{Flag, LLAMA_SERVER, SGLANG, VLLM};

/// A known server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Server {
    Vllm,
    Sglang,
    Llama,
    Ollama,
}

impl Server {
    /// Returns the engine's name, as in `--engine`.
    pub(super) fn engine(self) -> &'static str {
        match self {
            Self::Vllm => "vllm",
            Self::Sglang => "sglang",
            Self::Llama => "llama.cpp",
            Self::Ollama => "ollama",
        }
    }

    /// Returns the server of the engine `name`.
    pub(super) fn of_engine(name: &str) -> Option<Self> {
        [Self::Vllm, Self::Sglang, Self::Llama, Self::Ollama]
            .into_iter()
            .find(|server| server.engine() == name)
    }

    /// Returns the parameter and value that mean the engine's default share of the device.
    ///
    /// `None` for an engine that takes only what the model needs.
    pub(super) fn default_share(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Vllm => Some(("gpu_memory_utilization", "default")),
            Self::Sglang => Some(("max_total_tokens", "default")),
            Self::Llama | Self::Ollama => None,
        }
    }

    /// Whether the server uses one device without parallel flags, even if it sees more.
    pub(super) fn needs_parallel_flags(self) -> bool {
        matches!(self, Self::Vllm | Self::Sglang)
    }

    /// Returns the list of the engine's parameters.
    pub(super) fn parameters(self) -> Option<&'static ParameterList> {
        ParameterList::of_engine(self.engine())
    }

    /// Returns the engine's own name for a parameter; an unknown name stays as it is.
    pub(super) fn canonical_name(self, name: &str) -> &str {
        let known = self.parameters().and_then(|list| list.canonical_name(name));
        known.unwrap_or(name)
    }

    pub(super) fn flags(self) -> &'static [Flag] {
        match self {
            Self::Vllm => VLLM,
            Self::Sglang => SGLANG,
            Self::Llama => LLAMA_SERVER,
            Self::Ollama => &[],
        }
    }

    /// Whether the server accepts unambiguous abbreviations of flags, as argparse does.
    pub(super) fn abbreviates(self) -> bool {
        matches!(self, Self::Vllm | Self::Sglang)
    }
}
