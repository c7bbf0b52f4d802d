//! The watch stream.

use std::time::Duration;

use super::double::{default_limits, start};

#[tokio::test]
async fn each_change_sends_a_line() {
    let daemon = start(default_limits());
    let mut lines = daemon.client().watch_gpus().await.unwrap();
    let reading = lines.next().await.unwrap().unwrap().unwrap();
    assert_eq!(reading.gpus.snapshot.driver_version, Some("0".to_owned()));

    for expected in 1..4_u64 {
        daemon.service.changes.send_replace(expected);
        let reading = lines.next().await.unwrap().unwrap().unwrap();
        assert_eq!(
            reading.gpus.snapshot.driver_version,
            Some(expected.to_string())
        );
    }

    let quiet = tokio::time::timeout(Duration::from_millis(50), lines.next()).await;
    assert!(quiet.is_err(), "without a change there is no line");
    daemon.stop().await;
}

#[tokio::test]
async fn stream_ends_when_daemon_stops() {
    let daemon = start(default_limits());
    let mut lines = daemon.client().watch_gpus().await.unwrap();
    lines.next().await.unwrap().unwrap().unwrap();

    // The timeout ends a failing test.
    let ended = tokio::time::timeout(Duration::from_secs(60), daemon.stop())
        .await
        .unwrap();
    assert_eq!(ended.drained, hf_mem_probe::server::Drained::Clean);

    assert!(
        lines.next().await.unwrap().is_none(),
        "the stream ends, and is not cut"
    );
}
