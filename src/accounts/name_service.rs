//! The calls that ask the name service. They block.

use std::ffi::CString;
use std::fmt;

use nix::errno::Errno;
use nix::unistd::{Group, Uid, User, getgrouplist};

/// A source of accounts. `None` means that there is no such account.
pub(super) trait NameService: fmt::Debug + Send + Sync {
    /// The uid of the user `name`.
    fn uid(&self, name: &str) -> Result<Option<u32>, Errno>;

    /// The gid of the group `name`.
    fn gid(&self, name: &str) -> Result<Option<u32>, Errno>;

    /// The name of the user `uid`.
    fn user_name(&self, uid: u32) -> Result<Option<String>, Errno>;

    /// All groups of the user `uid`, its primary one included; none for an unknown user.
    fn groups(&self, uid: u32) -> Result<Vec<u32>, Errno>;
}

/// The name service switch of this host.
#[derive(Debug)]
pub(super) struct SystemNames;

impl NameService for SystemNames {
    fn uid(&self, name: &str) -> Result<Option<u32>, Errno> {
        Ok(found(User::from_name(name))?.map(|user| user.uid.as_raw()))
    }

    fn gid(&self, name: &str) -> Result<Option<u32>, Errno> {
        Ok(found(Group::from_name(name))?.map(|group| group.gid.as_raw()))
    }

    fn user_name(&self, uid: u32) -> Result<Option<String>, Errno> {
        Ok(found(User::from_uid(Uid::from_raw(uid)))?.map(|user| user.name))
    }

    fn groups(&self, uid: u32) -> Result<Vec<u32>, Errno> {
        let Some(user) = found(User::from_uid(Uid::from_raw(uid)))? else {
            return Ok(Vec::new());
        };

        // The system's own names contain no zero byte.
        let name = CString::new(user.name).map_err(|_| Errno::EINVAL)?;
        let groups = getgrouplist(&name, user.gid)?;
        Ok(groups.into_iter().map(nix::unistd::Gid::as_raw).collect())
    }
}

/// Treats the errors that some name services return for a missing account as "not found"
/// (getpwnam(3)). EBADF and EPERM, which that page lists too, can mean that a sandbox denies the
/// lookup, so they are failures.
fn found<T>(answer: Result<Option<T>, Errno>) -> Result<Option<T>, Errno> {
    match answer {
        Err(Errno::ENOENT | Errno::ESRCH) => Ok(None),
        answer => answer,
    }
}

/// The accounts of the texts of `/etc/passwd` and `/etc/group`.
#[cfg(test)]
#[derive(Debug)]
pub(super) struct ListedNames {
    passwd: String,
    group: String,
}

#[cfg(test)]
impl ListedNames {
    pub(super) fn new(passwd: &str, group: &str) -> Self {
        Self {
            passwd: passwd.to_owned(),
            group: group.to_owned(),
        }
    }

    fn number(text: &str, name: &str) -> Option<u32> {
        text.lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .find(|fields| fields[0] == name)?
            .get(2)?
            .parse()
            .ok()
    }
}

#[cfg(test)]
impl NameService for ListedNames {
    fn uid(&self, name: &str) -> Result<Option<u32>, Errno> {
        Ok(Self::number(&self.passwd, name))
    }

    fn gid(&self, name: &str) -> Result<Option<u32>, Errno> {
        Ok(Self::number(&self.group, name))
    }

    fn user_name(&self, uid: u32) -> Result<Option<String>, Errno> {
        Ok(super::user_names::name_in_passwd(&self.passwd, uid))
    }

    fn groups(&self, uid: u32) -> Result<Vec<u32>, Errno> {
        let Some(user) = self.user_name(uid)? else {
            return Ok(Vec::new());
        };

        let groups = self.group.lines().filter_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let is_member = fields.get(3)?.split(',').any(|member| member == user);
            is_member.then(|| fields[2].parse().ok())?
        });

        Ok(groups.collect())
    }
}

/// A name service that fails.
#[cfg(test)]
#[derive(Debug)]
pub(super) struct FailingNames;

#[cfg(test)]
impl NameService for FailingNames {
    fn uid(&self, _name: &str) -> Result<Option<u32>, Errno> {
        Err(Errno::EIO)
    }

    fn gid(&self, _name: &str) -> Result<Option<u32>, Errno> {
        Err(Errno::EIO)
    }

    fn user_name(&self, _uid: u32) -> Result<Option<String>, Errno> {
        Err(Errno::EIO)
    }

    fn groups(&self, _uid: u32) -> Result<Vec<u32>, Errno> {
        Err(Errno::EIO)
    }
}
