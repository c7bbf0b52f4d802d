//! What to change, in the words of the answer.

use super::Here;
use crate::api::answer::Suggestion;
use crate::api::problem::{Problem, Reason};
use crate::placement::{self, Ask, Plan};

/// Changes that would help, least harm first; each was planned anew.
pub(super) fn suggestions(ask: &Ask<'_>, here: &Here, plan: &Plan) -> Result<Vec<Suggestion>, Problem> {
    let advice = placement::suggestions(ask, &here.availability, plan, &[], &here.holders)
        .map_err(|error| Problem::new(Reason::Internal, error.to_string()))?;
    let word = |advice: placement::Advice| Suggestion {
        change: advice.change,
        message: advice.message,
        verdict: advice.verdict,
        saves_bytes: advice.saves.get(),
    };
    Ok(advice.into_iter().map(word).collect())
}
