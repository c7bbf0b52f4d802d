//! What one caller may cost: every bound, shortened until a test can meet it.

use std::time::Duration;

use hf_mem_core::report::problem::Reason;
use hf_mem_probe::admission::limits::{Limits, MAX_HEAD_BYTES};
use hf_mem_probe::api::client::Client;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::double::{question, raw, request, rest, roomy, start};

/// Long enough for a busy machine to serve a request, short enough to wait for.
const SHORT: Duration = Duration::from_millis(200);

#[tokio::test]
async fn a_caller_that_sends_its_headers_too_slowly_is_closed() {
    let daemon = start(Limits {
        header_deadline: SHORT,
        ..roomy()
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
async fn an_idle_kept_alive_connection_is_closed() {
    let daemon = start(Limits {
        header_deadline: SHORT,
        ..roomy()
    });
    let mut idle = UnixStream::connect(daemon.socket()).await.unwrap();
    idle.write_all(b"GET /v1/health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await
        .unwrap();
    assert!(rest(&mut idle).await.starts_with("HTTP/1.1 200"));
    daemon.stop().await;
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_told_so() {
    let daemon = start(Limits {
        handler_deadline: SHORT,
        ..roomy()
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
async fn a_body_above_the_cap_is_refused_said_or_unsaid() {
    let daemon = start(Limits {
        body_bytes: 1024,
        ..roomy()
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

/// Asks with a body of 128 KiB that is only announced: the answer's first bytes, which is "100"
/// where the body may come.
async fn announced(socket: &std::path::Path) -> (UnixStream, String) {
    let mut caller = UnixStream::connect(socket).await.unwrap();
    let head = "POST /v1/fits HTTP/1.1\r\nhost: localhost\r\ncontent-length: 131072\r\nexpect: 100-continue\r\n\r\n";
    caller.write_all(head.as_bytes()).await.unwrap();
    let mut first = [0; 12];
    caller.read_exact(&mut first).await.unwrap();
    (caller, String::from_utf8_lossy(&first).into_owned())
}

#[tokio::test]
async fn large_bodies_have_so_much_room_in_all_and_give_it_back() {
    let daemon = start(Limits {
        body_bytes: 128 << 10,
        ..roomy()
    });
    let mut held = Vec::new();

    // Room for 32, and for one more of the daemon's own user, who asks here.
    for _ in 0..33 {
        let (caller, first) = announced(&daemon.socket()).await;
        assert_eq!(first, "HTTP/1.1 100");
        held.push(caller);
    }

    let (mut refused, first) = announced(&daemon.socket()).await;
    assert_eq!(first, "HTTP/1.1 503");

    assert!(
        rest(&mut refused)
            .await
            .contains("take up all the memory that is kept for them")
    );

    let small = request("POST", "/v1/fits", "", r#"{"model": {"repo": "a/b"}}"#);
    assert_eq!(
        raw(&daemon.socket(), &small).await.status,
        200,
        "small ones need none"
    );

    held.pop();

    // The room comes back as soon as the daemon has seen the end of the caller.
    while announced(&daemon.socket()).await.1 != "HTTP/1.1 100" {}
    drop(held);
    daemon.stop().await;
}

#[tokio::test]
async fn a_head_above_the_cap_is_refused() {
    let daemon = start(roomy());
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
async fn an_answer_that_takes_too_long_is_a_problem() {
    let daemon = start(Limits {
        handler_deadline: SHORT,
        ..roomy()
    });
    let slow = request("POST", "/v1/fits", "", r#"{"model": {"repo": "slow/x"}}"#);
    let problem = raw(&daemon.socket(), &slow).await.problem();
    assert_eq!((problem.reason, problem.status), (Reason::Timeout, 504));
    daemon.stop().await;
}

#[tokio::test]
async fn an_answer_that_nobody_reads_ends_its_connection() {
    let daemon = start(Limits {
        write_deadline: SHORT,
        connections: 1,
        ..roomy()
    });
    let mut deaf = UnixStream::connect(daemon.socket()).await.unwrap();
    let large = format!(r#"{{"model": {{"repo": "large/{}"}}}}"#, 8 << 20);
    deaf.write_all(&request("POST", "/v1/fits", "", &large))
        .await
        .unwrap();

    // There is one seat: the next caller is served once the deaf one has lost it.
    daemon.client().health().await.unwrap();
    drop(deaf);
    daemon.stop().await;
}

#[tokio::test]
async fn at_the_cap_the_next_caller_waits_and_is_served_when_one_leaves() {
    let daemon = start(Limits {
        connections: 2,
        ..roomy()
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
async fn a_caller_that_leaves_gives_its_seat_back_at_once() {
    let daemon = start(Limits {
        connections: 1,
        ..roomy()
    });
    let client = daemon.client();
    let leaving = tokio::spawn(async move { client.fits(&question("slow/x")).await });
    daemon.begun(1).await;
    leaving.abort();
    daemon.client().health().await.unwrap();
    daemon.stop().await;
}

#[tokio::test]
async fn watchers_leave_room_for_questions() {
    let daemon = start(Limits {
        connections: 4,
        ..roomy()
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
async fn a_client_does_not_wait_for_ever_either() {
    let daemon = start(roomy());
    let client = Client::new(daemon.socket()).deadline(SHORT);
    let error = client.fits(&question("slow/x")).await.unwrap_err();
    assert!(!error.daemon_is_absent());

    assert!(
        error.to_string().contains("did not answer within 200ms"),
        "{error}"
    );
    daemon.stop().await;
}
