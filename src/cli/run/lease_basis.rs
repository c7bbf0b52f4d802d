//! The memory that the lease of `run` covers: the model's need, or all that the command takes.

use std::ffi::OsString;

use hf_mem_core::report::problem::Reason;
use hf_mem_core::report::question::ContextQuestion;
use hf_mem_core::report::{Problem, Question};
use serde_json::Value;

use super::carried_options::drop_uncarried;
use super::command::PLACEHOLDER;
use super::draft::settle_draft;
use super::loaded_model::settle_model;
use super::server::Server;
use super::server_line::{self, ServerLine};
use super::wrapper::Variables;
use crate::cli::arguments::LeaseBasis;

/// Remarks about the command for the user.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct CommandFindings {
    /// Notes, one line each.
    pub(super) notes: Vec<String>,
    /// A hint to print if the model does not fit.
    pub(super) hint: Option<String>,
}

/// How the command is started.
#[derive(Clone, Copy, Debug)]
pub(super) struct CommandStart<'a> {
    pub(super) command: &'a [OsString],
    /// `--flags`.
    pub(super) flags: bool,
    /// `--lease`.
    pub(super) asked: Option<LeaseBasis>,
    /// Whether the command gets a lease.
    pub(super) is_leased: bool,
}

impl CommandStart<'_> {
    /// Whether the lease covers the share of the device that `server` takes.
    fn holds_share(&self, server: Server) -> bool {
        let asked = self.asked == Some(LeaseBasis::Share) || !self.gets_arguments();
        asked && server.default_share().is_some()
    }

    /// Whether the command gets the placement's arguments, which limit it to the need.
    fn gets_arguments(&self) -> bool {
        self.flags || self.command.iter().any(|word| word == PLACEHOLDER)
    }
}

/// The hint for flags whose memory no lease covers.
const NEED_HINT: &str =
    "remove the flag from CMD, or lease only the model's need with --lease need";

/// Rejects flags with unknown memory use, unless the lease covers the engine's whole share.
fn refuse_uncounted(line: &ServerLine, start: CommandStart<'_>) -> Result<(), Problem> {
    if line.uncounted.is_empty() || start.holds_share(line.server) {
        return Ok(());
    }

    let flags = line.uncounted.join(", ");
    let detail = format!("the lease cannot count the memory of CMD's {flags}");
    Err(Problem::new(Reason::Usage, detail).hint(NEED_HINT))
}

fn uncounted_note(line: &ServerLine) -> Option<String> {
    if line.uncounted.is_empty() {
        return None;
    }

    let flags = line.uncounted.join(", ");
    Some(format!(
        "warning: CMD may take more memory than the lease covers; not counted: {flags}"
    ))
}

/// Updates `question` with the memory flags of the command.
pub(super) fn settle(
    question: &mut Question,
    start: CommandStart<'_>,
    variables: Variables,
) -> Result<CommandFindings, Problem> {
    let Some(line) = server_line::read(start.command, variables)? else {
        return settle_unknown(question, start);
    };

    let mut findings = CommandFindings::default();

    let engine = line.server.engine();
    if let Some(asked) = question
        .engine
        .name
        .as_ref()
        .filter(|asked| asked.as_str() != engine)
    {
        let conflict = format!("CMD starts {engine}, but --engine is {asked}");
        if start.asked == Some(LeaseBasis::Share) {
            let detail = format!("{conflict}: --lease share needs one engine");
            let hint = format!("remove --engine, or set it to {engine}");
            return Err(Problem::new(Reason::Usage, detail).hint(hint));
        }

        let note = format!("warning: {conflict}: the lease ignores CMD's flags");
        findings.notes.push(note);
        return Ok(findings);
    }

    question.engine.name = Some(engine.to_owned());
    findings.notes.extend(settle_model(question, &line));
    settle_split(question, &line, start, &mut findings);

    if start.asked == Some(LeaseBasis::Need) {
        findings.notes.extend(uncounted_note(&line));
        return Ok(findings);
    }

    refuse_uncounted(&line, start)?;
    if let Some(why) = &line.refused {
        return Err(Problem::new(Reason::Usage, why.clone()).hint(NEED_HINT));
    }

    findings.notes.extend(uncounted_note(&line));
    findings.notes.extend(line.notes.iter().cloned());
    settle_parameters(question, &line, &mut findings);
    findings.notes.extend(settle_draft(question, line.server));

    if !start.gets_arguments() {
        let note = drop_uncarried(question, line.server, &line.parameters);
        findings.notes.extend(note);
    }

    let share = line
        .server
        .default_share()
        .filter(|(name, _)| !line.parameters.contains_key(*name));
    if let Some((name, value)) = share
        && start.holds_share(line.server)
    {
        set_parameter(question, name, &Value::from(value), &mut findings);
    }

    Ok(findings)
}

