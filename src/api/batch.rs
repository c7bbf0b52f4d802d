//! A batch of questions whose models must fit together.

use hf_mem_core::report::Question;
use hf_mem_core::report::bounded::BoundedList;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::bounds::MAX_QUESTIONS;

/// Several questions that must fit together.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchQuestion {
    /// The questions. Each one sees what the questions before it take.
    #[schema(value_type = Vec<Question>, min_items = 1, max_items = 64)]
    pub questions: BoundedList<Box<RawValue>, MAX_QUESTIONS>,
}
