//! llama.cpp's constants by build, from the embedded table.

use serde::Deserialize;

use crate::bytes::Bytes;
use crate::engines::{EngineVersion, Interval};

const TABLE: &str = include_str!("../profiles/llama_cpp.toml");

/// Constants of the builds from `from_build` on.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a separate change of llama.cpp"
)]
pub(crate) struct LlamaProfile {
    /// The first build measured with these constants.
    pub(crate) name: String,
    from_build: u32,
    /// Default slots of llama-server.
    pub(crate) slots: u64,
    pub(crate) n_batch: u64,
    pub(crate) n_ubatch: u64,
    pub(crate) fit_target_mib: u64,
    /// The least context that `--fit` shrinks an unset one to; `None` if it does not shrink.
    pub(crate) fit_min_context: Option<u64>,
    /// Host memory for saved prompts, in MiB; `None` if the default is unknown.
    pub(crate) prompt_cache_mib: Option<u64>,
    pub(crate) outputs_for_slots_only: bool,
    pub(crate) half_copies_in_buffer: bool,
    /// Whether the product of a dense feed-forward's gate and up projections has a third buffer.
    pub(crate) gate_apart: bool,
    /// Bytes of a flash-attention mask's cell, copies included.
    pub(crate) mask_bytes: u64,
    /// Lowest measured buffer, in percent of the formula: without and with experts.
    pub(crate) low_percent: [u64; 2],
    /// Whether `flash_attn = auto` is off for head shapes without a CUDA kernel.
    #[serde(default)]
    pub(crate) flash_needs_kernel: bool,
    /// Whether layers for multi-token prediction are loaded without a draft.
    #[serde(default = "yes")]
    pub(crate) loads_next_token_layers: bool,
    /// Whether a quantized cache has rotation matrices.
    #[serde(default)]
    pub(crate) rotates_cache: bool,
    /// Whether the graph reserves every way in: token numbers, embeddings, and both.
    #[serde(default)]
    pub(crate) reserves_inputs: bool,
    context_mib_per_multiprocessor: u64,
    context_mib: [u64; 3],
    cublas_mib_hopper: u64,
    cublas_mib: u64,
    pool_mib: [u64; 3],
    projector_compute_mib: [u64; 3],
}

#[derive(Deserialize)]
struct Table {
    profile: Vec<LlamaProfile>,
}

fn yes() -> bool {
    true
}

/// The reason why there is no profile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LlamaProfileError {
    /// The embedded table is damaged.
    #[error("the embedded table of llama.cpp constants cannot be read: {0}")]
    Table(String),
}

/// The constants for a build (`b8179`, `8179`).
///
/// A build that names no release gets the newest constants: builds without tags report 0 or 1.
pub(crate) fn profile(version: Option<&EngineVersion>) -> Result<LlamaProfile, LlamaProfileError> {
    let table: Table =
        toml::from_str(TABLE).map_err(|error| LlamaProfileError::Table(error.to_string()))?;
    let build = version
        .and_then(EngineVersion::build)
        .filter(|build| *build > 1)
        .unwrap_or(u32::MAX);

    let mut profiles = table
        .profile
        .into_iter()
        .filter(|profile| profile.from_build <= build);

    profiles
        .next()
        .ok_or_else(|| LlamaProfileError::Table("no profile covers every build".to_owned()))
}

fn mib([low, likely, high]: [u64; 3]) -> Interval {
    Interval::new(Bytes::mib(low), Bytes::mib(likely), Bytes::mib(high))
}

impl LlamaProfile {
    /// Bytes of the CUDA context on a device with `multiprocessors`.
    pub(crate) fn context(&self, multiprocessors: Option<u32>) -> Interval {
        match multiprocessors {
            Some(count) => {
                let likely = Bytes::mib(self.context_mib_per_multiprocessor) * u64::from(count);
                Interval::new(likely.scale(9, 10), likely, likely + Bytes::mib(100))
            }
            None => mib(self.context_mib),
        }
    }

    /// Bytes of the cuBLAS workspace and the conversion pool.
    pub(crate) fn libraries(&self, capability: Option<u32>) -> Interval {
        let cublas = match capability {
            Some(capability) if capability < 90 => self.cublas_mib,
            _ => self.cublas_mib_hopper,
        };
        Interval::exact(Bytes::mib(cublas)).plus(mib(self.pool_mib))
    }

    /// Bytes of the compute buffer for a projector's largest image.
    pub(crate) fn projector_compute(&self) -> Interval {
        mib(self.projector_compute_mib)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_find_their_profile() {
        let profile_name = |version: &str| profile(Some(&version.parse().unwrap())).unwrap().name;
        assert_eq!(profile(None).unwrap().name, "b12000");
        assert_eq!(profile_name("b12032"), "b12000");
        assert_eq!(profile_name("b11999"), "b10450");
        assert_eq!(profile_name("b10451"), "b10450");
        assert_eq!(profile_name("8179"), "b5780");
        assert_eq!(profile_name("b3943"), "b4000");
        assert_eq!(profile_name("1"), "b12000");
    }
}
