//! Users and groups of this host, from the text of `/etc/passwd` and `/etc/group`.
//!
//! Only the local files: names that come from a directory service are not found here, and are given
//! as numbers instead.

use std::path::Path;

use crate::files;

/// The longest of these files that is read; a hundred thousand users have some 8 MB.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// Local users and groups.
#[derive(Clone, Debug, Default)]
pub struct Accounts {
    passwd: Listing,
    group: Listing,
}

/// The text of a file, or nothing and why it could not be read.
#[derive(Clone, Debug, Default)]
struct Listing {
    text: String,
    unread: Option<String>,
}

/// A name that no local file knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no {kind} '{name}' in {file}{}; a {kind} of a directory service is given by its number", because(.unread.as_deref()))]
pub struct UnknownAccount {
    kind: &'static str,
    name: String,
    file: &'static str,
    unread: Option<String>,
}

fn because(unread: Option<&str>) -> String {
    unread.map_or_else(String::new, |why| format!(", which cannot be read ({why})"))
}

impl Accounts {
    /// From the text of the two files.
    pub fn parse(passwd: impl Into<String>, group: impl Into<String>) -> Self {
        let listing = |text| Listing { text, unread: None };
        Self {
            passwd: listing(passwd.into()),
            group: listing(group.into()),
        }
    }

    /// From `etc/passwd` and `etc/group` under `root`; a file that cannot be read holds nobody, and
    /// a name that is looked for in it is told so. It waits for the disk: never called on the
    /// runtime of a daemon that answers.
    pub fn read(root: &Path) -> Self {
        let listing = |name: &str| {
            let path = root.join("etc").join(name);
            let file = path.clone();
            match files::try_wait(&path, move |disk| disk.read_text(&file, MAX_FILE_BYTES)) {
                Ok(text) => Listing { text, unread: None },
                Err(error) => Listing {
                    text: String::new(),
                    unread: Some(error.to_string()),
                },
            }
        };

        Self {
            passwd: listing("passwd"),
            group: listing("group"),
        }
    }

    /// The uid of a user given by name or number.
    pub fn uid(&self, name: &str) -> Result<u32, UnknownAccount> {
        number(name, &self.passwd.text).ok_or_else(|| UnknownAccount {
            kind: "user",
            name: name.to_owned(),
            file: "/etc/passwd",
            unread: self.passwd.unread.clone(),
        })
    }

    /// The gid of a group given by name or number.
    pub fn gid(&self, name: &str) -> Result<u32, UnknownAccount> {
        number(name, &self.group.text).ok_or_else(|| UnknownAccount {
            kind: "group",
            name: name.to_owned(),
            file: "/etc/group",
            unread: self.group.unread.clone(),
        })
    }

    /// Whether `uid` is a named member of the group `gid`.
    pub fn is_member(&self, uid: u32, gid: u32) -> bool {
        let Some(user) = self.user(uid) else {
            return false;
        };

        lines(&self.group.text).any(|fields| {
            fields.get(2).is_some_and(|text| text.parse() == Ok(gid))
                && fields
                    .get(3)
                    .is_some_and(|members| members.split(',').any(|member| member == user))
        })
    }

    /// The groups that `uid` is a named member of.
    pub fn groups(&self, uid: u32) -> Vec<u32> {
        let Some(user) = self.user(uid) else {
            return Vec::new();
        };

        lines(&self.group.text)
            .filter(|fields| {
                fields
                    .get(3)
                    .is_some_and(|members| members.split(',').any(|member| member == user))
            })
            .filter_map(|fields| fields.get(2)?.parse().ok())
            .collect()
    }

    fn user(&self, uid: u32) -> Option<&str> {
        lines(&self.passwd.text)
            .find(|fields| fields.get(2).is_some_and(|text| text.parse() == Ok(uid)))
            .and_then(|fields| fields.first().copied())
    }
}

fn lines(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().map(|line| line.split(':').collect())
}

fn number(name: &str, text: &str) -> Option<u32> {
    name.parse().ok().or_else(|| {
        lines(text)
            .find(|fields| fields.first() == Some(&name))
            .and_then(|fields| fields.get(2).and_then(|text| text.parse().ok()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts::parse(
            "root:x:0:0:root:/root:/bin/bash\nana:x:1000:1000::/home/ana:/bin/sh\nbroken\n",
            "root:x:0:\nml:x:200:ben,ana\nhf-mem-probe:x:300:\n",
        )
    }

    #[test]
    fn names_and_numbers() {
        assert_eq!(accounts().uid("ana"), Ok(1000));
        assert_eq!(accounts().uid("4242"), Ok(4242));
        assert_eq!(accounts().gid("hf-mem-probe"), Ok(300));
        let unknown = accounts().uid("zoe").unwrap_err().to_string();
        assert!(
            unknown.starts_with("there is no user 'zoe' in /etc/passwd; a user of"),
            "{unknown}"
        );
        let empty = tempfile::tempdir().unwrap();
        let unread = Accounts::read(empty.path())
            .gid("ml")
            .unwrap_err()
            .to_string();
        assert!(
            unread.contains("/etc/group, which cannot be read (No such file"),
            "{unread}"
        );
    }

    #[test]
    fn a_pipe_lists_no_accounts() {
        use rustix::fs::{CWD, FileType, Mode, mknodat};

        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();

        mknodat(
            CWD,
            root.path().join("etc/passwd"),
            FileType::Fifo,
            Mode::RUSR | Mode::WUSR,
            0,
        )
        .unwrap();

        let unread = Accounts::read(root.path())
            .uid("ana")
            .unwrap_err()
            .to_string();
        assert!(
            unread.contains("/etc/passwd, which cannot be read (it is a named pipe"),
            "{unread}"
        );
    }

    #[test]
    fn membership_is_by_whole_name() {
        assert!(accounts().is_member(1000, 200));
        assert!(!accounts().is_member(1000, 300));
        assert!(!accounts().is_member(0, 200));
        assert!(!accounts().is_member(77, 200));
        assert_eq!(accounts().groups(1000), [200]);
        assert!(accounts().groups(77).is_empty());
    }
}
