//! How much one user may hold at once.

use std::collections::BTreeMap;

use hf_mem_core::bytes::Bytes;

/// Limits of one user; `None`: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Bytes promised at once, summed over all devices.
    pub bytes: Option<Bytes>,
    /// Leases at once.
    pub leases: Option<usize>,
}

/// The limits of all users.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quotas {
    /// Of everyone who is not named.
    pub default: Quota,
    /// Of single users, in place of the default.
    pub by_uid: BTreeMap<u32, Quota>,
}

impl Quotas {
    /// The limits of one user.
    pub fn of(&self, uid: u32) -> Quota {
        self.by_uid.get(&uid).copied().unwrap_or(self.default)
    }
}

/// A limit that would be passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuotaExceeded {
    /// Too many bytes.
    #[error(
        "{held} held and {asked} asked for are more than this user's quota of {quota}; release a lease first"
    )]
    Bytes {
        /// Held already.
        held: Bytes,
        /// Asked for.
        asked: Bytes,
        /// Allowed.
        quota: Bytes,
    },
    /// Too many leases.
    #[error("this user holds {held} leases, and its quota is {quota}; release one first")]
    Leases {
        /// Held already.
        held: usize,
        /// Allowed.
        quota: usize,
    },
}

impl Quota {
    /// Whether one more lease of `asked` bytes is within the limits, given what is held.
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
    fn both_limits_hold_and_a_named_user_has_its_own() {
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
