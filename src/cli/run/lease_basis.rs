//! What the lease of a `run` is for: the model's need, or all that the command will take.

use std::ffi::OsString;

use hf_mem_core::report::problem::Reason;
use hf_mem_core::report::question::ContextQuestion;
use hf_mem_core::report::{Problem, Question};
use serde_json::Value;

use super::carried_options::drop_uncarried;
use super::command::PLACE;
use super::loaded_model::settle_model;
use super::server_line::{self, Server, ServerLine};
use super::wrapper::Variables;
use crate::cli::arguments::LeaseBasis;

/// What was found out about the command.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Basis {
    /// For the user, a sentence each.
    pub(super) notes: Vec<String>,
    /// What helps where the answer is a no.
    pub(super) hint: Option<String>,
}

/// How the command is started.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start<'a> {
    pub(super) command: &'a [OsString],
    /// `--flags`.
    pub(super) flags: bool,
    /// `--lease`.
    pub(super) asked: Option<LeaseBasis>,
    /// Whether a lease is taken at all.
    pub(super) leased: bool,
}

impl Start<'_> {
    /// Whether the lease holds the share of the device that `server` takes.
    fn holds_share(&self, server: Server) -> bool {
        let asked = self.asked == Some(LeaseBasis::Share) || !self.gets_arguments();
        asked && server.default_share().is_some()
    }

    /// Whether the command gets the arguments of the plan, which keep it to what the plan needs.
    fn gets_arguments(&self) -> bool {
        self.flags || self.command.iter().any(|word| word == PLACE)
    }
}

/// Flags that no figure follows are for a lease of the share alone, which is most of the device.
fn refuse_uncounted(line: &ServerLine, start: Start<'_>) -> Result<(), Problem> {
    if line.uncounted.is_empty() || start.holds_share(line.server) {
        return Ok(());
    }

    let flags = line.uncounted.join(", ");
    let detail = format!("CMD's {flags} cannot be leased for: not counted");
    let hint = "leave the flag out, or hold the need alone with --lease need";
    Err(Problem::new(Reason::Usage, detail).hint(hint))
}

fn uncounted_note(line: &ServerLine) -> Option<String> {
    if line.uncounted.is_empty() {
        return None;
    }

    let flags = line.uncounted.join(", ");
    Some(format!(
        "warning: CMD may take more than the lease holds; not counted: {flags}"
    ))
}

/// Puts into `question` what the command's own flags say of what it will take.
pub(super) fn settle(
    question: &mut Question,
    start: Start<'_>,
    variables: Variables,
) -> Result<Basis, Problem> {
    let Some(line) = server_line::read(start.command, variables)? else {
        return unrecognised(question, start);
    };

    let mut basis = Basis::default();

    let engine = line.server.engine();
    if let Some(asked) = question
        .engine
        .name
        .as_ref()
        .filter(|asked| asked.as_str() != engine)
    {
        let differs = format!("CMD starts {engine}, and --engine says {asked}");
        if start.asked == Some(LeaseBasis::Share) {
            let detail = format!("{differs}: --lease share cannot hold the share of both");
            let hint = format!("leave out --engine, or name {engine}");
            return Err(Problem::new(Reason::Usage, detail).hint(hint));
        }

        let note = format!("{differs}: its own flags are not read");
        basis.notes.push(note);
        return Ok(basis);
    }

    question.engine.name = Some(engine.to_owned());
    basis.notes.extend(settle_model(question, &line));
    settle_split(question, &line, start, &mut basis);

    if start.asked == Some(LeaseBasis::Need) {
        basis.notes.extend(uncounted_note(&line));
        return Ok(basis);
    }

    refuse_uncounted(&line, start)?;
    if let Some(why) = &line.refused {
        let hint = "leave the flag out, or hold the need alone with --lease need";
        return Err(Problem::new(Reason::Usage, why.clone()).hint(hint));
    }

    basis.notes.extend(uncounted_note(&line));
    basis.notes.extend(line.notes.iter().cloned());
    settle_parameters(question, &line, &mut basis);

    if !start.gets_arguments() {
        let note = drop_uncarried(question, line.server, &line.parameters);
        basis.notes.extend(note);
    }

    let share = line
        .server
        .default_share()
        .filter(|(name, _)| !line.parameters.contains_key(*name));
    if let Some((name, value)) = share
        && start.holds_share(line.server)
    {
        set(question, name, &Value::from(value), &mut basis);
    }

    Ok(basis)
}

