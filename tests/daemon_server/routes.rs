//! All routes, through the typed client.

use hf_mem_core::report::lease::Holder;
use hf_mem_core::report::problem::Reason;
use hf_mem_probe::api::client::ClientError;
use hf_mem_probe::api::lease::{LeaseRequest, RenewRequest};
use hf_mem_probe::api::peer::HubToken;
use hf_mem_probe::api::status::HealthStatus;

use super::double::{default_limits, question, raw, request, start};

#[tokio::test]
async fn every_route_answers() {
    let daemon = start(default_limits());
    let client = daemon.client();
    assert_eq!(
        client.fits(&question("a/b")).await.unwrap().model.repo,
        "a/b"
    );

    assert_eq!(
        client.estimate(&question("a/b")).await.unwrap().model.repo,
        "a/b"
    );
    let together = client
        .fits_together(&[question("a/b"), question("c/d")])
        .await
        .unwrap();
    assert_eq!(together.answers.len(), 2);
    assert_eq!(client.gpus().await.unwrap().snapshot.source, "declared");

    assert_eq!(
        client.fresh_gpus().await.unwrap().snapshot.source,
        "read now"
    );
    let health = client.health().await.unwrap();
    assert_eq!(health.status, HealthStatus::Degraded);

    assert!(
        health.parts[0]
            .reason
            .as_ref()
            .unwrap()
            .contains("libnvidia-ml")
    );

    assert!(
        client
            .release_nvml(Some(30))
            .await
            .unwrap()
            .released_until
            .ends_with("30")
    );

    daemon.stop().await;
}

#[tokio::test]
async fn lease_routes_answer() {
    let daemon = start(default_limits());
    let client = daemon.client();
    let holder = Some(Holder::Name("job 7".to_owned()));

    let lease_request = LeaseRequest {
        question: question("a/b"),
        ttl_seconds: Some(60),
        holder,
        ..LeaseRequest::default()
    };

    let answer = client.create_lease(&lease_request).await.unwrap();
    let lease = answer.lease.unwrap();
    assert_eq!((lease.id.as_str(), lease.ttl_seconds), ("new", 60));
    let own_uid = u64::from(rustix::process::geteuid().as_raw());
    assert_eq!(
        u64::from(lease.uid),
        own_uid,
        "the uid comes from the kernel"
    );

    assert_eq!(client.leases().await.unwrap().leases.len(), 1);
    assert_eq!(client.lease("l-1").await.unwrap().id, "l-1");

    assert_eq!(
        client
            .renew_lease(
                "l-1",
                RenewRequest {
                    ttl_seconds: Some(9)
                }
            )
            .await
            .unwrap()
            .ttl_seconds,
        9
    );

    assert_eq!(client.release_lease("l-1").await.unwrap().id, "l-1");
    let ClientError::Problem(problem) = client.lease("l-2").await.unwrap_err() else {
        panic!("no problem")
    };

    assert_eq!(problem.reason, Reason::NotFound);
    let bare = raw(
        &daemon.socket(),
        &request("POST", "/v1/leases/l-1/renew", "", ""),
    )
    .await;

    assert_eq!(bare.status, 200, "the body is optional");
    daemon.stop().await;
}

#[tokio::test]
async fn callers_token_reaches_the_service() {
    let daemon = start(default_limits());
    let client = daemon.client();
    let ClientError::Problem(problem) = client.fits(&question("wants/token")).await.unwrap_err()
    else {
        panic!("no problem")
    };

    assert_eq!(problem.reason, Reason::Gated);
    client
        .token(Some(HubToken::new("hf_mine")))
        .fits(&question("wants/token"))
        .await
        .unwrap();

    daemon.stop().await;
}

#[tokio::test]
async fn responses_have_id_and_version() {
    let daemon = start(default_limits());
    let answer = raw(
        &daemon.socket(),
        &request("GET", "/v1/health", "X-Request-Id: job-7\r\n", ""),
    )
    .await;

    assert!(
        answer.headers.contains("x-request-id: job-7\r\n"),
        "{answer:?}"
    );
    assert!(
        answer.headers.contains(&format!(
            "hf-mem-probe-version: {}",
            env!("CARGO_PKG_VERSION")
        )),
        "{answer:?}"
    );

    let answer = raw(
        &daemon.socket(),
        &request("GET", "/v1/health", "X-Request-Id: a b\r\n", ""),
    )
    .await;
    assert!(!answer.headers.contains("a b"), "{answer:?}");
    daemon.stop().await;
}

#[tokio::test]
async fn openapi_and_metrics_are_served() {
    let daemon = start(default_limits());
    let client = daemon.client();
    client.fits(&question("a/b")).await.unwrap();
    client.fits(&question("gone/x")).await.unwrap_err();
    let metrics = client.metrics().await.unwrap();

    for line in [
        "hf_mem_probe_questions_total{verdict=\"fits\",reason=\"fits\"} 1",
        "hf_mem_probe_questions_total{verdict=\"error\",reason=\"rate_limited\"} 1",
        "hf_mem_probe_leases 1",
        "hf_mem_probe_latency_seconds_count{stage=\"request\"} 2",
        "hf_mem_probe_connections 1",
    ] {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }

    let accept = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n";
    let open = raw(&daemon.socket(), &request("GET", "/metrics", accept, "")).await;
    assert!(
        open.headers
            .contains("content-type: application/openmetrics-text; version=1.0.0"),
        "{open:?}"
    );

    assert!(open.body.ends_with("# EOF\n") && !metrics.contains("# EOF"));
    let document = raw(
        &daemon.socket(),
        &request("GET", "/v1/openapi.json", "", ""),
    )
    .await;

    let document: serde_json::Value = serde_json::from_str(&document.body).unwrap();

    // The document lists exactly the routes that answer.
    let mut paths: Vec<_> = document["paths"]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    paths.sort();

    let routes = [
        "/metrics",
        "/v1/estimates",
        "/v1/fits",
        "/v1/gpus",
        "/v1/gpus/watch",
        "/v1/health",
        "/v1/leases",
        "/v1/leases/{id}",
        "/v1/leases/{id}/renew",
        "/v1/nvml/release",
        "/v1/openapi.json",
    ];
    assert_eq!(paths, routes);

    for path in routes {
        let answer = raw(&daemon.socket(), &request("PUT", path, "", "")).await;
        assert_eq!(answer.status, 405, "{path} is a route");
    }

    daemon.stop().await;
}

#[tokio::test]
async fn connections_are_kept_alive() {
    let daemon = start(default_limits());
    let one = "GET /v1/health HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let last = "GET /v1/health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let answers = raw(
        &daemon.socket(),
        format!("{}{last}", one.repeat(20)).as_bytes(),
    )
    .await;

    assert_eq!(
        answers.body.matches("HTTP/1.1 200 OK").count(),
        20,
        "20 pipelined answers after the first"
    );

    daemon.stop().await;
}
