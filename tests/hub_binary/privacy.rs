//! Checks what users of a shared daemon can see, and that no token is ever written.
//!
//! Only root can act as another user. Without root, the tests of other users print that they skip.

#![expect(
    clippy::print_stdout,
    reason = "what is skipped or searched is for a person"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::fake_hub::repositories::{OWNER, Repositories, Repository, STRANGER, dense};
use super::fake_hub::{COMMIT, FakeHub};
use super::harness::{Daemon, User};

/// The usual uid of `nobody`.
const NOBODY: u32 = 65_534;

fn repositories() -> Repositories {
    Repositories::default()
        .with("a/dense", dense())
        .with(
            "a/gated",
            Repository {
                gated: true,
                ..dense()
            },
        )
        .with(
            "a/private",
            Repository {
                private: true,
                ..dense()
            },
        )
}

async fn start() -> FakeHub {
    let repositories = repositories();
    FakeHub::start(move |request, _| Some(repositories.reply(request))).await
}

/// Starts a daemon with the owner's token and a socket that is open to all. `more` extends its
/// configuration.
async fn daemon(user: &User, more: &str) -> Daemon {
    let token = user.path("hub-token");
    fs::write(&token, OWNER).expect("written");

    let daemon = Daemon::start(
        user,
        &format!("token_file = \"{}\"", token.display()),
        more,
        &[],
    )
    .await;
    fs::set_permissions(daemon.folder.path(), fs::Permissions::from_mode(0o755)).expect("set");

    daemon
}

fn can_act_as_others(program: &Path) -> bool {
    // Other users must be able to enter every folder above the binary, the sockets and the homes.
    let is_open =
        |path: &Path| fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o001 != 0);
    let can_act = rustix::process::geteuid().is_root()
        && program.ancestors().all(is_open)
        && std::env::temp_dir().ancestors().all(is_open);
    if !can_act {
        println!(
            "skipped: only root can act as another user, and only where others may run the binary and enter the folder of temporary files"
        );
    }

    can_act
}

#[tokio::test]
async fn daemon_token_opens_nothing_to_others() {
    let hub = start().await;
    let user = User::of(&hub.endpoint);
    if !can_act_as_others(Path::new(user.program().get_program())) {
        return;
    }

    let daemon = daemon(&user, "").await;
    let socket = daemon.socket();
    let stranger = User::of(&hub.endpoint).with("HF_TOKEN", STRANGER);
    let ask = |who: &'static str, repo: &'static str| {
        let (socket, user, stranger) = (socket.clone(), &user, &stranger);
        async move {
            let line = format!("fits {repo} --json");
            match who {
                "nobody" => user.ask(&socket, Some(NOBODY), &line).await,
                "stranger" => stranger.ask(&socket, Some(NOBODY), &line).await,
                _ => user.ask(&socket, None, &line).await,
            }
        }
    };

    let mut before = Vec::new();
    for who in ["nobody", "stranger"] {
        for repo in ["a/gated", "a/private", "a/absent"] {
            before.push((who, repo, ask(who, repo).await));
        }
    }
    // Root may use the daemon's token. Now the daemon has both in memory and on disk.
    for repo in ["a/gated", "a/private"] {
        let seen = ask("root", repo).await;
        assert_eq!(
            (seen.code, seen.json()["verdict"].as_str()),
            (0, Some("fits")),
            "{seen:?}"
        );
    }

    for (who, repo, was) in &before {
        let is = ask(who, repo).await;
        assert_eq!((is.code, &is.out), (was.code, &was.out), "{who} on {repo}");

        let reason = if *repo == "a/gated" {
            "gated"
        } else {
            "not_found"
        };

        assert_eq!(
            (is.code, is.json()["reason"].as_str()),
            (5, Some(reason)),
            "{who} on {repo}: {is:?}"
        );
    }

    for who in ["nobody", "stranger"] {
        // A private repository looks like an absent one.
        let (private, absent) = (ask(who, "a/private").await, ask(who, "a/absent").await);
        assert_eq!(
            private.out.replace("a/private", "X"),
            absent.out.replace("a/absent", "X"),
            "{who}"
        );
    }
    // Also check users that the configuration names, and users with their own token.
    let owner = User::of(&hub.endpoint).with("HF_TOKEN", OWNER);

    let own = owner
        .ask(&socket, Some(NOBODY), "fits a/private --json")
        .await;
    assert_eq!(own.code, 0, "{own:?}");
    drop(daemon);
    let trusting = self::daemon(&user, "[access]\ntoken_users = [\"65534\"]").await;
    let named = user
        .ask(&trusting.socket(), Some(NOBODY), "fits a/private --json")
        .await;
    assert_eq!(named.code, 0, "{named:?}");
}

