//! Cached answers are valid only while everything they depend on is unchanged.

use hf_mem_probe::api::client::Client;

use super::fake_hub::FakeHub;
use super::fake_hub::repositories::{Repositories, dense};
use super::harness::{Daemon, User};

/// Returns how many times the daemon has planned.
async fn plan_count(daemon: &Daemon) -> u64 {
    let metrics = Client::new(daemon.socket())
        .metrics()
        .await
        .expect("metrics");
    let line = metrics
        .lines()
        .find(|line| line.starts_with("hf_mem_probe_latency_seconds_count{stage=\"plan\"}"))
        .expect("the stage");

    line.rsplit(' ')
        .next()
        .and_then(|count| count.parse().ok())
        .expect("a count")
}

#[tokio::test]
async fn same_question_is_planned_once() {
    let repositories = Repositories::default()
        .with("a/dense", dense())
        .with("a/other", dense());
    let hub = FakeHub::start(move |request, _| Some(repositories.reply(request))).await;
    let user = User::of(&hub.endpoint);
    let daemon = Daemon::start(&user, "", "", &[]).await;
    let socket = daemon.socket();
    let ask = |line: &'static str| user.ask(&socket, None, line);

    let first = ask("fits a/dense --json").await;
    assert_eq!(first.code, 0, "{first:?}");
    assert_eq!(plan_count(&daemon).await, 1);

    for _ in 0..3 {
        assert_eq!(ask("fits a/dense --json").await.out, first.out);
    }

    assert_eq!(plan_count(&daemon).await, 1, "from the cache");

    assert_ne!(
        ask("fits a/other --json").await.out,
        first.out,
        "another model"
    );

    assert_ne!(
        ask("fits a/dense --json --context 512").await.out,
        first.out,
        "another question"
    );

    assert_eq!(plan_count(&daemon).await, 3);

    // A lease claims memory, which invalidates earlier answers.
    let leased = ask("fits a/dense --reserve --holder job --ttl 60s --json").await;
    assert_eq!(leased.code, 0, "{leased:?}");
    let after = ask("fits a/dense --json").await;
    assert_eq!(after.code, 0, "{after:?}");

    assert_ne!(
        after.json()["placement"],
        first.json()["placement"],
        "less is available, or another device is"
    );

    let before = plan_count(&daemon).await;
    assert_eq!(ask("fits a/dense --json").await.out, after.out);

    assert_eq!(
        plan_count(&daemon).await,
        before,
        "from the cache, with the lease held"
    );
}
