//! Parses the model API's answers: a repository's commit, its files and their lengths, and elements
//! by type.

use std::collections::BTreeMap;

use hf_mem_core::model::weight_files::Listing;
use serde::Deserialize;
use serde_json::Value;

use crate::repository::reference::is_repository;

/// Maximum length of the model API's answer: 100 000 files.
pub(super) const MAX_INFO_BYTES: u64 = 32 << 20;
/// Maximum pages of a file tree; a page has 1000 files.
pub(super) const MAX_TREE_PAGES: usize = 50;

/// A repository at one commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::repository) struct Revision {
    /// Its name; the new name if it was renamed.
    pub repo: String,
    /// The commit, in hex digits.
    pub commit: String,
    /// Its files; `None` until they are listed with lengths.
    pub listing: Option<Listing>,
    /// Whether only accepted users can read its files.
    pub gated: bool,
    /// Whether only its owner's token can see it.
    pub private: bool,
    /// Elements by type.
    pub totals: Option<BTreeMap<String, u64>>,
}

#[derive(Deserialize)]
struct RepositoryInfo {
    #[serde(default)]
    id: String,
    #[serde(default)]
    sha: String,
    #[serde(default)]
    gated: Value,
    #[serde(default)]
    private: Value,
    #[serde(default)]
    siblings: Option<Vec<Sibling>>,
    #[serde(default)]
    safetensors: Option<Totals>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    #[serde(default)]
    size: Option<u64>,
}

#[derive(Deserialize)]
struct Totals {
    #[serde(default)]
    parameters: BTreeMap<String, u64>,
}

#[derive(Deserialize)]
struct TreeEntry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    size: Option<u64>,
}

/// Parses the API's answer about the repository `repo`.
pub(super) fn revision(body: &[u8], repo: &str) -> Result<Revision, String> {
    let info: RepositoryInfo = hf_mem_core::strict_json::from_slice(body)
        .map_err(|error| format!("it is not a description of a model: {error}"))?;
    if !is_commit(&info.sha) {
        return Err("it names no commit".into());
    }

    let siblings = info.siblings.unwrap_or_default();

    // An older Hub or a mirror may list names only. The file tree has the lengths.
    let complete = !siblings.is_empty() && siblings.iter().all(|file| file.size.is_some());
    let listing = complete.then(|| {
        siblings
            .into_iter()
            .map(|file| (file.rfilename, file.size))
            .collect()
    });

    Ok(Revision {
        repo: if is_repository(&info.id) {
            info.id
        } else {
            repo.to_owned()
        },
        commit: info.sha,
        listing,
        gated: matches!(&info.gated, Value::String(_) | Value::Bool(true)),
        private: info.private == Value::Bool(true),
        totals: info
            .safetensors
            .map(|totals| totals.parameters)
            .filter(|totals| !totals.is_empty()),
    })
}

/// Adds one page of the file tree to a listing.
pub(super) fn add_tree_page(body: &[u8], listing: &mut Listing) -> Result<(), String> {
    let entries: Vec<TreeEntry> = hf_mem_core::strict_json::from_slice(body)
        .map_err(|error| format!("it is not a list of files: {error}"))?;
    listing.extend(
        entries
            .into_iter()
            .filter(|entry| entry.kind == "file")
            .map(|entry| (entry.path, entry.size)),
    );

    Ok(())
}

/// Returns the name in `body`, an answer of the search API, that is most similar to `repo`. Returns
/// `None` if no name is similar.
pub(super) fn nearest_name(body: &[u8], repo: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Hit {
        id: String,
    }

    let hits: Vec<Hit> = hf_mem_core::strict_json::from_slice(body).ok()?;
    let similar = hits
        .into_iter()
        .filter(|hit| is_repository(&hit.id) && similarity(&hit.id, repo) > 0.7);

    similar
        .max_by(|a, b| similarity(&a.id, repo).total_cmp(&similarity(&b.id, repo)))
        .map(|hit| hit.id)
}

fn similarity(left: &str, right: &str) -> f64 {
    strsim::normalized_damerau_levenshtein(&left.to_lowercase(), &right.to_lowercase())
}

/// Whether `text` consists of hex digits, as a commit does. Names of cache entries contain commits.
pub(in crate::repository) fn is_commit(text: &str) -> bool {
    (7..=64).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_of_model_api_is_parsed() {
        let body = br#"{"id": "new/name", "sha": "0123456789abcdef0123456789abcdef01234567", "gated": "manual",
            "siblings": [{"rfilename": "a", "size": 3}], "safetensors": {"parameters": {"BF16": 7}, "total": 7}, "x": 1}"#;
        let revision = revision(body, "old/name").expect("understood");
        assert_eq!(revision.repo, "new/name");
        assert!(revision.gated && !revision.private);

        assert_eq!(
            revision.listing,
            Some(Listing::from([("a".into(), Some(3))]))
        );
        assert_eq!(revision.totals, Some(BTreeMap::from([("BF16".into(), 7)])));
    }

    #[test]
    fn names_without_lengths_are_ignored() {
        let body =
            br#"{"sha": "0123456789abcdef", "siblings": [{"rfilename": "a"}], "gated": false}"#;
        let revision = revision(body, "a/b").expect("understood");
        assert_eq!(
            (revision.listing, revision.repo.as_str(), revision.gated),
            (None, "a/b", false)
        );
    }

    #[test]
    fn commit_must_be_hex_digits() {
        for wrong in ["../../../x", "", "ABCDEF0", "main"] {
            let body = format!(r#"{{"sha": "{wrong}", "siblings": []}}"#);
            assert!(revision(body.as_bytes(), "a/b").is_err(), "{wrong}");
        }
    }

    #[test]
    fn nearest_name_needs_similarity() {
        let hits =
            br#"[{"id": "Qwen/Qwen3-8B"}, {"id": "Qwen/Qwen3-8B-FP8"}, {"id": "Qwen/Other"}]"#;
        assert_eq!(
            nearest_name(hits, "Qwen/Qwen3-8b-").as_deref(),
            Some("Qwen/Qwen3-8B")
        );
        assert_eq!(nearest_name(hits, "x/y"), None);
    }
}
