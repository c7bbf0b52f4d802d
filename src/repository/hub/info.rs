//! What the model API says of a repository at a revision: the commit, its files with their lengths,
//! totals by type.

use std::collections::BTreeMap;

use hf_mem_core::model::weight_files::Listing;
use serde::Deserialize;
use serde_json::Value;

use crate::repository::reference::is_repository;

/// The longest answer of the model API: 100 000 files.
pub(super) const MAX_INFO_BYTES: u64 = 32 << 20;
/// Pages of a file tree that are read; 1000 files each.
pub(super) const MAX_TREE_PAGES: usize = 50;

/// A repository at one commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::repository) struct Revision {
    /// Its name, the new one where it was renamed.
    pub repo: String,
    /// The commit, in hex digits.
    pub commit: String,
    /// Its files; `None` until they are listed with lengths.
    pub listing: Option<Listing>,
    /// Whether its files are given to accepted users only.
    pub gated: bool,
    /// Whether only its owner's token sees it at all.
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

/// Reads the API's answer about `asked`.
pub(super) fn revision(body: &[u8], asked: &str) -> Result<Revision, String> {
    let info: RepositoryInfo = hf_mem_core::strict_json::from_slice(body)
        .map_err(|error| format!("it is no description of a model: {error}"))?;
    if !is_commit(&info.sha) {
        return Err("it names no commit".into());
    }

    let siblings = info.siblings.unwrap_or_default();

    // An older Hub or a mirror may list names only; the tree has the lengths.
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
            asked.to_owned()
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

/// Adds one page of the tree to a listing.
pub(super) fn add_tree_page(body: &[u8], listing: &mut Listing) -> Result<(), String> {
    let entries: Vec<TreeEntry> = hf_mem_core::strict_json::from_slice(body)
        .map_err(|error| format!("it is no list of files: {error}"))?;
    listing.extend(
        entries
            .into_iter()
            .filter(|entry| entry.kind == "file")
            .map(|entry| (entry.path, entry.size)),
    );

    Ok(())
}

/// The name among `candidates` (an answer of the search API) that is nearest to `repo`, if any is
/// near.
pub(super) fn nearest(body: &[u8], repo: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Hit {
        id: String,
    }

    let hits: Vec<Hit> = hf_mem_core::strict_json::from_slice(body).ok()?;
    let likeness =
        |id: &str| strsim::normalized_damerau_levenshtein(&id.to_lowercase(), &repo.to_lowercase());
    let near = hits
        .into_iter()
        .filter(|hit| is_repository(&hit.id) && likeness(&hit.id) > 0.7);

    near.max_by(|a, b| likeness(&a.id).total_cmp(&likeness(&b.id)))
        .map(|hit| hit.id)
}

/// Commits stand in the names of cache entries, so they are hex digits and nothing else.
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
    fn an_answer_of_the_model_api() {
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
    fn names_without_lengths_are_no_listing() {
        let body =
            br#"{"sha": "0123456789abcdef", "siblings": [{"rfilename": "a"}], "gated": false}"#;
        let revision = revision(body, "a/b").expect("understood");
        assert_eq!(
            (revision.listing, revision.repo.as_str(), revision.gated),
            (None, "a/b", false)
        );
    }

    #[test]
    fn a_commit_is_hex_digits() {
        for wrong in ["../../../x", "", "ABCDEF0", "main"] {
            let body = format!(r#"{{"sha": "{wrong}", "siblings": []}}"#);
            assert!(revision(body.as_bytes(), "a/b").is_err(), "{wrong}");
        }
    }

    #[test]
    fn did_you_mean() {
        let hits =
            br#"[{"id": "Qwen/Qwen3-8B"}, {"id": "Qwen/Qwen3-8B-FP8"}, {"id": "Qwen/Other"}]"#;
        assert_eq!(
            nearest(hits, "Qwen/Qwen3-8b-").as_deref(),
            Some("Qwen/Qwen3-8B")
        );
        assert_eq!(nearest(hits, "x/y"), None);
    }
}
