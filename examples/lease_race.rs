//! The full race: 64 clients, 1000 rounds each, three seeds, against the real daemon on its socket
//! and the simulated driver, with `kill -9` in between.
//!
//! `cargo build --release && cargo run --release --example lease_race -- [CLIENTS [ROUNDS
//! [SEEDS]]]`. The exit code is 1 if any memory was granted twice, lost or leaked. All files are in
//! `TMPDIR`. On a disk with slow syncs, the race takes as long as its syncs.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "an example"
)]

#[path = "../tests/leases_daemon/mod.rs"]
mod leases_daemon;

use std::process::ExitCode;
use std::time::Instant;

use leases_daemon::race::{Terms, race};

fn main() -> ExitCode {
    let mut arguments = std::env::args()
        .skip(1)
        .map(|argument| argument.parse::<u64>().unwrap());
    let (clients, rounds) = (
        arguments.next().unwrap_or(64),
        arguments.next().unwrap_or(1000),
    );

    // The program is next to the folder of examples.
    let program = std::env::current_exe()
        .unwrap()
        .ancestors()
        .nth(2)
        .unwrap()
        .join("hf-mem-probe");
    assert!(
        program.exists(),
        "build the program first: {}",
        program.display()
    );

    let mut clean = true;
    for seed in 1..=arguments.next().unwrap_or(3) {
        let directory = tempfile::tempdir().unwrap();
        let began = Instant::now();

        let terms = Terms {
            clients,
            rounds,
            seed,
            killed_within: clients * 4,
        };

        let outcome = race(&program, directory.path(), directory.path(), terms);
        println!(
            "seed {seed}: {clients} x {rounds} in {:.0} s: over-commit {}, lost {}, leaked {}\n  {outcome:?}",
            began.elapsed().as_secs_f64(),
            outcome.over_commits,
            outcome.lost,
            outcome.leaked
        );

        clean &= (outcome.over_commits, outcome.lost, outcome.leaked) == (0, 0, 0);
    }

    if clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
