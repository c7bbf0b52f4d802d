//! The draft that the command loads.

use std::collections::BTreeMap;

use hf_mem_core::engines::vllm::counts_speculation;
use hf_mem_core::report::Question;
use hf_mem_core::report::question::ModelQuestion;
use serde_json::Value;

use super::server::Server;
use super::server_line::ServerLine;

/// The parameter that names SGLang's draft.
const SGLANG_DRAFT: &str = "speculative_draft_model_path";

/// SGLang's algorithms whose drafts are counted.
const SGLANG_ALGORITHMS: [&str; 4] = ["STANDALONE", "EAGLE", "EAGLE3", "NEXTN"];

impl ServerLine {
    /// Moves speculative decoding whose memory is not counted from the parameters to the flags that
    /// no lease covers.
    pub(super) fn set_apart_uncounted_draft(&mut self) {
        match self.server {
            Server::Vllm => {
                let config = self.parameters.get("speculative_config");
                if config.is_some_and(|config| !config.is_null() && !counts_speculation(config)) {
                    self.parameters.remove("speculative_config");
                    self.uncounted.push("--speculative-config".to_owned());
                }
            }
            Server::Sglang => {
                let drafts = |name: &str| name.starts_with("speculative");
                if self.parameters.keys().any(|name| drafts(name)) && !self.counts_sglang_draft() {
                    self.parameters.retain(|name, _| !drafts(name));
                    self.uncounted.push("--speculative-algorithm".to_owned());
                }
            }
            Server::Llama | Server::Ollama => {}
        }
    }

    fn counts_sglang_draft(&self) -> bool {
        let algorithm = self
            .parameters
            .get("speculative_algorithm")
            .and_then(Value::as_str)
            .map(str::to_uppercase);

        self.parameters.contains_key(SGLANG_DRAFT)
            && algorithm.is_some_and(|word| SGLANG_ALGORITHMS.contains(&word.as_str()))
    }
}

/// Sets the draft that the command's parameters name in `question`.
///
/// Returns a note if the options name another one.
pub(super) fn settle_draft(question: &mut Question, server: Server) -> Option<String> {
    let (repo, revision) = named_draft(server, &mut question.engine.parameters)?;
    let named = match revision {
        Some(revision) => format!("{repo}@{revision}"),
        None => repo,
    };

    let asked = question.draft.take();
    let note = asked.filter(|asked| asked.repo != named).map(|asked| {
        format!(
            "--draft is {}, but CMD loads {named}: the lease follows CMD",
            asked.repo
        )
    });

    question.draft = Some(ModelQuestion {
        repo: named,
        ..ModelQuestion::default()
    });

    note
}

/// Removes a draft that the command does not load, and returns the option that named it.
pub(super) fn drop_uncarried_draft(
    question: &mut Question,
    server: Server,
    carried: &BTreeMap<String, Value>,
) -> Option<String> {
    let is_carried = carried
        .keys()
        .any(|name| names_draft(server, server.canonical_name(name)));
    let draft = question.draft.take_if(|_| !is_carried)?;

    Some(format!("--draft {}", draft.repo))
}

/// Whether the parameter `name` of `server` names a draft.
fn names_draft(server: Server, name: &str) -> bool {
    match server {
        Server::Vllm => name == "speculative_config",
        Server::Sglang => name == SGLANG_DRAFT,
        Server::Llama => name.contains("draft"),
        Server::Ollama => false,
    }
}

/// Takes the draft out of `parameters`: its name and revision.
fn named_draft(
    server: Server,
    parameters: &mut BTreeMap<String, Value>,
) -> Option<(String, Option<String>)> {
    if server == Server::Sglang {
        let repo = parameters.remove(SGLANG_DRAFT)?.as_str()?.to_owned();
        return Some((repo, None));
    }

    if server != Server::Vllm {
        return None;
    }

    let config = parameters.get_mut("speculative_config")?.as_object_mut()?;
    let repo = config.get("model")?.as_str()?.to_owned();
    let revision = config
        .get("revision")
        .and_then(Value::as_str)
        .map(str::to_owned);

    // The question names the draft once.
    config.remove("model");
    config.remove("revision");

    Some((repo, revision))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn question(draft: Option<&str>, parameters: &Value) -> Question {
        let mut question = Question::default();
        question.draft = draft.map(|repo| ModelQuestion {
            repo: repo.to_owned(),
            ..ModelQuestion::default()
        });
        question.engine.parameters = serde_json::from_value(parameters.clone()).unwrap();
        question
    }

    #[test]
    fn draft_of_command_is_leased() {
        let config = json!({"method": "eagle3", "model": "a/head", "revision": "r1",
            "num_speculative_tokens": 3});
        let parameters = json!({ "speculative_config": config });

        for (asked, noted) in [
            (None, false),
            (Some("a/head@r1"), false),
            (Some("a/b"), true),
        ] {
            let mut question = question(asked, &parameters);
            let note = settle_draft(&mut question, Server::Vllm);
            assert_eq!(note.is_some(), noted, "{asked:?}");
            assert_eq!(question.draft.unwrap().repo, "a/head@r1");
            assert_eq!(
                question.engine.parameters["speculative_config"],
                json!({"method": "eagle3", "num_speculative_tokens": 3})
            );
        }
    }

    #[test]
    fn sglang_draft_is_leased() {
        let parameters = json!({"speculative_algorithm": "EAGLE3",
            "speculative_draft_model_path": "a/head"});
        let mut question = question(None, &parameters);
        assert_eq!(settle_draft(&mut question, Server::Sglang), None);
        assert_eq!(question.draft.unwrap().repo, "a/head");
        assert_eq!(question.engine.parameters.len(), 1);
    }

    #[test]
    fn draft_without_flag_is_dropped() {
        let carried = BTreeMap::from([("speculative_config".to_owned(), json!({}))]);
        let mut kept = question(Some("a/b"), &json!({}));
        assert_eq!(
            drop_uncarried_draft(&mut kept, Server::Vllm, &carried),
            None
        );

        let dropped = drop_uncarried_draft(&mut kept, Server::Vllm, &BTreeMap::new());
        assert_eq!(dropped.as_deref(), Some("--draft a/b"));
        assert_eq!(kept.draft, None);
    }
}
