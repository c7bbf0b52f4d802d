//! Sizes beyond 64 bits: whether the question or the model causes the overflow.
//!
//! The question is planned again without one of its figures after another. If the overflow
//! disappears, that figure is the cause. If nothing helps, the model's own sizes overflow.

use serde_json::Value;

use crate::engines::{AskedContext, EngineError};
use crate::placement::{Ask, Availability, PlacementError, plan};
use crate::report::problem::{Problem, Reason};

/// The status of a question that is well-formed and cannot be answered.
const UNPROCESSABLE: u16 = 422;

/// A figure of the question.
enum Figure {
    Context(u64),
    Sequences(u64),
    Parameter(String, Value),
}

/// Returns the problem of a question whose figures make `what` larger than 64 bits can count.
pub(super) fn caused_by_question(
    what: &str,
    ask: &Ask<'_>,
    host: &Availability,
) -> Option<Problem> {
    let given = figures(ask);
    let mut blamed: Vec<&Figure> = given
        .iter()
        .filter(|figure| !overflows(ask, host, std::slice::from_ref(*figure)))
        .collect();
    if blamed.is_empty() && !given.is_empty() && !overflows(ask, host, &given) {
        blamed = given.iter().collect();
    }

    if blamed.is_empty() {
        return None;
    }

    let fields: Vec<String> = blamed.iter().map(|figure| figure.words()).collect();
    let detail = format!(
        "{}: the {what} would be larger than 2^64 bytes",
        fields.join(" with ")
    );
    let mut problem = Problem::new(Reason::Usage, detail).hint("use smaller values");
    problem.status = UNPROCESSABLE;

    Some(problem)
}

/// Returns the figures of the question that sizes grow with.
fn figures(ask: &Ask<'_>) -> Vec<Figure> {
    let context = match ask.asked.context {
        Some(AskedContext::Tokens(tokens)) => Some(Figure::Context(tokens)),
        Some(AskedContext::Max) | None => None,
    };

    let sequences = ask.asked.sequences.map(Figure::Sequences);
    let numbers = ask.parameters.iter().filter(|(_, value)| value.is_number());
    let parameters = numbers.map(|(name, value)| Figure::Parameter(name.clone(), value.clone()));

    sequences
        .into_iter()
        .chain(context)
        .chain(parameters)
        .collect()
}

/// Whether the question overflows without the figures `left_out`.
fn overflows(ask: &Ask<'_>, host: &Availability, left_out: &[Figure]) -> bool {
    let mut parameters = ask.parameters.clone();
    let mut asked = ask.asked.clone();
    for figure in left_out {
        match figure {
            Figure::Context(_) => asked.context = Some(AskedContext::Tokens(1)),
            Figure::Sequences(_) => asked.sequences = Some(1),
            Figure::Parameter(name, _) => {
                parameters.remove(name);
            }
        }
    }

    let smaller = Ask {
        asked,
        parameters: &parameters,
        ..ask.clone()
    };

    matches!(
        plan(&smaller, host),
        Err(PlacementError::Engine(EngineError::Overflow { .. }))
    )
}

impl Figure {
    /// Returns the field of the question and its value.
    fn words(&self) -> String {
        match self {
            Self::Context(tokens) => format!("workload.context = {tokens}"),
            Self::Sequences(sequences) => format!("workload.sequences = {sequences}"),
            Self::Parameter(name, value) => format!("engine.parameters.{name} = {value}"),
        }
    }
}
