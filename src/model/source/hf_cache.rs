//! The cache that huggingface_hub keeps: `models--owner--name/refs/main` names a commit, `snapshots/<commit>` holds it.

use std::fs;
use std::path::{Path, PathBuf};

use super::hub::is_commit;

/// A model found in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Snapshot {
    pub(super) folder: PathBuf,
    pub(super) commit: String,
}

/// Finds `revision` of `repo` below `cache`.
pub(super) fn find(cache: &Path, repo: &str, revision: &str) -> Option<Snapshot> {
    let model = cache.join(format!("models--{}", repo.replace('/', "--")));
    let commit = if is_commit(revision) && model.join("snapshots").join(revision).is_dir() {
        revision.to_owned()
    } else {
        // Revisions hold no `..` (checked when the reference is read), so the path stays inside.
        let named = fs::read_to_string(model.join("refs").join(revision)).ok()?;
        named.trim().to_owned()
    };
    let folder = model.join("snapshots").join(&commit);
    (is_commit(&commit) && folder.is_dir()).then_some(Snapshot { folder, commit })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_branch_and_by_commit() {
        let cache = tempfile::tempdir().expect("a folder");
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let model = cache.path().join("models--a--b");
        fs::create_dir_all(model.join("snapshots").join(commit)).expect("made");
        fs::create_dir_all(model.join("refs/pr")).expect("made");
        fs::write(model.join("refs/main"), format!("{commit}\n")).expect("written");
        fs::write(model.join("refs/pr/1"), commit).expect("written");
        fs::write(model.join("refs/evil"), "../../..").expect("written");
        for revision in ["main", "pr/1", commit] {
            assert_eq!(find(cache.path(), "a/b", revision).expect(revision).commit, commit);
        }
        assert_eq!(find(cache.path(), "a/b", "evil"), None);
        assert_eq!(find(cache.path(), "a/b", "gone"), None);
        assert_eq!(find(cache.path(), "a/c", "main"), None);
    }
}