/// Updates `question` for a command that is no known server, such as a script or a container.
fn settle_unknown(
    question: &mut Question,
    start: CommandStart<'_>,
) -> Result<CommandFindings, Problem> {
    let mut findings = CommandFindings::default();
    match start.asked {
        Some(LeaseBasis::Need) => {}
        Some(LeaseBasis::Share) => {
            let server = question.engine.name.as_deref().and_then(Server::of_engine);
            let Some(server) = server else {
                let detail = "--lease share needs the engine, and CMD is not a known server";
                let hint = "add --engine vllm or --engine sglang";
                return Err(Problem::new(Reason::Usage, detail).hint(hint));
            };
            if let Some((name, value)) = server.default_share() {
                set_parameter(question, name, &Value::from(value), &mut findings);
            }
        }
        None if start.is_leased && !start.gets_arguments() => findings.notes.push(
            "warning: CMD is not a known server, so the lease covers only what the model needs; \
             an engine that takes a share of the GPU takes more: limit it with --flags, or lease \
             its share with --lease share"
                .to_owned(),
        ),
        None => {}
    }

    Ok(findings)
}

/// Sets the split to that of the command's flags.
///
/// Without such flags, vLLM and SGLang use one device, even if they see more.
fn settle_split(
    question: &mut Question,
    line: &ServerLine,
    start: CommandStart<'_>,
    findings: &mut CommandFindings,
) {
    let (tensor, pipeline) = (line.tensor_parallel, line.pipeline_parallel);
    let uses_default = line.server.needs_parallel_flags() && !start.gets_arguments();
    let default_degree = uses_default.then_some(1);

    let constraints = &mut question.constraints;
    set_degree(
        &mut constraints.tensor_parallel,
        tensor.or(default_degree),
        "--tensor-parallel",
        findings,
    );
    set_degree(
        &mut constraints.pipeline_parallel,
        pipeline.or(default_degree),
        "--pipeline-parallel",
        findings,
    );

    if uses_default && tensor.is_none() && pipeline.is_none() {
        let hint =
            "CMD has no flag for several GPUs, so it was placed on one: split it with --flags";
        findings.hint = Some(hint.to_owned());
    }
}

/// Sets a parallel degree to the command's, with a note if `option` asked for another.
fn set_degree(
    asked: &mut Option<u32>,
    degree: Option<u32>,
    option: &str,
    findings: &mut CommandFindings,
) {
    let Some(degree) = degree else { return };
    if let Some(asked) = asked.filter(|asked| *asked != degree) {
        findings.notes.push(format!(
            "{option} is {asked}, but CMD runs with {degree}: the lease follows CMD"
        ));
    }

    *asked = Some(degree);
}

/// Sets the command's parameters in the question. They replace options with the same meaning.
fn settle_parameters(question: &mut Question, line: &ServerLine, findings: &mut CommandFindings) {
    for (name, value) in &line.parameters {
        let workload = &mut question.workload;
        let asked = match name.as_str() {
            "max_model_len" | "context_length" | "n_ctx" | "OLLAMA_CONTEXT_LENGTH" => {
                workload.context.take().map(|context| match context {
                    ContextQuestion::Tokens(tokens) => Value::from(tokens),
                    ContextQuestion::Word(_) => Value::from("max"),
                })
            }
            "kv_cache_dtype" | "type_k" | "OLLAMA_KV_CACHE_TYPE" => {
                workload.kv_cache_dtype.take().map(Value::from)
            }
            "n_parallel" | "OLLAMA_NUM_PARALLEL" => workload.sequences.take().map(Value::from),
            "dtype" => workload.dtype.take().map(Value::from),
            _ => None,
        };

        if let Some(asked) = asked.filter(|asked| asked != value) {
            findings.notes.push(conflict_note(name, &asked, value));
        }

        set_parameter(question, name, value, findings);
    }
}

