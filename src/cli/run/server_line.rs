//! The command line of an engine's server: its engine, model and memory flags.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use hf_mem_core::engines::shared::parameter_names::ParameterEffect;
use hf_mem_core::report::Problem;
use hf_mem_core::report::problem::Reason;
use serde_json::Value;

use super::command::PLACEHOLDER;
use super::flag_lookup::{FlagWord, Lookup, is_choice, is_flag};
use super::flag_value::{largest, tokens, value};
use super::server::Server;
use super::server_flags::FlagMeaning;
use super::wrapper::{Unwrapped, Variables, unwrap};

/// The contents of a server's command line.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ServerLine {
    pub(super) server: Server,
    pub(super) model: Option<String>,
    /// Whether the model is a Hub repository, of which the server loads one file.
    pub(super) from_repository: bool,
    /// The file of the repository, if a flag names one.
    pub(super) file: Option<String>,
    /// Engine parameters by the engine's own names.
    pub(super) parameters: BTreeMap<String, Value>,
    pub(super) tensor_parallel: Option<u32>,
    pub(super) pipeline_parallel: Option<u32>,
    /// Flags that the lease ignores, and why, one line each.
    pub(super) notes: Vec<String>,
    /// Flags whose memory is not counted.
    pub(super) uncounted: Vec<String>,
    /// A flag whose memory no lease covers, and why.
    pub(super) refused: Option<String>,
}

/// Reads `command`, which runs with `variables`. Returns `None` if it starts no known server.
pub(super) fn read(
    command: &[OsString],
    variables: Variables,
) -> Result<Option<ServerLine>, Problem> {
    let words: Vec<String> = command
        .iter()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let Unwrapped { words, variables } = unwrap(&words, variables)?;
    let Some((server, rest)) = recognize(words) else {
        return Ok(None);
    };

    let mut line = ServerLine {
        server,
        model: None,
        from_repository: false,
        file: None,
        parameters: BTreeMap::new(),
        tensor_parallel: None,
        pipeline_parallel: None,
        notes: Vec::new(),
        uncounted: Vec::new(),
        refused: None,
    };

    match server {
        Server::Ollama => {
            line.take_ollama_variables(&variables);
            return Ok(Some(line));
        }
        Server::Llama => line.take_llama_variables(&variables)?,
        Server::Vllm | Server::Sglang => {}
    }

    // In `vllm serve MODEL`, the model comes before all flags.
    if let Some(model) = rest
        .first()
        .filter(|word| server == Server::Vllm && !is_flag(word) && *word != PLACEHOLDER)
    {
        line.model = Some(model.clone());
    }

    line.take_flags(rest)?;
    line.set_apart_uncounted_draft();
    Ok(Some(line))
}

impl ServerLine {
    fn take_flags(&mut self, words: &[String]) -> Result<(), Problem> {
        let mut unknown = Vec::new();
        let mut words = words.iter().peekable();
        while let Some(word) = words.next() {
            if word == "--" {
                break;
            }

            let Some(flag) = FlagWord::parse(word) else {
                continue;
            };

            let mut attached = flag.value.clone();
            let next = words.peek().filter(|next| !is_flag(next));

            let (meaning, on) = match flag.look_up(self.server) {
                Lookup::Known { meaning, on } => (meaning, on),
                Lookup::Attached { meaning, value } => {
                    attached = Some(value);
                    (meaning, true)
                }
                Lookup::Listed(name) => {
                    let text = attached.or_else(|| next.map(|next| (*next).clone()));
                    self.take_listed(word, &name, text.as_deref());
                    continue;
                }
                Lookup::Ambiguous(names) => {
                    let why = format!("it can mean {}", names.join(" or "));
                    self.notes.push(not_followed(word, &why));
                    continue;
                }
                Lookup::Unknown => {
                    unknown.push(word.as_str());
                    continue;
                }
            };

            let takes_next = match meaning {
                FlagMeaning::Switch(_) => false,
                FlagMeaning::Choice(_) => next.is_some_and(|next| is_choice(next)),
                _ => next.is_some(),
            };

            let text = attached.or_else(|| words.next_if(|_| takes_next).cloned());
            self.take(word, meaning, on, text)?;
        }

        if !unknown.is_empty() {
            self.notes
                .push(not_followed(&unknown.join(", "), "unknown flags"));
        }

        Ok(())
    }

