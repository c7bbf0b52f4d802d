//! Wrappers that start another program: `env`, `setsid`, `nohup`.

use std::collections::BTreeMap;
use std::path::Path;

use hf_mem_core::report::Problem;
use hf_mem_core::report::problem::Reason;

/// Environment variables by name.
pub(super) type Variables = BTreeMap<String, String>;

/// The variables that `run` sets to the devices of the lease.
const DEVICES: [&str; 2] = ["CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"];
/// The variables that `run` also sets for Ollama.
const OLLAMA: [&str; 4] = [
    "OLLAMA_CONTEXT_LENGTH",
    "OLLAMA_NUM_PARALLEL",
    "OLLAMA_KV_CACHE_TYPE",
    "OLLAMA_FLASH_ATTENTION",
];

/// The command after all wrappers, and its environment variables.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unwrapped<'w> {
    pub(super) words: &'w [String],
    pub(super) variables: Variables,
}

/// Skips the wrappers at the start of `words`.
///
/// Fails if a wrapper detaches the command from the lease: by choosing other devices, or by ending
/// before the command does.
pub(super) fn unwrap(words: &[String], variables: Variables) -> Result<Unwrapped<'_>, Problem> {
    let mut unwrapped = Unwrapped { words, variables };
    while let Some((program, rest)) = unwrapped.words.split_first() {
        let program = Path::new(program)
            .file_name()
            .and_then(|name| name.to_str());
        unwrapped.words = match program {
            Some("env") => after_env(rest, &mut unwrapped.variables)?,
            Some("setsid") => after_setsid(rest)?,
            Some("nohup") => after_flags(rest),
            _ => break,
        };
    }

    Ok(unwrapped)
}

/// Returns the words after the flags of a program whose flags have no separate values.
fn after_flags(words: &[String]) -> &[String] {
    let flags = words
        .iter()
        .take_while(|word| word.starts_with('-'))
        .count();
    words.get(flags..).unwrap_or_default()
}

/// Returns the words after `setsid` and its flags.
///
/// Fails with `--fork` but without `--wait`: setsid then ends at once, and the lease with it.
fn after_setsid(words: &[String]) -> Result<&[String], Problem> {
    let command = after_flags(words);
    let flags = words.len().saturating_sub(command.len());
    let flags = words.get(..flags).unwrap_or_default();

    if has_flag(flags, 'f', "fork") && !has_flag(flags, 'w', "wait") {
        let detail = "CMD's setsid --fork ends at once, and the lease would end with it";
        let hint = "remove --fork, or add --wait";
        return Err(Problem::new(Reason::Usage, detail).hint(hint));
    }

    Ok(command)
}

/// Whether `flags` has a flag, by its letter or by its long name or a prefix of that.
fn has_flag(flags: &[String], letter: char, long: &str) -> bool {
    flags.iter().any(|word| match word.strip_prefix("--") {
        Some(name) => !name.is_empty() && long.starts_with(name),
        None => word.contains(letter),
    })
}

/// Applies the assignments of `env` (coreutils) to `variables`, and returns the words after them.
fn after_env<'w>(words: &'w [String], variables: &mut Variables) -> Result<&'w [String], Problem> {
    let mut rest = words;
    while let Some((word, tail)) = rest.split_first() {
        let flags = match word.strip_prefix("--") {
            Some(long) => long_flag(long),
            None => word.strip_prefix('-').map_or(Vec::new(), short_flags),
        };

        if !word.starts_with('-') {
            let Some((name, value)) = word.split_once('=') else {
                break;
            };

            refuse_devices(name)?;

            // Ollama treats an empty variable as unset.
            if value.is_empty() && OLLAMA.contains(&name) {
                return Err(removes_variables(word));
            }

            variables.insert(name.to_owned(), value.to_owned());
        }

        rest = tail;
        for flag in flags {
            match flag {
                EnvFlag::Clear => return Err(removes_variables(word)),
                EnvFlag::Split(text) => {
                    let text = text.as_ref().or(rest.first());
                    if let Some(name) = DEVICES
                        .iter()
                        .find(|name| text.is_some_and(|text| text.contains(**name)))
                    {
                        refuse_devices(name)?;
                    }
                    // The split text is not parsed, so the command is unknown.
                    return Ok(&[]);
                }
                EnvFlag::Unset(name) => {
                    let name = name.or_else(|| take_word(&mut rest));
                    let name = name.unwrap_or_default();
                    if DEVICES.iter().chain(&OLLAMA).any(|set| *set == name) {
                        return Err(removes_variables(&name));
                    }
                    variables.remove(&name);
                }
                EnvFlag::WithWord(None) => drop(take_word(&mut rest)),
                EnvFlag::WithWord(Some(_)) | EnvFlag::Other => {}
            }
        }
    }

    Ok(rest)
}

