//! Access to files and folders that may block.

#![expect(
    clippy::disallowed_methods,
    reason = "all other code goes through this module"
)]
#![expect(
    clippy::unused_self,
    reason = "a `Disk` is the right to call these, and holds no state"
)]

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, FileTimes, FileType, Metadata};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{Mode, OFlags};

use super::FileError;

/// The right to access files. A file thread has one; no other code can create one.
#[derive(Debug)]
pub(crate) struct Disk(());

/// An entry of a folder.
#[derive(Debug)]
pub(crate) struct FolderEntry {
    pub(crate) name: OsString,
    pub(crate) path: PathBuf,
    /// Metadata of the link's target; `None` for a dangling link.
    pub(crate) metadata: Option<Metadata>,
}

impl Disk {
    pub(super) fn new() -> Self {
        Self(())
    }

    /// Opens a regular file for reading. Does not wait for a writer, as opening a pipe would.
    pub(crate) fn open(&self, path: &Path) -> io::Result<File> {
        // Opening a device may have an effect, so check the kind first.
        check_regular(&fs::metadata(path)?)?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);

        // Another file may have replaced it meanwhile.
        check_regular(&file.metadata()?)?;
        Ok(file)
    }

    /// Reads a whole regular file of at max `limit` bytes.
    pub(crate) fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        let file = self.open(path)?;
        let length = file.metadata()?.len();
        if length > limit {
            return Err(FileError::TooLong { limit }.into());
        }

        let mut bytes = Vec::new();

        // A file in /proc has the length 0, and any other file may grow meanwhile.
        file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit {
            return Err(FileError::TooLong { limit }.into());
        }

        Ok(bytes)
    }

    /// Reads a whole regular file of at max `limit` bytes of UTF-8.
    pub(crate) fn read_text(&self, path: &Path, limit: u64) -> io::Result<String> {
        let text = String::from_utf8(self.read(path, limit)?);
        text.map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "its text is not valid UTF-8"))
    }

    /// Reads up to `length` bytes from `start` on. Memory grows with the bytes read, not with
    /// `length`.
    pub(crate) fn read_range(&self, path: &Path, start: u64, length: u64) -> io::Result<Vec<u8>> {
        let mut file = self.open(path)?;
        file.seek(SeekFrom::Start(start))?;

        let mut bytes = Vec::new();
        file.take(length).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Returns the metadata of the target of `path`, links followed.
    pub(crate) fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        fs::metadata(path)
    }

    /// Whether there is anything at `path`.
    pub(crate) fn exists(&self, path: &Path) -> bool {
        fs::metadata(path).is_ok()
    }

    /// Whether there is a folder at `path`.
    pub(crate) fn is_folder(&self, path: &Path) -> bool {
        fs::metadata(path).is_ok_and(|found| found.is_dir())
    }

    /// Whether there is a regular file at `path`.
    pub(crate) fn is_file(&self, path: &Path) -> bool {
        fs::metadata(path).is_ok_and(|found| found.is_file())
    }

    /// Returns `path` without links in it.
    pub(crate) fn canonical(&self, path: &Path) -> io::Result<PathBuf> {
        fs::canonicalize(path)
    }

    /// Lists the entries of a folder whose names `wanted` accepts, at max `max` of them. Touches
    /// no other entry, because it may be a mount that hangs.
    pub(crate) fn list(
        &self,
        folder: &Path,
        max: usize,
        wanted: impl Fn(&OsStr) -> bool,
    ) -> io::Result<Vec<FolderEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if !wanted(&entry.file_name()) {
                continue;
            }

            if entries.len() == max {
                return Err(FileError::TooMany { max }.into());
            }

            let path = entry.path();
            entries.push(FolderEntry {
                name: entry.file_name(),
                metadata: fs::metadata(&path).ok(),
                path,
            });
        }

        Ok(entries)
    }

    /// Whether `path` has a POSIX access list, which overrides its permission bits. Returns true if
    /// an error leaves this open.
    pub(crate) fn has_access_list(&self, path: &Path) -> bool {
        use rustix::io::Errno;

        let mut nothing: [u8; 0] = [];
        let asked = rustix::fs::getxattr(path, "system.posix_acl_access", &mut nothing[..]);
        !matches!(asked, Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::NOSYS))
    }

    /// Writes a file atomically. Creates its folder if needed.
    pub(crate) fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let folder = path
            .parent()
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        fs::create_dir_all(folder)?;

        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(bytes)?;
        file.persist(path).map_err(|error| error.error)?;

        Ok(())
    }

    /// Removes a file.
    pub(crate) fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    /// Marks a regular file as changed now.
    pub(crate) fn touch(&self, path: &Path) -> io::Result<()> {
        check_regular(&fs::metadata(path)?)?;
        let flags =
            OFlags::WRONLY | OFlags::APPEND | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
        file.set_times(FileTimes::new().set_modified(SystemTime::now()))
    }
}

/// Returns an error unless `found` is a regular file.
fn check_regular(found: &Metadata) -> io::Result<()> {
    if found.is_file() {
        Ok(())
    } else {
        Err(FileError::NotRegular {
            kind: kind_of(found.file_type()),
        }
        .into())
    }
}

fn kind_of(found: FileType) -> &'static str {
    if found.is_dir() {
        "a folder"
    } else if found.is_fifo() {
        "a named pipe"
    } else if found.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_file_is_rejected_unread() {
        let (disk, folder) = (Disk::new(), tempfile::tempdir().unwrap());
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            Mode::RUSR | Mode::WUSR,
            0,
        )
        .unwrap();

        let socket = folder.path().join("socket");
        let _listening = std::os::unix::net::UnixListener::bind(&socket).unwrap();

        for (path, kind) in [
            (pipe.as_path(), "a named pipe"),
            (&socket, "a socket"),
            (folder.path(), "a folder"),
            (Path::new("/dev/zero"), "a device"),
        ] {
            let refused = disk.read(path, 10).unwrap_err().to_string();
            assert_eq!(refused, format!("it is {kind}, not a regular file"));
            assert!(disk.read_range(path, 0, 1).is_err());
        }

        assert!(disk.touch(&pipe).is_err());
    }

    #[test]
    fn long_file_is_rejected_by_length() {
        let (disk, folder) = (Disk::new(), tempfile::tempdir().unwrap());
        let path = folder.path().join("file");
        fs::write(&path, "0123456789").unwrap();

        assert_eq!(disk.read(&path, 10).unwrap(), b"0123456789");
        assert_eq!(
            disk.read(&path, 9).unwrap_err().to_string(),
            "it has more than 9 bytes"
        );

        // A file that claims to be empty.
        assert!(
            !disk
                .read(Path::new("/proc/self/status"), 1 << 20)
                .unwrap()
                .is_empty()
        );

        assert!(disk.read(Path::new("/proc/self/status"), 10).is_err());
        assert_eq!(disk.read_range(&path, 8, u64::MAX).unwrap(), b"89");
    }

    #[test]
    fn long_folder_is_rejected() {
        let (disk, folder) = (Disk::new(), tempfile::tempdir().unwrap());
        for name in ["a", "b", "c"] {
            disk.write(&folder.path().join(name), b"").unwrap();
        }

        assert_eq!(disk.list(folder.path(), 3, |_| true).unwrap().len(), 3);
        assert_eq!(
            disk.list(folder.path(), 1, |name| name == "b")
                .unwrap()
                .len(),
            1
        );

        assert_eq!(
            disk.list(folder.path(), 2, |_| true)
                .unwrap_err()
                .to_string(),
            "it holds more than 2 entries"
        );
    }
}
