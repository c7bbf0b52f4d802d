//! The table of a repository's files, one line per quantization.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use hf_mem_core::engines::Basis;
use hf_mem_core::placement::Strategy;
use hf_mem_core::report::answer::Verdict;
use hf_mem_core::report::file::{FileAnswer, FileKind, FilesAnswer};
use hf_mem_core::wire_word::WireWord;

use super::answer::verdict_words;
use super::page::{Page, PageLayout};
use super::{WIDTH, size, wrapped_to};

/// Columns of a name.
const NAME: usize = 26;
/// Columns from which the table also has the bits and the stored size.
const WIDE: usize = 70;

/// Appends the table, and the file to choose.
pub(super) fn files(page: &mut Page, files: &FilesAnswer, layout: PageLayout) {
    let mut out = String::new();
    let is_wide = layout.columns >= WIDE;
    let columns = |bits: &str, stored: &str| {
        if is_wide {
            format!("{bits:>5}  {stored:>10}  ")
        } else {
            String::new()
        }
    };

    let _ = writeln!(
        out,
        "\n  {:<NAME$} {}{:>10}  verdict",
        "files",
        columns("bits", "stored"),
        "needed"
    );
    let labels: BTreeSet<_> = files
        .list
        .iter()
        .filter_map(|file| file.quantization.as_ref())
        .collect();

    let labels_differ = labels.len()
        == files
            .list
            .iter()
            .filter(|file| file.quantization.is_some())
            .count();
    for file in &files.list {
        let mark = match &files.recommended {
            Some(recommended) if *recommended == file.file => '>',
            _ if file.answered => '*',
            _ => ' ',
        };

        let bits = file
            .bits_per_weight
            .map_or_else(String::new, |bits| format!("{bits:.2}"));
        let (stored, needed) = (figure(file.stored_bytes), figure(file.required_bytes));
        let line = format!(
            "{mark} {:<NAME$} {}{needed:>10}  ",
            name(file, labels_differ),
            columns(&bits, &stored)
        );
        let start = line.chars().count();
        let line = format!(
            "{line}{}",
            wrapped_to(layout.columns, &verdict(file), start, 6)
        );
        let _ = writeln!(out, "{}", line.trim_end());
    }

    let assumed = files
        .list
        .iter()
        .any(|file| file.basis == Some(Basis::Assumed));
    let rule = match &files.recommended {
        Some(name) => format!("> --file {name}: {}", files.rule),
        None if files.list.iter().any(|file| file.short_by_bytes.is_some()) => {
            "no file fits".to_owned()
        }
        None => String::new(),
    };

    let answered = "* the file of this answer, which llama.cpp loads by default".to_owned();
    let lengths = if assumed {
        "~ sized by file length: the tensor table was not read".to_owned()
    } else {
        String::new()
    };

    for note in [rule, answered, lengths]
        .iter()
        .filter(|note| !note.is_empty())
    {
        let _ = writeln!(out, "  {}", wrapped_to(layout.columns, note, 2, 4));
    }

    page.push_text(out);
}

fn figure(bytes: Option<u64>) -> String {
    bytes.map_or_else(String::new, size)
}

/// Returns the quantization if it is unique among the files, else the end of the path.
fn name(file: &FileAnswer, labels_differ: bool) -> String {
    let name = match (&file.quantization, file.kind) {
        (Some(label), FileKind::Model) if labels_differ => label.clone(),
        _ => file.file.clone(),
    };

    let tilde = if file.basis == Some(Basis::Assumed) {
        "~"
    } else {
        ""
    };

    let parts = if file.parts > 1 {
        format!(" ({} parts)", file.parts)
    } else {
        String::new()
    };

    let whole = format!("{tilde}{name}{parts}");
    let over = whole.chars().count().saturating_sub(NAME);

    if over == 0 {
        whole
    } else {
        format!("..{}", whole.chars().skip(over + 2).collect::<String>())
    }
}

fn verdict(file: &FileAnswer) -> String {
    let short = file.short_by_bytes.filter(|bytes| *bytes > 0);
    let word = match (file.verdict, file.kind) {
        (Some(Verdict::DoesNotFit), _) if short.is_some() => format!("short by {}", figure(short)),
        (Some(verdict), _) => verdict_words(verdict).to_owned(),
        (None, FileKind::Model) => String::new(),
        (None, FileKind::Projector) => "projector".to_owned(),
        (None, FileKind::Adapter) => "adapter".to_owned(),
        (None, FileKind::Other) => "not a model".to_owned(),
    };

    let host = file
        .strategy
        .as_ref()
        .and_then(WireWord::known)
        .is_some_and(Strategy::is_offload);
    let how = match (file.devices, host) {
        (_, true) => ", partly in host memory".to_owned(),
        (Some(devices), _) if devices > 1 => format!(", {devices} devices"),
        _ => String::new(),
    };

    let why = file.why_not.clone().unwrap_or_default();
    format!("{word}{how}{why}")
}

const _: () = assert!(NAME + 40 < WIDTH, "the columns leave room for a verdict");
