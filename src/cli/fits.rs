//! `fits` and `estimate`: ask the daemon where one answers, else walk the same path in this process.

use super::arguments::{ConnectionArguments, EstimateArguments, FitsArguments, QuestionArguments};
use super::output::{self, Output};
use super::{exit, in_process, question, reserve, text};
use crate::api::client::{Client, ClientError, block_on};
use crate::api::problem::Reason;
use crate::api::{Answer, Problem, Question};
use crate::devices::declared;

/// Which of the two is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asking {
    /// Whether and how it fits.
    Fits,
    /// What it needs.
    Estimate,
}

/// `fits`.
pub(super) fn fits(arguments: &FitsArguments) -> u8 {
    let mut question = question::question(&arguments.question.model, &arguments.question.options);
    question.frontier = arguments.frontier;
    let output = Output { json: arguments.connection.json };
    let answered = if arguments.reserve {
        reserve::reserve(question, arguments)
    } else {
        ask(Asking::Fits, question, &arguments.question, &arguments.connection)
    };
    let code = match answered {
        Ok(answer) => {
            output.data(&answer, |answer| text::answer::answer(answer) + &text::lease::of_answer(answer));
            exit::of_answer(&answer, arguments.strict)
        }
        Err(problem) => output.problem(&problem),
    };
    if arguments.condition { exit::condition(code) } else { code }
}

/// `estimate`.
pub(super) fn estimate(arguments: &EstimateArguments) -> u8 {
    let question = question::question(&arguments.question.model, &arguments.question.options);
    let output = Output { json: arguments.connection.json };
    match ask(Asking::Estimate, question, &arguments.question, &arguments.connection) {
        Ok(answer) => {
            output.data(&answer, text::answer::answer);
            // An estimate asks for figures: a "no" on declared devices is one too.
            if answer.requirement.as_ref().is_some_and(|need| need.total.is_some()) {
                Reason::Fits.exit_code()
            } else {
                exit::of_answer(&answer, false)
            }
        }
        Err(problem) => output.problem(&problem),
    }
}

/// Asks the daemon, or walks the path here where none answers.
pub(super) fn ask(
    asking: Asking,
    mut question: Question,
    arguments: &QuestionArguments,
    connection: &ConnectionArguments,
) -> Result<Answer, Problem> {
    let everything = async {
        let source = in_process::Source::new(arguments)?;
        let mut not_asked = None;
        // A snapshot file is on this side of the socket, and the daemon opens no path for a client.
        let here_only = connection.local || arguments.options.gpus.as_deref().is_some_and(declared::names_a_file);
        if !here_only {
            source.complete(&mut question).await?;
            match asked_daemon(asking, &question, &source, connection).await {
                Ok(answer) => {
                    output::remark(&format!("answered by the daemon at {}", connection.socket.display()));
                    return Ok(answer);
                }
                Err(error @ ClientError::Unreachable { .. }) if !error.daemon_is_absent() => not_asked = Some(error),
                Err(ClientError::Unreachable { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let mut answer = in_process::answer(asking, &question, &source, connection).await?;
        if let Some(error) = not_asked.filter(|_| asking == Asking::Fits && question.gpus.is_none()) {
            answer.warnings.push(format!("{error}: what its leases promise to others is not counted"));
        }
        let why =
            if here_only { String::new() } else { format!(": no daemon answers at {}", connection.socket.display()) };
        output::remark(&format!("answered in process{why}"));
        Ok(answer)
    };
    block_on(everything).map_err(|error| Problem::new(Reason::Internal, format!("no runtime: {error}")))?
}

async fn asked_daemon(
    asking: Asking,
    question: &Question,
    source: &in_process::Source,
    connection: &ConnectionArguments,
) -> Result<Answer, ClientError> {
    let client = Client::new(&connection.socket).token(source.token());
    match asking {
        Asking::Fits => client.fits(question).await,
        Asking::Estimate => client.estimate(question).await,
    }
}
