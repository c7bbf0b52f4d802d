//! What is refused, and in which words.

use hf_mem_core::report::problem::Reason;

use super::double::{raw, request, roomy, start};

const GOOD: &str = r#"{"model": {"repo": "a/b"}}"#;

/// A question with an array of far too many of what `begun` begins.
fn many(key: &str, table: &str, begun: &str) -> String {
    let array = format!("{begun}{}]", begun.replace('[', ",").repeat(5000));
    let inside = format!("\"{table}\": {{\"{key}\": {array}}}");
    let inside = if table == "parameters" {
        format!("\"engine\": {{{inside}}}")
    } else {
        inside
    };

    format!("{{\"model\": {{\"repo\": \"a/b\"}}, {inside}}}")
}

/// Each bad request, the reason it is refused for, and what the detail must name.
fn cases() -> Vec<(&'static str, Vec<u8>, Reason, &'static str)> {
    let post = |path: &str, body: &str| request("POST", path, "", body);
    let with = |headers: &str| request("POST", "/v1/fits", headers, GOOD);

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
            "holds 0",
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
            "lease: a name that steers",
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
            "a model's name that steers",
            post(
                "/v1/fits",
                r#"{"model": {"repo": "a\u009b2J", "metadata": {}}}"#,
            ),
            Reason::Usage,
            "`model.repo` holds the control character \\u{9b}",
        ),
        (
            "many parts",
            post("/v1/estimates", &many("devices", "constraints", "[\"\"")),
            Reason::Usage,
            "the maximum is 4096",
        ),
        (
            "many values",
            post("/v1/fits", &many("x", "parameters", "[1")),
            Reason::Usage,
            "the maximum is 4096",
        ),
        (
            "lease: id",
            request("GET", "/v1/leases/..%2f..%2fetc", "", ""),
            Reason::NotFound,
            "no lease of this id",
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
            "a query of another",
            request("GET", "/v1/gpus?frehs=true", "", ""),
            Reason::Usage,
            "frehs",
        ),
        (
            "a query that is no yes or no",
            request("GET", "/v1/gpus?fresh=maybe", "", ""),
            Reason::Usage,
            "fresh",
        ),
        (
            "a slash more",
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
            with("Origin: https://evil.example\r\n"),
            Reason::Forbidden,
            "`origin`",
        ),
        (
            "a link",
            with("Referer: http://localhost/\r\n"),
            Reason::Forbidden,
            "`referer`",
        ),
        (
            "two hosts",
            with("Host: evil.example\r\n"),
            Reason::Forbidden,
            "evil.example",
        ),
        (
            "basic auth",
            with("Authorization: Basic aGY6eA==\r\n"),
            Reason::Usage,
            "authorization",
        ),
        (
            "a problem of the program",
            post("/v1/fits", r#"{"model": {"repo": "gone/x"}}"#),
            Reason::RateLimited,
            "Hub",
        ),
        (
            "a panic",
            post("/v1/fits", r#"{"model": {"repo": "panic/x"}}"#),
            Reason::Internal,
            "broke",
        ),
    ]
}

#[tokio::test]
async fn each_bad_request_is_a_problem_that_names_what_is_wrong() {
    let daemon = start(roomy());
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
        "and it still answers"
    );

    daemon.stop().await;
}

#[tokio::test]
async fn headers_say_what_the_status_means() {
    let daemon = start(roomy());
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
async fn what_is_no_http_gets_a_plain_refusal_and_the_next_caller_an_answer() {
    let daemon = start(roomy());
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