/// A command that is not known here: a script, a container.
fn unrecognised(question: &mut Question, start: Start<'_>) -> Result<Basis, Problem> {
    let mut basis = Basis::default();
    match start.asked {
        Some(LeaseBasis::Need) => {}
        Some(LeaseBasis::Share) => {
            let server = question.engine.name.as_deref().and_then(Server::of_engine);
            let Some(server) = server else {
                let detail = "--lease share: CMD is not a server that is known here";
                let hint = "name its engine with --engine vllm or --engine sglang";
                return Err(Problem::new(Reason::Usage, detail).hint(hint));
            };
            if let Some((name, value)) = server.default_share() {
                set(question, name, &Value::from(value), &mut basis);
            }
        }
        None if start.leased && !start.gets_arguments() => basis.notes.push(
            "CMD is not a server that is known here: the lease holds what the model needs, and an engine that takes a \
             share of the device takes more (--flags limits it, --lease share holds the share)"
                .to_owned(),
        ),
        None => {}
    }

    Ok(basis)
}

/// The split that the command will use: as many devices as its flags say, whatever is visible.
fn settle_split(question: &mut Question, line: &ServerLine, start: Start<'_>, basis: &mut Basis) {
    let (tensor, pipeline) = (line.tensor_parallel, line.pipeline_parallel);
    let by_default = line.server.needs_parallel_flags() && !start.gets_arguments();
    let in_force = |flag: Option<u32>| flag.or_else(|| by_default.then_some(1));

    let constraints = &mut question.constraints;
    let mut constrain = |asked: &mut Option<u32>, flag: Option<u32>, option: &str| {
        let Some(degree) = in_force(flag) else { return };
        if let Some(asked) = asked.filter(|asked| *asked != degree) {
            basis.notes.push(format!(
                "{option} is {asked}, and CMD runs with {degree}: the lease follows CMD"
            ));
        }
        *asked = Some(degree);
    };

    constrain(
        &mut constraints.tensor_parallel,
        tensor,
        "--tensor-parallel",
    );

    constrain(
        &mut constraints.pipeline_parallel,
        pipeline,
        "--pipeline-parallel",
    );

    if by_default && tensor.is_none() && pipeline.is_none() {
        let hint = "CMD has no flag for more than one device, so it was placed on one; --flags adds what a split needs";
        basis.hint = Some(hint.to_owned());
    }
}

/// The command's parameters go into the question, and take the place of options that mean the same.
fn settle_parameters(question: &mut Question, line: &ServerLine, basis: &mut Basis) {
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
            basis.notes.push(differs(name, &asked, value));
        }

        set(question, name, value, basis);
    }
}

/// Sets a parameter; one of `--set` that the command does not have is not in force.
fn set(question: &mut Question, name: &str, value: &Value, basis: &mut Basis) {
    if let Some(asked) = question
        .engine
        .parameters
        .insert(name.to_owned(), value.clone())
        && asked != *value
    {
        basis.notes.push(differs(name, &asked, value));
    }
}