/// Sets a parameter, with a note if `--set` asked for another value.
fn set_parameter(
    question: &mut Question,
    name: &str,
    value: &Value,
    findings: &mut CommandFindings,
) {
    if let Some(asked) = question
        .engine
        .parameters
        .insert(name.to_owned(), value.clone())
        && asked != *value
    {
        findings.notes.push(conflict_note(name, &asked, value));
    }
}

fn conflict_note(name: &str, asked: &Value, value: &Value) -> String {
    format!("you set {name} to {asked}, but CMD uses {value}: the lease follows CMD")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use hf_mem_core::report::question::{ModelQuestion, OffloadRule, WorkloadQuestion};

    fn settled(
        command: &str,
        change: impl FnOnce(&mut Question, &mut CommandStart<'_>),
    ) -> (Question, CommandFindings) {
        let words: Vec<OsString> = command.split(' ').map(OsString::from).collect();
        let model = ModelQuestion {
            repo: "a/b".to_owned(),
            ..ModelQuestion::default()
        };

        let mut question = Question {
            model,
            ..Question::default()
        };

        let mut start = start_of(&words);
        change(&mut question, &mut start);
        let findings = settle(&mut question, start, Variables::new()).unwrap();

        (question, findings)
    }

    /// Returns a leased start without flags.
    fn start_of(command: &[OsString]) -> CommandStart<'_> {
        CommandStart {
            command,
            flags: false,
            asked: None,
            is_leased: true,
        }
    }

    #[test]
    fn default_share_is_leased_without_flag() {
        let (question, findings) = settled("vllm serve a/b", |_, _| {});
        assert_eq!(question.engine.name.as_deref(), Some("vllm"));

        assert_eq!(
            json!(question.engine.parameters),
            json!({ "gpu_memory_utilization": "default" })
        );
        assert_eq!(
            (
                question.constraints.tensor_parallel,
                question.constraints.pipeline_parallel
            ),
            (Some(1), Some(1))
        );

        assert!(
            findings.notes.is_empty() && findings.hint.is_some(),
            "{findings:?}"
        );

        let (question, _) = settled(
            "sglang serve --model a/b --tp 2 --mem-fraction-static 0.7",
            |_, _| {},
        );
        let wanted = json!({ "mem_fraction_static": 0.7, "max_total_tokens": "default" });
        assert_eq!(json!(question.engine.parameters), wanted);
        assert_eq!(question.constraints.tensor_parallel, Some(2));

        let (question, _) = settled("llama-server -m a/b -c 4096", |_, _| {});
        assert_eq!(json!(question.engine.parameters), json!({ "n_ctx": 4096 }));

        let (question, _) = settled("llama-server -m a/b", |_, _| {});
        assert_eq!(
            json!(question.engine.parameters),
            json!({ "fit": false }),
            "the lease holds the default context, which the server may take"
        );

        assert_eq!(
            question.constraints.tensor_parallel, None,
            "it uses all devices that it sees"
        );
    }

    #[test]
    fn command_wins_over_options() {
        let (question, findings) = settled(
            "vllm serve a/b -tp 2 --max-model-len 8192",
            |question, _| {
                question.workload.context = Some(ContextQuestion::Tokens(4096));
                question.constraints.tensor_parallel = Some(4);
                question
                    .engine
                    .parameters
                    .insert("gpu_memory_utilization".to_owned(), json!(0.5));
            },
        );
        assert_eq!(
            (
                question.constraints.tensor_parallel,
                question.workload.context
            ),
            (Some(2), None)
        );

        assert_eq!(
            question.engine.parameters["gpu_memory_utilization"],
            "default"
        );
        assert_eq!(question.engine.parameters["max_model_len"], 8192);
        assert_eq!(findings.notes.len(), 3, "{findings:?}");
    }

    fn with_options(question: &mut Question) {
        question.workload.context = Some(ContextQuestion::Tokens(4096));
        question.workload.sequences = Some(2);
        question.workload.kv_cache_dtype = Some("q8_0".to_owned());
        let set = &mut question.engine.parameters;
        set.insert("n_gpu_layers".to_owned(), json!(0));
    }

    #[test]
    fn options_outside_command_are_dropped() {
        for command in [
            "llama-server -hf a/b",
            "llama-server -hf a/b -c 8192 -np 4 -ctk f16",
            "vllm serve a/b",
            "sglang serve --model a/b --context-length 8192",
        ] {
            let (question, findings) = settled(command, |question, _| with_options(question));
            let workload = &question.workload;
            assert_eq!(*workload, WorkloadQuestion::default(), "{command}");
            assert!(!question.engine.parameters.contains_key("n_gpu_layers"));
            let named = findings.notes.last().unwrap();
            assert!(
                named.contains("--set n_gpu_layers=0") && named.contains("--flags"),
                "{command}: {named}"
            );
        }

        let (_, findings) = settled("llama-server -hf a/b", |question, _| with_options(question));
        assert!(
            findings.notes[0].contains("--context 4096, --sequences 2, --kv-cache-dtype q8_0"),
            "{findings:?}"
        );
    }

    #[test]
    fn options_that_reach_server_stay() {
        let (question, findings) = settled("llama-server -hf a/b", |question, start| {
            with_options(question);
            start.flags = true;
        });
        assert_eq!(question.workload.sequences, Some(2));
        assert_eq!(question.engine.parameters["n_gpu_layers"], 0);
        assert!(findings.notes.is_empty(), "{findings:?}");

        // `run` sets Ollama's variables, so its options apply.
        let (question, findings) = settled("ollama serve", |question, _| with_options(question));
        assert_eq!(question.workload.sequences, Some(2));
        assert!(question.workload.context.is_some() && question.engine.parameters.is_empty());
        assert_eq!(findings.notes.len(), 1, "{findings:?}");
    }

    #[test]
    fn other_spelling_of_flag_is_carried() {
        let (question, findings) = settled("llama-server -hf a/b -c 8192", |question, _| {
            let set = &mut question.engine.parameters;
            set.insert("ctx-size".to_owned(), json!(8192));
        });
        assert_eq!(json!(question.engine.parameters), json!({ "n_ctx": 8192 }));
        assert!(findings.notes.is_empty(), "{findings:?}");
    }

    #[test]
    fn uncarried_offload_is_dropped() {
        let settled_rule = |command: &str| {
            let (question, _) = settled(command, |question, _| {
                question.constraints.offload = OffloadRule::Allow;
            });
            question.constraints.offload
        };

        assert_eq!(settled_rule("llama-server -hf a/b"), OffloadRule::Deny);
        assert_eq!(
            settled_rule("llama-server -hf a/b -ngl 9"),
            OffloadRule::Allow
        );
    }

    #[test]
    fn arguments_of_plan_limit_the_share() {
        for command in ["vllm serve a/b {args}", "vllm serve a/b --enforce-eager"] {
            let (question, findings) =
                settled(command, |_, start| start.flags = !command.contains("args"));
            assert!(
                !question
                    .engine
                    .parameters
                    .contains_key("gpu_memory_utilization"),
                "{command}"
            );

            assert_eq!(
                (question.constraints.tensor_parallel, findings),
                (None, CommandFindings::default()),
                "{command}"
            );
        }

        let (question, _) = settled("vllm serve a/b {args}", |_, start| {
            start.asked = Some(LeaseBasis::Share);
        });
        assert_eq!(
            question.engine.parameters["gpu_memory_utilization"],
            "default"
        );
    }

    #[test]
    fn need_leaves_memory_flags_out() {
        let command = "vllm serve a/b -tp 2 --gpu-memory-utilization 0.9";
        let (question, _) = settled(command, |_, start| start.asked = Some(LeaseBasis::Need));
        assert!(question.engine.parameters.is_empty());

        assert_eq!(
            question.constraints.tensor_parallel,
            Some(2),
            "the split is the command's in any case"
        );
    }

    #[test]
    fn unknown_command_is_warned_of() {
        let (question, findings) = settled("sh -c ./serve", |_, _| {});
        assert!(
            question.engine.parameters.is_empty() && findings.notes.len() == 1,
            "{findings:?}"
        );

        assert!(
            settled("sh -c ./serve", |_, start| start.flags = true)
                .1
                .notes
                .is_empty()
        );

        assert!(
            settled("sh -c ./serve", |_, start| start.is_leased = false)
                .1
                .notes
                .is_empty()
        );

        assert!(
            settled("sh -c ./serve", |_, start| start.asked =
                Some(LeaseBasis::Need))
            .1
            .notes
            .is_empty()
        );

        let (question, _) = settled("sh -c ./serve", |question, start| {
            question.engine.name = Some("vllm".to_owned());
            start.asked = Some(LeaseBasis::Share);
        });
        assert_eq!(
            question.engine.parameters["gpu_memory_utilization"],
            "default"
        );
        let words = [OsString::from("./serve")];
        let start = CommandStart {
            asked: Some(LeaseBasis::Share),
            ..start_of(&words)
        };

        let refused = settle(&mut Question::default(), start, Variables::new()).unwrap_err();
        assert_eq!(refused.reason, Reason::Usage);
    }

    #[test]
    fn other_model_is_warned_of() {
        let (_, findings) = settled("vllm serve a/c", |_, _| {});
        assert!(findings.notes[0].contains("a/c"), "{findings:?}");
    }

    #[test]
    fn file_follows_command_for_need() {
        let (question, _) = settled("llama-server -hf a/b:F16", |_, start| {
            start.asked = Some(LeaseBasis::Need);
        });
        assert_eq!(question.model.file.as_deref(), Some("F16"));
    }

    #[test]
    fn share_of_other_engine_is_refused() {
        let words = ["vllm", "serve", "a/b"].map(OsString::from);
        let mut start = CommandStart {
            asked: Some(LeaseBasis::Share),
            ..start_of(&words)
        };

        let mut question = Question::default();
        question.engine.name = Some("sglang".to_owned());
        let refused = settle(&mut question.clone(), start, Variables::new()).unwrap_err();
        assert_eq!(refused.reason, Reason::Usage);
        assert!(refused.detail.contains("sglang"), "{refused:?}");

        start.asked = None;
        assert_eq!(
            settle(&mut question, start, Variables::new())
                .unwrap()
                .notes
                .len(),
            1
        );
    }

    #[test]
    fn uncounted_flag_is_never_silent() {
        let (_, findings) = settled("vllm serve a/b --enable-sleep-mode", |_, _| {});
        assert!(
            findings.notes[0].contains("--enable-sleep-mode"),
            "{findings:?}"
        );
        let (_, findings) = settled("llama-server --spec-draft-model x", |_, start| {
            start.asked = Some(LeaseBasis::Need);
        });
        assert!(
            findings.notes[0].contains("--spec-draft-model"),
            "{findings:?}"
        );

        for (command, flags) in [
            ("llama-server --spec-draft-model x", false),
            ("vllm serve a/b --enable-sleep-mode", true),
            ("sglang serve --speculative-algorithm x", true),
        ] {
            let words: Vec<OsString> = command.split(' ').map(OsString::from).collect();
            let start = CommandStart {
                flags,
                ..start_of(&words)
            };

            let refused = settle(&mut Question::default(), start, Variables::new()).unwrap_err();
            assert_eq!(refused.reason, Reason::Usage, "{command}");
            assert!(refused.hint.unwrap().contains("--lease need"), "{command}");
        }
    }

    #[test]
    fn refused_flag_needs_lease_need() {
        let words: Vec<OsString> = ["vllm", "serve", "--kv-cache-memory-bytes", "1"]
            .map(OsString::from)
            .to_vec();
        let start = start_of(&words);

        let refused = settle(&mut Question::default(), start, Variables::new()).unwrap_err();
        assert!(refused.hint.unwrap().contains("--lease need"));

        let need = CommandStart {
            asked: Some(LeaseBasis::Need),
            ..start
        };

        assert!(settle(&mut Question::default(), need, Variables::new()).is_ok());
    }
}
