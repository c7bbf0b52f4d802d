//! The full lease race: 64 clients, 1000 rounds each, three seeds, against the real daemon on its
//! socket and the simulated driver. The daemon is killed with `kill -9` again and again.
//!
//! Run it with `cargo build --release && cargo run --release --example lease_race -- [CLIENTS
//! [ROUNDS [SEEDS]]]`. The exit code is 1 if memory was granted twice, or a lease was lost or
//! leaked. All files are in `TMPDIR`; on a disk that syncs slowly, the syncs dominate the time.

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

use leases_daemon::race::{RaceConfig, race};

fn main() -> ExitCode {
    let mut arguments = std::env::args()
        .skip(1)
        .map(|argument| argument.parse::<u64>().unwrap());
    let (clients, rounds) = (
        arguments.next().unwrap_or(64),
        arguments.next().unwrap_or(1000),
    );

    // The program is in the parent of the examples' folder.
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

    let mut is_clean = true;
    for seed in 1..=arguments.next().unwrap_or(3) {
        let directory = tempfile::tempdir().unwrap();
        let began = Instant::now();

        let config = RaceConfig {
            clients,
            rounds,
            seed,
            max_answers_per_daemon: clients * 4,
        };

        let outcome = race(&program, directory.path(), directory.path(), config);
        println!(
            "seed {seed}: {clients} x {rounds} in {:.0} s: over-commit {}, lost {}, leaked {}\n  {outcome:?}",
            began.elapsed().as_secs_f64(),
            outcome.over_commits,
            outcome.lost,
            outcome.leaked
        );

        is_clean &= (outcome.over_commits, outcome.lost, outcome.leaked) == (0, 0, 0);
    }

    if is_clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