fn differs(name: &str, asked: &Value, value: &Value) -> String {
    format!("{name} was asked for as {asked}, and is {value} in CMD: the lease follows CMD")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use hf_mem_core::report::question::{ModelQuestion, OffloadRule, WorkloadQuestion};

    fn settled(
        command: &str,
        change: impl FnOnce(&mut Question, &mut Start<'_>),
    ) -> (Question, Basis) {
        let words: Vec<OsString> = command.split(' ').map(OsString::from).collect();
        let model = ModelQuestion {
            repo: "a/b".to_owned(),
            ..ModelQuestion::default()
        };

        let mut question = Question {
            model,
            ..Question::default()
        };

        let mut start = Start {
            command: &words,
            flags: false,
            asked: None,
            leased: true,
        };

        change(&mut question, &mut start);
        let basis = settle(&mut question, start, Variables::new()).unwrap();

        (question, basis)
    }

    #[test]
    fn default_share_is_leased_without_flag() {
        let (question, basis) = settled("vllm serve a/b", |_, _| {});
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

        assert!(basis.notes.is_empty() && basis.hint.is_some(), "{basis:?}");

        let (question, _) = settled(
            "sglang serve --model a/b --tp 2 --mem-fraction-static 0.7",
            |_, _| {},
        );
        let wanted = json!({ "mem_fraction_static": 0.7, "max_total_tokens": "default" });
        assert_eq!(json!(question.engine.parameters), wanted);
        assert_eq!(question.constraints.tensor_parallel, Some(2));

        let (question, _) = settled("llama-server -m a/b -c 4096", |_, _| {});
        assert_eq!(json!(question.engine.parameters), json!({ "n_ctx": 4096 }));

        assert_eq!(
            question.constraints.tensor_parallel, None,
            "it uses all devices that it sees"
        );
    }

    #[test]
    fn command_wins_over_options() {
        let (question, basis) = settled(
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
        assert_eq!(basis.notes.len(), 3, "{basis:?}");
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
            let (question, basis) = settled(command, |question, _| with_options(question));
            let workload = &question.workload;
            assert_eq!(*workload, WorkloadQuestion::default(), "{command}");
            assert!(!question.engine.parameters.contains_key("n_gpu_layers"));
            let named = basis.notes.last().unwrap();
            assert!(
                named.contains("--set n_gpu_layers=0") && named.contains("--flags"),
                "{command}: {named}"
            );
        }

        let (_, basis) = settled("llama-server -hf a/b", |question, _| with_options(question));
        assert!(
            basis.notes[0].contains("--context 4096, --sequences 2, --kv-cache-dtype q8_0"),
            "{basis:?}"
        );
    }

    #[test]
    fn options_that_reach_server_stay() {
        let (question, basis) = settled("llama-server -hf a/b", |question, start| {
            with_options(question);
            start.flags = true;
        });
        assert_eq!(question.workload.sequences, Some(2));
        assert_eq!(question.engine.parameters["n_gpu_layers"], 0);
        assert!(basis.notes.is_empty(), "{basis:?}");

        // `run` sets Ollama's variables: its options are in force.
        let (question, basis) = settled("ollama serve", |question, _| with_options(question));
        assert_eq!(question.workload.sequences, Some(2));
        assert!(question.workload.context.is_some() && question.engine.parameters.is_empty());
        assert_eq!(basis.notes.len(), 1, "{basis:?}");
    }

    #[test]
    fn other_spelling_of_flag_is_carried() {
        let (question, basis) = settled("llama-server -hf a/b -c 8192", |question, _| {
            let set = &mut question.engine.parameters;
            set.insert("ctx-size".to_owned(), json!(8192));
        });
        assert_eq!(json!(question.engine.parameters), json!({ "n_ctx": 8192 }));
        assert!(basis.notes.is_empty(), "{basis:?}");
    }

    #[test]
    fn uncarried_offload_is_dropped() {
        let asked = |command: &str| {
            let (question, _) = settled(command, |question, _| {
                question.constraints.offload = OffloadRule::Allow;
            });
            question.constraints.offload
        };

        assert_eq!(asked("llama-server -hf a/b"), OffloadRule::Deny);
        assert_eq!(asked("llama-server -hf a/b -ngl 9"), OffloadRule::Allow);
    }

    #[test]
    fn arguments_of_plan_limit_the_share() {
        for command in ["vllm serve a/b {args}", "vllm serve a/b --enforce-eager"] {
            let (question, basis) =
                settled(command, |_, start| start.flags = !command.contains("args"));
            assert!(
                !question
                    .engine
                    .parameters
                    .contains_key("gpu_memory_utilization"),
                "{command}"
            );

            assert_eq!(
                (question.constraints.tensor_parallel, basis),
                (None, Basis::default()),
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
        let (question, basis) = settled("sh -c ./serve", |_, _| {});
        assert!(
            question.engine.parameters.is_empty() && basis.notes.len() == 1,
            "{basis:?}"
        );

        assert!(
            settled("sh -c ./serve", |_, start| start.flags = true)
                .1
                .notes
                .is_empty()
        );

        assert!(
            settled("sh -c ./serve", |_, start| start.leased = false)
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
        let start = Start {
            command: &words,
            flags: false,
            asked: Some(LeaseBasis::Share),
            leased: true,
        };

        let refused = settle(&mut Question::default(), start, Variables::new()).unwrap_err();
        assert_eq!(refused.reason, Reason::Usage);
    }

    #[test]
    fn other_model_is_warned_of() {
        let (_, basis) = settled("vllm serve a/c", |_, _| {});
        assert!(basis.notes[0].contains("a/c"), "{basis:?}");
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
        let mut start = Start {
            command: &words,
            flags: false,
            asked: Some(LeaseBasis::Share),
            leased: true,
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
        let (_, basis) = settled("vllm serve a/b --enable-sleep-mode", |_, _| {});
        assert!(basis.notes[0].contains("--enable-sleep-mode"), "{basis:?}");
        let (_, basis) = settled("llama-server --spec-draft-model x", |_, start| {
            start.asked = Some(LeaseBasis::Need);
        });
        assert!(basis.notes[0].contains("--spec-draft-model"), "{basis:?}");

        for (command, flags) in [
            ("llama-server --spec-draft-model x", false),
            ("vllm serve a/b --enable-sleep-mode", true),
            ("sglang serve --speculative-algorithm x", true),
        ] {
            let words: Vec<OsString> = command.split(' ').map(OsString::from).collect();
            let start = Start {
                command: &words,
                flags,
                asked: None,
                leased: true,
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
        let start = Start {
            command: &words,
            flags: false,
            asked: None,
            leased: true,
        };

        let refused = settle(&mut Question::default(), start, Variables::new()).unwrap_err();
        assert!(refused.hint.unwrap().contains("--lease need"));

        let need = Start {
            asked: Some(LeaseBasis::Need),
            ..start
        };

        assert!(settle(&mut Question::default(), need, Variables::new()).is_ok());
    }
}
