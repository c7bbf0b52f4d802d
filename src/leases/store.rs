//! The ledger on disk: one file. A save writes a new file and renames it over the old one, so that
//! a kill at any time leaves one of them complete. The first line is a [`super::header`].

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use super::clock::Timestamp;
use super::header::LedgerHeader;
use super::ledger::{LedgerConfig, Saved};
use super::unreadable_ledger::{SET_ASIDE, Unreadable, UnreadableLedger};

const FILE: &str = "leases.json";
const LOCK: &str = "leases.lock";
/// The name prefix of files that are being written.
const UNFINISHED: &str = ".leases-";
/// The maximum size of the file; real ledgers are much smaller.
const MAX_FILE: u64 = 64 << 20;
/// How often to retry a lock that another process holds.
const LOCK_RETRY: Duration = Duration::from_millis(5);

/// Why the ledger could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another daemon uses the directory.
    #[error("{directory} is in use by another daemon; give each its own state directory")]
    InUse {
        /// The directory.
        directory: String,
    },
    /// The disk does not answer.
    #[error("{directory} has not answered for {seconds} s: its disk may hang")]
    Hangs {
        /// The directory.
        directory: String,
        /// How long the daemon waited.
        seconds: u64,
    },
    /// A file operation failed.
    #[error(
        "cannot {what} {path}: {source}; no lease is granted, renewed or released until the \
         ledger can be written"
    )]
    Io {
        /// The operation.
        what: &'static str,
        /// The file.
        path: String,
        /// The cause.
        source: io::Error,
    },
    /// There may be leases, and they cannot be read.
    #[error("{why}; earlier leases are unknown until the daemon can read {path} after a restart")]
    Unread {
        /// The file.
        path: String,
        /// The cause.
        why: Box<StoreError>,
    },
    /// There is no storage.
    #[error("cannot grant a lease, because it would not survive a restart: {why}")]
    None {
        /// The cause.
        why: String,
    },
    /// The ledger could not be encoded.
    #[error("cannot encode the leases: {0}")]
    Encode(#[from] serde_json::Error),
}

impl StoreError {
    /// Whether the directory may hold leases that the daemon does not know.
    pub fn hides_leases(&self) -> bool {
        matches!(
            self,
            Self::InUse { .. } | Self::Hangs { .. } | Self::Unread { .. }
        )
    }

    /// Adds to an error that `directory` may hold unknown leases, unless it is known to hold none.
    /// A file that was set aside holds leases for as long as the `settings` let a lease live.
    pub fn or_hidden_leases(
        self,
        directory: &Path,
        settings: &LedgerConfig,
        boot_id: &str,
        now: Timestamp,
    ) -> Self {
        if self.hides_leases() || holds_no_leases(directory, settings, boot_id, now) {
            self
        } else {
            self.with_unknown_leases(directory)
        }
    }

    /// Adds to an error that it is unknown whether `directory` holds leases.
    pub fn with_unknown_leases(self, directory: &Path) -> Self {
        Self::Unread {
            path: directory.join(FILE).display().to_string(),
            why: Box::new(self),
        }
    }
}

