//! `fits` and `estimate`: ask the daemon where one answers, else walk the same path in this
//! process.

use hf_mem_core::report::problem::Reason;
use hf_mem_core::report::{Answer, Problem, Question};

use super::arguments::{
    ConnectionArguments, EstimateArguments, FitsArguments, HereArguments, QuestionArguments,
};
use super::connection::AnswerEffort;
use super::output::{self, Output};
use super::{exit, in_process, offline_leases, question, reserve, text};
use crate::api::client::{ClientError, block_on};

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
    let output = Output {
        json: arguments.connection.json,
    };

    let answered = if arguments.reserve {
        reserve::reserve(question, arguments).map(FitsRequest::whole)
    } else {
        ask(
            Asking::Fits,
            question,
            &arguments.question,
            &arguments.here,
            &arguments.connection,
        )
    };

    let code = match answered {
        Ok(FitsRequest {
            answer,
            unseen_leases,
        }) => {
            output.data(&answer, |answer| {
                text::answer::answer(answer) + &text::lease::of_answer(answer)
            });
            match exit::of_answer(&answer, arguments.strict) {
                // A unit is started on what is known: here the memory may be promised to another.
                0 if unseen_leases && arguments.condition => Reason::DaemonUnreachable.exit_code(),
                code => code,
            }
        }
        Err(problem) => output.problem(&problem),
    };

    if arguments.condition {
        exit::condition(code)
    } else {
        code
    }
}

/// `estimate`.
pub(super) fn estimate(arguments: &EstimateArguments) -> u8 {
    let question = question::question(&arguments.question.model, &arguments.question.options);
    let output = Output {
        json: arguments.connection.json,
    };

    let here = HereArguments {
        local: arguments.local,
        ..HereArguments::default()
    };

    match ask(
        Asking::Estimate,
        question,
        &arguments.question,
        &here,
        &arguments.connection,
    ) {
        Ok(FitsRequest { answer, .. }) => {
            output.data(&answer, text::answer::answer);

            // An estimate asks for figures: a "no" on declared devices is one too.
            if answer
                .requirement
                .as_ref()
                .is_some_and(|need| need.total.is_some())
            {
                Reason::Fits.exit_code()
            } else {
                exit::of_answer(&answer, false)
            }
        }
        Err(problem) => output.problem(&problem),
    }
}

/// An answer, and what is known of the leases that it rests on.
pub(super) struct FitsRequest {
    pub(super) answer: Answer,
    /// Whether leases may be held that it does not count.
    pub(super) unseen_leases: bool,
}

impl FitsRequest {
    /// An answer that counts all leases there are, or that none concern.
    fn whole(answer: Answer) -> Self {
        Self {
            answer,
            unseen_leases: false,
        }
    }
}

/// Asks the daemon, or walks the path here where none is there. One that is there and may not be
/// asked is a failure where its leases matter: without them the answer would be a guess.
pub(super) fn ask(
    asking: Asking,
    mut question: Question,
    arguments: &QuestionArguments,
    own: &HereArguments,
    connection: &ConnectionArguments,
) -> Result<FitsRequest, Problem> {
    // Declared devices have no leases, and an estimate counts none.
    let leases_matter = asking == Asking::Fits && question.gpus.is_none();
    let everything = async {
        let source = in_process::Source::new(arguments)?;
        let mut unseen = None;

        // A snapshot file is on this side of the socket, and the daemon opens no path for a client.
        let here_only = own.local
            || arguments
                .options
                .gpus
                .as_deref()
                .is_some_and(crate::devices::snapshot_file::names_a_file);
        if !here_only {
            source.complete(&mut question).await?;
            match asked_daemon(asking, &question, &source, connection).await {
                Ok(answer) => {
                    output::remark(&format!(
                        "answered by the daemon at {}",
                        connection.socket.display()
                    ));
                    return Ok(FitsRequest::whole(answer));
                }
                Err(ClientError::Unreachable { .. }) if !leases_matter => {}
                Err(error) if error.daemon_is_absent() => {
                    unseen = offline_leases::leases(&connection.socket, &error);
                }
                Err(error) => return Err(error.into()),
            }
        }

        let mut answer = in_process::answer(
            asking,
            &question,
            &source,
            own,
            arguments.options.config.as_deref(),
        )
        .await?;

        let why = if here_only {
            String::new()
        } else {
            format!(": no daemon answers at {}", connection.socket.display())
        };

        output::remark(&format!("answered in process{why}"));
        let unseen_leases = unseen.is_some();

        if let Some(unseen) = unseen {
            output::remark(&format!("warning: {unseen}"));
            answer.warnings.push(unseen);
        }

        Ok(FitsRequest {
            answer,
            unseen_leases,
        })
    };

    block_on(everything)
        .map_err(|error| Problem::new(Reason::Internal, format!("no runtime: {error}")))?
}

async fn asked_daemon(
    asking: Asking,
    question: &Question,
    source: &in_process::Source,
    connection: &ConnectionArguments,
) -> Result<Answer, ClientError> {
    let client = connection.client(AnswerEffort::Plan).token(source.token());
    match asking {
        Asking::Fits => client.fits(question).await,
        Asking::Estimate => client.estimate(question).await,
    }
}
