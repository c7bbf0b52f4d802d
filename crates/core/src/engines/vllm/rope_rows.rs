//! Rows of vLLM's RoPE tables by family and release.
//!
//! vLLM's own models keep one table of cosines and sines. Models that vLLM runs on its transformers
//! backend compute them as they need them.

use super::constants::Constants;
use crate::engines::EngineVersion;
use crate::engines::shared::shard_size::RopeRows;
use crate::model::Architecture;

/// Classes that vLLM runs on its transformers backend, and the first release that does.
///
/// Source: `models/registry.py` of the wheels 0.12.0, 0.15.1, 0.17.1, 0.19.1, and 0.22.1 to 0.33.0.
const ON_TRANSFORMERS: [(&str, [u32; 2]); 22] = [
    ("ArceeForCausalLM", [0, 32]),
    ("CwmForCausalLM", [0, 32]),
    ("Emu3ForConditionalGeneration", [0, 12]),
    ("FlexOlmoForCausalLM", [0, 29]),
    ("GPTBigCodeForCausalLM", [0, 25]),
    ("GPTNeoXForCausalLM", [0, 32]),
    ("GlmForCausalLM", [0, 32]),
    ("HunYuanDenseV1ForCausalLM", [0, 29]),
    ("HunYuanMoEV1ForCausalLM", [0, 29]),
    ("HunYuanVLForConditionalGeneration", [0, 29]),
    ("Jais2ForCausalLM", [0, 32]),
    ("Kolibri1ForCausalLM", [0, 33]),
    ("MellumForCausalLM", [0, 32]),
    ("NanbeigeForCausalLM", [0, 30]),
    ("Olmo2ForCausalLM", [0, 26]),
    ("Olmo3ForCausalLM", [0, 29]),
    ("OlmoForCausalLM", [0, 26]),
    ("PhiForCausalLM", [0, 32]),
    ("SeedOssForCausalLM", [0, 32]),
    ("SmolLM3ForCausalLM", [0, 12]),
    ("Starcoder2ForCausalLM", [0, 25]),
    ("VaultGemmaForCausalLM", [0, 27]),
];

/// The families whose tables have [`Constants::qwen3_vision_rope_axes`].
const QWEN3_VISION: [&str; 4] = ["qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe"];

/// The rows of the tables of `architecture` at `version`; without a version at the newest release.
pub(super) fn rope_rows(
    architecture: &Architecture,
    version: Option<&EngineVersion>,
    constants: &Constants,
) -> RopeRows {
    if runs_on_transformers(&architecture.class, version) {
        RopeRows::Absent
    } else if QWEN3_VISION.contains(&&*architecture.root_model_type) {
        RopeRows::Kept {
            axes: constants.qwen3_vision_rope_axes,
        }
    } else {
        RopeRows::FOUR_AXES
    }
}

/// Whether vLLM runs `class` on its transformers backend.
fn runs_on_transformers(class: &str, version: Option<&EngineVersion>) -> bool {
    ON_TRANSFORMERS
        .iter()
        .find(|(name, _)| *name == class)
        .is_some_and(|(_, first)| version.is_none_or(|version| version.is_at_least(first)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(version: &str) -> EngineVersion {
        version.parse().unwrap()
    }

    #[test]
    fn backend_follows_the_release() {
        assert!(runs_on_transformers("HunYuanDenseV1ForCausalLM", None));
        assert!(runs_on_transformers(
            "HunYuanDenseV1ForCausalLM",
            Some(&at("0.29.0"))
        ));
        assert!(!runs_on_transformers(
            "HunYuanDenseV1ForCausalLM",
            Some(&at("0.28"))
        ));
        assert!(!runs_on_transformers("Qwen3ForCausalLM", None));
    }
}
