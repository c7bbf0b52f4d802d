//! Metadata on disk, by repository and commit: what was read once is never read again.
//!
//! An entry is a bundle, so that it carries its version and its hash; one that is damaged or of another version is
//! removed and read again from its source. Files appear by renaming, names are hashes, and the longest unused go first
//! when the folder grows beyond its bound. Entries that a token was needed for are kept under that token's identity.

use std::fs::{self, File, FileTimes};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::bundle;
use super::metadata::Metadata;
use super::token::hex;

/// Changes when names or contents of the folder change their meaning.
const LAYOUT: &str = "v1";
/// The longest note of a revision.
const MAX_NOTE_BYTES: u64 = 4096;

/// A folder of metadata.
#[derive(Debug)]
pub(super) struct DiskCache {
    folder: PathBuf,
    max_bytes: u64,
    standing: Mutex<Standing>,
}

#[derive(Debug, Default)]
struct Standing {
    /// Bytes of all entries, once they have been added up.
    bytes: Option<u64>,
    trouble: Option<String>,
}

/// How the cache on disk is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheStanding {
    /// Bytes of all entries.
    pub bytes: u64,
    /// Why the last write failed; `None` when it did not.
    pub trouble: Option<String>,
}

/// Whose metadata: everyone's, or that of one token's user.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scope<'a>(pub(super) &'a str);

/// Which commit a revision stood for, and when the Hub last said so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RevisionNote {
    pub(super) repo: String,
    pub(super) commit: String,
    checked_unix_seconds: u64,
}

impl RevisionNote {
    pub(super) fn new(repo: &str, commit: &str, checked: SystemTime) -> Self {
        let seconds = checked.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        Self { repo: repo.into(), commit: commit.into(), checked_unix_seconds: seconds }
    }

    /// When the Hub last said so.
    pub(super) fn checked(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.checked_unix_seconds.min(1 << 40))
    }
}

impl DiskCache {
    pub(super) fn new(folder: &Path, max_bytes: u64) -> Self {
        Self { folder: folder.join(LAYOUT), max_bytes, standing: Mutex::default() }
    }

    /// The metadata of `repo` at `commit`; `None` where there is none that can be used.
    pub(super) fn metadata(&self, scope: Scope<'_>, repo: &str, commit: &str, file: Option<&str>) -> Option<Metadata> {
        let path = self.path("model", &[scope.0, repo, commit, file.unwrap_or_default()]);
        if !path.exists() {
            return None;
        }
        match bundle::read(&path, None) {
            Ok(metadata) if metadata.identity.commit.as_deref() == Some(commit) => {
                touch(&path);
                Some(metadata)
            }
            refused => {
                let why = refused.err().map_or_else(|| "it is of another commit".into(), |error| error.to_string());
                tracing::warn!(path = %path.display(), %why, "a damaged entry of the cache is dropped");
                let _ = fs::remove_file(&path);
                None
            }
        }
    }

    /// Whether there is an entry of `repo` at `commit`.
    pub(super) fn has(&self, scope: Scope<'_>, repo: &str, commit: &str, file: Option<&str>) -> bool {
        self.path("model", &[scope.0, repo, commit, file.unwrap_or_default()]).exists()
    }

    /// Keeps `metadata`, asked for with `file`. A full disk is no reason to fail: it is logged.
    pub(super) fn keep(&self, scope: Scope<'_>, metadata: &Metadata, file: Option<&str>) {
        let Some(commit) = metadata.identity.commit.as_deref() else { return };
        let path = self.path("model", &[scope.0, &metadata.identity.repo, commit, file.unwrap_or_default()]);
        match bundle::pack(metadata) {
            Ok(packed) => self.write(&path, &packed.bytes),
            Err(error) => tracing::warn!(%error, "metadata cannot be kept"),
        }
        self.evict();
    }

    /// What `revision` of `repo` stood for when it was last asked.
    pub(super) fn note(&self, scope: Scope<'_>, repo: &str, revision: &str) -> Option<RevisionNote> {
        let path = self.path("revision", &[scope.0, repo, revision]);
        let length = fs::metadata(&path).ok()?.len();
        let note: Option<RevisionNote> =
            (length <= MAX_NOTE_BYTES).then(|| crate::strict_json::from_slice(&fs::read(&path).ok()?).ok()).flatten();
        if note.is_none() {
            let _ = fs::remove_file(&path);
        }
        note
    }

    /// Remembers what `revision` of `repo` (as it was asked for) stands for.
    pub(super) fn keep_note(&self, scope: Scope<'_>, repo: &str, revision: &str, note: &RevisionNote) {
        let path = self.path("revision", &[scope.0, repo, revision]);
        if let Ok(bytes) = serde_json::to_vec(note) {
            self.write(&path, &bytes);
        }
    }

    /// How it is. Adds the entries up once; later sums follow what is kept and evicted.
    pub(super) fn standing(&self) -> CacheStanding {
        let (bytes, trouble) = self.with_standing(|standing| (standing.bytes, standing.trouble.clone()));
        let bytes = bytes.unwrap_or_else(|| {
            let bytes = self.entries().iter().map(|(_, bytes, _)| bytes).sum();
            self.with_standing(|standing| standing.bytes = Some(bytes));
            bytes
        });
        CacheStanding { bytes, trouble }
    }

