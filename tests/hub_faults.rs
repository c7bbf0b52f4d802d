//! Faults of a Hub and their errors, the destinations of tokens, and shared readings.

#[path = "support/fake_hub/mod.rs"]
mod fake_hub;

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use fake_hub::{COMMIT, FakeHub, Reply, Request, ranged, weights};
use hf_mem_probe::repository::{
    Auth, Described, HubSettings, ModelReference, SourceClient, SourceError, SourceSettings, Token,
};

const CANARY: &str = "hf_canary_7f3a";
const NOW: SystemTime = SystemTime::UNIX_EPOCH;

fn settings(hub: &FakeHub) -> SourceSettings {
    let variables = |name: &str| (name == "HF_ENDPOINT").then(|| hub.endpoint.clone());
    let mut hub = HubSettings::from_environment(variables).expect("settings");
    // A busy machine may answer slowly, which is not a fault of the Hub.
    hub.limits.total = Duration::from_secs(60);
    hub.limits.attempt = Duration::from_secs(20);
    SourceSettings::new(hub)
}

fn client(hub: &FakeHub) -> SourceClient {
    SourceClient::new(settings(hub))
}

async fn ask(client: &SourceClient, repo: &str, auth: &Auth) -> Result<Described, SourceError> {
    client
        .describe(&ModelReference::parse(repo, None, |_| false)?, auth, NOW)
        .await
}

fn token() -> Auth {
    Token::new(CANARY).into()
}

fn is_header(request: &Request) -> bool {
    request.store && request.target.contains("/model.safetensors")
}

fn is_info(request: &Request) -> bool {
    request.target.contains("/revision/")
}

/// Returns a client for faults that last until the deadline. The deadline passes during the last
/// attempt, and the error reports an earlier one.
fn impatient_client(hub: &FakeHub) -> SourceClient {
    let mut settings = settings(hub);
    settings.hub.limits.total = Duration::from_secs(8);
    settings.hub.limits.attempt = Duration::from_secs(3);
    SourceClient::new(settings)
}

/// Asserts that a fault ends the reading at once: script, reason, part of the message.
async fn fails(
    what: &str,
    auth: &Auth,
    script: impl Fn(&Request, usize) -> Option<Reply> + Send + Sync + 'static,
    reason: &str,
    says: &str,
) -> FakeHub {
    let hub = FakeHub::start(script).await;
    fails_at(&client(&hub), what, auth, reason, says).await;
    hub
}

async fn fails_at(client: &SourceClient, what: &str, auth: &Auth, reason: &str, says: &str) {
    let error = ask(client, "a/b", auth).await.expect_err(what);
    assert_eq!(error.reason(), reason, "{what}: {error}");
    assert!(error.to_string().contains(says), "{what}: {error}");
}

/// Asserts that a fault lasts until the deadline.
async fn is_given_up(
    what: &str,
    script: impl Fn(&Request, usize) -> Option<Reply> + Send + Sync + 'static,
    reason: &str,
    says: &str,
) {
    let hub = FakeHub::start(script).await;
    fails_at(
        &impatient_client(&hub),
        what,
        &Auth::Anonymous,
        reason,
        says,
    )
    .await;
}

#[tokio::test]
async fn refusals_have_their_reasons() {
    let anonymous = Auth::Anonymous;
    let refuse = |status: u16, code: &'static str| {
        move |_: &Request, _: usize| Some(Reply::status(status).with("x-error-code", code))
    };

    fails(
        "gated, no token",
        &anonymous,
        refuse(401, "GatedRepo"),
        "gated",
        "/a/b, then set HF_TOKEN",
    )
    .await;

    fails(
        "gated, not granted",
        &token(),
        refuse(403, "GatedRepo"),
        "gated",
        "has not been granted access",
    )
    .await;

    fails(
        "private or absent",
        &anonymous,
        refuse(401, "RepoNotFound"),
        "not_found",
        "set HF_TOKEN",
    )
    .await;

    fails(
        "absent",
        &token(),
        refuse(404, "RepoNotFound"),
        "not_found",
        "repository a/b was not found",
    )
    .await;

    fails(
        "no such revision",
        &anonymous,
        refuse(404, "RevisionNotFound"),
        "not_found",
        "revision main of a/b",
    )
    .await;

    fails(
        "bad token",
        &token(),
        |_, _| Some(Reply::status(401)),
        "unauthorized",
        "refuses the token",
    )
    .await;

    fails(
        "not a Hub",
        &anonymous,
        |_, _| Some(Reply::ok("<html>")),
        "missing_metadata",
        "is HF_ENDPOINT a Hub?",
    )
    .await;

    let no_files = |request: &Request, _: usize| {
        let body = format!(
            r#"{{"id":"a/b","sha":"{COMMIT}","siblings":[{{"rfilename":"README.md","size":1}}]}}"#
        );
        is_info(request).then(|| Reply::ok(body))
    };

    fails(
        "no weights",
        &anonymous,
        no_files,
        "missing_metadata",
        "no weights",
    )
    .await;
}

