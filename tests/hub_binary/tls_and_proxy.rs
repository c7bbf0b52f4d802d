//! TLS, HTTP/2 and proxies, with the real client over loopback: a company's CA, its proxy, and
//! another host for the files.

use super::fake_hub::FakeHub;
use super::fake_hub::https::{Proxy, ca};
use super::fake_hub::repositories::{OWNER, Repositories, Repository, dense, safetensors};
use super::harness::User;

/// Returns many shards of an unknown architecture, so that every header is read.
fn sharded(files: usize) -> Repository {
    let mut repository = Repository {
        gated: true,
        ..Repository::default()
    }
    .with("config.json", r#"{"model_type": "new"}"#);

    let mut index = serde_json::Map::new();
    for file in 0..files {
        let (path, name) = (
            format!("model-{file:05}-of-{files:05}.safetensors"),
            format!("odd.{file}.w{file}"),
        );
        repository = repository.with(
            &path,
            safetensors(&[(&name, "F32", 4, &[file as u64 + 1, 3])]),
        );
        index.insert(name, path.into());
    }

    repository.with(
        "model.safetensors.index.json",
        serde_json::json!({"metadata": {}, "weight_map": index}).to_string(),
    )
}

async fn hub(names: [&str; 2]) -> FakeHub {
    let repositories = Repositories::default()
        .with("a/dense", dense())
        .with("a/sharded", sharded(40));
    FakeHub::start_secure(names, move |request, _| Some(repositories.reply(request))).await
}

fn user(hub: &FakeHub) -> User {
    User::of(&hub.endpoint)
        .with("HF_TOKEN", OWNER)
        .with("SSL_CERT_FILE", ca().display().to_string())
}

const ASK: &str = "estimate a/sharded --engine reference --local --json";

#[tokio::test]
async fn requests_share_few_connections() {
    let hub = hub(["localhost", "127.0.0.1"]).await;
    let outcome = user(&hub).run(ASK).await;
    assert_eq!(
        outcome.json()["model"]["weights_bytes"],
        12 * (1..=40).sum::<u64>(),
        "{outcome:?}"
    );

    let requests = hub.requests();
    assert!(
        requests.iter().all(|request| request.multiplexed),
        "all over HTTP/2"
    );
    assert!(requests.len() > 80, "{}", requests.len());

    assert!(
        hub.connections() <= 4,
        "{} connections for {} requests",
        hub.connections(),
        requests.len()
    );

    for request in requests {
        assert_eq!(
            request.head.contains(OWNER),
            !request.store,
            "the token goes to the Hub only: {}",
            request.target
        );
    }
}

#[tokio::test]
async fn unknown_ca_is_rejected_with_fix() {
    let hub = hub(["localhost", "127.0.0.1"]).await;

    // A certificate file without the CA.
    let other = tempfile::NamedTempFile::new().expect("a file");
    std::fs::copy(
        concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/support/fake_hub/tls/other-ca.pem"
        ),
        other.path(),
    )
    .expect("copied");

    let user = user(&hub).with("SSL_CERT_FILE", other.path().display().to_string());
    let outcome = user.run(ASK).await;
    let said = outcome.json();
    assert_eq!(
        (outcome.code, said["reason"].as_str()),
        (75, Some("hub_unreachable")),
        "{outcome:?}"
    );

    let detail = said["detail"].as_str().expect("a detail");
    for part in [
        "the certificate of localhost is not trusted",
        "UnknownIssuer",
        "set SSL_CERT_FILE",
    ] {
        assert!(detail.contains(part), "{detail}");
    }

    assert!(
        detail.contains("tried 1 time"),
        "no other attempt can help: {detail}"
    );
    assert!(hub.requests().is_empty(), "nothing was sent");
}

#[tokio::test]
async fn proxy_comes_from_the_environment() {
    let hub = hub(["hub.test", "store.test"]).await;
    let proxy = Proxy::start(None).await;
    let outcome = user(&hub)
        .with("HTTPS_PROXY", format!("http://{}", proxy.address))
        .run(ASK)
        .await;
    assert_eq!(
        outcome.json()["model"]["weights_bytes"],
        12 * (1..=40).sum::<u64>(),
        "{outcome:?}"
    );

    let heads = proxy.heads();
    for host in ["CONNECT hub.test:", "CONNECT store.test:"] {
        assert!(
            heads.iter().any(|head| head.starts_with(host)),
            "{host} {heads:?}"
        );
    }

    assert!(
        heads.iter().all(|head| !head.contains(OWNER)),
        "the proxy sees no token"
    );

    // Set both proxies by one variable, as curl reads it.
    let outcome = user(&hub).with("ALL_PROXY", &proxy.address).run(ASK).await;
    assert_eq!(
        outcome.json()["model"]["weights_bytes"],
        12 * (1..=40).sum::<u64>(),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn proxy_password_is_sent_or_named() {
    let hub = hub(["hub.test", "store.test"]).await;
    let proxy = Proxy::start(Some("YWxhZGRpbjpzZXNhbWU=")).await;

    let user_behind = |user_info: &str| {
        user(&hub).with(
            "HTTPS_PROXY",
            format!("http://{user_info}{}", proxy.address),
        )
    };

    let outcome = user_behind("aladdin:sesame@").run(ASK).await;
    assert_eq!(
        outcome.json()["model"]["weights_bytes"],
        12 * (1..=40).sum::<u64>(),
        "{outcome:?}"
    );

    for wrong in ["", "aladdin:tahini@"] {
        let outcome = user_behind(wrong).run(ASK).await;
        let said = outcome.json();
        assert_eq!(
            (outcome.code, said["reason"].as_str()),
            (75, Some("hub_unreachable")),
            "{outcome:?}"
        );

        assert!(
            outcome
                .out
                .contains("the proxy needs a user and a password"),
            "{outcome:?}"
        );

        assert!(
            !outcome.out.contains("tahini"),
            "the password is not repeated: {outcome:?}"
        );
    }
}

#[tokio::test]
async fn no_proxy_hosts_are_reached_directly() {
    let hub = hub(["localhost", "127.0.0.1"]).await;
    let proxy = Proxy::start(None).await;
    let user = user(&hub)
        .with("HTTPS_PROXY", format!("http://{}", proxy.address))
        .with("NO_PROXY", "localhost,127.0.0.1");
    let outcome = user.run(ASK).await;
    assert_eq!(
        outcome.json()["model"]["weights_bytes"],
        12 * (1..=40).sum::<u64>(),
        "{outcome:?}"
    );

    assert_eq!(proxy.heads(), Vec::<String>::new());
}
