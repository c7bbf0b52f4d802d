//! The ledger on disk: one file, written whole beside the old one and renamed over it, so that a
//! kill at any instant leaves the one or the other; its first line is a [`super::header`].

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use super::clock::Now;
use super::header::LedgerHeader;
use super::ledger::{LedgerConfig, Saved};
use super::unreadable_ledger::{SET_ASIDE, Unreadable, UnreadableLedger};

const FILE: &str = "leases.json";
const LOCK: &str = "leases.lock";
/// How files begin that are being written, and are not yet the ledger.
const UNFINISHED: &str = ".leases-";
/// No ledger of ours comes near; what is larger is not ours.
const LONGEST_FILE: u64 = 64 << 20;
/// Time between two looks at a lock that another holds.
const LOCK_LOOK: Duration = Duration::from_millis(5);

/// Why the ledger could not be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another daemon keeps its leases there.
    #[error("{directory} is in use by another daemon; give each its own state directory")]
    InUse {
        /// The directory.
        directory: String,
    },
    /// The disk says nothing.
    #[error("{directory} has not answered for {seconds} s: its disk may hang")]
    Hangs {
        /// The directory.
        directory: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The disk said no.
    #[error(
        "cannot {what} {path}: {source}; no lease is granted, renewed or released that would not stay so after a restart"
    )]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: String,
        /// The disk's answer.
        source: io::Error,
    },
    /// There are leases, and the disk does not give them.
    #[error(
        "{why}; what was promised before is not known until a restart of the daemon can read {path}"
    )]
    Unread {
        /// The file.
        path: String,
        /// Why not.
        why: Box<StoreError>,
    },
    /// There is none.
    #[error("no lease can be given, because none would survive a restart: {why}")]
    None {
        /// Why not.
        why: String,
    },
    /// The ledger could not be put into words.
    #[error("cannot write the leases down: {0}")]
    Encode(#[from] serde_json::Error),
}

impl StoreError {
    /// Whether leases may be kept there all the same, that cannot be seen.
    pub fn hides_leases(&self) -> bool {
        matches!(
            self,
            Self::InUse { .. } | Self::Hangs { .. } | Self::Unread { .. }
        )
    }

    /// The same, said of a directory whose leases could not be taken up: unless it is known to hold
    /// none, they are hidden. One that was set aside holds some for as long as the `settings` let a
    /// lease live.
    pub fn hiding(
        self,
        directory: &Path,
        settings: &LedgerConfig,
        boot_id: &str,
        now: Now,
    ) -> Self {
        let path = directory.join(FILE);
        let absent = |error: &io::Error| {
            matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            )
        };

        let no_ledger = || fs::symlink_metadata(&path).as_ref().is_err_and(absent);
        let none_set_aside = || match Unreadable::in_directory(directory) {
            Ok(files) => UnreadableLedger::of(&files, settings, boot_id, now).is_none(),
            Err(error) => absent(&error),
        };

        if self.hides_leases() || (no_ledger() && none_set_aside()) {
            self
        } else {
            self.unread(directory)
        }
    }

    /// The same, where it is not known whether `directory` holds leases.
    pub fn unread(self, directory: &Path) -> Self {
        Self::Unread {
            path: directory.join(FILE).display().to_string(),
            why: Box::new(self),
        }
    }
}

/// What was found at the start.
#[derive(Debug)]
pub enum Loaded {
    /// No file: the first start.
    Nothing,
    /// The ledger as it was last written.
    Found(Box<Saved>),
    /// A file that cannot be trusted. It was set aside, to be looked at, and nothing of it was
    /// used; what it promised may hold all the same: see [`Store::unreadable`].
    SetAside {
        /// Where it is now.
        moved_to: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// Where a ledger is kept, whatever it is: a directory, or a test's memory.
pub trait LedgerStorage {
    /// Keeps it so that it survives a kill at any instant after this returns.
    fn save(&mut self, saved: &Saved) -> Result<(), StoreError>;
}

impl<S: LedgerStorage + ?Sized> LedgerStorage for Box<S> {
    fn save(&mut self, saved: &Saved) -> Result<(), StoreError> {
        (**self).save(saved)
    }
}

/// Where no ledger can be kept: every promise is refused with the reason, and all else goes on.
#[derive(Debug)]
pub struct NoStore {
    /// Why not.
    pub why: String,
}

impl LedgerStorage for NoStore {
    fn save(&mut self, _saved: &Saved) -> Result<(), StoreError> {
        Err(StoreError::None {
            why: self.why.clone(),
        })
    }
}

/// A directory of our own.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    /// Held as long as the store is: two daemons on one file would each promise the same memory.
    _lock: File,
}

impl Store {
    /// Takes the directory, which must be there, for this daemon alone.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        Self::open_within(directory, Duration::ZERO)
    }