/// Whether a directory is known to hold no live lease.
fn holds_no_leases(
    directory: &Path,
    settings: &LedgerConfig,
    boot_id: &str,
    now: Timestamp,
) -> bool {
    let has_no_ledger = fs::symlink_metadata(directory.join(FILE)).is_err_and(|e| is_absent(&e));
    has_no_ledger
        && match Unreadable::in_directory(directory) {
            Ok(files) => UnreadableLedger::of(&files, settings, boot_id, now).is_none(),
            Err(error) => is_absent(&error),
        }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// The content of the store at the start.
#[derive(Debug)]
pub enum Loaded {
    /// No file; this is the first start.
    Nothing,
    /// The ledger as last written.
    Found(Box<Saved>),
    /// A file that cannot be trusted. The store set it aside for the operator and uses nothing of
    /// it. Its leases may still be live: see [`Store::unreadable`].
    SetAside {
        /// Its new path.
        moved_to: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// Storage for a ledger: a directory, or a test's memory.
pub trait LedgerStorage {
    /// Saves the ledger so that it survives a kill at any time after this returns.
    fn save(&mut self, saved: &Saved) -> Result<(), StoreError>;
}

impl<S: LedgerStorage + ?Sized> LedgerStorage for Box<S> {
    fn save(&mut self, saved: &Saved) -> Result<(), StoreError> {
        (**self).save(saved)
    }
}

/// Storage that always fails: every grant fails with the reason, and everything else works.
#[derive(Debug)]
pub struct NoStore {
    /// The reason.
    pub why: String,
}

impl LedgerStorage for NoStore {
    fn save(&mut self, _saved: &Saved) -> Result<(), StoreError> {
        Err(StoreError::None {
            why: self.why.clone(),
        })
    }
}

/// A directory for the ledger.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    /// Locked for the lifetime of the store: two daemons on one file would grant the same memory
    /// twice.
    _lock: File,
}

impl Store {
    /// Opens and locks an existing directory.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        Self::open_within(directory, Duration::ZERO)
    }

    /// Opens like [`Store::open`], and waits up to `timeout` for another process to release the
    /// lock: a daemon that is ending, or its new child that has not closed inherited files yet.
    pub fn open_within(directory: &Path, timeout: Duration) -> Result<Self, StoreError> {
        let path = directory.join(LOCK);
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path);

        let lock = lock.map_err(|source| failed("open", &path, source))?;
        let began = Instant::now();

        loop {
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(rustix::io::Errno::WOULDBLOCK) if began.elapsed() < timeout => {
                    std::thread::sleep(LOCK_RETRY);
                }
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    return Err(StoreError::InUse {
                        directory: directory.display().to_string(),
                    });
                }
                Err(errno) => return Err(failed("lock", &path, errno.into())),
            }
        }

        let store = Self {
            directory: directory.to_owned(),
            _lock: lock,
        };

        store.remove_unfinished();
        Ok(store)
    }

    /// Reads the ledger. A file that is torn, foreign or of a newer version is renamed, never used
    /// and never overwritten.
    pub fn load(&mut self) -> Result<Loaded, StoreError> {
        let path = self.directory.join(FILE);
        let file = match fs::symlink_metadata(&path) {
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(Loaded::Nothing),
            Err(source) => return Err(failed("read", &path, source)),
            Ok(found) if !found.is_file() => {
                return self.set_aside(&path, "it is not a plain file");
            }
            Ok(_) => File::open(&path).map_err(|source| failed("open", &path, source))?,
        };

        let mut content = Vec::new();
        let read = file.take(MAX_FILE + 1).read_to_end(&mut content);
        read.map_err(|source| failed("read", &path, source))?;

        match decode(&content) {
            Ok(saved) => Ok(Loaded::Found(Box::new(saved))),
            Err(why) => self.set_aside(&path, &why),
        }
    }

    /// The files that were set aside, at this start or an earlier one. Their leases cannot be read
    /// and may still be live.
    pub fn unreadable(&self) -> Result<Vec<Unreadable>, StoreError> {
        Unreadable::in_directory(&self.directory)
            .map_err(|source| failed("list", &self.directory, source))
    }

    /// Removes the files of writers that were killed. A failure is harmless.
    fn remove_unfinished(&self) {
        let entries = fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .flatten();

        for entry in
            entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(UNFINISHED))
        {
            if let Err(error) = fs::remove_file(entry.path()) {
                let path = entry.path();
                tracing::debug!(%error, path = %path.display(), "cannot remove an unfinished file");
            }
        }
    }

    fn set_aside(&self, path: &Path, why: &str) -> Result<Loaded, StoreError> {
        let names = (1..10_000).map(|number| self.directory.join(format!("{SET_ASIDE}{number}")));
        let free = names
            .into_iter()
            .find(|name| fs::symlink_metadata(name).is_err());
        let moved_to = free.ok_or_else(|| {
            failed(
                "find a name to set aside",
                path,
                io::ErrorKind::AlreadyExists.into(),
            )
        })?;

        fs::rename(path, &moved_to).map_err(|source| failed("set aside", path, source))?;
        Ok(Loaded::SetAside {
            moved_to,
            why: why.to_owned(),
        })
    }
}

