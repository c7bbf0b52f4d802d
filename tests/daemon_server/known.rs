//! Questions whose answer is known take a short way: it must not be one around the guards.

use hf_mem_core::report::Answer;
use hf_mem_core::report::problem::Reason;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;

use super::double::{Raw, raw, request, rest, roomy, start};

const KNOWN: &str = r#"{"model": {"repo": "known/x"}}"#;

fn repo(answer: &Raw) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_str::<Answer>(&answer.body)
        .unwrap()
        .model
        .repo
}

#[tokio::test]
async fn known_questions_are_not_planned() {
    let daemon = start(roomy());
    let socket = daemon.socket();
    let answer = raw(
        &socket,
        &request("POST", "/v1/fits", "X-Request-Id: job-7\r\n", KNOWN),
    )
    .await;

    assert_eq!(repo(&answer), "known/x");
    assert!(
        answer
            .headers
            .contains("content-type: application/json\r\n"),
        "{answer:?}"
    );

    assert!(
        answer.headers.contains("x-request-id: job-7\r\n"),
        "{answer:?}"
    );
    assert!(
        answer.headers.contains("hf-mem-probe-version: "),
        "{answer:?}"
    );
    assert_eq!(*daemon.program.begun.borrow(), 0, "given again");

    let other = raw(
        &socket,
        &request("POST", "/v1/fits", "", r#"{"model": {"repo": "a/b"}}"#),
    )
    .await;
    assert_eq!(
        (repo(&other).as_str(), *daemon.program.begun.borrow()),
        ("a/b", 1),
        "its body went the long way whole"
    );

    let estimate = raw(&socket, &request("POST", "/v1/estimates", "", KNOWN)).await;
    assert_eq!(
        (repo(&estimate).as_str(), *daemon.program.begun.borrow()),
        ("known/x", 2),
        "another route"
    );

    let metrics = daemon.client().metrics().await.unwrap();
    for line in [
        "hf_mem_probe_questions_total{verdict=\"fits\",reason=\"fits\"} 3",
        "hf_mem_probe_latency_seconds_count{stage=\"request\"} 3",
    ] {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }

    daemon.stop().await;
}

#[tokio::test]
async fn bodies_in_pieces_are_known() {
    let daemon = start(roomy());
    let whole = request("POST", "/v1/fits", "", KNOWN);
    for end in [whole.len() - KNOWN.len(), whole.len() - 3] {
        let mut stream = UnixStream::connect(daemon.socket()).await.unwrap();
        stream.write_all(&whole[..end]).await.unwrap();
        tokio::task::yield_now().await;
        stream.write_all(&whole[end..]).await.unwrap();
        let text = rest(&mut stream).await;
        assert!(
            text.starts_with("HTTP/1.1 200 OK") && text.contains("known/x"),
            "{text}"
        );
    }
    // Chunks have no length: such a body is looked up on the long way.
    let head = "POST /v1/fits HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";

    let chunked = format!("{head}{:x}\r\n{KNOWN}\r\n0\r\n\r\n", KNOWN.len());
    assert_eq!(
        repo(&raw(&daemon.socket(), chunked.as_bytes()).await),
        "known/x"
    );
    assert_eq!(*daemon.program.begun.borrow(), 0);
    daemon.stop().await;
}

#[tokio::test]
async fn guards_hold_for_known_questions() {
    let daemon = start(roomy());
    for (headers, reason) in [
        ("Origin: https://evil.example\r\n", Reason::Forbidden),
        ("Host: evil.example\r\n", Reason::Forbidden),
        ("Authorization: Basic aGY6eA==\r\n", Reason::Usage),
    ] {
        let problem = raw(
            &daemon.socket(),
            &request("POST", "/v1/fits", headers, KNOWN),
        )
        .await
        .problem();
        assert_eq!(problem.reason, reason, "{headers}: {problem:?}");
    }

    daemon.stop().await;
}

#[tokio::test]
async fn panic_on_short_way_ends_one_request() {
    let daemon = start(roomy());
    let broken = request(
        "POST",
        "/v1/fits",
        "",
        r#"{"model": {"repo": "known/panic"}}"#,
    );

    assert_eq!(
        raw(&daemon.socket(), &broken).await.problem().reason,
        Reason::Internal
    );
    assert_eq!(
        repo(&raw(&daemon.socket(), &request("POST", "/v1/fits", "", KNOWN)).await),
        "known/x"
    );
    daemon.stop().await;
}
