//! Rejected requests, and the texts of their problems.

use hf_mem_core::report::problem::Reason;

use super::double::{default_limits, raw, request, start};

const GOOD: &str = r#"{"model": {"repo": "a/b"}}"#;

/// Returns a question with an array of far too many items. `start` is the array's beginning up to
/// its first item.
fn oversized(key: &str, table: &str, start: &str) -> String {
    let array = format!("{start}{}]", start.replace('[', ",").repeat(5000));
    let inside = format!("\"{table}\": {{\"{key}\": {array}}}");
    let inside = if table == "parameters" {
        format!("\"engine\": {{{inside}}}")
    } else {
        inside
    };

    format!("{{\"model\": {{\"repo\": \"a/b\"}}, {inside}}}")
}

fn post(path: &str, body: &str) -> Vec<u8> {
    request("POST", path, "", body)
}

fn post_with_headers(headers: &str) -> Vec<u8> {
    request("POST", "/v1/fits", headers, GOOD)
}

/// Bad requests: a name, the bytes, the reason, and what the detail must contain.
fn cases() -> Vec<(&'static str, Vec<u8>, Reason, &'static str)> {
    vec![
        ("no body", post("/v1/fits", ""), Reason::Usage, "no body"),
        (
            "not JSON",
            post("/v1/fits", "model=a/b"),
            Reason::Usage,
            "not JSON",
        ),
        (
            "JSON, cut",
            post("/v1/fits", r#"{"model": {"repo""#),
            Reason::Usage,
            "not JSON",
        ),
        (
            "control bytes",
            request("POST", "/v1/fits", "", "\u{0}\u{7f}"),
            Reason::Usage,
            "not JSON",
        ),
        (
            "an array",
            post("/v1/fits", "[]"),
            Reason::Usage,
            "not a question",
        ),
        (
            "no model",
            post("/v1/fits", "{}"),
            Reason::Usage,
            "missing field `model`",
        ),
        (
            "unknown field",
            post("/v1/fits", r#"{"model": {"repo": "a/b"}, "foo": 1}"#),
            Reason::Usage,
            "`foo`",
        ),
        (
            "nested",
            post(
                "/v1/estimates",
                r#"{"model": {"repo": "a/b", "path": "/x"}}"#,
            ),
            Reason::Usage,
            "`path`",
        ),
        (
            "negative",
            post(
                "/v1/fits",
                r#"{"model": {"repo": "a"}, "workload": {"sequences": -1}}"#,
            ),
            Reason::Usage,
            "-1",
        ),
        (
            "both forms",
            post("/v1/fits", r#"{"questions": [], "model": {"repo": "a/b"}}"#),
            Reason::Usage,
            "`model`",
        ),
        (
            "no questions",
            post("/v1/fits", r#"{"questions": []}"#),
            Reason::Usage,
            "`questions` is empty",
        ),
        (
            "lease: field",
            post(
                "/v1/leases",
                r#"{"question": {"model": {"repo": "a"}}, "ttl": 1}"#,
            ),
            Reason::Usage,
            "`ttl`",
        ),
        (
            "lease: holder",
            post(
                "/v1/leases",
                r#"{"question": {"model": {"repo": "a"}}, "holder": {"uid": 1}}"#,
            ),
            Reason::Usage,
            "`uid`",
        ),
        (
            "lease: wait",
            post(
                "/v1/leases",
                r#"{"question": {"model": {"repo": "a"}}, "wait_seconds": 99999}"#,
            ),
            Reason::Usage,
            "99999",
        ),
        (
            "lease: control characters in a name",
            post(
                "/v1/leases",
                r#"{"question": {"model": {"repo": "a/b"}}, "holder": {"name": "job\u001b[2J"}}"#,
            ),
            Reason::Usage,
            "`holder.name` holds the control character \\u{1b}",
        ),
        (
            "lease: a key of two lines",
            post(
                "/v1/leases",
                r#"{"question": {"model": {"repo": "a/b"}}, "idempotency_key": "a\nb"}"#,
            ),
            Reason::Usage,
            "`idempotency_key` holds the control character \\u{a}",
        ),
        (
            "control characters in a model's name",
            post(
                "/v1/fits",
                r#"{"model": {"repo": "a\u009b2J", "metadata": {}}}"#,
            ),
            Reason::Usage,
            "`model.repo` holds the control character \\u{9b}",
        ),
        (
            "many parts",
            post(
                "/v1/estimates",
                &oversized("devices", "constraints", "[\"\""),
            ),
            Reason::Usage,
            "the maximum is 4096",
        ),
        (
            "many values",
            post("/v1/fits", &oversized("x", "parameters", "[1")),
            Reason::Usage,
            "the maximum is 4096",
        ),
        (
            "lease: id",
            request("GET", "/v1/leases/..%2f..%2fetc", "", ""),
            Reason::NotFound,
            "no lease with this id",
        ),
        (
            "release: seconds",
            post("/v1/nvml/release", r#"{"seconds": 0}"#),
            Reason::Usage,
            "`seconds` is 0",
        ),
        (
            "no route",
            request("GET", "/v2/fits", "", ""),
            Reason::NotFoundRoute,
            "/v2/fits",
        ),
        (
            "an unknown query key",
            request("GET", "/v1/gpus?frehs=true", "", ""),
            Reason::Usage,
            "frehs",
        ),
        (
            "a query value that is not a boolean",
            request("GET", "/v1/gpus?fresh=maybe", "", ""),
            Reason::Usage,
            "fresh",
        ),
        (
            "a trailing slash",
            request("GET", "/v1/gpus/", "", ""),
            Reason::NotFoundRoute,
            "/v1/gpus/",
        ),
        (
            "wrong method",
            request("GET", "/v1/fits", "", ""),
            Reason::MethodNotAllowed,
            "does not take GET",
        ),
        (
            "a browser",
            post_with_headers("Origin: https://evil.example\r\n"),
            Reason::Forbidden,
            "`origin`",
        ),
        (
            "a link",
            post_with_headers("Referer: http://localhost/\r\n"),
            Reason::Forbidden,
            "`referer`",
        ),
        (
            "two hosts",
            post_with_headers("Host: evil.example\r\n"),
            Reason::Forbidden,
            "evil.example",
        ),
        (
            "basic auth",
            post_with_headers("Authorization: Basic aGY6eA==\r\n"),
            Reason::Usage,
            "authorization",
        ),
        (
            "a problem of the service",
            post("/v1/fits", r#"{"model": {"repo": "gone/x"}}"#),
            Reason::RateLimited,
            "Hub",
        ),
        (
            "a panic",
            post("/v1/fits", r#"{"model": {"repo": "panic/x"}}"#),
            Reason::Internal,
            "panic",
        ),
    ]
}

#[tokio::test]
async fn bad_requests_are_named_problems() {
    let daemon = start(default_limits());
    for (name, bytes, reason, named) in cases() {
        let problem = raw(&daemon.socket(), &bytes).await.problem();
        assert_eq!(problem.reason, reason, "{name}: {problem:?}");
        assert!(problem.detail.contains(named), "{name}: {problem:?}");
        assert!(!problem.detail.contains("aGY6eA"), "{name}: {problem:?}");
    }

    assert_eq!(
        raw(&daemon.socket(), &request("POST", "/v1/fits", "", GOOD))
            .await
            .status,
        200,
        "the daemon still answers"
    );

    daemon.stop().await;
}

#[tokio::test]
async fn problem_headers_match_status() {
    let daemon = start(default_limits());
    let wrong = raw(&daemon.socket(), &request("PUT", "/v1/leases", "", "")).await;
    assert!(wrong.headers.contains("allow: get,head,post"), "{wrong:?}");

    let wait = raw(
        &daemon.socket(),
        &request("POST", "/v1/fits", "", r#"{"model": {"repo": "gone/x"}}"#),
    )
    .await;
    assert!(wait.headers.contains("retry-after: 7"), "{wait:?}");
    daemon.stop().await;
}

#[tokio::test]
async fn invalid_http_is_rejected() {
    let daemon = start(default_limits());
    for bytes in [
        &b"hello\r\n\r\n"[..],
        b"GET / HTTP/9.9\r\n\r\n",
        b"\0\0\0\0\0\0\0\0\r\n\r\n",
        b"POST /v1/fits HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n",
        b"POST /v1/fits HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\ncontent-length: 7\r\n\r\nabcde",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let answer = raw(&daemon.socket(), bytes).await;
        assert!(matches!(answer.status, 0 | 400 | 403 | 404 | 505), "{answer:?}");
    }

    daemon.client().health().await.unwrap();
    daemon.stop().await;
}
