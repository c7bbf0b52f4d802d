//! Metadata on disk, by repository and commit: what was read once is never read again.
//!
//! An entry is a bundle, so that it carries its version and its hash; one that is damaged or of
//! another version is removed and read again from its source. Files appear by renaming, names are
//! hashes, and the longest unused go first when the folder grows beyond its bound. Entries that a
//! token was needed for are kept under that token's identity.
//!
//! Everything that takes a [`Disk`] runs on a file thread; unpacking, which takes the processor,
//! does not.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use hf_mem_core::model::metadata::Metadata;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::bundle;
use crate::files::Disk;
use crate::hex;

/// Changes when names or contents of the folder change their meaning.
const LAYOUT: &str = "v1";
/// The longest note of a revision.
const MAX_NOTE_BYTES: u64 = 4096;
/// Entries that are looked at when bytes are added up: the smallest have some hundred bytes each.
const MAX_ENTRIES: usize = 1 << 20;

/// A folder of metadata.
#[derive(Debug)]
pub(super) struct DiskCache {
    folder: PathBuf,
    max_bytes: u64,
    standing: Mutex<CacheStanding>,
}

/// How the cache on disk is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheStanding {
    /// Bytes of all entries, once they were added up.
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
        let seconds = checked
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();

        Self {
            repo: repo.into(),
            commit: commit.into(),
            checked_unix_seconds: seconds,
        }
    }

    /// When the Hub last said so.
    pub(super) fn checked(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.checked_unix_seconds.min(1 << 40))
    }
}

impl DiskCache {
    pub(super) fn new(folder: &Path, max_bytes: u64) -> Self {
        Self {
            folder: folder.join(LAYOUT),
            max_bytes,
            standing: Mutex::default(),
        }
    }

    /// The folder of the entries.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether there is an entry of `repo` at `commit`.
    pub(super) fn has(
        &self,
        disk: &Disk,
        scope: Scope<'_>,
        repo: &str,
        commit: &str,
        file: Option<&str>,
    ) -> bool {
        disk.exists(&self.path("model", &[scope.0, repo, commit, file.unwrap_or_default()]))
    }

    /// The packed entry of `repo` at `commit`, for [`DiskCache::unpack`]. One that is no plain file
    /// is removed.
    pub(super) fn entry(
        &self,
        disk: &Disk,
        scope: Scope<'_>,
        repo: &str,
        commit: &str,
        file: Option<&str>,
    ) -> Option<Vec<u8>> {
        let path = self.path("model", &[scope.0, repo, commit, file.unwrap_or_default()]);
        if !disk.exists(&path) {
            return None;
        }

        match disk.read(&path, bundle::MAX_PACKED_BYTES) {
            Ok(packed) => Some(packed),
            Err(error) => {
                drop_damaged(disk, &path, &error.to_string());
                None
            }
        }
    }

    /// The metadata in an entry, or why it is of no use: [`DiskCache::discard`] removes such an
    /// entry.
    pub(super) fn unpack(packed: &[u8], commit: &str) -> Result<Metadata, String> {
        let metadata = bundle::unpack(packed)?;
        if metadata.identity.commit.as_deref() == Some(commit) {
            Ok(metadata)
        } else {
            Err("it is of another commit".into())
        }
    }

    /// Marks an entry as used now.
    pub(super) fn touch(
        &self,
        disk: &Disk,
        scope: Scope<'_>,
        repo: &str,
        commit: &str,
        file: Option<&str>,
    ) {
        let path = self.path("model", &[scope.0, repo, commit, file.unwrap_or_default()]);
        // A read-only cache is still a cache.
        let _ = disk.touch(&path);
    }

    /// Removes an entry that [`DiskCache::unpack`] refuses because of `why`.
    pub(super) fn discard(
        &self,
        disk: &Disk,
        scope: Scope<'_>,
        repo: &str,
        commit: &str,
        file: Option<&str>,
        why: &str,
    ) {
        drop_damaged(
            disk,
            &self.path("model", &[scope.0, repo, commit, file.unwrap_or_default()]),
            why,
        );
    }

    /// Keeps `packed`, the metadata of `repo` at `commit` asked for with `file`. A full disk is no
    /// reason to fail: the cache's health says so.
    pub(super) fn keep(
        &self,
        disk: &Disk,
        scope: Scope<'_>,
        repo: &str,
        commit: &str,
        file: Option<&str>,
        packed: &[u8],
    ) {
        let path = self.path("model", &[scope.0, repo, commit, file.unwrap_or_default()]);
        self.write(disk, &path, packed);
        self.evict(disk);
    }

