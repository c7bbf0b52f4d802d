//! Flags for asked parameters that change the figures, which the server must therefore get too.

use super::speculation::VllmSpeculation;
use crate::engines::EngineError;
use crate::engines::shared::parameters::Parameters;
use crate::model::Model;

/// Switches, each with the value that needs no flag; `None` if every value needs one.
const SWITCHES: [(&str, Option<bool>); 3] = [
    ("async_scheduling", None),
    ("enable_prefix_caching", None),
    ("enable_chunked_prefill", Some(true)),
];

/// Returns the flags that no other field of the settings represents.
pub(super) fn flags(
    given: &Parameters,
    speculation: Option<VllmSpeculation>,
    draft: Option<&Model>,
) -> Result<Vec<String>, EngineError> {
    let mut flags = Vec::new();

    for (name, default) in SWITCHES {
        let asked = given.flag(name)?;
        if let Some(on) = asked.filter(|_| asked != default) {
            let prefix = if on { "" } else { "no-" };
            flags.push(format!("--{prefix}{}", name.replace('_', "-")));
        }
    }

    for name in [
        "mamba_cache_mode",
        "mamba_ssm_cache_dtype",
        "runner",
        "convert",
        "task",
    ] {
        if let Some(word) = given.word(name)? {
            flags.extend([format!("--{}", name.replace('_', "-")), word.to_owned()]);
        }
    }

    if let Some(limits) = given.value("limit_mm_per_prompt") {
        let limits = limits
            .as_str()
            .map_or_else(|| limits.to_string(), str::to_owned);
        flags.extend(["--limit-mm-per-prompt".to_owned(), limits]);
    }

    if let Some(speculation) = speculation {
        let config = speculation.config(draft).to_string();
        flags.extend(["--speculative-config".to_owned(), config]);
    }

    Ok(flags)
}
