//! An answer that is given again: only as long as all that it followed from is the same.

use hf_mem_probe::api::client::Client;

use super::asking::{Daemon, User};
use super::fake_hub::FakeHub;
use super::fake_hub::shelf::{Shelf, dense};

/// How many times the daemon has planned.
async fn planned(daemon: &Daemon) -> u64 {
    let metrics = Client::new(daemon.socket())
        .metrics()
        .await
        .expect("metrics");
    let of_plans =
        |line: &&str| line.starts_with("hf_mem_probe_latency_seconds_count{stage=\"plan\"}");
    let line = metrics.lines().find(of_plans).expect("the stage");

    line.rsplit(' ')
        .next()
        .and_then(|count| count.parse().ok())
        .expect("a count")
}

#[tokio::test]
async fn the_same_question_is_planned_once_until_something_changes() {
    let shelf = Shelf::default()
        .with("a/dense", dense())
        .with("a/other", dense());
    let hub = FakeHub::start(move |request, _| Some(shelf.reply(request))).await;
    let user = User::of(&hub.endpoint);
    let daemon = Daemon::start(&user, "", "", &[]).await;
    let socket = daemon.socket();
    let ask = |line: &'static str| user.ask(&socket, None, line);

    let first = ask("fits a/dense --json").await;
    assert_eq!(first.code, 0, "{first:?}");
    assert_eq!(planned(&daemon).await, 1);

    for _ in 0..3 {
        assert_eq!(ask("fits a/dense --json").await.out, first.out);
    }

    assert_eq!(planned(&daemon).await, 1, "given again");

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

    assert_eq!(planned(&daemon).await, 3);

    // A lease claims memory: what was answered before it holds no longer.
    let leased = ask("fits a/dense --reserve --holder job --ttl 60s --json").await;
    assert_eq!(leased.code, 0, "{leased:?}");
    let after = ask("fits a/dense --json").await;
    assert_eq!(after.code, 0, "{after:?}");

    assert_ne!(
        after.json()["placement"],
        first.json()["placement"],
        "less is available, or another device is"
    );

    let known = planned(&daemon).await;
    assert_eq!(ask("fits a/dense --json").await.out, after.out);

    assert_eq!(
        planned(&daemon).await,
        known,
        "given again beside the lease too"
    );
}
