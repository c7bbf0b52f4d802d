//! What a person or a client writes for a model: a repository, a revision of it, or something on
//! this host's disk.

use std::path::{Path, PathBuf};

use super::error::SourceError;

/// The longest reference that is looked at.
const MAX_LENGTH: usize = 4096;
/// The longest part of a repository's name (the Hub's own limit).
const MAX_NAME: usize = 96;

/// A model to look for, and which of its files.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ModelReference {
    /// Where it is.
    pub place: Place,
    /// The one file asked for (`--file`): a path inside the repository or a quantisation's name
    /// such as `Q4_K_M`.
    pub file: Option<String>,
}

/// Where a model is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// A repository of a Hub.
    Hub {
        /// `owner/name`, or the bare name of an old repository.
        repo: String,
        /// Branch, tag, `refs/pr/N` or commit; `main` where none is given.
        revision: Option<String>,
    },
    /// A folder, a weights file or a bundle on this host; which of them is seen when it is opened.
    Path(PathBuf),
    /// A model that Ollama has pulled, by Ollama's name for it: `ollama:llama3.2:3b`.
    Ollama(String),
    /// A model in LM Studio's folder: `lmstudio:publisher/name`.
    LmStudio(String),
}

impl ModelReference {
    /// Reads `text` and `--file`. A local path wins if it exists or begins with `.` or `/`;
    /// `exists` says what does.
    pub fn parse(
        text: &str,
        file: Option<&str>,
        exists: impl Fn(&Path) -> bool,
    ) -> Result<Self, SourceError> {
        let refuse = |why: &str| Err(bad(text, why));
        if text.is_empty() || text.len() > MAX_LENGTH || text.chars().any(char::is_control) {
            return refuse("it is empty, too long or holds control characters");
        }

        let file = file.map(|file| checked_file(text, file)).transpose()?;
        let at = |place| {
            Ok(Self {
                place,
                file: file.clone(),
            })
        };

        if text.starts_with(['.', '/']) || exists(Path::new(text)) {
            return at(Place::Path(text.into()));
        }

        if let Some(name) = text.strip_prefix("ollama:") {
            return at(Place::Ollama(name.into()));
        }

        if let Some(name) = text.strip_prefix("lmstudio:") {
            if !is_repository(name) {
                return refuse("LM Studio's names are publisher/name");
            }
            return at(Place::LmStudio(name.into()));
        }

        let (repo, revision) = match text.split_once('@') {
            Some((repo, revision)) => (repo, Some(checked_revision(text, revision)?)),
            None => (text, None),
        };

        if looks_like_a_file(repo) {
            return refuse("there is no such file here");
        }

        if !is_repository(repo) {
            return refuse("neither a repository's name nor a path that exists");
        }

        at(Place::Hub {
            repo: repo.into(),
            revision,
        })
    }

    /// The reference as it would be written again.
    pub fn name(&self) -> String {
        match &self.place {
            Place::Hub {
                repo,
                revision: Some(revision),
            } => format!("{repo}@{revision}"),
            Place::Hub {
                repo,
                revision: None,
            } => repo.clone(),
            Place::Path(path) => path.display().to_string(),
            Place::Ollama(name) => format!("ollama:{name}"),
            Place::LmStudio(name) => format!("lmstudio:{name}"),
        }
    }
}

fn bad(reference: &str, why: &str) -> SourceError {
    SourceError::BadReference {
        reference: reference.chars().take(200).collect(),
        why: why.into(),
    }
}

/// A text with a weights file's ending is meant as a path even if there is none.
fn looks_like_a_file(text: &str) -> bool {
    let ending = Path::new(text)
        .extension()
        .and_then(|ending| ending.to_str())
        .unwrap_or_default();
    ["safetensors", "gguf", "hfmp", "bin", "json"].contains(&ending)
}

/// The Hub's own rule for names: letters, digits, `-`, `_`, `.`; no `--` or `..`; no `-` or `.` at
/// either end.
pub(super) fn is_repository(text: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && part.len() <= MAX_NAME
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            && !part.starts_with(['-', '.'])
            && !part.ends_with(['-', '.'])
            && !part.contains("--")
            && !part.contains("..")
    };

    match text.split_once('/') {
        Some((owner, name)) => part(owner) && part(name),
        None => part(text),
    }
}

fn checked_revision(text: &str, revision: &str) -> Result<String, SourceError> {
    let legal = |c: char| !c.is_whitespace() && !"?#\\:~^*[".contains(c);
    let ok = !revision.is_empty()
        && revision.len() <= 255
        && revision.chars().all(legal)
        && !revision.contains("..");

    if ok {
        Ok(revision.into())
    } else {
        Err(bad(
            text,
            "what stands behind @ is not a branch, tag or commit",
        ))
    }
}

/// A file's path may not leave its repository.
fn checked_file(text: &str, file: &str) -> Result<String, SourceError> {
    let ok = !file.is_empty()
        && file.len() <= 1024
        && !file.starts_with('/')
        && !file.contains('\\')
        && !file.chars().any(char::is_control)
        && !file
            .split('/')
            .any(|part| part.is_empty() || part == "." || part == "..");
    if ok {
        Ok(file.into())
    } else {
        Err(bad(
            text,
            "--file wants a path inside the repository, such as model-Q4_K_M.gguf",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Place, SourceError> {
        ModelReference::parse(text, None, |path| path == Path::new("models/here"))
            .map(|reference| reference.place)
    }

    fn hub(repo: &str, revision: Option<&str>) -> Place {
        Place::Hub {
            repo: repo.into(),
            revision: revision.map(Into::into),
        }
    }

    #[test]
    fn repositories_and_revisions() {
        assert_eq!(parse("Qwen/Qwen3-8B"), Ok(hub("Qwen/Qwen3-8B", None)));
        assert_eq!(
            parse("a/b.c_d@refs/pr/1"),
            Ok(hub("a/b.c_d", Some("refs/pr/1")))
        );
        assert_eq!(parse("gpt2"), Ok(hub("gpt2", None)));

        for wrong in [
            "",
            "a/b/c",
            "a//b",
            "../../etc",
            "-a/b",
            "a/b--c",
            "a b",
            "a/b@",
            "a/b@x y",
            "a/b@../x",
            "x\n",
        ] {
            let place = parse(wrong);
            assert!(
                !matches!(place, Ok(Place::Hub { .. })),
                "{wrong}: {place:?}"
            );
        }
    }

    #[test]
    fn a_path_wins_if_it_exists_or_is_written_as_one() {
        assert_eq!(parse("models/here"), Ok(Place::Path("models/here".into())));
        assert_eq!(
            parse("./models/there"),
            Ok(Place::Path("./models/there".into()))
        );
        assert_eq!(parse("/m"), Ok(Place::Path("/m".into())));
        assert_eq!(parse("models/there"), Ok(hub("models/there", None)));
        assert!(parse("models/there.gguf").is_err());
    }

    #[test]
    fn files_stay_inside_their_repository() {
        let file = |file| ModelReference::parse("a/b", Some(file), |_| false);
        assert_eq!(
            file("sub/x.gguf").expect("inside").file.as_deref(),
            Some("sub/x.gguf")
        );

        for wrong in [
            "",
            "/etc/passwd",
            "../x",
            "a/../../x",
            "a//b",
            "a\\b",
            "a\0",
        ] {
            assert!(file(wrong).is_err(), "{wrong}");
        }
    }
}