impl LedgerStorage for Store {
    fn save(&mut self, saved: &Saved) -> Result<(), StoreError> {
        let content = encode(saved)?;
        let path = self.directory.join(FILE);

        let mut file = tempfile::Builder::new()
            .prefix(UNFINISHED)
            .tempfile_in(&self.directory)
            .map_err(|source| failed("create a temporary file for", &path, source))?;
        file.write_all(&content)
            .map_err(|source| failed("write", &path, source))?;
        file.as_file()
            .sync_all()
            .map_err(|source| failed("sync", &path, source))?;
        file.persist(&path)
            .map_err(|error| failed("replace", &path, error.error))?;

        // The rename is durable only once the directory is.
        let directory = File::open(&self.directory).and_then(|directory| directory.sync_all());
        directory.map_err(|source| failed("sync the directory of", &path, source))
    }
}

/// Reads the ledger in `directory` without locking it or setting anything aside; `None` if there is
/// none. The error says why it cannot be read.
pub fn peek(directory: &Path) -> Result<Option<Saved>, String> {
    let path = directory.join(FILE);
    let mut content = Vec::new();
    let read = File::open(&path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut content));

    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{}: {error}", path.display())),
        Ok(_) => decode(&content)
            .map(Some)
            .map_err(|why| format!("{}: {why}", path.display())),
    }
}

fn encode(saved: &Saved) -> Result<Vec<u8>, StoreError> {
    let body = serde_json::to_vec(saved)?;
    let mut content = LedgerHeader::line(saved, &body)?;
    content.extend(body);
    Ok(content)
}

/// Decodes a file's content. The error says what is wrong with it.
pub fn decode(content: &[u8]) -> Result<Saved, String> {
    let (header, body) = LedgerHeader::read(content)?;
    header.matches(body)?;
    hf_mem_core::strict_json::from_slice(body)
        .map_err(|error| format!("its leases cannot be decoded: {error}"))
}

fn failed(what: &'static str, path: &Path, source: io::Error) -> StoreError {
    StoreError::Io {
        what,
        path: path.display().to_string(),
        source,
    }
}