    /// What `revision` of `repo` stood for when it was last asked.
    pub(super) fn note(
        &self,
        disk: &Disk,
        scope: Scope<'_>,
        repo: &str,
        revision: &str,
    ) -> Option<RevisionNote> {
        let path = self.path("revision", &[scope.0, repo, revision]);
        if !disk.exists(&path) {
            return None;
        }

        let read = disk
            .read(&path, MAX_NOTE_BYTES)
            .map_err(|error| error.to_string());

        match read.and_then(|bytes| {
            hf_mem_core::strict_json::from_slice(&bytes).map_err(|error| error.to_string())
        }) {
            Ok(note) => Some(note),
            Err(why) => {
                drop_damaged(disk, &path, &why);
                None
            }
        }
    }

    /// Remembers what `revision` of `repo` (as it was asked for) stands for.
    pub(super) fn keep_note(
        &self,
        disk: &Disk,
        scope: Scope<'_>,
        repo: &str,
        revision: &str,
        note: &RevisionNote,
    ) {
        let path = self.path("revision", &[scope.0, repo, revision]);
        if let Ok(bytes) = serde_json::to_vec(note) {
            self.write(disk, &path, &bytes);
        }
    }

    /// How it is, as far as that was measured: reads nothing.
    pub(super) fn standing(&self) -> CacheStanding {
        self.with_standing(|standing| standing.clone())
    }

    /// Adds the entries up; later sums follow what is kept and evicted.
    pub(super) fn measure(&self, disk: &Disk) {
        let bytes = self.entries(disk).iter().map(|(_, bytes, _)| bytes).sum();
        self.with_standing(|standing| standing.bytes = bytes);
    }