/// Collects every file below `folder`, as it is and unpacked.
fn texts(folder: &Path, into: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(folder).expect("listed").flatten() {
        let path = entry.path();
        into.push((
            path.clone(),
            entry.file_name().to_string_lossy().into_owned(),
        ));

        if path.is_dir() {
            texts(&path, into);
        } else if path.is_file() {
            let bytes = fs::read(&path).expect("read");
            let mut unpacked = String::new();
            let _ = std::io::Read::read_to_string(
                &mut flate2::read::GzDecoder::new(bytes.as_slice()),
                &mut unpacked,
            );
            into.push((path.clone(), unpacked));
            into.push((path, String::from_utf8_lossy(&bytes).into_owned()));
        }
    }
}

/// Searches everything that is written for the tokens of the daemon and a user, and for the store's
/// signature.
#[tokio::test]
async fn tokens_are_never_written() {
    let faulty = repositories();
    let hub = FakeHub::start(move |request, before| {
        // Some requests fail, so that the log contains failures.
        let fails = before % 5 == 3;
        Some(if fails {
            super::fake_hub::Reply::status(503)
        } else {
            faulty.reply(request)
        })
    })
    .await;

    let user = User::of(&hub.endpoint);
    let daemon = daemon(&user, "").await;
    let stranger = User::of(&hub.endpoint).with("HF_TOKEN", STRANGER);
    let bad = User::of(&hub.endpoint).with("HF_TOKEN", "hf_bad_canary_11");
    let mut found: Vec<(PathBuf, String)> = Vec::new();
    let mut searched = vec!["daemon's log at trace"];

    for (who, name) in [
        (&user, "root"),
        (&stranger, "stranger"),
        (&bad, "bad token"),
    ] {
        for line in [
            "fits a/gated",
            "fits a/private",
            "fits a/dense",
            "estimate a/gated --local",
            "fits a/gated --json",
            "fits a/gated --reserve --holder job --json",
            "lease list",
            "health --json",
            "pack a/gated -o bundle --json",
        ] {
            let outcome = who.ask(&daemon.socket(), None, line).await;
            found.push((
                format!("{name}: {line}").into(),
                format!("{}{}", outcome.out, outcome.err),
            ));
        }
    }

    searched.push("stdout, stderr and errors of fits, estimate, reserve, lease, health and pack");
    assert!(
        user.path("bundle").exists() || found.iter().any(|(_, text)| text.contains("gated")),
        "the daemon received requests"
    );

    let metrics = hf_mem_probe::api::client::Client::new(daemon.socket())
        .metrics()
        .await
        .expect("metrics");
    assert!(
        metrics.contains("hf_mem_probe_questions_total"),
        "{metrics}"
    );
    found.push(("metrics".into(), metrics));
    searched.push("/metrics");
    found.push(("log".into(), daemon.log()));

    assert!(
        daemon.log().contains("a request to the Hub failed"),
        "the log reports failed requests"
    );
    for (folder, what) in [
        ("cache", "the daemon's cache"),
        ("state", "lease store and journal"),
        (".", "its whole folder"),
    ] {
        texts(&daemon.folder.path().join(folder), &mut found);
        searched.push(what);
    }

    for home in [&user, &stranger, &bad] {
        texts(home.home.path(), &mut found);
    }

    searched.push("users' caches and bundles");
    let places_of = |secret: &str| {
        // The daemon's own token file is the source of the token.
        let own = user.path("hub-token");
        found
            .iter()
            .filter(|(place, text)| *place != own && text.contains(secret))
            .map(|(place, _)| place.display().to_string())
            .collect::<Vec<_>>()
    };

    for secret in [OWNER, STRANGER, "hf_bad_canary_11", "secret-signature"] {
        assert_eq!(places_of(secret), Vec::<String>::new(), "{secret}");
    }

    assert!(found.len() > 40, "{} places", found.len());
    println!("searched {} texts: {}", found.len(), searched.join("; "));

    // A crash must leave no core file: the unit forbids it.
    let unit = fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/hf-mem-probe.service"),
    )
    .expect("a unit");
    assert!(unit.contains("LimitCORE=0"));
}

