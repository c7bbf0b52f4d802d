//! Questions with a cached answer take a shortcut, which must apply all guards.

use hf_mem_core::report::Answer;
use hf_mem_core::report::problem::Reason;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;

use super::double::{Raw, default_limits, raw, request, rest, start};

const KNOWN: &str = r#"{"model": {"repo": "known/x"}}"#;

fn repo(answer: &Raw) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_str::<Answer>(&answer.body)
        .unwrap()
        .model
        .repo
}

#[tokio::test]
async fn cached_questions_are_not_planned() {
    let daemon = start(default_limits());
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
    assert_eq!(*daemon.service.begun.borrow(), 0, "the cached answer");

    let other = raw(
        &socket,
        &request("POST", "/v1/fits", "", r#"{"model": {"repo": "a/b"}}"#),
    )
    .await;
    assert_eq!(
        (repo(&other).as_str(), *daemon.service.begun.borrow()),
        ("a/b", 1),
        "its route got the whole body"
    );

    let estimate = raw(&socket, &request("POST", "/v1/estimates", "", KNOWN)).await;
    assert_eq!(
        (repo(&estimate).as_str(), *daemon.service.begun.borrow()),
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
async fn fragmented_bodies_hit_the_cache() {
    let daemon = start(default_limits());
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
    // A chunked body has no length, so its route looks in the cache.
    let head = "POST /v1/fits HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";

    let chunked = format!("{head}{:x}\r\n{KNOWN}\r\n0\r\n\r\n", KNOWN.len());
    assert_eq!(
        repo(&raw(&daemon.socket(), chunked.as_bytes()).await),
        "known/x"
    );
    assert_eq!(*daemon.service.begun.borrow(), 0);
    daemon.stop().await;
}

#[tokio::test]
async fn guards_apply_to_cached_questions() {
    let daemon = start(default_limits());
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
async fn panic_in_shortcut_ends_one_request() {
    let daemon = start(default_limits());
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
