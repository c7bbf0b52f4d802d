//! Many clients of the lease broker at once, with its real store and with restarts. The full race
//! is `examples/lease_race.rs`.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod leases_race;

#[test]
fn concurrent_clients_get_no_memory_twice() {
    let directory = tempfile::tempdir().unwrap();
    let outcome = leases_race::race(directory.path(), 64, 12, 1, 200);
    println!("{outcome:?}");

    assert_eq!(
        (outcome.over_commits, outcome.lost, outcome.leaked),
        (0, 0, 0)
    );
    assert!(
        outcome.granted > 100 && outcome.refused > 0 && outcome.crashed > 0 && outcome.restarts > 0
    );
}