/// Creates a model `q/m` in a Hugging Face cache as the daemon's user would download it. All users
/// may enter its folders.
fn downloaded(cache: &Path) -> PathBuf {
    let model = cache.join("models--q--m");
    let snapshot = model.join("snapshots").join(COMMIT);
    for folder in [&snapshot, &model.join("refs")] {
        fs::create_dir_all(folder).expect("made");
    }

    fs::write(model.join("refs/main"), COMMIT).expect("written");
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/Qwen3-8B");
    for entry in fs::read_dir(fixture).expect("listed").flatten() {
        fs::copy(entry.path(), snapshot.join(entry.file_name())).expect("copied");
    }

    let mut folders = vec![cache.to_owned()];
    while let Some(folder) = folders.pop() {
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("set");
        for entry in fs::read_dir(&folder).expect("listed").flatten() {
            match entry.path() {
                path if path.is_dir() => folders.push(path),
                path => fs::set_permissions(path, fs::Permissions::from_mode(0o644)).expect("set"),
            }
        }
    }

    snapshot
}

#[tokio::test]
async fn huggingface_cache_follows_permissions() {
    // No Hub answers and there is no token, so the downloaded files are the only source.
    let user = User::of("http://127.0.0.1:9");
    if !can_act_as_others(Path::new(user.program().get_program())) {
        return;
    }

    fs::set_permissions(user.home.path(), fs::Permissions::from_mode(0o755)).expect("set");
    let cache = user.path("hf");
    let snapshot = downloaded(&cache);
    let variables = [("HF_HUB_CACHE", cache.to_str().expect("UTF-8"))];
    let daemon = Daemon::start(&user, "offline = true", "", &variables).await;
    fs::set_permissions(daemon.folder.path(), fs::Permissions::from_mode(0o755)).expect("set");
    let socket = daemon.socket();
    let ask = async |uid: Option<u32>, repo: &str| {
        user.ask(&socket, uid, &format!("fits {repo} --json")).await
    };

    let absent = ask(Some(NOBODY), "q/x").await;
    assert_eq!(absent.code, 75, "{absent:?}");

    let open = ask(Some(NOBODY), "q/m").await;
    assert_eq!(
        open.code, 0,
        "a user who can read the files gets an answer: {open:?}"
    );
    let config = snapshot.join("config.json");
    for (path, closed, opened) in [
        (config.as_path(), 0o640, 0o644),
        (&snapshot, 0o750, 0o755),
        (&cache, 0o700, 0o755),
    ] {
        fs::set_permissions(path, fs::Permissions::from_mode(closed)).expect("set");

        // Root asks before and after, so that a leak from memory to another user would show.
        for _ in 0..2 {
            let own = ask(None, "q/m").await;
            assert_eq!(own.code, 0, "{own:?}");
            let refused = ask(Some(NOBODY), "q/m").await;
            let [is, was] = [(&refused.out, "q/m"), (&absent.out, "q/x")]
                .map(|(out, repo)| out.replace(repo, "X"));
            assert_eq!((refused.code, is), (absent.code, was), "{}", path.display());
        }

        fs::set_permissions(path, fs::Permissions::from_mode(opened)).expect("set");
    }

    assert_eq!(ask(Some(NOBODY), "q/m").await.code, 0);
    drop(daemon);

    // Users of the daemon's token may also read what was downloaded.
    fs::set_permissions(&config, fs::Permissions::from_mode(0o600)).expect("set");
    let trusting = Daemon::start(
        &user,
        "offline = true",
        "[access]\ntoken_users = [\"65534\"]",
        &variables,
    )
    .await;

    fs::set_permissions(trusting.folder.path(), fs::Permissions::from_mode(0o755)).expect("set");
    let trusted = user
        .ask(&trusting.socket(), Some(NOBODY), "fits q/m --json")
        .await;
    assert_eq!(trusted.code, 0, "{trusted:?}");
}
