//! The real daemon with many clients, killed and started again. The full race is
//! `examples/lease_race.rs`.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod leases_daemon;

use std::path::Path;

use leases_daemon::race::{RaceConfig, race};

#[test]
fn killed_daemon_grants_no_memory_twice() {
    let directory = tempfile::tempdir().unwrap();
    let drivers = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();

    let config = RaceConfig {
        clients: 12,
        rounds: 15,
        seed: 7,
        max_answers_per_daemon: 120,
    };

    let outcome = race(
        Path::new(env!("CARGO_BIN_EXE_hf-mem-probe")),
        directory.path(),
        drivers.path(),
        config,
    );
    println!("{outcome:?}");

    assert_eq!(
        (outcome.over_commits, outcome.lost, outcome.leaked),
        (0, 0, 0)
    );
    assert!(outcome.granted > 20 && outcome.kills > 0, "{outcome:?}");
}
