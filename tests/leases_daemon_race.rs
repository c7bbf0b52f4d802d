//! The real daemon, killed and started again, among askers. The full race is
//! `examples/lease_race.rs`.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod leases_daemon;

use std::path::Path;

use leases_daemon::race::{Terms, race};

#[test]
fn a_daemon_that_is_killed_promises_nothing_twice() {
    let directory = tempfile::tempdir().unwrap();
    let drivers = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();

    let terms = Terms {
        clients: 12,
        rounds: 15,
        seed: 7,
        killed_within: 120,
    };

    let outcome = race(
        Path::new(env!("CARGO_BIN_EXE_hf-mem-probe")),
        directory.path(),
        drivers.path(),
        terms,
    );
    println!("{outcome:?}");

    assert_eq!(
        (outcome.over_commits, outcome.lost, outcome.leaked),
        (0, 0, 0)
    );
    assert!(outcome.granted > 20 && outcome.kills > 0, "{outcome:?}");
}