#[tokio::test]
async fn nearly_right_name_gets_suggestion() {
    let hub = FakeHub::start(|_, _| None).await;
    let error = ask(&client(&hub), "a/bcd", &Auth::Anonymous)
        .await
        .expect_err("absent");
    assert!(error.to_string().ends_with("did you mean a/bc?"), "{error}");
}

#[tokio::test]
async fn unavailable_hub_is_retried_then_named() {
    let anonymous = Auth::Anonymous;

    // The third response asks for a wait beyond the deadline.
    let down = |_: &Request, before: usize| {
        let down = Reply::status(503);
        Some(if before < 2 {
            down
        } else {
            down.with("retry-after", "600")
        })
    };

    let hub = fails(
        "503 every time",
        &anonymous,
        down,
        "hub_unreachable",
        "HTTP 503",
    )
    .await;
    assert_eq!(hub.requests().len(), 3, "tried again");

    let dropped = |_: &Request, _: usize| {
        Some(Reply {
            drop: true,
            ..Reply::default()
        })
    };

    let silent = |request: &Request, _: usize| {
        is_info(request).then(|| Reply {
            stall_after: Some(3),
            ..Reply::ok("{\"id\": 1}")
        })
    };

    tokio::join!(
        is_given_up("reset", dropped, "hub_unreachable", "the request failed"),
        is_given_up("slow drip", silent, "hub_unreachable", "no data "),
    );
    let limited = |_: &Request, _: usize| Some(Reply::status(429).with("retry-after", "120"));

    fails(
        "429 with a long wait",
        &anonymous,
        limited,
        "rate_limited",
        "asks to wait 120 s",
    )
    .await;

    let exhausted =
        |_: &Request, _: usize| Some(Reply::status(429).with("ratelimit", "\"api\";r=0;t=77"));
    fails(
        "429, RateLimit",
        &anonymous,
        exhausted,
        "rate_limited",
        "asks to wait 77 s",
    )
    .await;

    let no_listener = SourceSettings::new(
        HubSettings::from_environment(|name| {
            (name == "HF_ENDPOINT").then(|| "http://127.0.0.1:9".into())
        })
        .expect("settings"),
    );
    let error = ask(&SourceClient::new(no_listener), "a/b", &Auth::Anonymous)
        .await
        .expect_err("no listener");
    assert_eq!(error.reason(), "hub_unreachable");
    assert!(error.to_string().contains("no connection"), "{error}");
}

#[tokio::test]
async fn invalid_header_is_named() {
    let anonymous = Auth::Anonymous;
    let header_of = |bytes: Vec<u8>| {
        move |request: &Request, _: usize| is_header(request).then(|| ranged(&bytes, request))
    };

    let with_length = |length: u64| [&length.to_le_bytes()[..], &weights()[8..]].concat();
    fails(
        "length 2^63",
        &anonymous,
        header_of(with_length(1 << 63)),
        "bad_header",
        "claims 9223372036854775808 bytes",
    )
    .await;

    fails(
        "past the end",
        &anonymous,
        header_of(with_length(9 << 20)),
        "bad_header",
        "truncated",
    )
    .await;

    fails(
        "not JSON",
        &anonymous,
        header_of([&weights()[..8], &vec![b'x'; 1 << 20]].concat()),
        "bad_header",
        "JSON",
    )
    .await;

    let wrong_range = |request: &Request, _: usize| {
        is_header(request).then(|| {
            let mut reply = ranged(&weights(), request);
            reply.headers = vec![("content-range".into(), "bytes 5-99/100".into())];
            reply
        })
    };

    is_given_up(
        "wrong Content-Range",
        wrong_range,
        "hub_unreachable",
        "Content-Range",
    )
    .await;

    let html_config = |request: &Request, _: usize| {
        request
            .target
            .ends_with("config.json")
            .then(|| Reply::ok("<html>"))
    };

    let hub = FakeHub::start(html_config).await;
    let model = ask(&client(&hub), "a/b", &anonymous)
        .await
        .expect("weights are known all the same")
        .model;
    assert_eq!(model.inventory.bytes().get(), 1 << 20);

    assert!(
        model
            .architecture
            .as_ref()
            .expect_err("no architecture")
            .to_string()
            .contains("not JSON")
    );
}

