//! Environment variables that servers read in place of flags.

use hf_mem_core::engines::shared::parameter_names::{ParameterEffect, switch};
use hf_mem_core::report::Problem;

use super::flag_lookup::known;
use super::flag_value::value;
use super::server_flags::FlagMeaning;
use super::server_line::{ServerLine, not_followed};
use super::wrapper::Variables;

impl ServerLine {
    /// Reads Ollama's variables: counted ones become parameters, others give notes.
    pub(super) fn take_ollama_variables(&mut self, variables: &Variables) {
        let list = self.server.parameters();
        let set_variables = variables
            .iter()
            .filter(|(name, text)| name.starts_with("OLLAMA_") && !text.is_empty());

        for (name, text) in set_variables {
            match list.and_then(|list| list.effect(name, Some(text))) {
                Some(ParameterEffect::Counted(_)) => self.set(name, Some(value(text))),
                Some(ParameterEffect::NoEffect) => {}
                Some(ParameterEffect::NotCounted(why)) => {
                    self.notes
                        .push(not_followed(name, why.unwrap_or("it is not counted")));
                }
                Some(ParameterEffect::Elsewhere(why)) => self.notes.push(not_followed(name, why)),
                None => self.notes.push(not_followed(name, "unknown variable")),
            }
        }
    }

    /// Reads llama-server's variables as flags. A flag overrides its variable.
    pub(super) fn take_llama_variables(&mut self, variables: &Variables) -> Result<(), Problem> {
        for (variable, text) in variables {
            let Some(name) = llama_flag(variable) else {
                continue;
            };

            let Some((meaning, on)) = known(self.server, &name) else {
                if !self.take_listed(variable, &name, Some(text)) {
                    self.notes.push(not_followed(variable, "unknown variable"));
                }
                continue;
            };

            let is_no = variable.starts_with("LLAMA_ARG_NO_");
            match (meaning, switch(&value(text))) {
                // Releases differ: `LLAMA_ARG_NO_X` applies if it is present, or only if it is
                // true.
                (FlagMeaning::Switch(_), Some(true)) if is_no => {
                    self.take(variable, meaning, on, None)?;
                }
                (FlagMeaning::Switch(_), _) if is_no => {}
                (FlagMeaning::Switch(_), Some(is_on)) => {
                    self.take(variable, meaning, is_on, None)?;
                }
                (FlagMeaning::Switch(_), None) => {
                    self.notes
                        .push(not_followed(variable, "its value is not on or off"));
                }
                _ => self.take(variable, meaning, on, Some(text.clone()))?,
            }
        }

        Ok(())
    }
}

/// Returns the flag that a llama-server variable means, without leading dashes.
///
/// Source: `common/arg.cpp`.
fn llama_flag(variable: &str) -> Option<String> {
    let name = variable.strip_prefix("LLAMA_ARG_")?;
    Some(match name {
        "BATCH" => "batch-size".to_owned(),
        "UBATCH" => "ubatch-size".to_owned(),
        "N_PARALLEL" => "parallel".to_owned(),
        "HFD_REPO" => "hf-repo-draft".to_owned(),
        _ => name.to_ascii_lowercase().replace('_', "-"),
    })
}
