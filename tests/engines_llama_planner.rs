//! llama.cpp's figures against b12032's own dry run of made models (`no_alloc`, as `--fit` uses).
//!
//! Prints a table, and each figure that is wrong. Models are split in halves by a hash of their
//! name; bounds were raised after rows of both halves had been seen, so neither is a blind test.
//!
//! `HF_MEM_LLAMA_CPP_ROWS` names other rows of `referees/llama_cpp`; the packed headers of their
//! models (`MODEL.header.gguf.gz`) lie in the folder of that file.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "test helpers")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hf_mem_core::engines::Interval;
use hf_mem_core::model::Model;
use serde_json::Value;
use sha2::{Digest, Sha256};
use support::dry_run::figures;
use support::gguf_corpus::{corpus, model, packed_header, whole};

mod support {
    pub mod dry_run;
    pub mod gguf_corpus;
    pub mod gguf_writer;
}

/// Figures of one kind and half, compared.
#[derive(Default)]
struct Tally {
    equal: u32,
    inside: u32,
    /// The dry run needs more than the upper end.
    above: u32,
    /// The dry run needs less than the lower end.
    below: u32,
    /// Widths of the intervals in percent of the likely figure.
    widths: Vec<u64>,
}

impl Tally {
    fn add(&mut self, measured: u64, ours: Interval) {
        let (low, likely) = (ours.low.get(), ours.likely.get());
        match measured {
            _ if measured == likely => self.equal += 1,
            _ if measured > ours.high.get() => self.above += 1,
            _ if measured < low => self.below += 1,
            _ => self.inside += 1,
        }

        self.widths
            .push((ours.high.get() - low) * 100 / likely.max(1));
    }

    fn rows(&self) -> u32 {
        self.equal + self.inside + self.above + self.below
    }

    /// Percent of the rows.
    fn percent(&self, count: u32) -> u32 {
        count * 100 / self.rows().max(1)
    }

    fn median_width(&self) -> u64 {
        let mut widths = self.widths.clone();
        widths.sort_unstable();
        widths.get(widths.len() / 2).copied().unwrap_or(0)
    }
}

type Tallies = BTreeMap<(&'static str, &'static str), Tally>;

fn half(name: &str) -> &'static str {
    if Sha256::digest(name)[0].is_multiple_of(2) {
        "fit"
    } else {
        "test"
    }
}

/// The folder of the packed headers, and the rows.
fn rows() -> Option<(PathBuf, Vec<Value>)> {
    let (headers, path) = if let Some(path) = std::env::var_os("HF_MEM_LLAMA_CPP_ROWS") {
        let path = PathBuf::from(path);
        (path.parent().unwrap().to_path_buf(), path)
    } else {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let path = root.join("../shared/measured/llamacpp_build12032.jsonl");
        (corpus()?.join("made"), path)
    };
    let Ok(text) = std::fs::read_to_string(&path) else {
        println!("skipped: {} does not exist", path.display());
        return None;
    };

    let rows = text.lines().map(|line| serde_json::from_str(line).unwrap());
    Some((headers, rows.collect()))
}

/// Adds the figures of one row.
fn compare(row: &Value, model: &Model, tallies: &mut Tallies) {
    let half = half(row["model"].as_str().unwrap());
    for figure in figures(row, model) {
        if figure.is_wrong() {
            println!("{} {}: {figure:?}", row["model"], row["settings"]);
        }

        let tally = tallies.entry((figure.name, half)).or_default();
        tally.add(figure.measured, figure.ours);
    }
}

#[test]
fn dry_run_is_inside_intervals() {
    let Some((headers, rows)) = rows() else {
        return;
    };
    let mut models: BTreeMap<String, Model> = BTreeMap::new();
    let mut tallies = Tallies::default();
    for row in rows.iter().filter(|row| row["error"].is_null()) {
        let name = row["model"].as_str().unwrap();
        let read = || {
            let bytes = packed_header(&headers, name);
            model(whole(&bytes, row["file_bytes"].as_u64().unwrap()))
        };
        let model = models.entry(name.to_owned()).or_insert_with(read);
        compare(row, model, &mut tallies);
    }

    println!("component     half  rows equal inside above below  width");
    for ((name, half), tally) in &tallies {
        let Tally {
            equal,
            inside,
            above,
            below,
            ..
        } = tally;
        println!(
            "{name:13} {half:4} {:5} {equal:5} {inside:6} {above:5} {below:5} {:5}%",
            tally.rows(),
            tally.median_width()
        );
    }

    for ((name, half), tally) in &tallies {
        let covered = tally.percent(tally.rows() - tally.above);
        match *name {
            "compute" | "host compute" => assert!(covered >= 97, "{name} {half}: {covered} %"),
            _ => assert!(tally.percent(tally.equal) >= 97, "{name} {half}"),
        }

        if *name == "compute" {
            assert!(
                tally.median_width() <= 34,
                "{half}: {}",
                tally.median_width()
            );
        }
    }
}
