//! Parses the reference of a model: a repository, a revision of it, or a path on this host's disk.

use std::path::{Path, PathBuf};

use super::error::SourceError;
use super::hub_url;

/// Maximum length of a reference.
const MAX_LENGTH: usize = 4096;
/// Maximum length of each part of a repository's name (the Hub's own limit).
const MAX_NAME: usize = 96;

/// A reference to a model, and to one of its files.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ModelReference {
    /// Where the model is.
    pub place: Place,
    /// The requested file (`--file`): a path inside the repository, or a quantization's name such
    /// as `Q4_K_M`.
    pub file: Option<String>,
}

/// Where a model is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// A repository of a Hub.
    Hub {
        /// `owner/name`, or the bare name of an old repository.
        repo: String,
        /// Branch, tag, `refs/pr/N` or commit; `None` means `main`.
        revision: Option<String>,
    },
    /// A folder, a weight file or a bundle on this host. Opening it shows which.
    Path(PathBuf),
    /// A model that Ollama has pulled, by Ollama's name for it: `ollama:llama3.2:3b`.
    Ollama(String),
    /// A model in LM Studio's folder: `lmstudio:publisher/name`.
    LmStudio(String),
}

impl ModelReference {
    /// Parses `text` and `--file`. A text that begins with `.` or `/`, or for which `exists`
    /// returns true, is a local path.
    pub fn parse(
        text: &str,
        file: Option<&str>,
        exists: impl Fn(&Path) -> bool,
    ) -> Result<Self, SourceError> {
        if text.is_empty() || text.len() > MAX_LENGTH || text.chars().any(char::is_control) {
            return Err(bad_reference(
                text,
                "it is empty, too long or holds control characters",
            ));
        }

        let is_here = text.starts_with(['.', '/']) || exists(Path::new(text));
        let url = hub_url::parse(text).filter(|_| !is_here).transpose();
        let url = url.map_err(|why| bad_reference(text, why))?;

        let file = file.or(url.as_ref().and_then(|url| url.file.as_deref()));
        let file = file.map(|file| checked_file(text, file)).transpose()?;
        let place = match &url {
            Some(url) => hub_place(text, &url.repo, url.revision.as_deref())?,
            None if is_here => Place::Path(text.into()),
            None => parse_place(text)?,
        };

        Ok(Self { place, file })
    }

    /// Returns the reference as you would write it.
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

/// Parses a reference that is no path of this host and no address.
fn parse_place(text: &str) -> Result<Place, SourceError> {
    if let Some(name) = text.strip_prefix("ollama:") {
        return Ok(Place::Ollama(name.into()));
    }

    if let Some(name) = text.strip_prefix("lmstudio:") {
        if !is_repository(name) {
            return Err(bad_reference(text, "LM Studio's names are publisher/name"));
        }
        return Ok(Place::LmStudio(name.into()));
    }

    match text.split_once('@') {
        Some((repo, revision)) => hub_place(text, repo, Some(revision)),
        None => hub_place(text, text, None),
    }
}

/// Checks the names of a repository and of a revision that `text` holds.
fn hub_place(text: &str, repo: &str, revision: Option<&str>) -> Result<Place, SourceError> {
    let revision = revision
        .map(|revision| checked_revision(text, revision))
        .transpose()?;

    if has_model_extension(repo) {
        return Err(bad_reference(text, "no such file on this host"));
    }

    if !is_repository(repo) {
        return Err(bad_reference(
            text,
            "neither a repository's name nor a path that exists",
        ));
    }

    Ok(Place::Hub {
        repo: repo.into(),
        revision,
    })
}

fn bad_reference(reference: &str, why: &str) -> SourceError {
    SourceError::BadReference {
        reference: reference.chars().take(200).collect(),
        why: why.into(),
    }
}

/// Whether a text has the extension of a model file. Such a text means a path even if the file is
/// absent.
fn has_model_extension(text: &str) -> bool {
    let ending = Path::new(text)
        .extension()
        .and_then(|ending| ending.to_str())
        .unwrap_or_default();
    ["safetensors", "gguf", "hfmp", "bin", "json"].contains(&ending)
}

/// Whether `text` follows the Hub's rule for names: letters, digits, `-`, `_`, `.`; no `--` or
/// `..`; no `-` or `.` at either end.
pub(super) fn is_repository(text: &str) -> bool {
    match text.split_once('/') {
        Some((owner, name)) => is_name(owner) && is_name(name),
        None => is_name(text),
    }
}

fn is_name(part: &str) -> bool {
    !part.is_empty()
        && part.len() <= MAX_NAME
        && part
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        && !part.starts_with(['-', '.'])
        && !part.ends_with(['-', '.'])
        && !part.contains("--")
        && !part.contains("..")
}

fn checked_revision(text: &str, revision: &str) -> Result<String, SourceError> {
    let is_legal = |c: char| !c.is_whitespace() && !"?#\\:~^*[".contains(c);
    let is_valid = !revision.is_empty()
        && revision.len() <= 255
        && revision.chars().all(is_legal)
        && !revision.contains("..");

    if is_valid {
        Ok(revision.into())
    } else {
        Err(bad_reference(
            text,
            "the text after @ is not a branch, tag or commit",
        ))
    }
}

/// Checks that the path of a file stays inside its repository.
fn checked_file(text: &str, file: &str) -> Result<String, SourceError> {
    let is_valid = !file.is_empty()
        && file.len() <= 1024
        && !file.starts_with('/')
        && !file.contains('\\')
        && !file.chars().any(char::is_control)
        && !file
            .split('/')
            .any(|part| part.is_empty() || part == "." || part == "..");
    if is_valid {
        Ok(file.into())
    } else {
        Err(bad_reference(
            text,
            "--file takes a path inside the repository, such as model-Q4_K_M.gguf",
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
    fn page_address_names_file() {
        let parse = |text: &str, file| ModelReference::parse(text, file, |_| false);
        let page = "https://huggingface.co/a/b/blob/main/m-Q4_K_M.gguf";
        let parsed = parse(page, None).unwrap();
        assert_eq!(parsed.place, hub("a/b", Some("main")));
        assert_eq!(parsed.file.as_deref(), Some("m-Q4_K_M.gguf"));

        let parsed = parse("hf.co/a/b:Q4_K_M", Some("Q8_0")).unwrap();
        assert_eq!(parsed.place, hub("a/b", None));
        assert_eq!(parsed.file.as_deref(), Some("Q8_0"), "--file comes first");

        assert!(parse("https://huggingface.co/a/../c", None).is_err());
        assert!(parse("https://huggingface.co/datasets/a/b", None).is_err());
        assert!(parse("https://hf.co/a/b/resolve/main/../x", None).is_err());
    }

    #[test]
    fn repository_and_revision_are_parsed() {
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
    fn existing_or_explicit_path_wins() {
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
    fn file_must_stay_inside_repository() {
        let parse_file = |file| ModelReference::parse("a/b", Some(file), |_| false);
        assert_eq!(
            parse_file("sub/x.gguf").expect("inside").file.as_deref(),
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
            assert!(parse_file(wrong).is_err(), "{wrong}");
        }
    }
}