/// A flag of `env`, with the value that is attached to it.
#[derive(Debug, PartialEq, Eq)]
enum EnvFlag {
    /// `-i`
    Clear,
    /// `-u NAME`
    Unset(Option<String>),
    /// `-S TEXT`
    Split(Option<String>),
    /// `-C FOLDER`, `-a NAME`
    WithWord(Option<String>),
    Other,
}

fn long_flag(flag: &str) -> Vec<EnvFlag> {
    let (name, value) = match flag.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (flag, None),
    };

    let flag = match name {
        "" => EnvFlag::Other,
        // getopt_long accepts any prefix of a flag.
        name if "unset".starts_with(name) => EnvFlag::Unset(value),
        name if "split-string".starts_with(name) => EnvFlag::Split(value),
        name if "ignore-environment".starts_with(name) => EnvFlag::Clear,
        name if "chdir".starts_with(name) || "argv0".starts_with(name) => EnvFlag::WithWord(value),
        _ => EnvFlag::Other,
    };

    vec![flag]
}

/// Returns the flags of a word of letters. The last can have its value attached: `-vuNAME`.
fn short_flags(letters: &str) -> Vec<EnvFlag> {
    if letters.is_empty() {
        return vec![EnvFlag::Clear];
    }

    let mut flags = Vec::new();
    for (index, letter) in letters.char_indices() {
        let attached = letters
            .get(index.saturating_add(letter.len_utf8())..)
            .filter(|text| !text.is_empty())
            .map(str::to_owned);
        let flag = match letter {
            'i' => EnvFlag::Clear,
            'u' => EnvFlag::Unset(attached),
            'S' => EnvFlag::Split(attached),
            'C' | 'a' => EnvFlag::WithWord(attached),
            _ => EnvFlag::Other,
        };

        let is_last = matches!(letter, 'u' | 'S' | 'C' | 'a');
        flags.push(flag);

        if is_last {
            break;
        }
    }

    flags
}

fn take_word(rest: &mut &[String]) -> Option<String> {
    let (word, tail) = rest.split_first()?;
    *rest = tail;
    Some(word.clone())
}

fn refuse_devices(name: &str) -> Result<(), Problem> {
    if !DEVICES.contains(&name) {
        return Ok(());
    }
    let detail = format!("CMD sets {name}, but hf-mem-probe run sets it to the leased GPUs");
    Err(Problem::new(Reason::Usage, detail).hint("choose GPUs with --on"))
}

fn removes_variables(what: &str) -> Problem {
    let detail =
        format!("CMD's env {what} removes variables that hf-mem-probe run sets for the lease");
    Problem::new(Reason::Usage, detail)
        .hint("remove variables before run: env -u NAME hf-mem-probe run ...")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(command: &str) -> Vec<String> {
        command.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn wrappers_are_skipped() {
        for (command, program, a) in [
            ("vllm serve", "vllm", Some("0")),
            ("env A=1 B=2 setsid -w vllm serve", "vllm", Some("1")),
            ("env -u A nohup vllm", "vllm", None),
            ("env -vuA vllm", "vllm", None),
            ("env --unset=A -C /tmp vllm", "vllm", None),
            ("env --chdir /tmp A=1 env A=2 vllm", "vllm", Some("2")),
            ("/usr/bin/env -- A=1 vllm", "vllm", Some("1")),
            ("setsid -fw vllm", "vllm", Some("0")),
        ] {
            let words = words(command);
            let before = Variables::from([("A".to_owned(), "0".to_owned())]);
            let found = unwrap(&words, before).unwrap();
            assert_eq!(found.words[0], program, "{command}");
            assert_eq!(found.variables.get("A").map(String::as_str), a, "{command}");
        }

        assert!(
            unwrap(&words("env"), Variables::new())
                .unwrap()
                .words
                .is_empty()
        );

        let split = words("env -S A=1\u{a0}vllm");
        assert!(unwrap(&split, Variables::new()).unwrap().words.is_empty());
    }

    #[test]
    fn detaching_wrappers_are_refused() {
        for command in [
            "env CUDA_VISIBLE_DEVICES=1 vllm serve",
            "nohup env A=1 CUDA_DEVICE_ORDER=FASTEST_FIRST ./serve",
            "env -u CUDA_VISIBLE_DEVICES vllm",
            "env -uCUDA_VISIBLE_DEVICES vllm",
            "env --unset=CUDA_VISIBLE_DEVICES vllm",
            "env --unset OLLAMA_CONTEXT_LENGTH ollama serve",
            "env OLLAMA_CONTEXT_LENGTH= ollama serve",
            "env -i vllm",
            "env -vi vllm",
            "env - vllm",
            "env --ignore-environment vllm",
            "env -SCUDA_VISIBLE_DEVICES=1 vllm",
            "setsid -f vllm",
            "setsid -cf vllm",
            "setsid --fork vllm",
            "setsid --fo vllm",
        ] {
            let words = words(command);
            let refused = unwrap(&words, Variables::new()).unwrap_err();
            assert_eq!(refused.reason, Reason::Usage, "{command}");
        }
    }
}