/// Returns the id of the current boot. Boot times of two boots must not be compared.
pub fn boot_id(proc_root: &Path) -> Result<String, StoreError> {
    let path = proc_root.join("sys/kernel/random/boot_id");
    let text = fs::read_to_string(&path).map_err(|source| failed("read", &path, source))?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::leases::clock::Boottime;

    fn saved() -> Saved {
        let saved_at = Timestamp {
            boottime: Boottime::from_millis(5),
            wall: SystemTime::UNIX_EPOCH,
        };

        Saved {
            boot_id: "b".to_owned(),
            saved_at,
            leases: Vec::new(),
        }
    }

    #[test]
    fn saved_ledger_is_loaded() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = Store::open(directory.path()).unwrap();
        assert!(matches!(store.load().unwrap(), Loaded::Nothing));
        store.save(&saved()).unwrap();
        assert!(matches!(store.load().unwrap(), Loaded::Found(found) if *found == saved()));

        assert_eq!(
            fs::read_dir(directory.path()).unwrap().count(),
            2,
            "the file, the lock and no leftovers"
        );

        // A writer that was killed leaves its file; the next store removes it.
        drop(store);
        fs::write(directory.path().join(".leases-torn"), "half").unwrap();
        let _store = Store::open(directory.path()).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[test]
    fn torn_file_is_set_aside() {
        let content = encode(&saved()).unwrap();
        for length in 0..content.len() {
            assert!(decode(&content[..length]).is_err(), "torn at {length}");
        }

        for place in 0..content.len() {
            let mut flipped = content.clone();
            flipped[place] ^= 0x01;
            assert!(decode(&flipped).is_err(), "flipped at {place}");
        }

        let directory = tempfile::tempdir().unwrap();
        let mut store = Store::open(directory.path()).unwrap();

        for number in 1..=2 {
            fs::write(directory.path().join(FILE), &content[..content.len() - 10]).unwrap();
            let Loaded::SetAside { moved_to, why } = store.load().unwrap() else {
                panic!("a torn file was used")
            };
            assert!(why.contains("torn"), "{why}");
            assert!(moved_to.ends_with(format!("leases.json.set-aside-{number}")));
            assert!(moved_to.exists());
            assert!(matches!(store.load().unwrap(), Loaded::Nothing));
        }
    }

    #[test]
    fn foreign_files_are_set_aside() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = Store::open(directory.path()).unwrap();
        let ours = String::from_utf8(encode(&saved()).unwrap()).unwrap();
        for content in [
            ours.replace("\"version\":1", "\"version\":2"),
            "{}".to_owned(),
            String::new(),
        ] {
            fs::write(directory.path().join(FILE), content).unwrap();
            assert!(matches!(store.load().unwrap(), Loaded::SetAside { .. }));
        }

        let files = store.unreadable().unwrap();
        assert_eq!(
            files.iter().filter(|file| file.last_end.is_some()).count(),
            0,
            "a changed line names no end"
        );

        fs::write(directory.path().join(FILE), &ours[..ours.len() - 3]).unwrap();
        assert!(matches!(store.load().unwrap(), Loaded::SetAside { .. }));

        let last_end = store
            .unreadable()
            .unwrap()
            .into_iter()
            .find_map(|file| file.last_end)
            .unwrap();
        assert_eq!((last_end.boot_id.as_str(), last_end.ends_at), ("b", None));
        fs::create_dir(directory.path().join(FILE)).unwrap();
        assert!(matches!(store.load().unwrap(), Loaded::SetAside { .. }));
    }

    #[test]
    fn directory_is_locked() {
        let directory = tempfile::tempdir().unwrap();
        let first = Store::open(directory.path()).unwrap();

        assert!(matches!(
            Store::open(directory.path()),
            Err(StoreError::InUse { .. })
        ));
        let waiting = {
            let directory = directory.path().to_owned();
            std::thread::spawn(move || {
                Store::open_within(&directory, Duration::from_secs(60)).is_ok()
            })
        };

        drop(first);
        assert!(waiting.join().unwrap());
        assert!(Store::open(directory.path()).is_ok());
    }

    #[test]
    fn only_existing_file_hides_leases() {
        let error = || StoreError::Io {
            what: "read",
            path: "p".to_owned(),
            source: io::Error::other("I/O error"),
        };

        let directory = tempfile::tempdir().unwrap();
        let check = |error: StoreError, directory: &Path, now| {
            error.or_hidden_leases(directory, &LedgerConfig::default(), "b", now)
        };

        let hiding = || check(error(), directory.path(), Timestamp::now());
        assert!(!hiding().hides_leases(), "a new host");
        assert!(!check(error(), &directory.path().join("absent"), Timestamp::now()).hides_leases());
        fs::write(directory.path().join(FILE), "x").unwrap();

        assert!(
            hiding().hides_leases() && hiding().to_string().contains("restart"),
            "{}",
            hiding()
        );

        assert!(
            matches!(
                check(hiding(), directory.path(), Timestamp::now()),
                StoreError::Unread { .. }
            ),
            "the addition is made once"
        );

        // After it was set aside it may still hold live leases, for a while.
        fs::rename(
            directory.path().join(FILE),
            directory.path().join(format!("{SET_ASIDE}1")),
        )
        .unwrap();

        assert!(hiding().hides_leases());
        let tomorrow = Timestamp {
            wall: SystemTime::now() + Duration::from_secs(86_400),
            ..Timestamp::now()
        };

        assert!(!check(error(), directory.path(), tomorrow).hides_leases());
    }

    #[test]
    fn failed_write_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = Store::open(directory.path()).unwrap();
        fs::remove_dir_all(directory.path()).unwrap();
        let error = store.save(&saved()).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("no lease is granted, renewed or released"),
            "{error}"
        );

        assert!(!boot_id(Path::new("/proc")).unwrap().is_empty());
    }
}
