//! The ledger's errors as problems of the API.

use hf_mem_core::report::Problem;
use hf_mem_core::report::problem::Reason;

use crate::leases::durable_ledger::CommitError;
use crate::leases::holder::HolderError;
use crate::leases::ledger::{ChangeError, GrantError};
use crate::leases::queue::QueueError;
use crate::leases::store::StoreError;
use crate::leases::unreadable_ledger::UnreadableLedger;

impl From<GrantError> for Problem {
    fn from(error: GrantError) -> Self {
        let reason = match &error {
            GrantError::Invalid { .. }
            | GrantError::TimeToLive { .. }
            | GrantError::UnknownDevice { .. }
            | GrantError::KeyReused { .. }
            | GrantError::KeyEnded { .. } => Reason::Usage,
            GrantError::Unreadable { .. } | GrantError::StaleReading { .. } => {
                Reason::NvmlUnavailable
            }
            GrantError::Quota(_) => Reason::Forbidden,
            GrantError::Insufficient { .. } | GrantError::TooMany { .. } => Reason::Busy,
        };

        Self::new(reason, error.to_string())
    }
}

impl From<ChangeError> for Problem {
    fn from(error: ChangeError) -> Self {
        let reason = match &error {
            ChangeError::NotFound { .. } => Reason::NotFound,
            ChangeError::NotYours { .. } => Reason::Forbidden,
            ChangeError::Ended { .. } | ChangeError::TimeToLive { .. } => Reason::Usage,
        };
        Self::new(reason, error.to_string())
    }
}

impl From<&UnreadableLedger> for Problem {
    fn from(unreadable: &UnreadableLedger) -> Self {
        Self::new(Reason::Busy, unreadable.to_string()).hint(unreadable.remedy())
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let hint =
            "check `leases.state_directory` in the configuration and `StateDirectory=` in the unit";
        Self::new(Reason::BadConfiguration, error.to_string()).hint(hint)
    }
}

impl From<CommitError> for Problem {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Grant(error) => error.into(),
            CommitError::Change(error) => error.into(),
            CommitError::Unreadable(unreadable) => Self::from(&*unreadable),
            CommitError::Store(error) => error.into(),
        }
    }
}

impl From<HolderError> for Problem {
    fn from(error: HolderError) -> Self {
        let reason = match &error {
            HolderError::NotYours { .. } => Reason::Forbidden,
            HolderError::Gone { .. } | HolderError::Unreadable { .. } => Reason::Usage,
        };
        Self::new(reason, error.to_string())
    }
}

impl From<QueueError> for Problem {
    fn from(error: QueueError) -> Self {
        Self::new(Reason::Busy, error.to_string())
    }
}
