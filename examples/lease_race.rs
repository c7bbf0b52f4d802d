//! The full race: 64 askers, 1000 rounds each, three seeds, the ledger's owner restarted from its store in between.
//!
//! `cargo run --release --example lease_race -- [CLIENTS [ROUNDS [SEEDS]]]`; exit code 1 if anything was promised twice,
//! lost or leaked. The store is in `TMPDIR`: on a disk that syncs slowly the race takes as long as its syncs.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "an example")]

#[path = "../tests/leases_race/mod.rs"]
mod leases_race;

use std::process::ExitCode;
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u64>().unwrap());
    let (clients, rounds) = (arguments.next().unwrap_or(64), arguments.next().unwrap_or(1000));
    let mut clean = true;
    for seed in 1..=arguments.next().unwrap_or(3) {
        let directory = tempfile::tempdir().unwrap();
        let began = Instant::now();
        let outcome = leases_race::race(directory.path(), clients, rounds, seed, Duration::from_secs(2));
        println!(
            "seed {seed}: {clients} x {rounds} in {:.1} s: over-commit {}, lost {}, leaked {} ({outcome:?})",
            began.elapsed().as_secs_f64(),
            outcome.over_commits,
            outcome.lost,
            outcome.leaked
        );
        clean &= (outcome.over_commits, outcome.lost, outcome.leaked) == (0, 0, 0);
    }
    if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