#[tokio::test]
async fn recoverable_faults_do_not_fail() {
    let answers = |what: &'static str, hub: FakeHub| async move {
        let described = ask(&client(&hub), "a/b", &Auth::Anonymous)
            .await
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(described.model.inventory.bytes().get(), 1 << 20, "{what}");
        assert!(!described.stale);
        hub
    };

    let hub = answers("a Hub in order", FakeHub::start(|_, _| None).await).await;

    // Model API, config.json, and the header by way of the Hub and the store.
    assert_eq!(hub.requests().len(), 4);
    answers(
        "each request fails once",
        FakeHub::start({
            let seen = Mutex::new(Vec::new());
            move |request, _| {
                let mut seen = seen.lock().expect("locked");
                let first = !seen.contains(&request.target);
                seen.push(request.target.clone());
                first.then(|| Reply::status(if seen.len() % 2 == 0 { 429 } else { 502 }))
            }
        })
        .await,
    )
    .await;

    let ignores = |request: &Request, _: usize| {
        is_header(request).then(|| Reply {
            stall_after: Some(140_000),
            ..Reply::ok(weights())
        })
    };

    answers(
        "Range ignored: read no further than needed",
        FakeHub::start(ignores).await,
    )
    .await;

    answers(
        "a body cut short once",
        FakeHub::start({
            let cut = Mutex::new(false);
            move |request, _| {
                let mut cut = cut.lock().expect("locked");
                (is_header(request) && !std::mem::replace(&mut *cut, true)).then(|| Reply {
                    cut_after: Some(20),
                    ..ranged(&weights(), request)
                })
            }
        })
        .await,
    )
    .await;

    let renamed = |request: &Request, _: usize| {
        let moved =
            || Reply::status(307).with("location", request.target.replace("/a/b/", "/new/name/"));

        if request.target.starts_with("/api/models/a/b/") {
            return Some(moved());
        }

        is_info(request).then(|| {
            let length = weights().len();
            Reply::ok(format!(
                r#"{{"id": "new/name", "sha": "{COMMIT}",
                "siblings": [{{"rfilename": "model.safetensors", "size": {length}}}]}}"#
            ))
        })
    };

    answers("a renamed repository", FakeHub::start(renamed).await).await;
    let paged = |request: &Request, _: usize| {
        let length = weights().len();
        if is_info(request) {
            return Some(Reply::ok(format!(
                r#"{{"id": "a/b", "sha": "{COMMIT}", "siblings": [{{"rfilename": "x"}}]}}"#
            )));
        }

        let page = request
            .target
            .starts_with("/api/models/a/b/tree/")
            .then(|| request.target.contains("cursor=2"))?;

        Some(if page {
            Reply::ok(format!(
                r#"[{{"type": "file", "path": "model.safetensors", "size": {length}}}]"#
            ))
        } else {
            // A mirror passes on the address of the Hub that it mirrors.
            let next = "<https://elsewhere.invalid/api/models/a/b/tree/x?recursive=true&cursor=2>; rel=\"next\"";
            Reply::ok(r#"[{"type": "directory", "path": "d"}]"#).with("link", next)
        })
    };

    answers("a list of files in pages", FakeHub::start(paged).await).await;
}

/// The Hub serves a small file where `resolve` redirects to: one request instead of two. If that
/// fails, the client asks `resolve`.
#[tokio::test]
async fn each_document_costs_one_request() {
    type Script = Box<dyn Fn(&Request) -> Option<Reply> + Send + Sync>;
    let is_config = |request: &Request| request.target.ends_with("/config.json");
    let is_cached =
        |request: &Request| request.target.starts_with("/api/resolve-cache/models/a/b/");

    let cases: [(&str, usize, Script); 4] = [
        ("a Hub in order", 1, Box::new(|_| None)),
        (
            "a mirror without it",
            2,
            Box::new(move |request| is_cached(request).then(|| Reply::status(404))),
        ),
        (
            "a pointer to LFS",
            2,
            Box::new(move |request| {
                is_cached(request).then(|| Reply::ok("version https://git-lfs"))
            }),
        ),
        (
            "an error of the Hub",
            2,
            Box::new(move |request| is_cached(request).then(|| Reply::status(503))),
        ),
    ];

    for (what, requests, script) in cases {
        let hub = FakeHub::start(move |request, _| script(request)).await;
        let found = ask(&client(&hub), "a/b", &Auth::Anonymous)
            .await
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(found.model.inventory.bytes().get(), 1 << 20, "{what}");

        assert_eq!(
            hub.requests()
                .iter()
                .filter(|request| is_config(request))
                .count(),
            requests,
            "{what}"
        );
    }
}

