//! Architectures that are known from build 12032 only.

use super::profile::LlamaProfile;

/// Architectures of llama.cpp b12032 (`src/llama-arch.cpp`, `LLM_ARCH_NAMES`) whose first build is
/// not known.
///
/// Their rules come from that build. An earlier one may lack them or keep other caches.
const NEW: [&str; 30] = [
    "bailingmoe3",
    "beam",
    "deepseek4",
    "deepseek41",
    "dots3note",
    "flint",
    "gemma-embedding2",
    "glm5-next",
    "granite_swa",
    "hrm_text",
    "hy_v4",
    "k2-horizon",
    "kimi-k3",
    "kolibri1",
    "lfm3",
    "limite",
    "maion-coder",
    "maple",
    "minimax-01",
    "minimax-m3",
    "mistral-large4",
    "muse-glimmer",
    "muse-spark",
    "nanbeige",
    "pockettts",
    "qwen3tts",
    "qwen4exp",
    "sensenova_u1",
    "spark2_5",
    "vllm-decision2",
];

/// Returns whether the first build of `architecture` is not known.
pub(super) fn is_new(architecture: &str) -> bool {
    NEW.contains(&architecture)
}

/// Returns why builds of `profile` get no answer for `architecture`; `None` if they get one.
pub(super) fn refusal(architecture: &str, profile: &LlamaProfile) -> Option<String> {
    if profile.reserves_inputs || !is_new(architecture) {
        return None;
    }

    Some(format!(
        "llama.cpp b12032 runs {architecture}, but whether builds before b12000 do is not known; \
         name a later build"
    ))
}

#[cfg(test)]
mod tests {
    use super::super::profile::profile;
    use super::*;

    #[test]
    fn early_builds_lack_new_architectures() {
        let refused = |build: &str, name| {
            let profile = profile(Some(&build.parse().unwrap())).unwrap();
            refusal(name, &profile).is_some()
        };

        assert!(refused("b10450", "kimi-k3") && refused("b4000", "beam"));
        assert!(!refused("b12032", "kimi-k3") && !refused("b10450", "kimi-linear"));
    }
}
