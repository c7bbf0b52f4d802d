//! The names of users, for the processes that hold a device's memory.

use std::cell::{Cell, OnceCell};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::lookup::{Purpose, look_up};
use super::name_service::{NameService as _, SystemNames};
use crate::files;
use crate::lock_ignoring_poison::lock_ignoring_poison;

/// The longest wait for all names of one reading of the devices.
const DEADLINE: Duration = Duration::from_secs(1);

/// How long a name is used.
const MAX_AGE: Duration = Duration::from_secs(300);

/// How long no name is looked up after a lookup failed.
const PAUSE: Duration = Duration::from_secs(30);

/// The most names in the cache. Beyond it the cache is emptied.
const MAX_NAMES: usize = 4096;

/// The longest `passwd` file of another root; a hundred thousand users take some 8 MB.
const MAX_PASSWD_BYTES: u64 = 64 << 20;

/// The names of the users of one root.
pub(crate) enum UserNames {
    /// This host: the name service switch. All lookups together end at the deadline, which the
    /// first of them sets.
    System { deadline: Cell<Option<Instant>> },
    /// The host whose `/etc` is mounted in a container, or a test's: its `passwd` file, read at the
    /// first name.
    File {
        passwd: PathBuf,
        text: OnceCell<String>,
    },
}

impl UserNames {
    /// The names of the host whose `/etc` is `etc`.
    pub(crate) fn of_host(etc: &Path) -> Self {
        if etc == Path::new("/etc") {
            return Self::System {
                deadline: Cell::new(None),
            };
        }

        Self::File {
            passwd: etc.join("passwd"),
            text: OnceCell::new(),
        }
    }

    /// Returns the name of `uid`; `None` while it is unknown.
    pub(crate) fn name(&self, uid: u32) -> Option<String> {
        match self {
            Self::System { deadline } => system_name(uid, deadline),
            Self::File { passwd, text } => {
                name_in_passwd(text.get_or_init(|| read_passwd(passwd)), uid)
            }
        }
    }
}

/// The names that the name service returned lately.
#[derive(Default)]
struct NameCache {
    names: HashMap<u32, (Option<String>, Instant)>,
    paused_until: Option<Instant>,
}

static CACHE: LazyLock<Mutex<NameCache>> = LazyLock::new(Mutex::default);

fn cache() -> MutexGuard<'static, NameCache> {
    // Entries are inserted whole, so a panic elsewhere leaves none half done.
    lock_ignoring_poison(&CACHE)
}

fn system_name(uid: u32, deadline: &Cell<Option<Instant>>) -> Option<String> {
    let now = Instant::now();
    {
        let cache = cache();
        if let Some((name, expires)) = cache.names.get(&uid)
            && *expires > now
        {
            return name.clone();
        }

        if cache.paused_until.is_some_and(|until| until > now) {
            return None;
        }
    }

    let until = deadline.get().unwrap_or(now + DEADLINE);
    deadline.set(Some(until));
    let left = until.saturating_duration_since(now);
    if left.is_zero() {
        return None;
    }

    // A late result still counts for the next reading.
    let lookup = move || {
        let name = SystemNames.user_name(uid)?;
        record(uid, name.clone());
        Ok(name)
    };

    let found = look_up(Purpose::UserNames, left, lookup);
    if found.is_err() {
        cache().paused_until = Some(Instant::now() + PAUSE);
    }

    found.ok().flatten()
}

fn record(uid: u32, name: Option<String>) {
    let mut cache = cache();
    if cache.names.len() >= MAX_NAMES {
        cache.names.clear();
    }

    cache.names.insert(uid, (name, Instant::now() + MAX_AGE));
}

/// The text of a `passwd` file; empty if it cannot be read.
fn read_passwd(path: &Path) -> String {
    let file = path.to_owned();
    files::try_wait(path, move |disk| disk.read_text(&file, MAX_PASSWD_BYTES)).unwrap_or_default()
}

/// The name of `uid` in the text of a `passwd` file (passwd(5)).
pub(super) fn name_in_passwd(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_come_from_name_service() {
        let names = UserNames::of_host(Path::new("/etc"));
        assert_eq!(names.name(0).as_deref(), Some("root"));
        assert_eq!(names.name(4_000_000_000), None);
    }

    #[test]
    fn spent_deadline_looks_up_no_name() {
        let spent = Cell::new(Some(Instant::now()));
        let paused_until = cache().paused_until;
        assert_eq!(system_name(4_000_000_001, &spent), None);
        assert_eq!(
            cache().paused_until,
            paused_until,
            "no lookup ran and timed out"
        );
    }

    #[test]
    fn other_roots_use_their_file() {
        let etc = tempfile::tempdir().unwrap();
        std::fs::write(etc.path().join("passwd"), "ana:x:1000:1000::/:/bin/sh\n").unwrap();
        let names = UserNames::of_host(etc.path());
        assert_eq!(names.name(1000).as_deref(), Some("ana"));
        assert_eq!(names.name(0), None, "not the host's own");

        assert_eq!(name_in_passwd("broken\n::\n", 1000), None);

        let missing = UserNames::of_host(Path::new("/nonexistent/etc"));
        assert_eq!(missing.name(0), None);
    }
}
