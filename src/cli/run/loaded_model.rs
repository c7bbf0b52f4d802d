//! Compares the model and file that the command loads with those of the question.

use std::path::PathBuf;

use hf_mem_core::report::Question;

use super::server_line::ServerLine;
use crate::files::{self, Disk};

/// Sets the file that the command loads in `question`.
///
/// Returns a note if the command loads another model or file than the options name.
pub(super) fn settle_model(question: &mut Question, line: &ServerLine) -> Option<String> {
    let loaded = line.model.as_deref()?;
    if let Some(note) = other_model(loaded, question) {
        return Some(note);
    }

    let named = line.file.as_deref().or_else(|| quantization_tag(loaded));
    if named.is_none() && !line.from_repository {
        return None;
    }

    let asked = question.model.file.take();
    question.model.file = named.map(str::to_owned);
    let asked = asked?;
    if named.is_some_and(|named| named.eq_ignore_ascii_case(&asked)) {
        return None;
    }

    let loads = named.unwrap_or("the default file");
    Some(format!(
        "--file is {asked}, but CMD loads {loads} of {loaded}: the lease follows CMD"
    ))
}

/// Returns the quantization in `owner/name:Q4_K_M`; `latest` means none.
fn quantization_tag(loaded: &str) -> Option<&str> {
    if loaded.starts_with(['.', '/']) {
        return None;
    }
    let (repo, tag) = loaded.split_once(':')?;
    (repo.contains('/') && !tag.is_empty() && !tag.eq_ignore_ascii_case("latest")).then_some(tag)
}

/// Returns a note if the command loads another model than the question's.
fn other_model(loaded: &str, question: &Question) -> Option<String> {
    let asked = question.model.repo.as_str();
    let (asked_name, loaded_name) = (bare_name(asked), bare_name(loaded));

    // llama-server accepts `owner/name:Q4_K_M`.
    let loaded_repo = loaded_name
        .split_once(':')
        .map_or(loaded_name, |(repo, _)| repo);
    let is_same_file = question
        .model
        .file
        .as_deref()
        .is_some_and(|file| loaded_name.ends_with(file));

    if asked_name == loaded_name
        || asked_name == loaded_repo
        || is_same_file
        || is_same_path(asked, loaded)
    {
        return None;
    }

    Some(format!(
        "warning: CMD loads {loaded}, but the lease is for {asked}"
    ))
}

/// Returns a model's name without its revision, a leading `./` and a trailing `/`.
fn bare_name(name: &str) -> &str {
    let name = name.trim_end_matches('/');
    let name = name.strip_prefix("./").unwrap_or(name);
    name.split_once('@').map_or(name, |(repo, _)| repo)
}

/// Whether both names mean the same file or folder; `false` if unknown.
fn is_same_path(one: &str, other: &str) -> bool {
    let (one, other) = (PathBuf::from(one), PathBuf::from(other));
    let place = one.clone();

    files::try_wait(&place, move |disk: &Disk| {
        Ok(disk.canonical(&one)? == disk.canonical(&other)?)
    })
    .unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use hf_mem_core::report::question::ModelQuestion;

    use super::super::server_line;
    use super::super::wrapper::Variables;
    use super::*;

    /// Returns the question's file and the note, for `command` and the file of `--file`.
    fn settled(command: &str, file: Option<&str>) -> (Option<String>, Option<String>) {
        let words: Vec<OsString> = command.split(' ').map(OsString::from).collect();
        let line = server_line::read(&words, Variables::new())
            .unwrap()
            .unwrap();

        let model = ModelQuestion {
            repo: "a/b".to_owned(),
            file: file.map(str::to_owned),
            ..ModelQuestion::default()
        };

        let mut question = Question {
            model,
            ..Question::default()
        };

        let note = settle_model(&mut question, &line);
        (question.model.file, note)
    }

    #[test]
    fn other_model_is_noted() {
        for (command, same) in [
            ("vllm serve a/b@main", true),
            ("vllm serve a/c", false),
            ("llama-server -hf a/b:Q4_K_M", true),
            ("llama-server -hf a/c:Q4_K_M", false),
            ("sglang serve --tp 1", true),
        ] {
            assert_eq!(settled(command, None).1.is_none(), same, "{command}");
        }
    }

    #[test]
    fn file_of_command_is_leased() {
        for (command, file) in [
            ("llama-server -hf a/b:F16", Some("F16")),
            ("llama-server -hf a/b:latest", None),
            ("llama-server -hf a/b -hff x-F16.gguf", Some("x-F16.gguf")),
            (
                "llama-server --hf-repo=a/b --hf-file=y.gguf",
                Some("y.gguf"),
            ),
            ("llama-server -hf a/b", None),
        ] {
            assert_eq!(
                settled(command, None),
                (file.map(str::to_owned), None),
                "{command}"
            );
        }
    }

    #[test]
    fn other_file_is_noted() {
        let (file, note) = settled("llama-server -hf a/b:F16", Some("Q4_K_M"));
        assert_eq!(file.as_deref(), Some("F16"));
        assert!(note.unwrap().contains("--file is Q4_K_M"));

        let (file, note) = settled("llama-server -hf a/b", Some("Q2_K"));
        assert_eq!(file, None, "the server takes its default file");
        assert!(note.unwrap().contains("the default file"));

        let (file, note) = settled("llama-server -hf a/b:q4_k_m", Some("Q4_K_M"));
        assert_eq!((file.as_deref(), note), (Some("q4_k_m"), None));

        let (file, note) = settled("llama-server -m a/b", Some("Q4_K_M"));
        assert_eq!((file.as_deref(), note), (Some("Q4_K_M"), None));
    }

    #[test]
    fn model_behind_address_is_refused() {
        let words = ["llama-server", "-mu", "http://x/y.gguf"].map(OsString::from);
        let line = server_line::read(&words, Variables::new())
            .unwrap()
            .unwrap();
        assert!(line.refused.unwrap().contains("-mu"));
    }
}
