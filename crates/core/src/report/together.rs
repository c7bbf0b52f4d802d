//! The answer to several questions that must fit together.

use serde::{Deserialize, Serialize};

use crate::report::Answer;
use crate::report::problem::Reason;
use crate::wire_word::WireWord;

/// The answers to several questions that must fit together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TogetherAnswer {
    /// Version of these types.
    pub schema_version: u32,
    /// The worst of the answers' verdicts.
    pub verdict: super::answer::Verdict,
    /// The reason of the answer with that verdict.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub reason: WireWord<Reason>,
    /// One sentence for a person.
    pub message: String,
    /// An answer for each question, in the order asked; each one sees what the ones before it were
    /// given.
    pub answers: Vec<Answer>,
}
