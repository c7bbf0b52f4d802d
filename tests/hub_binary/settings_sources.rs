//! Sources of endpoints, tokens and caches, by the names that huggingface_hub and systemd use.

use std::fs;
use std::path::Path;

use super::fake_hub::FakeHub;
use super::fake_hub::repositories::{OWNER, Repositories, Repository, STRANGER, dense};
use super::harness::{Daemon, User, requests_of};

async fn hub() -> FakeHub {
    let repositories = Repositories::default()
        .with("a/dense", dense())
        .with(
            "a/private",
            Repository {
                private: true,
                ..dense()
            },
        )
        .with(
            "acme/own",
            Repository {
                private: true,
                ..dense()
            },
        );

    FakeHub::start(move |request, _| Some(repositories.reply(request))).await
}

const ASK: &str = "estimate a/private --local --json";

#[tokio::test]
async fn token_is_found_in_each_source() {
    let hub = hub().await;
    assert_eq!(
        User::of(&hub.endpoint).run(ASK).await.code,
        5,
        "invisible without a token"
    );

    let write_token = |user: &User, name: &str, token: &str| {
        let path = user.path(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(&path, format!("{token}\n")).expect("written");
        path.display().to_string()
    };

    let new_user = || User::of(&hub.endpoint);
    let can_see = |user: User| async move { user.run(ASK).await.code == 0 };
    assert!(can_see(new_user().with("HF_TOKEN", OWNER)).await);
    assert!(can_see(new_user().with("HUGGING_FACE_HUB_TOKEN", OWNER)).await);
    let named = new_user();
    let path = write_token(&named, "my-token", OWNER);
    assert!(can_see(named.with("HF_TOKEN_PATH", path)).await);
    let at_home = new_user();
    write_token(&at_home, ".cache/huggingface/token", OWNER);
    assert!(can_see(at_home).await);
    let hf_home = new_user();
    let path = write_token(&hf_home, "elsewhere/token", OWNER);
    assert!(can_see(hf_home.with("HF_HOME", path.trim_end_matches("/token"))).await);
    let credential = new_user();
    let path = write_token(&credential, "credentials/hf_token", OWNER);
    assert!(
        can_see(credential.with("CREDENTIALS_DIRECTORY", path.trim_end_matches("/hf_token"))).await
    );
    let both = new_user();
    write_token(&both, ".cache/huggingface/token", OWNER);

    assert!(
        !can_see(both.with("HF_TOKEN", STRANGER)).await,
        "the variable takes precedence over the file"
    );
    let without = new_user();
    write_token(&without, ".cache/huggingface/token", OWNER);
    assert!(!can_see(without.with("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")).await);
}

#[tokio::test]
async fn daemon_token_is_found_in_each_source() {
    let hub = hub().await;
    let asker = User::of(&hub.endpoint);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("hub-token");
    fs::write(&path, OWNER).expect("written");
    let credentials = folder.path().display().to_string();
    let token_file = format!("token_file = \"{}\"", path.display());

    for (table, folder, code) in [
        ("", None, 5),
        ("", Some(credentials.as_str()), 0),
        (token_file.as_str(), None, 0),
    ] {
        let variables: Vec<_> = folder
            .map(|folder| ("CREDENTIALS_DIRECTORY", folder))
            .into_iter()
            .collect();
        let daemon = Daemon::start(&asker, table, "", &variables).await;
        let outcome = asker
            .ask(&daemon.socket(), None, "fits a/private --json")
            .await;
        assert_eq!(outcome.code, code, "{table} {variables:?}: {outcome:?}");

        assert!(
            outcome.err.contains("answered by the daemon") || code == 5,
            "{outcome:?}"
        );
    }
}

#[tokio::test]
async fn prefixes_select_hub_and_token() {
    let (public, private) = (hub().await, hub().await);
    let asker = User::of(&public.endpoint);
    let folder = tempfile::tempdir().expect("a folder");
    let token = folder.path().join("acme");
    fs::write(&token, OWNER).expect("written");

    let more = format!(
        "[hub.endpoints]\n\"acme/\" = \"{}\"\n[hub.endpoint_token_files]\n\"acme/\" = \"{}\"",
        private.endpoint,
        token.display()
    );
    let daemon = Daemon::start(&asker, "", &more, &[]).await;
    let own = asker
        .ask(&daemon.socket(), None, "fits acme/own --json")
        .await;
    assert_eq!(own.code, 0, "{own:?}");

    assert_eq!(public.requests().len(), 0, "the public Hub gets no request");

    assert_eq!(
        asker
            .ask(&daemon.socket(), None, "fits a/dense --json")
            .await
            .code,
        0
    );

    assert!(
        public
            .requests()
            .iter()
            .all(|request| !request.head.contains(OWNER)),
        "and does not see its token"
    );

    let sent = private
        .requests()
        .iter()
        .filter(|request| request.head.contains(OWNER))
        .count();
    assert!(
        sent > 0
            && private
                .requests()
                .iter()
                .all(|request| !request.store || !request.head.contains(OWNER))
    );
}

#[tokio::test]
async fn offline_answers_from_the_cache() {
    let hub = hub().await;
    let user = User::of(&hub.endpoint);
    let online = user.run("estimate a/dense --local --json").await;
    let user = user.with("HF_HUB_OFFLINE", "1");
    let (known, requests) = requests_of(&hub, user.run("estimate a/dense --local --json")).await;
    assert_eq!((known.code, requests), (0, 0), "{known:?}");
    assert_eq!(known.json()["requirement"], online.json()["requirement"]);
    let (packed, requests) = requests_of(&hub, user.run("pack a/dense -o dense --json")).await;
    assert_eq!(
        (packed.code, requests),
        (0, 0),
        "a cached model can be packed offline: {packed:?}"
    );

    let unknown = user.run("estimate a/other --local --json").await;
    assert_eq!(
        (unknown.code, unknown.json()["reason"].as_str()),
        (75, Some("hub_unreachable")),
        "{unknown:?}"
    );

    assert!(unknown.out.contains("HF_HUB_OFFLINE is set"), "{unknown:?}");

    // Check huggingface_hub's own cache at each place that its variables can name.
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/Qwen3-8B");
    for (variable, below) in [("HF_HUB_CACHE", ""), ("HF_HOME", "hub")] {
        let user = User::of(&hub.endpoint).with("HF_HUB_OFFLINE", "1");
        let cache = user.path("hf");
        let folder = cache.join(below).join("models--q--m");
        fs::create_dir_all(folder.join("snapshots")).expect("made");
        fs::create_dir_all(folder.join("refs")).expect("made");
        fs::write(folder.join("refs/main"), super::fake_hub::COMMIT).expect("written");

        std::os::unix::fs::symlink(
            &model,
            folder.join("snapshots").join(super::fake_hub::COMMIT),
        )
        .expect("linked");

        let user = user.with(variable, cache.display().to_string());
        let (found, requests) = requests_of(&hub, user.run("estimate q/m --local --json")).await;
        assert_eq!((found.code, requests), (0, 0), "{variable}: {found:?}");
    }
}

#[tokio::test]
async fn cache_survives_damage_and_full_disk() {
    let hub = hub().await;
    let user = User::of(&hub.endpoint);
    let line = "estimate a/dense --local --json";
    let (first, cold) = requests_of(&hub, user.run(line)).await;
    let (warm, none) = requests_of(&hub, user.run(line)).await;
    assert_eq!((first.code, warm.code, none), (0, 0, 0), "{warm:?}");
    assert_eq!(first.out, warm.out);
    assert!(cold >= 2);
    let entries = user.path(".cache/hf-mem-probe/v1/model");
    let entry = fs::read_dir(&entries)
        .expect("listed")
        .flatten()
        .next()
        .expect("an entry")
        .path();

    let length = fs::metadata(&entry).expect("there").len();
    assert!(length < 16 << 10, "{length} bytes");

    for spoil in [
        &b""[..],
        b"nonsense",
        &fs::read(&entry).expect("read")[..200],
    ] {
        fs::write(&entry, spoil).expect("spoiled");
        let (again, requests) = requests_of(&hub, user.run(line)).await;
        assert_eq!((again.code, requests > 0), (0, true), "{again:?}");
        assert_eq!(again.out, first.out);
    }

    assert_eq!(
        requests_of(&hub, user.run(line)).await.1,
        0,
        "and it is whole again"
    );

    // The process can write no byte, and still answers.
    let full = User::of(&hub.endpoint);
    let mut command = std::process::Command::new("sh");
    let program = full.program();
    command
        .arg("-c")
        .arg("trap '' XFSZ; ulimit -f 0; exec \"$0\" estimate a/dense --local --json");

    command
        .arg(program.get_program())
        .env_clear()
        .env("HOME", full.home.path())
        .env("HF_ENDPOINT", &hub.endpoint);

    let output = tokio::task::spawn_blocking(move || {
        // Standard output is a pipe, so the file size limit does not apply.
        command.output()
    });
    let output = output.await.expect("joined").expect("runs");
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );

    assert_eq!(String::from_utf8_lossy(&output.stdout), first.out);

    // An unwritable home does not prevent an answer either.
    let nowhere = User::of(&hub.endpoint).with("XDG_CACHE_HOME", "/proc");
    assert_eq!(nowhere.run(line).await.code, 0);
}

#[tokio::test]
async fn local_model_reaches_daemon_as_metadata() {
    let hub = hub().await;
    let user = User::of(&hub.endpoint);
    let daemon = Daemon::start(&user, "offline = true", "", &[]).await;
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/Qwen3-8B");
    let folder = user.path("secret-place");
    fs::create_dir(&folder).expect("made");

    for entry in fs::read_dir(model).expect("listed").flatten() {
        fs::copy(entry.path(), folder.join(entry.file_name())).expect("copied");
    }
    // The daemon cannot open the folder: it is gone before the second request, with the bundle.
    let asked = user
        .ask(
            &daemon.socket(),
            None,
            &format!("fits {} --json", folder.display()),
        )
        .await;

    assert_eq!(asked.code, 0, "{asked:?}");
    assert!(asked.err.contains("answered by the daemon"), "{asked:?}");
    user.run(&format!("pack {} -o packed", folder.display()))
        .await;
    fs::remove_dir_all(&folder).expect("removed");
    let again = user.ask(&daemon.socket(), None, "fits packed --json").await;
    assert_eq!(again.timeless(), asked.timeless());
}
