//! Access to files that other users or programs control.
//!
//! A file may be a named pipe that never gets a writer, a device without an end, or on a disk that
//! does not answer. So every access follows three rules:
//!
//! 1. Only regular files are opened, and read up to a limit that the caller sets ([`Disk`]).
//! 2. It runs on a separate thread, never on the runtime's ([`FileThreads::run`], [`wait`]).
//! 3. It has a deadline. A read that hangs in the kernel cannot be canceled, so its thread is
//!    abandoned. [`FileThreads`] counts these threads, skips the place that hangs until the read
//!    returns, and never waits for them at exit.
//!
//! A [`Disk`] exists only inside such a thread, so the compiler enforces rule 2. `clippy.toml`
//! disallows `std::fs` elsewhere.

mod disk;
mod threads;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

pub(crate) use disk::Disk;
pub(crate) use threads::{FilePlace, FileThreads, try_wait, wait};

/// Why a file was not read, in addition to the system's own errors.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FileError {
    /// A pipe, a device, a socket or a folder.
    #[error("it is {kind}, not a regular file")]
    NotRegular {
        /// The kind of file.
        kind: &'static str,
    },
    /// A file above the length limit.
    #[error("it has more than {limit} bytes")]
    TooLong {
        /// The limit.
        limit: u64,
    },
    /// A folder with too many entries.
    #[error("it holds more than {max} entries")]
    TooMany {
        /// The limit.
        max: usize,
    },
    /// The disk has not answered in time.
    #[error("{} has not answered for {} s: the disk under it may hang", place.display(), since.as_secs())]
    Hung {
        /// The folder or file.
        place: PathBuf,
        /// How long the access has lasted.
        since: Duration,
    },
    /// The system cannot start another thread.
    #[error("no thread can be started to read {}: {why}", place.display())]
    NoThread {
        /// The folder or file.
        place: PathBuf,
        /// The system's own message.
        why: String,
    },
}

impl From<FileError> for io::Error {
    fn from(error: FileError) -> Self {
        let kind = match &error {
            FileError::NotRegular { .. } => io::ErrorKind::InvalidInput,
            FileError::TooLong { .. } | FileError::TooMany { .. } => io::ErrorKind::FileTooLarge,
            FileError::Hung { .. } => io::ErrorKind::TimedOut,
            FileError::NoThread { .. } => io::ErrorKind::ResourceBusy,
        };

        Self::new(kind, error)
    }
}
