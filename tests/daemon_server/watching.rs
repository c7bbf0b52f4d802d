//! The stream of readings.

use std::time::Duration;

use super::double::{roomy, start};

#[tokio::test]
async fn a_line_at_once_and_one_for_each_change() {
    let daemon = start(roomy());
    let mut lines = daemon.client().watch_gpus().await.unwrap();
    let reading = lines.next().await.unwrap().unwrap().unwrap();
    assert_eq!(reading.gpus.snapshot.driver_version, Some("0".to_owned()));

    for expected in 1..4_u64 {
        daemon.program.changes.send_replace(expected);
        let reading = lines.next().await.unwrap().unwrap().unwrap();
        assert_eq!(
            reading.gpus.snapshot.driver_version,
            Some(expected.to_string())
        );
    }

    let quiet = tokio::time::timeout(Duration::from_millis(50), lines.next()).await;
    assert!(quiet.is_err(), "no change, no line");
    daemon.stop().await;
}

#[tokio::test]
async fn it_ends_when_the_daemon_stops_and_does_not_hold_the_drain_up() {
    let daemon = start(roomy());
    let mut lines = daemon.client().watch_gpus().await.unwrap();
    lines.next().await.unwrap().unwrap().unwrap();

    // Only ends a test that fails.
    let ended = tokio::time::timeout(Duration::from_secs(60), daemon.stop())
        .await
        .unwrap();
    assert_eq!(ended.drained, hf_mem_probe::server::Drained::Clean);

    assert!(
        lines.next().await.unwrap().is_none(),
        "a proper end, not a cut"
    );
}
