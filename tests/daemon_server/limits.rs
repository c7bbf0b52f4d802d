//! The limits on one caller, each lowered so that a test can reach it.

use std::time::Duration;

use hf_mem_core::report::problem::Reason;
use hf_mem_probe::admission::server_limits::{MAX_HEAD_BYTES, ServerLimits};
use hf_mem_probe::api::client::Client;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::double::{default_limits, question, raw, request, rest, start};

/// Long enough for a busy machine to serve a request, short enough to wait for.
const SHORT: Duration = Duration::from_millis(200);

#[tokio::test]
async fn slow_headers_close_the_connection() {
    let daemon = start(ServerLimits {
        header_deadline: SHORT,
        ..default_limits()
    });
    let mut slow = UnixStream::connect(daemon.socket()).await.unwrap();
    slow.write_all(b"GET /v1/hea").await.unwrap();
    let mut silent = UnixStream::connect(daemon.socket()).await.unwrap();
    rest(&mut slow).await;
    rest(&mut silent).await;
    daemon.client().health().await.unwrap();
    daemon.stop().await;
}

#[tokio::test]
async fn idle_connection_is_closed() {
    let daemon = start(ServerLimits {
        header_deadline: SHORT,
        ..default_limits()
    });
    let mut idle = UnixStream::connect(daemon.socket()).await.unwrap();
    idle.write_all(b"GET /v1/health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await
        .unwrap();
    assert!(rest(&mut idle).await.starts_with("HTTP/1.1 200"));
    daemon.stop().await;
}

#[tokio::test]
async fn missing_body_times_out() {
    let daemon = start(ServerLimits {
        handler_deadline: SHORT,
        ..default_limits()
    });
    let head = "POST /v1/fits HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 100\r\n\r\n{";
    let problem = raw(&daemon.socket(), head.as_bytes()).await.problem();
    assert_eq!(problem.reason, Reason::Timeout);

    assert!(
        problem.detail.contains("body did not arrive within 200ms"),
        "{problem:?}"
    );
    daemon.stop().await;
}

#[tokio::test]
async fn body_above_the_cap_is_rejected() {
    let daemon = start(ServerLimits {
        body_bytes: 1024,
        ..default_limits()
    });
    let large = request("POST", "/v1/fits", "", &" ".repeat(1025));
    let problem = raw(&daemon.socket(), &large).await.problem();
    assert_eq!((problem.reason, problem.status), (Reason::TooLarge, 413));
    let chunk = format!("400\r\n{}\r\n", "x".repeat(0x400));
    let chunked = format!(
        "POST /v1/fits HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n{chunk}{chunk}0\r\n\r\n"
    );
    assert_eq!(
        raw(&daemon.socket(), chunked.as_bytes())
            .await
            .problem()
            .reason,
        Reason::TooLarge
    );

    let fitting = request(
        "POST",
        "/v1/fits",
        "",
        &format!("{:1024}", r#"{"model": {"repo": "a/b"}}"#),
    );
    assert_eq!(raw(&daemon.socket(), &fitting).await.status, 200);
    daemon.stop().await;
}

/// Announces a body of 128 KiB without sending it. Returns the response's first bytes; status 100
/// means that the daemon accepts the body.
async fn announce_large_body(socket: &std::path::Path) -> (UnixStream, String) {
    let mut caller = UnixStream::connect(socket).await.unwrap();
    let head = "POST /v1/fits HTTP/1.1\r\nhost: localhost\r\ncontent-length: 131072\r\nexpect: 100-continue\r\n\r\n";
    caller.write_all(head.as_bytes()).await.unwrap();
    let mut first = [0; 12];
    caller.read_exact(&mut first).await.unwrap();
    (caller, String::from_utf8_lossy(&first).into_owned())
}

#[tokio::test]
async fn memory_of_large_bodies_is_limited() {
    let daemon = start(ServerLimits {
        body_bytes: 128 << 10,
        ..default_limits()
    });
    let mut held = Vec::new();

    // Memory for 32 bodies, and for one more of the daemon's own user, who asks here.
    for _ in 0..33 {
        let (caller, first) = announce_large_body(&daemon.socket()).await;
        assert_eq!(first, "HTTP/1.1 100");
        held.push(caller);
    }

    let (mut rejected, first) = announce_large_body(&daemon.socket()).await;
    assert_eq!(first, "HTTP/1.1 503");

    assert!(
        rest(&mut rejected)
            .await
            .contains("take up all the memory that is reserved for them")
    );

    let small = request("POST", "/v1/fits", "", r#"{"model": {"repo": "a/b"}}"#);
    assert_eq!(
        raw(&daemon.socket(), &small).await.status,
        200,
        "small bodies need no reservation"
    );

    held.pop();

    // The memory is released as soon as the daemon has seen the caller's end.
    while announce_large_body(&daemon.socket()).await.1 != "HTTP/1.1 100" {}
    drop(held);
    daemon.stop().await;
}

#[tokio::test]
async fn head_above_the_cap_is_rejected() {
    let daemon = start(default_limits());
    let padding = format!("x-padding: {}\r\n", "x".repeat(2 * MAX_HEAD_BYTES));

    assert_eq!(
        raw(
            &daemon.socket(),
            &request("GET", "/v1/health", &padding, "")
        )
        .await
        .status,
        431
    );

    let many = "x-one-more: 1\r\n".repeat(100);
    assert_eq!(
        raw(&daemon.socket(), &request("GET", "/v1/health", &many, ""))
            .await
            .status,
        431
    );

    daemon.stop().await;
}

#[tokio::test]
async fn slow_answer_times_out() {
    let daemon = start(ServerLimits {
        handler_deadline: SHORT,
        ..default_limits()
    });
    let slow = request("POST", "/v1/fits", "", r#"{"model": {"repo": "slow/x"}}"#);
    let problem = raw(&daemon.socket(), &slow).await.problem();
    assert_eq!((problem.reason, problem.status), (Reason::Timeout, 504));
    daemon.stop().await;
}

#[tokio::test]
async fn unread_answer_closes_the_connection() {
    let daemon = start(ServerLimits {
        write_deadline: SHORT,
        connections: 1,
        ..default_limits()
    });
    let mut stalled = UnixStream::connect(daemon.socket()).await.unwrap();
    let large = format!(r#"{{"model": {{"repo": "large/{}"}}}}"#, 8 << 20);
    stalled
        .write_all(&request("POST", "/v1/fits", "", &large))
        .await
        .unwrap();

    // There is one slot: the next caller is served once the stalled one has lost it.
    daemon.client().health().await.unwrap();
    drop(stalled);
    daemon.stop().await;
}

#[tokio::test]
async fn callers_wait_at_the_cap() {
    let daemon = start(ServerLimits {
        connections: 2,
        ..default_limits()
    });
    let mut held = Vec::new();

    for _ in 0..2 {
        let mut stream = UnixStream::connect(daemon.socket()).await.unwrap();
        stream
            .write_all(b"GET /v1/health HTTP/1.1\r\nhost: localhost\r\n\r\n")
            .await
            .unwrap();
        let mut first = [0];
        stream.read_exact(&mut first).await.unwrap();
        held.push(stream);
    }

    let third = daemon.client();
    let mut waiting = tokio::spawn(async move { third.health().await });
    assert!(
        tokio::time::timeout(SHORT, &mut waiting).await.is_err(),
        "it waits"
    );
    held.pop();
    waiting.await.unwrap().unwrap();
    daemon.stop().await;
}

#[tokio::test]
async fn disconnect_frees_the_slot() {
    let daemon = start(ServerLimits {
        connections: 1,
        ..default_limits()
    });
    let client = daemon.client();
    let leaving = tokio::spawn(async move { client.fits(&question("slow/x")).await });
    daemon.begun(1).await;
    leaving.abort();
    daemon.client().health().await.unwrap();
    daemon.stop().await;
}

#[tokio::test]
async fn watch_streams_leave_free_slots() {
    let daemon = start(ServerLimits {
        connections: 4,
        ..default_limits()
    });
    let client = daemon.client();
    let mut streams = Vec::new();

    for _ in 0..2 {
        let mut lines = client.watch_gpus().await.unwrap();
        lines.next().await.unwrap().unwrap().unwrap();
        streams.push(lines);
    }

    let problem: hf_mem_core::report::Problem = client.watch_gpus().await.unwrap_err().into();
    assert_eq!(problem.reason, Reason::Busy);
    client.health().await.unwrap();
    drop(streams);
    daemon.stop().await;
}

#[tokio::test]
async fn client_has_a_deadline() {
    let daemon = start(default_limits());
    let client = Client::new(daemon.socket()).deadline(SHORT);
    let error = client.fits(&question("slow/x")).await.unwrap_err();
    assert!(!error.daemon_is_absent());

    assert!(
        error.to_string().contains("did not answer within 200ms"),
        "{error}"
    );
    daemon.stop().await;
}
