//! Sizes that leave 64 bits: whose figure is to blame, the asker's or the model's.
//!
//! The question is planned again without one figure of the asker's after another. What then no
//! longer overflows names the fields to blame. Where nothing helps, the model's own sizes overflow.

use serde_json::Value;

use crate::engines::{AskedContext, EngineError};
use crate::placement::{Ask, Availability, PlacementError, plan};
use crate::report::problem::{Problem, Reason};

/// The status of a question that is well-formed and that no machine can answer.
const UNPROCESSABLE: u16 = 422;

/// A figure that the asker gave.
enum Figure {
    Context(u64),
    Sequences(u64),
    Parameter(String, Value),
}

/// The problem of a question whose `what` is larger than 64 bits count, where the asker's own
/// figures make it so.
pub(super) fn of_the_asker(what: &str, ask: &Ask<'_>, here: &Availability) -> Option<Problem> {
    let given = figures(ask);
    let alone = given
        .iter()
        .filter(|figure| !overflows(ask, here, std::slice::from_ref(*figure)));
    let mut blamed: Vec<&Figure> = alone.collect();
    if blamed.is_empty() && !given.is_empty() && !overflows(ask, here, &given) {
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
    let mut problem = Problem::new(Reason::Usage, detail).hint("ask for less");
    problem.status = UNPROCESSABLE;

    Some(problem)
}

/// The asker's figures that sizes grow with.
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
fn overflows(ask: &Ask<'_>, here: &Availability, left_out: &[Figure]) -> bool {
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
        plan(&smaller, here),
        Err(PlacementError::Engine(EngineError::Overflow { .. }))
    )
}

impl Figure {
    /// The question's field and its value.
    fn words(&self) -> String {
        match self {
            Self::Context(tokens) => format!("workload.context = {tokens}"),
            Self::Sequences(sequences) => format!("workload.sequences = {sequences}"),
            Self::Parameter(name, value) => format!("engine.parameters.{name} = {value}"),
        }
    }
}
