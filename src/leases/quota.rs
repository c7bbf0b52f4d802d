//! Quotas: how much one user can lease at once.

use std::collections::BTreeMap;

use hf_mem_core::bytes::Bytes;

/// Limits of one user; `None`: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Leased bytes, summed over all devices.
    pub bytes: Option<Bytes>,
    /// The number of live leases.
    pub leases: Option<usize>,
}

/// The limits of all users.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quotas {
    /// The limits of users without their own.
    pub default: Quota,
    /// Limits of single users, which replace the default.
    pub by_uid: BTreeMap<u32, Quota>,
}

impl Quotas {
    /// The limits of one user.
    pub fn of(&self, uid: u32) -> Quota {
        self.by_uid.get(&uid).copied().unwrap_or(self.default)
    }
}

/// A grant would exceed a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuotaExceeded {
    /// Too many bytes.
    #[error(
        "this user holds {held} and asks for {asked}, which exceeds the quota of {quota}; \
         release a lease first"
    )]
    Bytes {
        /// What the user holds.
        held: Bytes,
        /// The requested bytes.
        asked: Bytes,
        /// The quota.
        quota: Bytes,
    },
    /// Too many leases.
    #[error("this user holds {held} leases, and the quota is {quota}; release one first")]
    Leases {
        /// What the user holds.
        held: usize,
        /// The quota.
        quota: usize,
    },
}

impl Quota {
    /// Checks that one more lease of `asked` bytes is within the limits.
    pub fn check(
        &self,
        held_leases: usize,
        held: Bytes,
        asked: Bytes,
    ) -> Result<(), QuotaExceeded> {
        if let Some(quota) = self.leases
            && held_leases >= quota
        {
            return Err(QuotaExceeded::Leases {
                held: held_leases,
                quota,
            });
        }

        match self.bytes {
            Some(quota) if held + asked > quota => Err(QuotaExceeded::Bytes { held, asked, quota }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_user_has_own_quota() {
        let default = Quota {
            bytes: Some(Bytes::new(100)),
            leases: Some(2),
        };

        let quotas = Quotas {
            default,
            by_uid: BTreeMap::from([(7, Quota::default())]),
        };

        assert!(
            quotas
                .of(1)
                .check(1, Bytes::new(60), Bytes::new(40))
                .is_ok()
        );

        assert!(matches!(
            quotas.of(1).check(1, Bytes::new(60), Bytes::new(41)),
            Err(QuotaExceeded::Bytes { held, .. }) if held == Bytes::new(60)
        ));
        assert!(matches!(
            quotas.of(1).check(2, Bytes::ZERO, Bytes::ZERO),
            Err(QuotaExceeded::Leases { .. })
        ));

        assert!(
            quotas
                .of(7)
                .check(999, Bytes::gib(999), Bytes::gib(999))
                .is_ok()
        );

        assert!(quotas.of(1).check(0, Bytes::ZERO, Bytes::OVERFLOW).is_err());
    }
}
