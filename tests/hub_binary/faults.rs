//! What a Hub may do wrong, through the real binary: fault, reason, exit code, message.
//! `--nocapture` prints the table.

use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use futures_util::{StreamExt as _, stream};
use hf_mem_core::report::problem::Reason;
use serde_json::json;

use super::asking::{Daemon, User};
use super::fake_hub::shelf::{OWNER, Shelf, dense, safetensors};
use super::fake_hub::{COMMIT, FakeHub, Reply, Request};

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

fn info(request: &Request) -> bool {
    request.target.contains("/revision/")
}

fn header(request: &Request) -> bool {
    request.store && request.target.contains(".safetensors")
}

fn coded(status: u16, code: &'static str) -> Reply {
    Reply::status(status).with("x-error-code", code)
}

/// The Hub's listing of one file of weights.
fn listing(path: &str, length: u64) -> Reply {
    Reply::ok(
        json!({"id": "a/b", "sha": COMMIT, "siblings": [{"rfilename": path, "size": length}]})
            .to_string(),
    )
}

/// Given up after two attempts; how the second ends is told.
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
                |request| info(request).then(|| coded(404, "RevisionNotFound")),
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
                Some(Reply::status(429).with("retry-after", http_date(date)))
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
        fault("500 for ever", DOWN, "HTTP 500", |_| {
            Some(Reply::status(500))
        }),
        fault("503 for ever", DOWN, "HTTP 503", |_| {
            Some(Reply::status(503))
        }),
        Fault {
            variables: IMPATIENT,
            ..fault("no answer", DOWN, "no answer in time", |_| {
                Some(Reply {
                    silent: true,
                    ..Reply::default()
                })
            })
        },
        Fault {
            variables: IMPATIENT,
            ..fault("a slow drip", DOWN, "nothing", |request| {
                info(request).then(|| Reply {
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
            ..fault("nobody listens", DOWN, "no connection", |_| None)
        },
        Fault {
            // The name is asked for at the machine's own resolver, which may not be reached.
            variables: &[
                ("HF_ENDPOINT", "http://no-such-host.invalid"),
                ("RES_OPTIONS", "timeout:1 attempts:1"),
            ],
            ..fault("a name that no one knows", DOWN, "no connection", |_| None)
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
                header_at_hub(request)
                    .then(|| Reply::status(302).with("location", "file:///etc/passwd"))
            },
        ),
        fault(
            "a redirect to a cloud's metadata service",
            BAD,
            "the address of a cloud's metadata service",
            |request| {
                header_at_hub(request).then(|| {
                    Reply::status(302).with("location", "http://169.254.169.254/latest/meta-data/")
                })
            },
        ),
        fault(
            "the same through NAT64",
            BAD,
            "the address of a cloud's metadata service",
            |request| {
                header_at_hub(request)
                    .then(|| Reply::status(302).with("location", "http://[64:ff9b::a9fe:a9fe]/"))
            },
        ),
        fault(
            "a redirect to a link-local address",
            BAD,
            "a link-local address",
            |request| {
                header_at_hub(request)
                    .then(|| Reply::status(302).with("location", "http://[::ffff:169.254.7.7]/"))
            },
        ),
        fault("a wrong Content-Range", DOWN, "Content-Range", |request| {
            header(request).then(|| {
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
            "the answer broke off",
            |request| {
                header(request).then(|| Reply {
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
                header(request)
                    .then(|| super::fake_hub::ranged(&(1_u64 << 63).to_le_bytes(), request))
            },
        ),
        fault("a header that is no JSON", BAD, "JSON", |request| {
            let bytes = [&64_u64.to_le_bytes()[..], &[b'x'; 1 << 20]].concat();
            header(request).then(|| super::fake_hub::ranged(&bytes, request))
        }),
        fault(
            "tensors past the end",
            BAD,
            "model.safetensors of a/b",
            |request| {
                let mut bytes = safetensors(&[("w", "F32", 4, &[512, 512])]);
                bytes.truncate(4096);
                if info(request) {
                    Some(listing("model.safetensors", 4096))
                } else {
                    header(request).then(|| super::fake_hub::ranged(&bytes, request))
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
                let config = || format!("{{\"a\":[{{\"\":0}}{}]}}", ",{\"\":0}".repeat(99_999));
                request
                    .target
                    .ends_with("config.json")
                    .then(|| Reply::ok(config()))
            },
        ),
        fault("no weights", BAD, "no weights", |request| {
            info(request).then(|| listing("README.md", 1))
        }),
    ]
}

fn header_at_hub(request: &Request) -> bool {
    !request.store && request.target.contains(".safetensors")
}

/// Faults that must not keep the answer away.
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
            // It never sends the rest: who waited for it would not answer.
            header(request).then(|| Reply {
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
            info(request).then(|| {
                let mut reply = super::fake_hub::well_behaved(request, "");
                reply.body.splice(0..0, vec![b' '; 2 << 20]);
                reply
            })
        }),
        fault("a list in pages", FINE, "", |request| {
            if info(request) {
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
            header_at_hub(request).then(|| {
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
async fn each_fault_has_its_message_and_its_exit_code() {
    let rows = refusals()
        .into_iter()
        .chain(outages())
        .chain(nonsense())
        .chain(survived());
    let asked = rows.map(
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

            // What is answered takes as long as it takes; what lasts is given up soon.
            let lasts = [DOWN, LIMITED].contains(&(code, reason));
            let budget = if lasts { "8s" } else { "60s" };
            let mut user = User::of(&hub.endpoint).with("HF_MEM_PROBE_HUB_BUDGET", budget);
            for (variable, value) in variables {
                user = user.with(variable, value);
            }
            // The reference engine needs no architecture, which the well-behaved Hub's small model
            // has none of.
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
                // The small model has no configuration, so that its weights are all the answer
                // there is.
                "" => format!("| {name} | - | as ever | answered, every byte right |"),
                _ => format!("| {name} | {reason} | {} | {detail} |", outcome.code),
            }
        },
    );

    println!("| fault | reason | exit | message |\n| --- | --- | --- | --- |");
    let mut rows = stream::iter(asked).buffered(16);

    while let Some(row) = rows.next().await {
        println!("{row}");
    }
}

/// `Wed, 21 Oct 2026 07:28:00 GMT`.
fn http_date(time: SystemTime) -> String {
    let text = humantime::format_rfc3339_seconds(time).to_string();
    let (date, clock) = text.split_once('T').expect("a time");
    let parts: Vec<&str> = date.split('-').collect();
    let months = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let month = months[parts[1].parse::<usize>().expect("a month") - 1];

    format!(
        "Wed, {} {month} {} {} GMT",
        parts[2],
        parts[0],
        clock.trim_end_matches('Z')
    )
}

#[tokio::test]
async fn a_stale_answer_is_given_and_said_to_be_stale_when_the_hub_is_down() {
    let down = std::sync::Arc::new(Mutex::new(false));
    let shelf = Shelf::default().with("a/dense", dense());

    let hub = FakeHub::start({
        let down = std::sync::Arc::clone(&down);
        move |request, _| {
            Some(if *down.lock().expect("locked") {
                Reply::status(503)
            } else {
                shelf.reply(request)
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

/// 200 who ask a daemon for one cold model cost what one costs; then it is known.
#[tokio::test]
async fn two_hundred_askers_cost_one_reading() {
    let shelf = Shelf::default().with("a/dense", dense());
    let hub = FakeHub::start(move |request, _| Some(shelf.reply(request))).await;
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

    // No more at once than a system's queue of connections may hold, which may be no longer than
    // 128.
    let answers: Vec<_> = stream::iter(asked).buffer_unordered(100).collect().await;
    assert!(
        answers
            .iter()
            .all(|answer| answer.known_reason() == Some(Reason::Fits))
    );

    assert_eq!(hub.requests().len() - one, one, "one asker's requests");
}