    /// Records a flag that only the engine's list has. Returns whether the list has it.
    pub(super) fn take_listed(&mut self, word: &str, name: &str, text: Option<&str>) -> bool {
        let list = self.server.parameters();
        let Some(effect) = list.and_then(|list| list.effect(name, text)) else {
            return false;
        };

        match effect {
            ParameterEffect::Counted(counted) => {
                let is_off = name.starts_with("no-") && !counted.starts_with("no_");
                let parsed = text.filter(|_| !is_off).map_or(Value::Bool(!is_off), value);
                self.set(counted, Some(parsed));
            }
            ParameterEffect::NoEffect => {}
            ParameterEffect::NotCounted(why) => {
                let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
                self.uncounted.push(format!("{word}{why}"));
            }
            ParameterEffect::Elsewhere(why) => self.notes.push(not_followed(word, why)),
        }

        true
    }

    /// Records a flag with a known meaning and the text of its value.
    pub(super) fn take(
        &mut self,
        word: &str,
        meaning: FlagMeaning,
        on: bool,
        text: Option<String>,
    ) -> Result<(), Problem> {
        match meaning {
            // With a repository, llama-server's model flag is the path to download its file to.
            FlagMeaning::Model if self.from_repository => {}
            FlagMeaning::Model => self.model = text.or_else(|| self.model.take()),
            FlagMeaning::Repository => {
                self.from_repository = true;
                self.model = text;
            }
            FlagMeaning::File => self.file = text,
            FlagMeaning::Tensor => {
                self.tensor_parallel = Some(parse_degree(word, text.as_deref())?);
            }
            FlagMeaning::Pipeline => {
                self.pipeline_parallel = Some(parse_degree(word, text.as_deref())?);
            }
            FlagMeaning::Copies => {
                let copies = parse_degree(word, text.as_deref())?;
                if copies > 1 {
                    let detail =
                        format!("CMD's {word} {copies} takes more GPUs than one lease covers");
                    let hint = "start one hf-mem-probe run per copy";
                    return Err(Problem::new(Reason::Usage, detail).hint(hint));
                }
            }
            FlagMeaning::Parameter(name) => self.set(name, text.as_deref().map(value)),
            FlagMeaning::Largest(name) => self.set(name, text.as_deref().map(largest)),
            FlagMeaning::NoDeviceMemory => {}
            FlagMeaning::Tokens(name) => match text.as_deref() {
                // The engine takes as many tokens as fit, which is also the question's default.
                Some("auto" | "-1") => {}
                text => self.set(name, text.map(tokens)),
            },
            FlagMeaning::Switch(name) => {
                // Some parsers accept `--flag=false`.
                let off = text.is_some_and(|text| value(&text) == Value::Bool(false));
                self.set(name, Some(Value::Bool(on && !off)));
            }
            FlagMeaning::Choice(name) => {
                self.set(name, Some(text.as_deref().map_or(Value::Bool(on), value)));
            }
            FlagMeaning::NotFollowed(why) => self.notes.push(not_followed(word, why)),
            FlagMeaning::Refused(why) => {
                self.refused = Some(format!("no lease covers CMD's {word}: {why}"));
            }
        }

        Ok(())
    }

    pub(super) fn set(&mut self, name: &str, value: Option<Value>) {
        if let Some(value) = value {
            self.parameters.insert(name.to_owned(), value);
        }
    }
}

/// Parses a parallel degree: a number of at least 1.
fn parse_degree(word: &str, text: Option<&str>) -> Result<u32, Problem> {
    let number = text
        .and_then(|text| text.parse::<u32>().ok())
        .filter(|number| *number > 0);

    number.ok_or_else(|| {
        Problem::new(
            Reason::Usage,
            format!("CMD's {word} needs a number of at least 1"),
        )
    })
}

/// Returns the note about a flag or variable that the lease ignores.
pub(super) fn not_followed(what: &str, why: &str) -> String {
    format!("warning: the lease ignores CMD's {what}: {why}")
}

