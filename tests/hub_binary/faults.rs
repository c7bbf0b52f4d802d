//! Faults of a Hub through the real binary: reason, exit code and message. `--nocapture` prints the
//! table.

use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use futures_util::{StreamExt as _, stream};
use hf_mem_core::report::problem::Reason;
use serde_json::json;

use super::fake_hub::repositories::{OWNER, Repositories, dense, safetensors};
use super::fake_hub::{COMMIT, FakeHub, Reply, Request};
use super::harness::{Daemon, User};

type Script = Box<dyn Fn(&Request, usize) -> Option<Reply> + Send + Sync>;

struct Fault {
    name: &'static str,
    script: Script,
    variables: &'static [(&'static str, &'static str)],
    line: &'static str,
    code: i32,
    reason: &'static str,
    says: &'static str,
}

fn fault(
    name: &'static str,
    (code, reason): (i32, &'static str),
    says: &'static str,
    script: impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static,
) -> Fault {
    let script: Script = Box::new(move |request, _| script(request));
    Fault {
        name,
        script,
        variables: &[],
        line: "estimate a/b",
        code,
        reason,
        says,
    }
}

fn is_info(request: &Request) -> bool {
    request.target.contains("/revision/")
}

fn is_header(request: &Request) -> bool {
    request.store && request.target.contains(".safetensors")
}

fn coded(status: u16, code: &'static str) -> Reply {
    Reply::status(status).with("x-error-code", code)
}

/// Returns the Hub's listing of one weight file.
fn listing(path: &str, length: u64) -> Reply {
    Reply::ok(
        json!({"id": "a/b", "sha": COMMIT, "siblings": [{"rfilename": path, "size": length}]})
            .to_string(),
    )
}

/// The client gives up after two attempts and reports the second.
const IMPATIENT: &[(&str, &str)] = &[("HF_HUB_DOWNLOAD_TIMEOUT", "3")];
const TOKEN: &[(&str, &str)] = &[("HF_TOKEN", "hf_some")];
const GONE: (i32, &str) = (5, "not_found");
const DOWN: (i32, &str) = (75, "hub_unreachable");
const LIMITED: (i32, &str) = (75, "rate_limited");
const BAD: (i32, &str) = (3, "missing_metadata");
const FINE: (i32, &str) = (0, "");

fn refusals() -> Vec<Fault> {
    vec![
        fault(
            "gated, no token",
            (5, "gated"),
            "/a/b, then set HF_TOKEN",
            |_| Some(coded(401, "GatedRepo")),
        ),
        Fault {
            variables: TOKEN,
            ..fault(
                "gated, access not granted",
                (5, "gated"),
                "has not been granted access; ask for access at http",
                |_| Some(coded(403, "GatedRepo")),
            )
        },
        Fault {
            variables: TOKEN,
            ..fault(
                "token refused",
                (5, "unauthorized"),
                "refuses the token (HTTP 401); make a new one at",
                |_| Some(Reply::status(401)),
            )
        },
        fault(
            "no such repository, or a private one",
            GONE,
            "if it is private, set HF_TOKEN",
            |_| Some(Reply::status(401)),
        ),
        Fault {
            line: "estimate a/bcd",
            ..fault(
                "a name that is nearly right",
                GONE,
                "did you mean a/bc?",
                |_| None,
            )
        },
        Fault {
            line: "estimate a/b@mian",
            ..fault(
                "no such revision",
                GONE,
                "revision mian of a/b was not found",
                |request| is_info(request).then(|| coded(404, "RevisionNotFound")),
            )
        },
        Fault {
            line: "estimate a/b --file Q9_K",
            ..fault("no such file", GONE, "Q9_K", |_| None)
        },
        fault(
            "a listed file that is gone",
            GONE,
            "file config.json of a/b was not found",
            |request| {
                request
                    .target
                    .ends_with("config.json")
                    .then(|| coded(404, "EntryNotFound"))
            },
        ),
        fault(
            "forbidden by something in between",
            BAD,
            "403 Forbidden",
            |_| Some(Reply::status(403)),
        ),
        fault(
            "withheld by law",
            BAD,
            "for legal reasons (HTTP 451)",
            |_| Some(Reply::status(451)),
        ),
    ]
}

fn outages() -> Vec<Fault> {
    vec![
        fault(
            "429, Retry-After in seconds",
            LIMITED,
            "asks to wait 120 s",
            |_| Some(Reply::status(429).with("retry-after", "120")),
        ),
        fault(
            "429, Retry-After as a date",
            LIMITED,
            "asks to wait 1",
            |_| {
                let date = SystemTime::now() + Duration::from_secs(150);
                Some(Reply::status(429).with("retry-after", httpdate::fmt_http_date(date)))
            },
        ),
        fault("429, RateLimit", LIMITED, "asks to wait 77 s", |_| {
            Some(
                Reply::status(429)
                    .with("ratelimit", "\"api\";r=0;t=77")
                    .with("ratelimit-policy", "\"api\";q=500;w=300"),
            )
        }),
        fault(
            "429 without a word",
            LIMITED,
            "set HF_TOKEN for a higher limit",
            |_| Some(Reply::status(429)),
        ),
        fault("500 every time", DOWN, "HTTP 500", |_| {
            Some(Reply::status(500))
        }),
        fault("503 every time", DOWN, "HTTP 503", |_| {
            Some(Reply::status(503))
        }),
        Fault {
            variables: IMPATIENT,
            ..fault("no answer", DOWN, "no response in time", |_| {
                Some(Reply {
                    silent: true,
                    ..Reply::default()
                })
            })
        },
        Fault {
            variables: IMPATIENT,
            ..fault("a slow drip", DOWN, "no data", |request| {
                is_info(request).then(|| Reply {
                    stall_after: Some(3),
                    ..Reply::ok("{\"id\": 1}")
                })
            })
        },
        fault("reset", DOWN, "the request failed", |_| {
            Some(Reply {
                drop: true,
                ..Reply::default()
            })
        }),
        Fault {
            variables: &[("HF_ENDPOINT", "http://127.0.0.1:9")],
            ..fault("no listener", DOWN, "no connection", |_| None)
        },
        Fault {
            // The lookup uses the machine's own resolver, which may be unreachable.
            variables: &[
                ("HF_ENDPOINT", "http://no-such-host.invalid"),
                ("RES_OPTIONS", "timeout:1 attempts:1"),
            ],
            ..fault("an unknown host name", DOWN, "no connection", |_| None)
        },
        Fault {
            variables: &[("HF_HUB_OFFLINE", "1")],
            ..fault("offline", DOWN, "HF_HUB_OFFLINE is set", |_| None)
        },
    ]
}

fn nonsense() -> Vec<Fault> {
    vec![
        fault("a web page", BAD, "is HF_ENDPOINT a Hub?", |_| {
            Some(Reply::ok("<html>"))
        }),
        fault(
            "a redirect loop",
            BAD,
            "redirects more than 8 times",
            |request| Some(Reply::status(302).with("location", request.target.clone())),
        ),
        fault("a redirect to nowhere", BAD, "redirects to nowhere", |_| {
            Some(Reply::status(302))
        }),
        fault(
            "a redirect to a file of this host",
            BAD,
            "redirects to nowhere",
            |request| {
                is_header_at_hub(request)
                    .then(|| Reply::status(302).with("location", "file:///etc/passwd"))
            },
        ),
        fault(
            "a redirect to a cloud's metadata service",
            BAD,
            "the address of a cloud's metadata service",
            |request| {
                is_header_at_hub(request).then(|| {
                    Reply::status(302).with("location", "http://169.254.169.254/latest/meta-data/")
                })
            },
        ),
        fault(
            "the same through NAT64",
            BAD,
            "the address of a cloud's metadata service",
            |request| {
                is_header_at_hub(request)
                    .then(|| Reply::status(302).with("location", "http://[64:ff9b::a9fe:a9fe]/"))
            },
        ),
        fault(
            "a redirect to a link-local address",
            BAD,
            "a link-local address",
            |request| {
                is_header_at_hub(request)
                    .then(|| Reply::status(302).with("location", "http://[::ffff:169.254.7.7]/"))
            },
        ),
        fault("a wrong Content-Range", DOWN, "Content-Range", |request| {
            is_header(request).then(|| {
                Reply {
                    status: 206,
                    ..Reply::ok("x")
                }
                .with("content-range", "bytes 5-99/100")
            })
        }),
        fault(
            "an answer that breaks off",
            DOWN,
            "the response broke off",
            |request| {
                is_header(request).then(|| Reply {
                    cut_after: Some(20),
                    ..super::fake_hub::well_behaved(request, "")
                })
            },
        ),
        fault(
            "a header of 2^63 bytes",
            BAD,
            "claims 9223372036854775808 bytes",
            |request| {
                is_header(request)
                    .then(|| super::fake_hub::ranged(&(1_u64 << 63).to_le_bytes(), request))
            },
        ),
        fault("a header that is no JSON", BAD, "JSON", |request| {
            let bytes = [&64_u64.to_le_bytes()[..], &[b'x'; 1 << 20]].concat();
            is_header(request).then(|| super::fake_hub::ranged(&bytes, request))
        }),
        fault(
            "tensors past the end",
            BAD,
            "model.safetensors of a/b",
            |request| {
                let mut bytes = safetensors(&[("w", "F32", 4, &[512, 512])]);
                bytes.truncate(4096);
                if is_info(request) {
                    Some(listing("model.safetensors", 4096))
                } else {
                    is_header(request).then(|| super::fake_hub::ranged(&bytes, request))
                }
            },
        ),
        fault(
            "a file without end in place of a small one",
            BAD,
            "more than",
            |request| {
                request
                    .target
                    .ends_with("config.json")
                    .then(|| Reply::ok(vec![b' '; 9 << 20]))
            },
        ),
        fault(
            "a short configuration that is long in memory",
            BAD,
            "config.json: its 200002 values take",
            |request| {
                let long_config =
                    || format!("{{\"a\":[{{\"\":0}}{}]}}", ",{\"\":0}".repeat(99_999));
                request
                    .target
                    .ends_with("config.json")
                    .then(|| Reply::ok(long_config()))
            },
        ),
        fault("no weights", BAD, "no weights", |request| {
            is_info(request).then(|| listing("README.md", 1))
        }),
    ]
}

fn is_header_at_hub(request: &Request) -> bool {
    !request.store && request.target.contains(".safetensors")
}

/// Returns faults that must not prevent an answer.
fn survived() -> Vec<Fault> {
    vec![
        fault("each request fails once, 429 or 503", FINE, "", {
            let seen = Mutex::new(Vec::new());
            move |request| {
                let mut seen = seen.lock().expect("locked");
                let first = !seen.contains(&request.target);
                seen.push(request.target.clone());
                let status = if seen.len() % 2 == 0 { 429 } else { 503 };
                first.then(|| Reply::status(status))
            }
        }),
        fault("Range ignored (200)", FINE, "", |request| {
            // It never sends the rest: a client that waited for it would not answer.
            is_header(request).then(|| Reply {
                stall_after: Some(140_000),
                ..Reply::ok(super::fake_hub::weights())
            })
        }),
        fault("a renamed repository (307)", FINE, "", |request| {
            let old = request.target.strip_prefix("/api/models/a/b/")?;
            (!old.contains("moved")).then(|| {
                Reply::status(307).with("location", format!("/api/models/a/b/{old}&moved=1"))
            })
        }),
        fault("a list of 2 MiB", FINE, "", |request| {
            is_info(request).then(|| {
                let mut reply = super::fake_hub::well_behaved(request, "");
                reply.body.splice(0..0, vec![b' '; 2 << 20]);
                reply
            })
        }),
        fault("a list in pages", FINE, "", |request| {
            if is_info(request) {
                return Some(Reply::ok(
                    json!({"id": "a/b", "sha": COMMIT, "siblings": [{"rfilename": "x"}]})
                        .to_string(),
                ));
            }

            let length = super::fake_hub::weights().len();
            request
                .target
                .starts_with("/api/models/a/b/tree/")
                .then(|| {
                    if request.target.contains("cursor=2") {
                        Reply::ok(
                            json!([{"type": "file", "path": "model.safetensors", "size": length}])
                                .to_string(),
                        )
                    } else {
                        let next = "</api/models/a/b/tree/x?recursive=true&cursor=2>; rel=\"next\"";
                        Reply::ok("[]").with("link", next)
                    }
                })
        }),
        fault("files in Xet", FINE, "", |request| {
            is_header_at_hub(request).then(|| {
                super::fake_hub::well_behaved(request, &request.store_endpoint)
                    .with("x-xet-hash", "00ff")
                    .with(
                        "link",
                        "</api/models/a/b/xet-read-token/x>; rel=\"xet-auth\"",
                    )
            })
        }),
    ]
}

#[tokio::test]
async fn each_fault_has_message_and_code() {
    let rows = refusals()
        .into_iter()
        .chain(outages())
        .chain(nonsense())
        .chain(survived());
    let reports = rows.map(
        |Fault {
             name,
             script,
             variables,
             line,
             code,
             reason,
             says,
         }| async move {
            let hub = FakeHub::start(script).await;

            // A success may take as long as it needs; a lasting fault ends soon.
            let lasts = [DOWN, LIMITED].contains(&(code, reason));
            let budget = if lasts { "8s" } else { "60s" };
            let mut user = User::of(&hub.endpoint).with("HF_MEM_PROBE_HUB_BUDGET", budget);
            for (variable, value) in variables {
                user = user.with(variable, value);
            }
            // The reference engine needs no architecture, and the well-behaved Hub's small model
            // has none.
            let outcome = user
                .run(&format!("{line} --engine reference --local --json"))
                .await;

            let said = outcome.json();
            let detail = said["detail"]
                .as_str()
                .unwrap_or_default()
                .replace(&hub.endpoint, "https://hub");

            if reason.is_empty() {
                assert_eq!(
                    said["model"]["weights_bytes"],
                    1 << 20,
                    "{name}: {outcome:?}"
                );
            } else {
                assert_eq!(
                    (outcome.code, said["reason"].as_str()),
                    (code, Some(reason)),
                    "{name}: {outcome:?}"
                );

                assert!(detail.contains(says), "{name}: {detail}");
                assert!(
                    outcome.err.is_empty() || !outcome.err.contains("panicked"),
                    "{name}: {outcome:?}"
                );
            }

            match reason {
                // The small model has no configuration, so its weights are the whole answer.
                "" => format!("| {name} | - | as ever | answered, every byte right |"),
                _ => format!("| {name} | {reason} | {} | {detail} |", outcome.code),
            }
        },
    );

    println!("| fault | reason | exit | message |\n| --- | --- | --- | --- |");
    let mut rows = stream::iter(reports).buffered(16);

    while let Some(row) = rows.next().await {
        println!("{row}");
    }
}

#[tokio::test]
async fn unavailable_hub_gets_stale_answer() {
    let down = std::sync::Arc::new(Mutex::new(false));
    let repositories = Repositories::default().with("a/dense", dense());

    let hub = FakeHub::start({
        let down = std::sync::Arc::clone(&down);
        move |request, _| {
            Some(if *down.lock().expect("locked") {
                Reply::status(503)
            } else {
                repositories.reply(request)
            })
        }
    })
    .await;
    let user = User::of(&hub.endpoint);
    let daemon = Daemon::start(&user, "branch_age = \"0s\"", "", &[]).await;
    let fresh = user
        .ask(&daemon.socket(), None, "fits a/dense --json")
        .await;
    assert_eq!(
        (fresh.code, fresh.json()["stale"].as_bool()),
        (0, Some(false)),
        "{fresh:?}"
    );

    *down.lock().expect("locked") = true;
    let stale = user
        .ask(&daemon.socket(), None, "fits a/dense --json")
        .await;
    let said = stale.json();
    assert_eq!(
        (stale.code, said["stale"].as_bool()),
        (0, Some(true)),
        "{stale:?}"
    );

    assert!(said["warnings"].to_string().contains("Hub"), "{stale:?}");
    assert_eq!(said["requirement"], fresh.json()["requirement"]);
    let unknown = user
        .ask(&daemon.socket(), None, "fits a/other --json")
        .await;
    assert_eq!(
        (unknown.code, unknown.json()["reason"].as_str()),
        (75, Some("hub_unreachable")),
        "{unknown:?}"
    );
}

/// 200 callers that ask a daemon for one uncached model cost as much as one.
#[tokio::test]
async fn concurrent_requests_share_one_reading() {
    let repositories = Repositories::default().with("a/dense", dense());
    let hub = FakeHub::start(move |request, _| Some(repositories.reply(request))).await;
    let user = User::of(&hub.endpoint).with("HF_TOKEN", OWNER);
    assert_eq!(user.run("estimate a/dense --local --json").await.code, 0);
    let one = hub.requests().len();
    let daemon = Daemon::start(&user, "", "[access]\n", &[]).await;
    let question = r#"{"model": {"repo": "a/dense"}}"#;

    let asked = (0..200).map(|_| {
        let client = hf_mem_probe::api::client::Client::new(daemon.socket());
        async move {
            client
                .fits(&serde_json::from_str(question).expect("a question"))
                .await
                .expect("an answer")
        }
    });

    // At most 100 at once: a system's connection backlog may be as short as 128.
    let answers: Vec<_> = stream::iter(asked).buffer_unordered(100).collect().await;
    assert!(
        answers
            .iter()
            .all(|answer| answer.known_reason() == Some(Reason::Fits))
    );

    assert_eq!(
        hub.requests().len() - one,
        one,
        "the requests of one caller"
    );
}
