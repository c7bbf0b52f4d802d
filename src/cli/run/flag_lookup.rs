//! From a word of a command line to the flag of the server that it means.

use std::collections::BTreeSet;

use super::server_flags::FlagMeaning;
use super::server_line::Server;

/// A flag as it is written.
#[derive(Debug)]
pub(super) struct FlagWord<'w> {
    word: &'w str,
    /// Without dashes before it and with dashes inside.
    name: String,
    /// The text behind its `=`.
    pub(super) given: Option<String>,
}

/// A flag as the server reads it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    /// `on` is false where `no-` turns a switch off.
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
    /// The beginning of several flags.
    Ambiguous(Vec<String>),
    Unknown,
}

impl<'w> FlagWord<'w> {
    /// The flag in `word`, if it is one.
    pub(super) fn of(word: &'w str) -> Option<Self> {
        if !is_flag(word) {
            return None;
        }

        let (name, given) = match word.split_once('=') {
            Some((name, given)) => (name, Some(given.to_owned())),
            None => (word, None),
        };

        let name = name.trim_start_matches('-').replace('_', "-");
        Some(Self { word, name, given })
    }

    /// Looks the flag up in the memory flags of `server`, and then in its engine's list.
    pub(super) fn look_up(&self, server: Server) -> Lookup {
        if let Some((meaning, on)) = known(server, &self.name) {
            return Lookup::Known { meaning, on };
        }

        if is_listed(server, &self.name) {
            return Lookup::Listed(self.name.clone());
        }

        if let Some((name, _)) = self.name.split_once('.').filter(|_| server == Server::Vllm) {
            return part_of(server, name);
        }

        if !server.abbreviates() {
            return Lookup::Unknown;
        }

        if self.word.starts_with("--") {
            return completed(server, &self.name);
        }

        self.attached(server).unwrap_or(Lookup::Unknown)
    }

    /// `-n2` is `-n 2`.
    fn attached(&self, server: Server) -> Option<Lookup> {
        let letter = self.name.get(..1)?;
        let (meaning, _) = known(server, letter)?;
        let value = self.word.get(2..)?.to_owned();
        Some(Lookup::Attached { meaning, value })
    }
}

/// vLLM's `--speculative-config.method x` sets a part of a value.
fn part_of(server: Server, name: &str) -> Lookup {
    if known(server, name).is_some() {
        let meaning = FlagMeaning::NotFollowed("parts of a value are not read");
        return Lookup::Known { meaning, on: true };
    }

    if is_listed(server, name) {
        return Lookup::Listed(name.to_owned());
    }

    Lookup::Unknown
}

/// The flag that begins with `start`, where there is one: argparse takes any length.
fn completed(server: Server, start: &str) -> Lookup {
    let (start, on) = match start.strip_prefix("no-") {
        Some(start) => (start, false),
        None => (start, true),
    };

    let begun: Vec<_> = server
        .flags()
        .iter()
        .filter_map(|flag| {
            let name = flag.names.iter().find(|name| name.starts_with(start))?;
            (on || is_switch(flag.meaning)).then_some((*name, flag.meaning))
        })
        .collect();
    if let [(_, meaning)] = begun[..] {
        return Lookup::Known { meaning, on };
    }

    let listed = server.parameters().map(|list| list.flags_starting(start));
    let names: BTreeSet<String> = begun
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

/// Whether a word is a flag: a dash, and no number behind it.
pub(super) fn is_flag(word: &str) -> bool {
    let name = word.trim_start_matches('-');
    word.starts_with('-') && name.starts_with(|first: char| first.is_ascii_alphabetic())
}

/// Whether a word may be the value of a switch.
pub(super) fn is_choice(word: &str) -> bool {
    matches!(
        word,
        "on" | "off" | "auto" | "true" | "false" | "enabled" | "disabled" | "1" | "0" | "-1"
    )
}

/// What the memory flag `name` of `server` means, and whether it is on: `no-` turns a switch off.
pub(super) fn known(server: Server, name: &str) -> Option<(FlagMeaning, bool)> {
    let find = |name: &str| {
        let flag = server
            .flags()
            .iter()
            .find(|flag| flag.names.contains(&name))?;
        Some(flag.meaning)
    };

    if let Some(meaning) = find(name) {
        return Some((meaning, true));
    }

    let meaning = find(name.strip_prefix("no-")?)?;
    is_switch(meaning).then_some((meaning, false))
}

fn is_switch(meaning: FlagMeaning) -> bool {
    matches!(meaning, FlagMeaning::Switch(_) | FlagMeaning::Choice(_))
}

fn is_listed(server: Server, name: &str) -> bool {
    server
        .parameters()
        .is_some_and(|list| list.effect(name, None).is_some())
}
