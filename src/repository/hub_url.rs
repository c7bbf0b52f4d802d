//! Addresses of the Hub's pages, as people copy them from a browser or from Ollama.

/// The part of an address before the repository's name.
const PREFIXES: [&str; 6] = [
    "https://huggingface.co/",
    "http://huggingface.co/",
    "huggingface.co/",
    "https://hf.co/",
    "http://hf.co/",
    "hf.co/",
];

/// A repository that an address names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HubUrl {
    /// `owner/name`, or the bare name of an old repository.
    pub(super) repo: String,
    /// The branch, tag or commit of the page.
    pub(super) revision: Option<String>,
    /// The page's file, or the quantization in Ollama's form (`hf.co/owner/name:Q4_K_M`).
    pub(super) file: Option<String>,
}

/// Parses the address of a repository's page, or returns why it is not one.
///
/// Returns `None` if `text` is no address of the Hub.
pub(super) fn parse(text: &str) -> Option<Result<HubUrl, &'static str>> {
    let path = PREFIXES
        .iter()
        .find_map(|prefix| text.strip_prefix(prefix))?;
    let path = path.split(['?', '#']).next().unwrap_or(path);
    let parts: Vec<&str> = path.trim_end_matches('/').split('/').collect();

    Some(match parts.as_slice() {
        ["datasets" | "spaces" | "collections" | "papers", ..] => {
            Err("this page is no model; give the address of a model's page")
        }
        [name] => Ok(repository(name, None, None)),
        [owner, name] => Ok(named(owner, name)),
        [owner, name, "tree", revision] => {
            Ok(repository(&format!("{owner}/{name}"), Some(revision), None))
        }
        [owner, name, "blob" | "resolve", revision, file @ ..] if !file.is_empty() => {
            Ok(repository(
                &format!("{owner}/{name}"),
                Some(revision),
                Some(file.join("/")),
            ))
        }
        _ => Err("the address names no model; give https://huggingface.co/OWNER/NAME"),
    })
}

/// Returns the repository of `owner/name`, `owner/name@revision` or `owner/name:quantization`.
fn named(owner: &str, name: &str) -> HubUrl {
    if let Some((name, revision)) = name.split_once('@') {
        return repository(&format!("{owner}/{name}"), Some(revision), None);
    }

    match name.split_once(':') {
        Some((name, quantization)) => repository(
            &format!("{owner}/{name}"),
            None,
            Some(quantization.to_owned()),
        ),
        None => repository(&format!("{owner}/{name}"), None, None),
    }
}

fn repository(repo: &str, revision: Option<&str>, file: Option<String>) -> HubUrl {
    HubUrl {
        repo: repo.to_owned(),
        // A page's address escapes the slashes of `refs/pr/1`.
        revision: revision.map(|revision| revision.replace("%2F", "/").replace("%2f", "/")),
        file,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_name_repositories() {
        let expect = |repo: &str, revision: Option<&str>, file: Option<&str>| {
            Some(Ok(HubUrl {
                repo: repo.to_owned(),
                revision: revision.map(str::to_owned),
                file: file.map(str::to_owned),
            }))
        };

        for (text, expected) in [
            ("https://huggingface.co/a/b", expect("a/b", None, None)),
            ("https://huggingface.co/a/b/", expect("a/b", None, None)),
            ("https://hf.co/gpt2?x=1#files", expect("gpt2", None, None)),
            (
                "https://huggingface.co/a/b/tree/refs%2Fpr%2F1",
                expect("a/b", Some("refs/pr/1"), None),
            ),
            (
                "https://huggingface.co/a/b/blob/main/Q4/m.gguf",
                expect("a/b", Some("main"), Some("Q4/m.gguf")),
            ),
            ("hf.co/a/b:Q4_K_M", expect("a/b", None, Some("Q4_K_M"))),
            ("hf.co/a/b@v1", expect("a/b", Some("v1"), None)),
            ("a/b", None),
            ("https://example.org/a/b", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    #[test]
    fn other_pages_are_rejected() {
        for text in [
            "https://huggingface.co/datasets/a/b",
            "https://huggingface.co/a/b/discussions/1",
            "https://huggingface.co/a/b/blob/main",
        ] {
            assert!(matches!(parse(text), Some(Err(_))), "{text}");
        }
    }
}
