//! A cache of metadata on disk, by repository and commit.
//!
//! An entry is a bundle, so it carries its version and its hash. A damaged entry or one of another
//! version is removed and read again from its source. Files are written by renaming, and their
//! names are hashes. When the folder exceeds its limit, the least recently used entries are
//! evicted. An entry that needed a token is stored under that token's identity.
//!
//! Every method that takes a [`Disk`] runs on a file thread. Unpacking uses the processor and does
//! not.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use hf_mem_core::model::Format;
use hf_mem_core::model::ctranslate2::FILE_NAME;
use hf_mem_core::model::metadata::Metadata;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::bundle;
use crate::files::Disk;
use crate::hex;
use crate::lock_ignoring_poison::lock_ignoring_poison;

/// Version of the folder's layout. Change it when names or contents change their meaning.
const LAYOUT: &str = "v1";
/// The end of an entry whose files were read by a release that knows CTranslate2's.
///
/// It follows the bundle, so releases without it read the entry, too.
const KNOWS_CTRANSLATE2: &[u8] = b"\nctranslate2 is known\n";
/// Maximum length of a revision note.
const MAX_NOTE_BYTES: u64 = 4096;
/// Maximum entries that a measurement counts. The smallest have some hundred bytes each.
const MAX_ENTRIES: usize = 1 << 20;

/// A folder of metadata.
#[derive(Debug)]
pub(super) struct DiskCache {
    folder: PathBuf,
    max_bytes: u64,
    status: Mutex<CacheStatus>,
}

/// Status of the cache on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheStatus {
    /// Bytes of all entries; 0 until the first measurement.
    pub bytes: u64,
    /// Why the last write failed; `None` if it succeeded.
    pub write_error: Option<String>,
}

/// The readers of an entry: everyone, or the user of one token.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scope<'a>(pub(super) &'a str);

/// The commit that a revision points to, and when the Hub last confirmed it.
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

    /// Returns when the Hub last confirmed it.
    pub(super) fn checked(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.checked_unix_seconds.min(1 << 40))
    }
}

impl DiskCache {
    pub(super) fn new(folder: &Path, max_bytes: u64) -> Self {
        Self {
            folder: folder.join(LAYOUT),
            max_bytes,
            status: Mutex::default(),
        }
    }

    /// Returns the folder of the entries.
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

    /// Returns the packed entry of `repo` at `commit`, for [`DiskCache::unpack`]. Removes it if it
    /// is not a regular file.
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

        let max = bundle::MAX_PACKED_BYTES + KNOWS_CTRANSLATE2.len() as u64;
        match disk.read(&path, max) {
            Ok(packed) => Some(packed),
            Err(error) => {
                remove_damaged(disk, &path, &error.to_string());
                None
            }
        }
    }

    /// Unpacks the metadata of an entry. The error says why the entry is unusable; then call
    /// [`DiskCache::discard`].
    pub(super) fn unpack(packed: &[u8], commit: &str) -> Result<Metadata, String> {
        let metadata = bundle::unpack(packed)?;
        if metadata.identity.commit.as_deref() != Some(commit) {
            return Err("it is of another commit".into());
        }

        if !packed.ends_with(KNOWS_CTRANSLATE2) && may_be_ctranslate2(&metadata) {
            return Err("its model.bin was read before CTranslate2's files were known".into());
        }

        Ok(metadata)
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

    /// Removes an entry that [`DiskCache::unpack`] rejects because of `why`.
    pub(super) fn discard(
        &self,
        disk: &Disk,
        scope: Scope<'_>,
        repo: &str,
        commit: &str,
        file: Option<&str>,
        why: &str,
    ) {
        remove_damaged(
            disk,
            &self.path("model", &[scope.0, repo, commit, file.unwrap_or_default()]),
            why,
        );
    }

    /// Stores `packed`, the metadata of `repo` at `commit` for the `--file` argument `file`. A full
    /// disk is not an error here: the cache's status reports it.
    pub(super) fn store(
        &self,
        disk: &Disk,
        scope: Scope<'_>,
        repo: &str,
        commit: &str,
        file: Option<&str>,
        packed: &[u8],
    ) {
        let path = self.path("model", &[scope.0, repo, commit, file.unwrap_or_default()]);
        self.write(disk, &path, &[packed, KNOWS_CTRANSLATE2].concat());
        self.evict(disk);
    }

    /// Returns the stored note about `revision` of `repo`.
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
                remove_damaged(disk, &path, &why);
                None
            }
        }
    }

    /// Stores which commit `revision` of `repo`, as the caller named it, points to.
    pub(super) fn store_note(
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

    /// Returns the measured status; reads nothing.
    pub(super) fn status(&self) -> CacheStatus {
        self.with_status(|status| status.clone())
    }

    /// Adds up the entries. Later writes and evictions update the sum.
    pub(super) fn measure(&self, disk: &Disk) {
        let bytes = self.entries(disk).iter().map(|(_, bytes, _)| bytes).sum();
        self.with_status(|status| status.bytes = bytes);
    }

    fn with_status<T>(&self, act: impl FnOnce(&mut CacheStatus) -> T) -> T {
        // Fields are set one at a time, and each is valid by itself.
        act(&mut lock_ignoring_poison(&self.status))
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
        let write_error = disk.write(path, bytes).err().map(|error| {
            // Any user can cause this as often as they like, so the warning comes with the daemon's
            // health.
            tracing::debug!(path = %path.display(), %error, "cannot write metadata to the cache");
            format!("{} cannot be written: {error}", self.folder.display())
        });
        self.with_status(|status| status.write_error = write_error);
    }

    /// Removes the least recently used entries beyond the limit.
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

        self.with_status(|status| status.bytes = total);
    }

    /// Returns when each entry was last used, its length and its path.
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

