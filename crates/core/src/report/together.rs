//! The answer to several questions that must fit together.

use serde::{Deserialize, Serialize};

use crate::report::Answer;
use crate::report::problem::Reason;
use crate::wire_word::WireWord;

/// The answers to several questions whose models run at the same time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TogetherAnswer {
    /// The version of these types.
    pub schema_version: u32,
    /// The worst of the answers' verdicts.
    pub verdict: super::answer::Verdict,
    /// The reason of the answer with that verdict.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub reason: WireWord<Reason>,
    /// One sentence for a person.
    pub message: String,
    /// An answer for each question, in the order asked. Each one is planned on what the ones before
    /// it leave.
    pub answers: Vec<Answer>,
}
