//! Finds the server flag that a word of a command line means.

use std::collections::BTreeSet;

use super::server::Server;
use super::server_flags::FlagMeaning;

/// A flag, as typed.
#[derive(Debug)]
pub(super) struct FlagWord<'w> {
    word: &'w str,
    /// The name without leading dashes, and with `-` for `_`.
    name: String,
    /// The text after `=`.
    pub(super) value: Option<String>,
}

/// A flag, as the server reads it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    /// A flag of the server. `on` is false if `no-` turns a switch off.
    Known {
        meaning: FlagMeaning,
        on: bool,
    },
    /// A letter with its value attached.
    Attached {
        meaning: FlagMeaning,
        value: String,
    },
    /// A name in the engine's list of parameters.
    Listed(String),
    /// An abbreviation of several flags.
    Ambiguous(Vec<String>),
    Unknown,
}

impl<'w> FlagWord<'w> {
    /// Parses `word`; returns `None` if it is not a flag.
    pub(super) fn parse(word: &'w str) -> Option<Self> {
        if !is_flag(word) {
            return None;
        }

        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (word, None),
        };

        let name = name.trim_start_matches('-').replace('_', "-");
        Some(Self { word, name, value })
    }

    /// Looks up the flag in the memory flags of `server`, then in its engine's list.
    pub(super) fn look_up(&self, server: Server) -> Lookup {
        if let Some((meaning, on)) = known(server, &self.name) {
            return Lookup::Known { meaning, on };
        }

        if is_listed(server, &self.name) {
            return Lookup::Listed(self.name.clone());
        }

        if let Some((name, _)) = self.name.split_once('.').filter(|_| server == Server::Vllm) {
            return nested_flag(server, name);
        }

        if !server.abbreviates() {
            return Lookup::Unknown;
        }

        if self.word.starts_with("--") {
            return abbreviated_flag(server, &self.name);
        }

        self.attached(server).unwrap_or(Lookup::Unknown)
    }

    /// Reads a value attached to a letter: `-n2` means `-n 2`.
    fn attached(&self, server: Server) -> Option<Lookup> {
        let letter = self.name.get(..1)?;
        let (meaning, _) = known(server, letter)?;
        let value = self.word.get(2..)?.to_owned();
        Some(Lookup::Attached { meaning, value })
    }
}

/// Looks up a flag that sets part of a value, such as vLLM's `--speculative-config.method x`.
fn nested_flag(server: Server, name: &str) -> Lookup {
    if known(server, name).is_some() {
        let meaning = FlagMeaning::NotFollowed("parts of a value are not read");
        return Lookup::Known { meaning, on: true };
    }

    if is_listed(server, name) {
        return Lookup::Listed(name.to_owned());
    }

    Lookup::Unknown
}

/// Looks up the flag that begins with `start`, as argparse does.
fn abbreviated_flag(server: Server, start: &str) -> Lookup {
    let (start, on) = match start.strip_prefix("no-") {
        Some(start) => (start, false),
        None => (start, true),
    };

    let matches: Vec<_> = server
        .flags()
        .iter()
        .filter_map(|flag| {
            let name = flag.names.iter().find(|name| name.starts_with(start))?;
            (on || is_switch(flag.meaning)).then_some((*name, flag.meaning))
        })
        .collect();
    if let [(_, meaning)] = matches[..] {
        return Lookup::Known { meaning, on };
    }

    let listed = server.parameters().map(|list| list.flags_starting(start));
    let names: BTreeSet<String> = matches
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .chain(listed.into_iter().flatten())
        .collect();

    let canonical: BTreeSet<&str> = names
        .iter()
        .map(|name| server.canonical_name(name))
        .collect();

    match (names.first(), canonical.len()) {
        (None, _) => Lookup::Unknown,
        (Some(name), 1) if on => Lookup::Listed(name.clone()),
        (Some(name), 1) => Lookup::Listed(format!("no-{name}")),
        _ => Lookup::Ambiguous(names.into_iter().map(|name| format!("--{name}")).collect()),
    }
}

/// Whether a word is a flag: dashes and then a letter, so that `-1` is a value.
pub(super) fn is_flag(word: &str) -> bool {
    let name = word.trim_start_matches('-');
    word.starts_with('-') && name.starts_with(|first: char| first.is_ascii_alphabetic())
}

/// Whether a word can be the value of a switch.
pub(super) fn is_choice(word: &str) -> bool {
    matches!(
        word,
        "on" | "off" | "auto" | "true" | "false" | "enabled" | "disabled" | "1" | "0" | "-1"
    )
}

/// Returns the meaning of the memory flag `name`, and whether it is on: `no-` turns a switch off.
pub(super) fn known(server: Server, name: &str) -> Option<(FlagMeaning, bool)> {
    if let Some(meaning) = find_meaning(server, name) {
        return Some((meaning, true));
    }

    let meaning = find_meaning(server, name.strip_prefix("no-")?)?;
    is_switch(meaning).then_some((meaning, false))
}

fn find_meaning(server: Server, name: &str) -> Option<FlagMeaning> {
    let flag = server
        .flags()
        .iter()
        .find(|flag| flag.names.contains(&name))?;
    Some(flag.meaning)
}

fn is_switch(meaning: FlagMeaning) -> bool {
    matches!(meaning, FlagMeaning::Switch(_) | FlagMeaning::Choice(_))
}

fn is_listed(server: Server, name: &str) -> bool {
    server
        .parameters()
        .is_some_and(|list| list.effect(name, None).is_some())
}