#[tokio::test]
async fn concurrent_requests_share_one_reading() {
    let hub = FakeHub::start(|_, _| None).await;
    let client = client(&hub);
    let (auth, callers) = (Auth::Anonymous, 200);
    let answers =
        futures_util::future::join_all((0..callers).map(|_| ask(&client, "a/b", &auth))).await;
    for answer in answers {
        assert_eq!(
            answer.expect("an answer").model.inventory.bytes().get(),
            1 << 20
        );
    }

    assert_eq!(hub.requests().len(), 4);
    let warm = ask(&client, "a/b", &auth).await.expect("known");
    assert_eq!((warm.requests, hub.requests().len()), (0, 4));
}

/// Returns a Hub that a test can switch off.
async fn switched(folder: &Path) -> (FakeHub, Arc<Mutex<bool>>, SourceSettings) {
    let down = Arc::new(Mutex::new(false));
    let hub = FakeHub::start({
        let down = Arc::clone(&down);
        move |_, _| down.lock().expect("locked").then(|| Reply::status(503))
    })
    .await;

    let mut settings = settings(&hub);
    settings.cache_folder = Some(folder.into());

    (hub, down, settings)
}

#[tokio::test]
async fn unavailable_hub_gets_stale_answer() {
    let folder = tempfile::tempdir().expect("a folder");
    let (hub, down, settings) = switched(folder.path()).await;
    let reference = ModelReference::parse("a/b", None, |_| false).expect("a reference");
    let request_at = |seconds| (reference.clone(), NOW + Duration::from_secs(seconds));
    let first = SourceClient::new(settings.clone());
    let (asked, now) = request_at(0);
    assert!(
        !first
            .describe(&asked, &Auth::Anonymous, now)
            .await
            .expect("an answer")
            .stale
    );

    let second = SourceClient::new(settings.clone());
    let (asked, now) = request_at(599);
    let warm = second
        .describe(&asked, &Auth::Anonymous, now)
        .await
        .expect("from disk");
    assert_eq!((warm.stale, warm.requests), (false, 0));
    let (asked, now) = request_at(600);
    let checked = second
        .describe(&asked, &Auth::Anonymous, now)
        .await
        .expect("checked");
    assert_eq!(
        (checked.stale, checked.requests),
        (false, 1),
        "the commit is asked for again and is the same"
    );

    *down.lock().expect("locked") = true;
    let mut impatient = settings.clone();
    impatient.hub.limits.total = Duration::from_secs(1);
    let third = SourceClient::new(impatient);
    let (asked, now) = request_at(9999);
    let stale = third
        .describe(&asked, &Auth::Anonymous, now)
        .await
        .expect("stale");
    assert!(stale.stale);
    let again = hub.requests().len();

    assert!(
        third
            .describe(&asked, &Auth::Anonymous, now)
            .await
            .expect("stale")
            .stale
    );

    assert_eq!(
        hub.requests().len(),
        again,
        "an unavailable Hub gets no request for a while"
    );

    assert_eq!(stale.model.inventory.bytes().get(), 1 << 20);
    let mut offline = settings;
    offline.hub.offline = true;
    let before = hub.requests().len();
    let client = SourceClient::new(offline);
    assert!(
        client
            .describe(&asked, &Auth::Anonymous, now)
            .await
            .expect("offline")
            .stale
    );

    let unknown = ModelReference::parse("a/other", None, |_| false).expect("a reference");
    let error = client
        .describe(&unknown, &Auth::Anonymous, now)
        .await
        .expect_err("offline");
    assert_eq!(error.reason(), "offline");
    assert_eq!(hub.requests().len(), before, "no request while offline");
}