    fn with_standing<T>(&self, act: impl FnOnce(&mut Standing) -> T) -> T {
        // Fields are set one at a time and each is valid by itself.
        act(&mut self.standing.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn path(&self, kind: &str, parts: &[&str]) -> PathBuf {
        let mut name = Sha256::new();
        for part in parts {
            name.update((part.len() as u64).to_le_bytes());
            name.update(part);
        }
        self.folder.join(kind).join(hex(name.finalize().as_slice()))
    }

    fn write(&self, path: &Path, bytes: &[u8]) {
        let write = || -> std::io::Result<()> {
            let folder = path.parent().unwrap_or(&self.folder);
            fs::create_dir_all(folder)?;
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            file.write_all(bytes)?;
            file.persist(path).map_err(|error| error.error)?;
            Ok(())
        };
        let trouble = write().err().map(|error| {
            // Whoever asks for models makes this happen as often as they like: a warning comes with the daemon's health.
            tracing::debug!(path = %path.display(), %error, "metadata cannot be kept on disk");
            format!("{} cannot be written: {error}", self.folder.display())
        });
        self.with_standing(|standing| standing.trouble = trouble);
    }

    /// Removes the longest unused entries beyond the bound.
    fn evict(&self) {
        let mut entries = self.entries();
        let mut total: u64 = entries.iter().map(|(_, bytes, _)| bytes).sum();
        entries.sort();
        for (_, bytes, path) in entries {
            if total <= self.max_bytes {
                break;
            }
            if fs::remove_file(path).is_ok() {
                total = total.saturating_sub(bytes);
            }
        }
        self.with_standing(|standing| standing.bytes = Some(total));
    }

    /// When each entry was last used, its length and its path.
    fn entries(&self) -> Vec<(SystemTime, u64, PathBuf)> {
        let entries = fs::read_dir(self.folder.join("model")).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| {
                let found = entry.metadata().ok()?;
                Some((found.modified().ok()?, found.len(), entry.path()))
            })
            .collect()
    }
}

/// Marks an entry as used now.
fn touch(path: &Path) {
    let times = FileTimes::new().set_modified(SystemTime::now());
    // A read-only cache is still a cache.
    let _ = File::options().append(true).open(path).and_then(|file| file.set_times(times));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::source::metadata::tests::small;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn cache(max_bytes: u64) -> (tempfile::TempDir, DiskCache) {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = DiskCache::new(folder.path(), max_bytes);
        (folder, cache)
    }

    #[test]
    fn kept_and_found_by_scope_and_file() {
        let (_folder, cache) = cache(1 << 20);
        let metadata = small("a/b", COMMIT);
        cache.keep(Scope("public"), &metadata, None);
        assert_eq!(cache.metadata(Scope("public"), "a/b", COMMIT, None), Some(metadata));
        assert_eq!(cache.metadata(Scope("other"), "a/b", COMMIT, None), None);
        assert_eq!(cache.metadata(Scope("public"), "a/b", COMMIT, Some("x")), None);
        let note = RevisionNote::new("a/b", COMMIT, SystemTime::UNIX_EPOCH + Duration::from_secs(5));
        cache.keep_note(Scope("public"), "a/b", "main", &note);
        assert_eq!(cache.note(Scope("public"), "a/b", "main"), Some(note));
        assert_eq!(cache.note(Scope("public"), "a/b", "dev"), None);
    }

    #[test]
    fn damaged_entries_are_dropped() {
        let (_folder, cache) = cache(1 << 20);
        cache.keep(Scope("public"), &small("a/b", COMMIT), None);
        let path = fs::read_dir(cache.folder.join("model")).expect("listed").flatten().next().expect("one").path();
        let mut bytes = fs::read(&path).expect("read");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0xff;
        fs::write(&path, bytes).expect("damaged");
        assert_eq!(cache.metadata(Scope("public"), "a/b", COMMIT, None), None);
        assert!(!path.exists());
    }

    #[test]
    fn the_longest_unused_go_first() {
        let (_folder, cache) = cache(0);
        cache.keep(Scope("public"), &small("a/b", COMMIT), None);
        assert_eq!(cache.metadata(Scope("public"), "a/b", COMMIT, None), None);
        let size = bundle::pack(&small("a/b", COMMIT)).expect("packed").bytes.len() as u64;
        let cache = DiskCache { max_bytes: size * 5 / 2, ..cache };
        assert_eq!(cache.standing(), CacheStanding { bytes: 0, trouble: None });
        for (age, repo) in [(30, "a/1"), (20, "a/2"), (10, "a/3")] {
            let commit = COMMIT.replace('0', &age.to_string()[..1]);
            cache.keep(Scope("public"), &small(repo, &commit), None);
            let path = cache.path("model", &["public", repo, &commit, ""]);
            if let Ok(file) = File::options().append(true).open(path) {
                let modified = SystemTime::now() - Duration::from_secs(age);
                file.set_times(FileTimes::new().set_modified(modified)).expect("set");
            }
        }
        cache.evict();
        let there = |repo: &str, digit: &str| {
            cache.metadata(Scope("public"), repo, &COMMIT.replace('0', digit), None).is_some()
        };
        assert!(!there("a/1", "3") && there("a/2", "2") && there("a/3", "1"));
        let sizes: u64 = cache.entries().iter().map(|(_, bytes, _)| bytes).sum();
        assert!(cache.standing().bytes == sizes && sizes > 0);
    }

    #[test]
    fn a_disk_that_takes_nothing_is_told_and_forgotten_when_it_takes_again() {
        let (folder, cache) = cache(1 << 20);
        fs::write(folder.path().join(LAYOUT), "in the way").expect("written");
        cache.keep(Scope("public"), &small("a/b", COMMIT), None);
        let trouble = cache.standing().trouble.expect("trouble");
        assert!(trouble.contains("cannot be written"), "{trouble}");
        fs::remove_file(folder.path().join(LAYOUT)).expect("removed");
        cache.keep(Scope("public"), &small("a/b", COMMIT), None);
        assert_eq!(cache.standing().trouble, None);
    }
}
