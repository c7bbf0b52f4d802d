//! Conversions of errors into problems.

use crate::device::declared::DeclaredError;
use crate::engines::profile::ProfileError;
use crate::model::metadata::RecordError;
use crate::report::problem::{Problem, Reason};

impl From<RecordError> for Problem {
    fn from(error: RecordError) -> Self {
        Self::new(Reason::MissingMetadata, error.to_string())
    }
}

impl From<DeclaredError> for Problem {
    fn from(error: DeclaredError) -> Self {
        let problem = Self::new(Reason::Usage, error.to_string());
        match error {
            DeclaredError::UnknownCard { .. } | DeclaredError::UnknownProfile { .. } => {
                problem.hint("docs/cards.md lists the known cards (the packages put it in /usr/share/doc/hf-mem-probe)")
            }
            _ => problem,
        }
    }
}

impl From<ProfileError> for Problem {
    fn from(error: ProfileError) -> Self {
        Self::new(Reason::BadConfiguration, error.to_string())
    }
}