/// Metadata that needed a token is invisible to other tokens.
#[tokio::test]
async fn gated_metadata_is_cached_per_token() {
    let hub = FakeHub::start(|request, _| {
        if request.header("authorization").is_none() && !request.store {
            return Some(Reply::status(401).with("x-error-code", "RepoNotFound"));
        }
        is_info(request).then(|| {
            let mut reply = fake_hub::well_behaved(request, "");
            reply.body = String::from_utf8(reply.body)
                .expect("UTF-8")
                .replace("\"gated\": false", "\"gated\": \"manual\"")
                .into();
            reply
        })
    })
    .await;

    let folder = tempfile::tempdir().expect("a folder");
    let mut settings = settings(&hub);
    settings.cache_folder = Some(folder.path().into());
    let client = SourceClient::new(settings);
    ask(&client, "a/b", &token()).await.expect("granted");
    let known = hub.requests().len();
    ask(&client, "a/b", &token()).await.expect("known");
    assert_eq!(hub.requests().len(), known);
    let error = ask(&client, "a/b", &Auth::Anonymous)
        .await
        .expect_err("not for everyone");
    assert_eq!(error.reason(), "not_found");
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("locked").extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Searches for the token and the store's signature in all output: logs, errors, the cache, Debug.
#[tokio::test]
async fn secrets_are_never_written() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer({
            let log = log.clone();
            move || log.clone()
        });

    // Set it for the whole process: a subscriber of one thread misses what other threads of these
    // tests logged first.
    tracing::subscriber::set_global_default(subscriber.finish()).expect("the only one");
    let folder = tempfile::tempdir().expect("a folder");
    let mut written = Vec::new();

    for fault in [
        None,
        Some(401_u16),
        Some(403),
        Some(404),
        Some(429),
        Some(503),
    ] {
        let hub = FakeHub::start(move |request, _| {
            is_header(request)
                .then(|| fault.map(Reply::status))
                .flatten()
        })
        .await;
        let mut settings = settings(&hub);
        settings.hub.token = Token::new(CANARY);

        // The successful reading gets all the time it needs; the faults are repeated only for a
        // while.
        if fault.is_some() {
            settings.hub.limits.total = Duration::from_millis(1_500);
        }

        settings.cache_folder = Some(folder.path().join(format!("{fault:?}")));
        written.push(format!("{settings:?}"));
        let client = SourceClient::new(settings);
        let reference = ModelReference::parse("a/b", None, |_| false).expect("a reference");
        let auth = client.own_auth(&reference);
        match client.describe(&reference, &auth, NOW).await {
            Ok(described) => written.push(format!("{described:?}")),
            Err(error) => written.push(format!("{error} {error:?}")),
        }

        written.push(format!("{client:?} {auth:?}"));
        for request in hub.requests() {
            let sent = request.head.contains(CANARY);
            assert_eq!(
                sent, !request.store,
                "the token goes to the Hub and nowhere else: {}",
                request.target
            );
        }
    }

    written.push(String::from_utf8_lossy(&log.0.lock().expect("locked")).into_owned());
    let mut folders = vec![folder.path().to_owned()];
    let mut files = 0;

    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("listed").flatten() {
            written.push(entry.file_name().to_string_lossy().into_owned());
            if entry.path().is_dir() {
                folders.push(entry.path());
                continue;
            }

            files += 1;
            let bytes = std::fs::read(entry.path()).expect("read");
            let mut unpacked = String::new();
            let _ = std::io::Read::read_to_string(
                &mut flate2::read::GzDecoder::new(bytes.as_slice()),
                &mut unpacked,
            );
            written.push(unpacked);
            written.push(String::from_utf8_lossy(&bytes).into_owned());
        }
    }

    let written = written.join("\n");
    let logged = written.contains("a request to the Hub failed");
    assert!(
        files >= 2 && logged,
        "the test needs something to search: {files} files, logged: {logged}"
    );

    for secret in [CANARY, "secret-signature"] {
        assert!(!written.contains(secret), "{secret} was written");
    }
}

/// A branch may look like the beginning of a commit; only a whole commit never changes.
#[tokio::test]
async fn hex_branch_is_revalidated() {
    let hub = FakeHub::start(|_, _| None).await;
    let client = client(&hub);

    for (revision, requests) in [("deadbeef", 1), (COMMIT, 0)] {
        let reference = ModelReference::parse(&format!("a/b@{revision}"), None, |_| false)
            .expect("a reference");
        client
            .describe(&reference, &Auth::Anonymous, NOW)
            .await
            .expect("an answer");
        let later = NOW + Duration::from_secs(3600);
        let again = client
            .describe(&reference, &Auth::Anonymous, later)
            .await
            .expect("an answer");
        assert_eq!(again.requests, requests, "{revision}");
    }
}
