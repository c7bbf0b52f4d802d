//! `fits` and `estimate`: answered by the daemon if it is reachable, else in this process.

use hf_mem_core::report::problem::Reason;
use hf_mem_core::report::{Answer, Problem, Question};

use super::arguments::{
    ConnectionArguments, DetailArguments, EstimateArguments, FitsArguments, HostArguments,
    QuestionArguments,
};
use super::connection::AnswerEffort;
use super::output::{self, Output, runtime_problem};
use super::question::QuestionKind;
use super::text::answer::Detail;
use super::{exit, in_process, offline_leases, question, reserve, text};
use crate::api::client::{ClientError, block_on};

/// Runs `fits`.
pub(super) fn fits(arguments: &FitsArguments) -> u8 {
    let mut question = question::question(&arguments.question.model, &arguments.question.options);
    question.frontier = arguments.frontier;
    let output = Output {
        json: arguments.connection.json,
    };

    let answered = if arguments.reserve {
        reserve::reserve(question, arguments).map(FitsOutcome::all_counted)
    } else {
        ask(
            QuestionKind::Fits,
            question,
            &arguments.question,
            &arguments.host,
            &arguments.connection,
        )
    };

    let code = match answered {
        Ok(FitsOutcome {
            answer,
            uncounted_leases,
        }) => {
            let detail = detail(arguments.detail);
            output.page(&answer, |answer, layout| {
                let mut page = text::answer::answer(answer, detail, layout);
                page.push_text(text::lease::of_answer(answer));
                page
            });
            match exit::of_answer(&answer, arguments.strict) {
                // systemd must not start a unit on memory that may be leased to another job.
                0 if uncounted_leases && arguments.condition => {
                    Reason::DaemonUnreachable.exit_code()
                }
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

/// Runs `estimate`.
pub(super) fn estimate(arguments: &EstimateArguments) -> u8 {
    let question = question::question(&arguments.question.model, &arguments.question.options);
    let output = Output {
        json: arguments.connection.json,
    };

    let host = HostArguments {
        local: arguments.local,
        ..HostArguments::default()
    };

    match ask(
        QuestionKind::Estimate,
        question,
        &arguments.question,
        &host,
        &arguments.connection,
    ) {
        Ok(FitsOutcome { answer, .. }) => {
            let detail = detail(arguments.detail);
            output.page(&answer, |answer, layout| {
                text::answer::answer(answer, detail, layout)
            });

            // An estimate succeeds if it has figures, even if the model does not fit declared GPUs.
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

/// Returns the detail that the flags ask for.
fn detail(arguments: DetailArguments) -> Detail {
    match (arguments.quiet, arguments.verbose) {
        (true, _) => Detail::Line,
        (false, 0) => Detail::Summary,
        (false, 1) => Detail::Parts,
        (false, _) => Detail::Everything,
    }
}

/// An answer, and whether it counts all leases.
pub(super) struct FitsOutcome {
    pub(super) answer: Answer,
    /// Whether leases may exist that the answer does not count.
    pub(super) uncounted_leases: bool,
}

impl FitsOutcome {
    /// Returns the outcome of an answer that counts every lease that matters to it.
    fn all_counted(answer: Answer) -> Self {
        Self {
            answer,
            uncounted_leases: false,
        }
    }
}

/// Asks the daemon, or answers in this process if no daemon runs.
///
/// Fails if a daemon runs but rejects this user, unless leases do not matter: without them the
/// answer would be a guess.
pub(super) fn ask(
    kind: QuestionKind,
    mut question: Question,
    arguments: &QuestionArguments,
    host: &HostArguments,
    connection: &ConnectionArguments,
) -> Result<FitsOutcome, Problem> {
    // Declared devices have no leases, and an estimate counts none.
    let leases_matter = kind == QuestionKind::Fits && question.gpus.is_none();
    let everything = async {
        let source = in_process::Source::new(arguments)?;
        let mut uncounted = None;

        // The daemon opens no files for clients, so a snapshot file is read in this process.
        let in_process_only = host.local
            || arguments
                .options
                .gpus
                .as_deref()
                .is_some_and(crate::devices::snapshot_file::names_a_file);
        if !in_process_only {
            source.complete(&mut question).await?;
            match ask_daemon(kind, &question, &source, connection).await {
                Ok(answer) => {
                    output::remark(&format!(
                        "answered by the daemon at {}",
                        connection.socket.display()
                    ));
                    return Ok(FitsOutcome::all_counted(answer));
                }
                Err(ClientError::Unreachable { .. }) if !leases_matter => {}
                Err(error) if error.daemon_is_absent() => {
                    uncounted = offline_leases::warning(&connection.socket, &error);
                }
                Err(error) => return Err(error.into()),
            }
        }

        let mut answer = in_process::answer(
            kind,
            &question,
            &source,
            host,
            arguments.options.config.as_deref(),
        )
        .await?;

        let why = if in_process_only {
            String::new()
        } else {
            format!(": no daemon answers at {}", connection.socket.display())
        };

        output::remark(&format!("answered in process{why}"));
        let uncounted_leases = uncounted.is_some();

        if let Some(warning) = uncounted {
            output::remark(&format!("warning: {warning}"));
            answer.warnings.push(warning);
        }

        Ok(FitsOutcome {
            answer,
            uncounted_leases,
        })
    };

    block_on(everything).map_err(|error| runtime_problem(&error))?
}

async fn ask_daemon(
    kind: QuestionKind,
    question: &Question,
    source: &in_process::Source,
    connection: &ConnectionArguments,
) -> Result<Answer, ClientError> {
    let client = connection.client(AnswerEffort::Plan).token(source.token());
    match kind {
        QuestionKind::Fits => client.fits(question).await,
        QuestionKind::Estimate => client.estimate(question).await,
    }
}
