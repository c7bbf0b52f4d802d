//! Reads huggingface_hub's cache: `models--owner--name/refs/main` names a commit,
//! `snapshots/<commit>` holds it.
//!
//! Nothing in it says whether a model needed a token. So only users who can read the files
//! themselves can read it through this program. For all others it is empty.

use std::path::{Path, PathBuf};

use super::hub::is_commit;
use super::permissions::FileReader;
use crate::files::Disk;

/// Maximum length of a file that names a commit. Real ones have 40 digits and an end of line.
const MAX_REF_BYTES: u64 = 256;

/// A model found in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CachedSnapshot {
    pub(super) folder: PathBuf,
    pub(super) commit: String,
}

/// Finds `revision` of `repo` below `cache`, for `reader`.
pub(super) fn find(
    disk: &Disk,
    cache: &Path,
    repo: &str,
    revision: &str,
    reader: &FileReader,
) -> Option<CachedSnapshot> {
    let model = cache.join(format!("models--{}", repo.replace('/', "--")));
    let commit = if is_commit(revision) && disk.is_folder(&model.join("snapshots").join(revision)) {
        revision.to_owned()
    } else {
        // Parsing a reference rejects revisions with `..`, so the path stays inside.
        let named = disk
            .read_text(&model.join("refs").join(revision), MAX_REF_BYTES)
            .ok()?;
        named.trim().to_owned()
    };

    let folder = model.join("snapshots").join(&commit);
    let found = is_commit(&commit) && disk.is_folder(&folder) && reader.may_read_all(disk, &folder);

    found.then_some(CachedSnapshot { folder, commit })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::files;

    fn find(
        cache: &Path,
        repo: &'static str,
        revision: &'static str,
        reader: &FileReader,
    ) -> Option<CachedSnapshot> {
        let (root, reader) = (cache.to_owned(), reader.clone());
        files::wait(cache, move |disk| {
            super::find(disk, &root, repo, revision, &reader)
        })
        .expect("in time")
    }

    #[test]
    fn snapshot_found_by_branch_or_commit() {
        let cache = tempfile::tempdir().expect("a folder");
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let model = cache.path().join("models--a--b");
        fs::create_dir_all(model.join("snapshots").join(commit)).expect("made");
        fs::create_dir_all(model.join("refs/pr")).expect("made");
        fs::write(model.join("refs/main"), format!("{commit}\n")).expect("written");
        fs::write(model.join("refs/pr/1"), commit).expect("written");
        fs::write(model.join("refs/evil"), "../../..").expect("written");
        let own = FileReader::Own;
        for revision in ["main", "pr/1", commit] {
            assert_eq!(
                find(cache.path(), "a/b", revision, &own)
                    .expect(revision)
                    .commit,
                commit
            );
        }

        for (repo, revision) in [("a/b", "evil"), ("a/b", "gone"), ("a/c", "main")] {
            assert_eq!(find(cache.path(), repo, revision, &own), None);
        }

        assert_eq!(
            find(cache.path(), "a/b", "main", &FileReader::Unknown),
            None
        );
    }

    #[test]
    fn pipe_names_no_commit() {
        use rustix::fs::{CWD, FileType, Mode, mknodat};

        let cache = tempfile::tempdir().expect("a folder");
        let refs = cache.path().join("models--a--b/refs");
        fs::create_dir_all(&refs).expect("made");

        mknodat(
            CWD,
            refs.join("main"),
            FileType::Fifo,
            Mode::RUSR | Mode::WUSR,
            0,
        )
        .expect("a pipe");

        assert_eq!(find(cache.path(), "a/b", "main", &FileReader::Own), None);
    }
}