/// Whether an earlier release may have taken a model of CTranslate2 for a pickled one.
///
/// It then knew only the length of its `model.bin`.
fn may_be_ctranslate2(metadata: &Metadata) -> bool {
    let [file] = metadata.files.as_slice() else {
        return false;
    };
    let [tensor] = metadata.tensors.as_slice() else {
        return false;
    };

    metadata.format == Format::PytorchBin
        && file.path == FILE_NAME
        && file.bytes == Some(tensor.bytes_each)
}

fn remove_damaged(disk: &Disk, path: &Path, why: &str) {
    tracing::warn!(path = %path.display(), %why, "removing a damaged cache entry");
    // The entry is read again from its source. A file that cannot be removed is replaced then.
    let _ = disk.remove(path);
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::files;
    use hf_mem_core::model::metadata::Evidence;
    use hf_mem_core::model::metadata::sample::small;
    use hf_mem_core::model::weight_files::WeightFile;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
    const PUBLIC: Scope<'_> = Scope("public");

    fn cache(max_bytes: u64) -> (tempfile::TempDir, DiskCache) {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = DiskCache::new(folder.path(), max_bytes);
        (folder, cache)
    }

    fn store(cache: &DiskCache, disk: &Disk, metadata: &Metadata) {
        let packed = bundle::pack(metadata).expect("packed").bytes;
        let commit = metadata.identity.commit.as_deref().expect("a commit");
        cache.store(disk, PUBLIC, &metadata.identity.repo, commit, None, &packed);
    }

    fn found(cache: &DiskCache, disk: &Disk, scope: &str, file: Option<&str>) -> Option<Metadata> {
        let packed = cache.entry(disk, Scope(scope), "a/b", COMMIT, file)?;
        DiskCache::unpack(&packed, COMMIT).ok()
    }

    #[test]
    fn entries_are_found_by_scope_and_file() {
        let (_folder, cache) = cache(1 << 20);
        let work = move |disk: &Disk| {
            let metadata = small("a/b", COMMIT);
            store(&cache, disk, &metadata);
            assert_eq!(found(&cache, disk, "public", None), Some(metadata));
            assert_eq!(found(&cache, disk, "other", None), None);
            assert_eq!(found(&cache, disk, "public", Some("x")), None);

            let note = RevisionNote::new(
                "a/b",
                COMMIT,
                SystemTime::UNIX_EPOCH + Duration::from_secs(5),
            );
            cache.store_note(disk, PUBLIC, "a/b", "main", &note);
            assert_eq!(cache.note(disk, PUBLIC, "a/b", "main"), Some(note));
            assert_eq!(cache.note(disk, PUBLIC, "a/b", "dev"), None);
        };

        files::wait(Path::new("/tmp"), work).unwrap();
    }

    #[test]
    fn damaged_entry_is_removed() {
        let (_folder, cache) = cache(1 << 20);
        let work = move |disk: &Disk| {
            store(&cache, disk, &small("a/b", COMMIT));
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
    fn pickled_model_is_read_once() {
        let (_folder, cache) = cache(1 << 20);
        let file = WeightFile {
            path: FILE_NAME.into(),
            bytes: Some(16),
            component: String::new(),
        };
        let pickled = Metadata {
            format: Format::PytorchBin,
            files: vec![file],
            evidence: Evidence::Lengths,
            ..small("a/b", COMMIT)
        };

        let work = move |disk: &Disk| {
            assert!(may_be_ctranslate2(&pickled), "one file of one length");
            let path = cache.path("model", &["public", "a/b", COMMIT, ""]);
            let write = |metadata: &Metadata| {
                let packed = bundle::pack(metadata).expect("packed").bytes;
                cache.write(disk, &path, &packed);
                packed
            };

            write(&small("a/b", COMMIT));
            assert!(
                found(&cache, disk, "public", None).is_some(),
                "other entries of earlier releases are kept"
            );
            let packed = write(&pickled);
            assert_eq!(found(&cache, disk, "public", None), None);

            cache.store(disk, PUBLIC, "a/b", COMMIT, None, &packed);
            assert_eq!(found(&cache, disk, "public", None).as_ref(), Some(&pickled));
            let entry = cache.entry(disk, PUBLIC, "a/b", COMMIT, None);
            let as_before = bundle::unpack(&*entry.expect("an entry"));
            assert_eq!(as_before, Ok(pickled), "an earlier release reads it");
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
    fn least_recently_used_are_evicted_first() {
        let (_folder, cache) = cache(0);
        let work = move |disk: &Disk| {
            store(&cache, disk, &small("a/b", COMMIT));
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
                cache.status(),
                CacheStatus {
                    bytes: 0,
                    write_error: None
                }
            );

            for (age, repo) in [(30, "a/1"), (20, "a/2"), (10, "a/3")] {
                let commit = COMMIT.replace('0', &age.to_string()[..1]);
                store(&cache, disk, &small(repo, &commit));
                let path = cache.path("model", &["public", repo, &commit, ""]);
                if let Ok(file) = fs::File::options().append(true).open(path) {
                    let modified = SystemTime::now() - Duration::from_secs(age);
                    file.set_times(fs::FileTimes::new().set_modified(modified))
                        .expect("set");
                }
            }

            cache.evict(disk);
            let is_cached = |repo: &str, digit: &str| {
                cache
                    .entry(disk, PUBLIC, repo, &COMMIT.replace('0', digit), None)
                    .is_some()
            };

            assert!(!is_cached("a/1", "3") && is_cached("a/2", "2") && is_cached("a/3", "1"));
            let sizes: u64 = cache.entries(disk).iter().map(|(_, bytes, _)| bytes).sum();
            assert!(cache.status().bytes == sizes && sizes > 0);
            let reopened = DiskCache::new(cache.folder.parent().expect("a folder"), 0);
            reopened.measure(disk);
            assert_eq!(reopened.status().bytes, sizes);
        };

        files::wait(Path::new("/tmp"), work).unwrap();
    }

    #[test]
    fn a_write_failure_lasts_until_one_succeeds() {
        let (folder, cache) = cache(1 << 20);
        let work = move |disk: &Disk| {
            fs::write(folder.path().join(LAYOUT), "in the way").expect("written");
            store(&cache, disk, &small("a/b", COMMIT));
            let write_error = cache.status().write_error.expect("write_error");
            assert!(write_error.contains("cannot be written"), "{write_error}");
            fs::remove_file(folder.path().join(LAYOUT)).expect("removed");
            store(&cache, disk, &small("a/b", COMMIT));
            assert_eq!(cache.status().write_error, None);
        };

        files::wait(Path::new("/tmp"), work).unwrap();
    }
}
