//! What to change, in the words of the answer.

use super::Here;
use crate::api::answer::Suggestion;
use crate::placement::{Ask, Plan};

/// Changes that would help, least harm first.
pub(super) fn suggestions(_ask: &Ask<'_>, _here: &Here, _plan: &Plan) -> Vec<Suggestion> {
    Vec::new()
}