    /// As [`Store::open`], waiting up to `patience` for another to let go of it: a daemon that is
    /// just ending, or a process that it has just started and that has not come to close what it
    /// inherited.
    pub fn open_within(directory: &Path, patience: Duration) -> Result<Self, StoreError> {
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
                Err(rustix::io::Errno::WOULDBLOCK) if began.elapsed() < patience => {
                    std::thread::sleep(LOCK_LOOK);
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

    /// Reads the ledger back. What is torn, foreign or of a newer version is renamed, never used
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
        let read = file.take(LONGEST_FILE + 1).read_to_end(&mut content);
        read.map_err(|source| failed("read", &path, source))?;

        match decode(&content) {
            Ok(saved) => Ok(Loaded::Found(Box::new(saved))),
            Err(why) => self.set_aside(&path, &why),
        }
    }

    /// The files in which leases may be that nobody can read: those set aside, at this start or an
    /// earlier one, as long as they are there.
    pub fn unreadable(&self) -> Result<Vec<Unreadable>, StoreError> {
        Unreadable::in_directory(&self.directory)
            .map_err(|source| failed("list", &self.directory, source))
    }

    /// Removes what writers that were killed left behind. That it cannot be removed harms nobody.
    fn remove_unfinished(&self) {
        let entries = fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .flatten();

        for entry in
            entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(UNFINISHED))
        {
            if let Err(error) = fs::remove_file(entry.path()) {
                tracing::debug!(%error, path = %entry.path().display(), "an unfinished file stays");
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
            .map_err(|source| failed("write beside", &path, source))?;
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

/// The ledger in `directory` as it lies there, whoever keeps it; `None` where there is none. For a
/// look only: it is not taken, and what cannot be trusted stays where it is. In words why it cannot
/// be read.
pub fn peek(directory: &Path) -> Result<Option<Saved>, String> {
    let path = directory.join(FILE);
    let mut content = Vec::new();
    let read =
        File::open(&path).and_then(|file| file.take(LONGEST_FILE + 1).read_to_end(&mut content));

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

/// The ledger in a file's content, or what is wrong with it.
pub fn decode(content: &[u8]) -> Result<Saved, String> {
    let (header, body) = LedgerHeader::read(content)?;
    header.matches(body)?;
    hf_mem_core::strict_json::from_slice(body)
        .map_err(|error| format!("its leases cannot be read: {error}"))
}

fn failed(what: &'static str, path: &Path, source: io::Error) -> StoreError {
    StoreError::Io {
        what,
        path: path.display().to_string(),
        source,
    }
}

/// The boot that this host is in: moments of two boots must not be compared.
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
        let saved_at = Now {
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
    fn what_is_saved_is_found_again() {
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

        // A writer that was killed in the middle leaves its file; the next one clears it away.
        drop(store);
        fs::write(directory.path().join(".leases-torn"), "half").unwrap();
        let _store = Store::open(directory.path()).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_file_torn_anywhere_is_set_aside_and_not_used() {
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
                panic!("trusted a torn file")
            };
            assert!(why.contains("torn"), "{why}");
            assert!(moved_to.ends_with(format!("leases.json.set-aside-{number}")));
            assert!(moved_to.exists());
            assert!(matches!(store.load().unwrap(), Loaded::Nothing));
        }
    }

    #[test]
    fn newer_and_foreign_files_are_set_aside() {
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
            files.iter().filter(|file| file.promised.is_some()).count(),
            0,
            "a line that was changed says nothing"
        );

        fs::write(directory.path().join(FILE), &ours[..ours.len() - 3]).unwrap();
        assert!(matches!(store.load().unwrap(), Loaded::SetAside { .. }));

        let promised = store
            .unreadable()
            .unwrap()
            .into_iter()
            .find_map(|file| file.promised)
            .unwrap();
        assert_eq!((promised.boot_id.as_str(), promised.last_end), ("b", None));
        fs::create_dir(directory.path().join(FILE)).unwrap();
        assert!(matches!(store.load().unwrap(), Loaded::SetAside { .. }));
    }

    #[test]
    fn a_directory_has_one_daemon() {
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
    fn a_file_that_cannot_be_read_hides_leases_and_one_that_is_not_there_does_not() {
        let error = || StoreError::Io {
            what: "read",
            path: "p".to_owned(),
            source: io::Error::other("I/O error"),
        };

        let directory = tempfile::tempdir().unwrap();
        let of = |error: StoreError, directory: &Path, now| {
            error.hiding(directory, &LedgerConfig::default(), "b", now)
        };

        let hiding = || of(error(), directory.path(), Now::read());
        assert!(!hiding().hides_leases(), "a new host");
        assert!(!of(error(), &directory.path().join("absent"), Now::read()).hides_leases());
        fs::write(directory.path().join(FILE), "x").unwrap();

        assert!(
            hiding().hides_leases() && hiding().to_string().contains("restart"),
            "{}",
            hiding()
        );

        assert!(
            matches!(
                of(hiding(), directory.path(), Now::read()),
                StoreError::Unread { .. }
            ),
            "said once"
        );

        // Set aside, it holds them all the same, for a while.
        fs::rename(
            directory.path().join(FILE),
            directory.path().join(format!("{SET_ASIDE}1")),
        )
        .unwrap();

        assert!(hiding().hides_leases());
        let tomorrow = Now {
            wall: SystemTime::now() + Duration::from_secs(86_400),
            ..Now::read()
        };

        assert!(!of(error(), directory.path(), tomorrow).hides_leases());
    }

    #[test]
    fn a_disk_that_takes_nothing_is_an_error() {
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