    fn with_standing<T>(&self, act: impl FnOnce(&mut CacheStanding) -> T) -> T {
        // Fields are set one at a time and each is valid by itself.
        act(&mut self.standing.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn path(&self, kind: &str, parts: &[&str]) -> PathBuf {
        let mut name = Sha256::new();
        for part in parts {
            name.update((part.len() as u64).to_le_bytes());
            name.update(part);
        }
        self.folder
            .join(kind)
            .join(hex::encode(name.finalize().as_slice()))
    }

    fn write(&self, disk: &Disk, path: &Path, bytes: &[u8]) {
        let trouble = disk.write(path, bytes).err().map(|error| {
            // Whoever asks for models makes this happen as often as they like: a warning comes with
            // the daemon's health.
            tracing::debug!(path = %path.display(), %error, "metadata cannot be kept on disk");
            format!("{} cannot be written: {error}", self.folder.display())
        });
        self.with_standing(|standing| standing.trouble = trouble);
    }

    /// Removes the longest unused entries beyond the bound.
    fn evict(&self, disk: &Disk) {
        let mut entries = self.entries(disk);
        let mut total: u64 = entries.iter().map(|(_, bytes, _)| bytes).sum();
        entries.sort();

        for (_, bytes, path) in entries {
            if total <= self.max_bytes {
                break;
            }
            if disk.remove(&path).is_ok() {
                total = total.saturating_sub(bytes);
            }
        }

        self.with_standing(|standing| standing.bytes = total);
    }

    /// When each entry was last used, its length and its path.
    fn entries(&self, disk: &Disk) -> Vec<(SystemTime, u64, PathBuf)> {
        let entries = disk
            .list(&self.folder.join("model"), MAX_ENTRIES, |_| true)
            .unwrap_or_default();

        entries
            .into_iter()
            .filter_map(|entry| {
                let found = entry.metadata?;
                Some((found.modified().ok()?, found.len(), entry.path))
            })
            .collect()
    }
}

fn drop_damaged(disk: &Disk, path: &Path, why: &str) {
    tracing::warn!(path = %path.display(), %why, "a damaged entry of the cache is dropped");
    // It is read again from its source, and replaced where it cannot be removed.
    let _ = disk.remove(path);
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::files;
    use hf_mem_core::model::metadata::sample::small;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
    const PUBLIC: Scope<'_> = Scope("public");

    fn cache(max_bytes: u64) -> (tempfile::TempDir, DiskCache) {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = DiskCache::new(folder.path(), max_bytes);
        (folder, cache)
    }

    fn keep(cache: &DiskCache, disk: &Disk, metadata: &Metadata) {
        let packed = bundle::pack(metadata).expect("packed").bytes;
        let commit = metadata.identity.commit.as_deref().expect("a commit");
        cache.keep(disk, PUBLIC, &metadata.identity.repo, commit, None, &packed);
    }

    fn found(cache: &DiskCache, disk: &Disk, scope: &str, file: Option<&str>) -> Option<Metadata> {
        let packed = cache.entry(disk, Scope(scope), "a/b", COMMIT, file)?;
        DiskCache::unpack(&packed, COMMIT).ok()
    }

    #[test]
    fn kept_and_found_by_scope_and_file() {
        let (_folder, cache) = cache(1 << 20);
        let work = move |disk: &Disk| {
            let metadata = small("a/b", COMMIT);
            keep(&cache, disk, &metadata);
            assert_eq!(found(&cache, disk, "public", None), Some(metadata));
            assert_eq!(found(&cache, disk, "other", None), None);
            assert_eq!(found(&cache, disk, "public", Some("x")), None);

            let note = RevisionNote::new(
                "a/b",
                COMMIT,
                SystemTime::UNIX_EPOCH + Duration::from_secs(5),
            );
            cache.keep_note(disk, PUBLIC, "a/b", "main", &note);
            assert_eq!(cache.note(disk, PUBLIC, "a/b", "main"), Some(note));
            assert_eq!(cache.note(disk, PUBLIC, "a/b", "dev"), None);
        };

        files::wait(Path::new("/tmp"), work).unwrap();
    }

    #[test]
    fn a_damaged_entry_is_known_and_removed() {
        let (_folder, cache) = cache(1 << 20);
        let work = move |disk: &Disk| {
            keep(&cache, disk, &small("a/b", COMMIT));
            let mut packed = cache
                .entry(disk, PUBLIC, "a/b", COMMIT, None)
                .expect("an entry");
            let middle = packed.len() / 2;
            packed[middle] ^= 0xff;
            let why = DiskCache::unpack(&packed, COMMIT).expect_err("damaged");
            cache.discard(disk, PUBLIC, "a/b", COMMIT, None, &why);
            assert_eq!(cache.entry(disk, PUBLIC, "a/b", COMMIT, None), None);
        };

        files::wait(Path::new("/tmp"), work).unwrap();
    }

    #[test]
    fn pipes_in_the_cache_are_removed() {
        use rustix::fs::{CWD, FileType, Mode, mknodat};

        let (_folder, cache) = cache(1 << 20);
        let work = move |disk: &Disk| {
            let parts: [(&str, &[&str]); 2] = [
                ("model", &["public", "a/b", COMMIT, ""]),
                ("revision", &["public", "a/b", "main"]),
            ];
            for (kind, parts) in parts {
                let path = cache.path(kind, parts);
                fs::create_dir_all(path.parent().expect("a folder")).expect("made");
                mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
            }

            assert_eq!(cache.entry(disk, PUBLIC, "a/b", COMMIT, None), None);
            assert_eq!(cache.note(disk, PUBLIC, "a/b", "main"), None);
            assert!(cache.entries(disk).is_empty(), "the pipe is gone");
        };

        files::wait(Path::new("/tmp"), work).unwrap();
    }

    #[test]
    fn the_longest_unused_go_first() {
        let (_folder, cache) = cache(0);
        let work = move |disk: &Disk| {
            keep(&cache, disk, &small("a/b", COMMIT));
            assert_eq!(found(&cache, disk, "public", None), None);

            let size = bundle::pack(&small("a/b", COMMIT))
                .expect("packed")
                .bytes
                .len() as u64;
            let cache = DiskCache {
                max_bytes: size * 5 / 2,
                ..cache
            };

            assert_eq!(
                cache.standing(),
                CacheStanding {
                    bytes: 0,
                    trouble: None
                }
            );

            for (age, repo) in [(30, "a/1"), (20, "a/2"), (10, "a/3")] {
                let commit = COMMIT.replace('0', &age.to_string()[..1]);
                keep(&cache, disk, &small(repo, &commit));
                let path = cache.path("model", &["public", repo, &commit, ""]);
                if let Ok(file) = fs::File::options().append(true).open(path) {
                    let modified = SystemTime::now() - Duration::from_secs(age);
                    file.set_times(fs::FileTimes::new().set_modified(modified))
                        .expect("set");
                }
            }

            cache.evict(disk);
            let there = |repo: &str, digit: &str| {
                cache
                    .entry(disk, PUBLIC, repo, &COMMIT.replace('0', digit), None)
                    .is_some()
            };

            assert!(!there("a/1", "3") && there("a/2", "2") && there("a/3", "1"));
            let sizes: u64 = cache.entries(disk).iter().map(|(_, bytes, _)| bytes).sum();
            assert!(cache.standing().bytes == sizes && sizes > 0);
            let again = DiskCache::new(cache.folder.parent().expect("a folder"), 0);
            again.measure(disk);
            assert_eq!(again.standing().bytes, sizes);
        };

        files::wait(Path::new("/tmp"), work).unwrap();
    }

    #[test]
    fn a_write_failure_lasts_until_one_succeeds() {
        let (folder, cache) = cache(1 << 20);
        let work = move |disk: &Disk| {
            fs::write(folder.path().join(LAYOUT), "in the way").expect("written");
            keep(&cache, disk, &small("a/b", COMMIT));
            let trouble = cache.standing().trouble.expect("trouble");
            assert!(trouble.contains("cannot be written"), "{trouble}");
            fs::remove_file(folder.path().join(LAYOUT)).expect("removed");
            keep(&cache, disk, &small("a/b", COMMIT));
            assert_eq!(cache.standing().trouble, None);
        };

        files::wait(Path::new("/tmp"), work).unwrap();
    }
}