/// Returns the server that the words start, and the words after its name.
fn recognize(words: &[String]) -> Option<(Server, &[String])> {
    let (program, rest) = words.split_first()?;
    let program = Path::new(program).file_name()?.to_str()?;

    match program {
        "vllm" => Some((Server::Vllm, after_serve(rest)?)),
        "sglang" => Some((Server::Sglang, after_serve(rest)?)),
        "ollama" => Some((Server::Ollama, after_serve(rest)?)),
        "llama-server" => Some((Server::Llama, rest)),
        _ if is_python(program) => recognize_module(rest),
        _ => None,
    }
}

/// Returns the words after the subcommand `serve`.
fn after_serve(words: &[String]) -> Option<&[String]> {
    let (word, rest) = words.split_first()?;
    (word == "serve").then_some(rest)
}

/// Whether a program is `python`, `python3`, `python3.12` or the like.
fn is_python(program: &str) -> bool {
    program.strip_prefix("python").is_some_and(|version| {
        version
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.')
    })
}

/// Returns the server in a Python module: `-m vllm.entrypoints.openai.api_server`.
fn recognize_module(words: &[String]) -> Option<(Server, &[String])> {
    let mut rest = words;
    loop {
        let (word, behind) = rest.split_first()?;
        rest = match word.as_str() {
            "-m" => break,
            // These flags have a value.
            "-X" | "-W" => behind.get(1..)?,
            flag if flag.starts_with('-') => behind,
            _ => return None,
        };
    }

    let (name, rest) = rest.get(1..)?.split_first()?;
    match name.as_str() {
        "sglang.launch_server" => Some((Server::Sglang, rest)),
        name if name.starts_with("vllm.entrypoints.") && name.ends_with("api_server") => {
            Some((Server::Vllm, rest))
        }
        "vllm.entrypoints.cli.main" | "vllm" => Some((Server::Vllm, after_serve(rest)?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn line(command: &str) -> Option<ServerLine> {
        let words: Vec<OsString> = command.split(' ').map(OsString::from).collect();
        let parallel = ("OLLAMA_NUM_PARALLEL".to_owned(), "4".to_owned());
        read(&words, Variables::from([parallel])).unwrap()
    }

    fn parameters(command: &str) -> Value {
        json!(line(command).unwrap().parameters)
    }

    #[test]
    fn servers_of_engines_are_recognized() {
        for (command, server) in [
            ("vllm serve a/b", Some(Server::Vllm)),
            ("/opt/venv/bin/vllm serve a/b --port 1", Some(Server::Vllm)),
            (
                "python3.12 -u -X dev -m vllm.entrypoints.openai.api_server --model a/b",
                Some(Server::Vllm),
            ),
            (
                "python -m sglang.launch_server --model-path a/b",
                Some(Server::Sglang),
            ),
            ("sglang serve --model-path a/b", Some(Server::Sglang)),
            ("./llama-server -m x.gguf", Some(Server::Llama)),
            ("ollama serve", Some(Server::Ollama)),
            ("env A=1 B=2 setsid -w vllm serve a/b", Some(Server::Vllm)),
            ("env", None),
            ("ollama list", None),
            ("vllm bench serve", None),
            ("python -m http.server", None),
            ("python serve.py", None),
            ("sh -c vllm", None),
            ("docker run vllm/vllm-openai", None),
            ("pythonic -m sglang.launch_server", None),
        ] {
            assert_eq!(line(command).map(|line| line.server), server, "{command}");
        }
    }

    #[test]
    fn flags_are_read_in_every_spelling() {
        let wanted =
            json!({ "gpu_memory_utilization": 0.5, "max_model_len": 8192, "enforce_eager": true });
        for flags in [
            "--gpu-memory-utilization 0.5 --max-model-len 8192 --enforce-eager",
            "--gpu-memory-utilization=0.5 --max_model_len=8192 --enforce_eager",
            "--port 8000 --gpu_memory_utilization 0.5 --trust-remote-code --max-model-len 8K --enforce-eager --seed 1",
        ] {
            assert_eq!(
                parameters(&format!("vllm serve a/b {flags}")),
                wanted,
                "{flags}"
            );
        }

        assert_eq!(
            parameters("vllm serve a/b --max-model-len 25.6k --max-model-len auto")["max_model_len"],
            25_600
        );
        assert_eq!(
            parameters("vllm serve a/b --no-enable-prefix-caching"),
            json!({ "enable_prefix_caching": false })
        );

        assert_eq!(
            parameters(
                "llama-server -m x.gguf -c 8192 -ngl 99 -fa -ctk q8_0 -np 4 --no-kv-unified -fa on"
            ),
            json!({ "n_ctx": 8192, "n_gpu_layers": 99, "flash_attn": "on", "type_k": "q8_0", "n_parallel": 4,
                    "kv_unified": false })
        );

        assert_eq!(
            parameters("ollama serve"),
            json!({ "OLLAMA_NUM_PARALLEL": 4 })
        );
    }

    #[test]
    fn variables_of_llama_are_read() {
        let environment = "LLAMA_ARG_CTX_SIZE=8192 LLAMA_ARG_N_PARALLEL=4 LLAMA_ARG_N_GPU_LAYERS=9 \
                           LLAMA_ARG_CACHE_TYPE_K=q8_0 LLAMA_ARG_UBATCH=64 LLAMA_ARG_BATCH=128 \
                           LLAMA_ARG_FLASH_ATTN=off LLAMA_ARG_SWA_FULL=1 LLAMA_ARG_NO_KV_OFFLOAD=0";
        let found = line(&format!(
            "env {} LLAMA_ARG_HF_REPO=a/b:F16 LLAMA_ARG_PORT=1 llama-server -c 4096",
            environment.split_whitespace().collect::<Vec<_>>().join(" ")
        ));

        let found = found.unwrap();
        let wanted = json!({ "n_ctx": 4096, "n_parallel": 4, "n_gpu_layers": 9, "type_k": "q8_0",
                             "n_ubatch": 64, "n_batch": 128, "flash_attn": "off", "swa_full": true });
        assert_eq!(json!(found.parameters), wanted);
        assert_eq!(found.model.as_deref(), Some("a/b:F16"));

        assert!(
            found.notes.is_empty() && found.refused.is_none(),
            "{found:?}"
        );

        let strange = line("env LLAMA_ARG_UNHEARD_OF=1 llama-server -m x.gguf").unwrap();
        assert!(
            strange.notes[0].contains("LLAMA_ARG_UNHEARD_OF"),
            "{strange:?}"
        );
        let draft = line("env LLAMA_ARG_MODEL_DRAFT=d.gguf llama-server -m x.gguf").unwrap();
        assert!(draft.refused.unwrap().contains("LLAMA_ARG_MODEL_DRAFT"));
    }

    #[test]
    fn variables_of_ollama_are_read() {
        let found = line(
            "env OLLAMA_NUM_PARALLEL=2 OLLAMA_MAX_LOADED_MODELS=3 OLLAMA_SCHED_SPREAD=1 OLLAMA_HOST=x ollama serve",
        );
        let found = found.unwrap();
        assert_eq!(json!(found.parameters), json!({ "OLLAMA_NUM_PARALLEL": 2 }));

        assert!(
            found.notes.len() == 2 && found.notes[0].contains("OLLAMA_MAX_LOADED_MODELS"),
            "{found:?}"
        );
    }

    #[test]
    fn parallel_flags_are_read() {
        for (command, degrees) in [
            ("vllm serve a/b", (None, None)),
            (
                "vllm serve a/b -tp 2 --pipeline-parallel-size=2",
                (Some(2), Some(2)),
            ),
            ("vllm serve a/b --tensor-parallel 4", (Some(4), None)),
            (
                "sglang serve --model a/b --tp 8 --pp-size 2",
                (Some(8), Some(2)),
            ),
            ("vllm serve a/b -dp 1", (None, None)),
        ] {
            let line = line(command).unwrap();
            assert_eq!(
                (line.tensor_parallel, line.pipeline_parallel),
                degrees,
                "{command}"
            );
        }

        for command in [
            "vllm serve a/b --data-parallel-size 2",
            "sglang serve --dp=4",
            "vllm serve a/b -tp none",
        ] {
            let words: Vec<OsString> = command.split(' ').map(OsString::from).collect();
            assert_eq!(
                read(&words, Variables::new()).unwrap_err().reason,
                Reason::Usage,
                "{command}"
            );
        }
    }

    #[test]
    fn model_is_read_from_its_place() {
        for (command, model) in [
            ("vllm serve a/b --port 1", Some("a/b")),
            ("vllm serve --port 1 --model=a/b", Some("a/b")),
            ("vllm serve {args}", None),
            ("sglang serve --model-path a/b", Some("a/b")),
            ("llama-server -hf a/b:Q4_K_M", Some("a/b:Q4_K_M")),
            ("ollama serve", None),
        ] {
            assert_eq!(line(command).unwrap().model.as_deref(), model, "{command}");
        }
    }

    #[test]
    fn unfollowed_flags_are_noted_or_refused() {
        let noted = line("llama-server -m x.gguf -mg 1 --unheard-of --also=1").unwrap();
        assert!(
            noted.notes[0].contains("-mg")
                && noted.notes[1].contains("--unheard-of, --also=1")
                && noted.notes.len() == 2
                && noted.refused.is_none(),
            "{noted:?}"
        );

        let refused = line("llama-server -m x.gguf -md draft.gguf")
            .unwrap()
            .refused
            .unwrap();
        assert!(
            refused.contains("-md") && refused.contains("draft model"),
            "{refused}"
        );
    }

    #[test]
    fn uncounted_flags_are_collected() {
        for (command, flags) in [
            ("vllm serve a/b --hf-overrides {} --port 1", vec![]),
            (
                "vllm serve a/b --speculative-config x",
                vec!["--speculative-config"],
            ),
            (
                "vllm serve a/b --speculative-config.method x",
                vec!["--speculative-config.method"],
            ),
            (
                "vllm serve a/b --enable-sleep-mode --kv-offloading-size 4",
                vec!["--enable-sleep-mode", "--kv-offloading-size"],
            ),
            (
                "vllm serve a/b --no-enable-sleep-mode --swap-space 4",
                vec![],
            ),
            (
                "sglang serve --speculative-algorithm EAGLE",
                vec!["--speculative-algorithm"],
            ),
            (
                "llama-server --spec-draft-model x.gguf",
                vec!["--spec-draft-model"],
            ),
            (
                "llama-server --mlock --slot-save-path x --cache-ram 1",
                vec![],
            ),
            (
                "env LLAMA_ARG_POOLING=mean llama-server",
                vec!["LLAMA_ARG_POOLING"],
            ),
        ] {
            let found = line(command).unwrap();
            let count = found.uncounted.len();
            assert_eq!(count, flags.len(), "{command}: {found:?}");
            for (found, flag) in found.uncounted.iter().zip(flags) {
                assert!(found.starts_with(flag), "{command}: {found}");
            }
        }
    }

    #[test]
    fn abbreviations_are_completed() {
        let share = parameters("vllm serve a/b --gpu-m 0.97 --enf");
        assert_eq!(
            share,
            json!({ "gpu_memory_utilization": 0.97, "enforce_eager": true })
        );
        let share = parameters("sglang serve --model a/b --mem-f=0.95");
        assert_eq!(share, json!({ "mem_fraction_static": 0.95 }));

        let unclear = line("vllm serve a/b --max-num 4").unwrap();
        assert!(
            unclear.parameters.is_empty() && unclear.notes[0].contains("--max-num-seqs"),
            "{unclear:?}"
        );
        let sleep = line("vllm serve a/b --enable-sl").unwrap();
        assert_eq!(sleep.uncounted.len(), 1, "{sleep:?}");

        // llama-server does not accept abbreviations.
        assert_eq!(parameters("llama-server --ctx 4096"), json!({}));
    }

    #[test]
    fn values_attached_to_letters_are_read() {
        assert_eq!(
            parameters("vllm serve a/b -qcompressed_tensors"),
            json!({ "quantization": "compressed_tensors" })
        );
        let words = ["vllm", "serve", "a/b", "-n2"].map(OsString::from);
        assert_eq!(
            read(&words, Variables::new()).unwrap_err().reason,
            Reason::Usage
        );
    }

    #[test]
    fn largest_fit_target_is_taken() {
        for (text, target) in [
            ("1024,2048", json!(2048)),
            ("512", json!(512)),
            ("x,1", json!("x,1")),
        ] {
            let found = parameters(&format!("llama-server -m x.gguf -fitt {text}"));
            assert_eq!(found, json!({ "fit_target": target }), "{text}");
        }
    }
}
