//! The one place through which this program opens files that somebody else may have put there.
//!
//! A file may be a named pipe that never gets a writer, a device without an end, or lie on a disk
//! that does not answer. So every access follows three rules:
//!
//! 1. Only regular files are opened, and read no further than a bound that the caller names
//!    ([`Disk`]).
//! 2. It happens on a thread of its own, never on the runtime's ([`FileThreads::run`], [`wait`]).
//! 3. It has a deadline. A read that hangs in the kernel cannot be cancelled: its thread is left
//!    behind. [`FileThreads`] counts these threads, skips the place that hangs until the read
//!    returns, and never waits for them at the end.
//!
//! A [`Disk`] exists only inside such a thread, so the compiler holds rule 2. `clippy.toml`
//! disallows `std::fs` elsewhere.

mod disk;
mod threads;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

pub(crate) use disk::Disk;
pub(crate) use threads::{FilePlace, FileThreads, try_wait, wait};

/// Why a file was not read, beyond what the system itself says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FileError {
    /// A pipe, a device, a socket or a folder.
    #[error("it is {kind}, not a regular file")]
    NotRegular {
        /// What it is.
        kind: &'static str,
    },
    /// More than is read of such a file.
    #[error("it has more than {limit} bytes")]
    TooLong {
        /// The bound.
        limit: u64,
    },
    /// A folder with more entries than are looked at.
    #[error("it holds more than {most} entries")]
    TooMany {
        /// The bound.
        most: usize,
    },
    /// The disk has not answered in time.
    #[error("{} has not answered for {} s: the disk under it may hang", place.display(), since.as_secs())]
    Hung {
        /// The folder or file.
        place: PathBuf,
        /// How long it has been waited for.
        since: Duration,
    },
    /// The system has no thread left.
    #[error("no thread can be started to read {}: {why}", place.display())]
    NoThread {
        /// The folder or file.
        place: PathBuf,
        /// The system's own words.
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
