//! Pipes and devices in place of files: the daemon keeps running, and the command line fails with
//! an error.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::fake_hub::repositories::{Repositories, dense};
use super::fake_hub::{COMMIT, FakeHub};
use super::harness::{Daemon, Outcome, User};

/// Drain deadline of a daemon with no request in flight.
const DRAIN_DEADLINE: Duration = Duration::from_secs(5);

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/Qwen3-8B")
}

fn pipe(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
}

/// Creates a Hugging Face cache in `root` that holds `q/m`, with the fixture as its snapshot.
fn hugging_face_cache(root: &Path) -> PathBuf {
    let model = root.join("models--q--m");
    fs::create_dir_all(model.join("snapshots")).expect("made");
    fs::create_dir_all(model.join("refs")).expect("made");
    std::os::unix::fs::symlink(fixture(), model.join("snapshots").join(COMMIT)).expect("linked");
    model
}

/// Asserts that `daemon` still answers health, grants a lease and stops, even if a special file
/// blocks a thread.
async fn assert_responsive(daemon: &mut Daemon, user: &User) {
    let socket = daemon.socket();
    let health = user.ask(&socket, None, "health --json").await;
    assert_eq!(health.code, 0, "{health:?}");

    let line = format!(
        "fits {} --reserve --holder job --ttl 60s --json",
        fixture().display()
    );
    let leased = user.ask(&socket, None, &line).await;
    assert_eq!(
        (leased.code, leased.json()["lease"].is_object()),
        (0, true),
        "{leased:?}"
    );

    let (took, code) = daemon.stop().await;
    assert_eq!(code, Some(0), "{}", daemon.log());
    assert!(took < DRAIN_DEADLINE, "{took:?}");
}

#[tokio::test]
async fn pipe_as_reference_blocks_nothing() {
    let user = User::of("http://127.0.0.1:9");
    let cache = user.path("hf");
    let model = hugging_face_cache(&cache);
    pipe(&model.join("refs/main"));
    let variables = [("HF_HUB_CACHE", cache.to_str().expect("UTF-8"))];
    let mut daemon = Daemon::start(&user, "offline = true", "", &variables).await;

    let absent = user.ask(&daemon.socket(), None, "fits q/m --json").await;
    assert_eq!(
        (absent.code, absent.json()["reason"].as_str()),
        (75, Some("hub_unreachable")),
        "{absent:?}"
    );

    let by_commit = user
        .ask(&daemon.socket(), None, &format!("fits q/m@{COMMIT} --json"))
        .await;
    assert_eq!(
        by_commit.code, 0,
        "the snapshot itself is fine: {by_commit:?}"
    );
    assert_responsive(&mut daemon, &user).await;
}

#[tokio::test]
async fn pipe_as_document_blocks_nothing() {
    let user = User::of("http://127.0.0.1:9");
    let cache = user.path("hf");
    let model = cache.join("models--q--m");
    let snapshot = model.join("snapshots").join(COMMIT);
    fs::create_dir_all(&snapshot).expect("made");
    fs::create_dir_all(model.join("refs")).expect("made");
    fs::write(model.join("refs/main"), COMMIT).expect("written");

    for entry in fs::read_dir(fixture()).expect("listed").flatten() {
        fs::copy(entry.path(), snapshot.join(entry.file_name())).expect("copied");
    }

    fs::remove_file(snapshot.join("config.json")).expect("removed");
    pipe(&snapshot.join("config.json"));
    let variables = [("HF_HUB_CACHE", cache.to_str().expect("UTF-8"))];
    let mut daemon = Daemon::start(&user, "offline = true", "", &variables).await;

    let refused = user.ask(&daemon.socket(), None, "fits q/m --json").await;
    assert_eq!(refused.code, 3, "{refused:?}");
    assert_responsive(&mut daemon, &user).await;
}

#[tokio::test]
async fn pipe_as_cache_entry_blocks_nothing() {
    let repositories = Repositories::default().with("a/dense", dense());
    let hub = FakeHub::start(move |request, _| Some(repositories.reply(request))).await;
    let user = User::of(&hub.endpoint);

    // Each request reads the disk again.
    let mut daemon = Daemon::start(&user, "branch_age = \"0s\"", "", &[]).await;
    let ask = async |line: &str| user.ask(&daemon.socket(), None, line).await;
    let first = ask("fits a/dense --json").await;
    assert_eq!(first.code, 0, "{first:?}");

    let kept = daemon.folder.path().join("cache/v1");
    for kind in ["revision", "model"] {
        let entry = fs::read_dir(kept.join(kind))
            .expect("listed")
            .flatten()
            .next()
            .expect("an entry")
            .path();
        fs::remove_file(&entry).expect("removed");
        pipe(&entry);
        let again = ask("fits a/dense --json").await;
        assert_eq!((again.code, &again.out), (0, &first.out), "{kind}");
    }

    assert_responsive(&mut daemon, &user).await;
}

/// Runs `line`, which must end by itself within 30 s.
async fn run_to_end(user: &User, line: &str) -> Outcome {
    tokio::time::timeout(Duration::from_secs(30), user.run(line))
        .await
        .unwrap_or_else(|_| panic!("{line} hangs"))
}

#[tokio::test]
async fn command_line_rejects_special_files() {
    let user = User::of("http://127.0.0.1:9");
    for name in ["pipe", "pipe.gguf", "pipe.hfmp"] {
        pipe(&user.path(name));
    }

    let folder = user.path("folder");
    fs::create_dir(&folder).expect("made");
    fs::copy(fixture().join("config.json"), folder.join("config.json")).expect("copied");
    pipe(&folder.join("model.safetensors"));

    for name in ["./pipe", "./pipe.gguf", "./pipe.hfmp", "/dev/zero"] {
        let refused = run_to_end(&user, &format!("estimate {name} --local --json")).await;
        assert_eq!(
            (refused.code, refused.json()["reason"].as_str()),
            (3, Some("missing_metadata")),
            "{refused:?}"
        );
        assert!(refused.out.contains("not a regular file"), "{refused:?}");
    }

    let refused = run_to_end(&user, "estimate ./folder --local --json").await;
    assert_eq!(refused.code, 3, "no weights: {refused:?}");
    let gpus = run_to_end(&user, "fits a/b --gpus ./pipe --local --json").await;
    assert!(
        gpus.code != 0 && gpus.out.contains("not a regular file"),
        "{gpus:?}"
    );
    let config = run_to_end(&user, "check-config ./pipe").await;
    assert!(
        config.code == 78 && config.err.contains("not a regular file"),
        "{config:?}"
    );
}

#[tokio::test]
async fn special_token_file_is_rejected() {
    let user = User::of("http://127.0.0.1:9");
    pipe(&user.path("pipe"));
    let at = user.path("pipe").display().to_string();

    for path in ["/dev/zero", at.as_str()] {
        let user = User::of("http://127.0.0.1:9").with("HF_TOKEN_PATH", path);

        // A memory limit that reading a device to its end would exceed.
        let mut command = std::process::Command::new("sh");
        command
            .arg("-c")
            .arg("ulimit -v 2000000; exec \"$0\" estimate a/b --local --json");

        command
            .arg(user.program().get_program())
            .env_clear()
            .env("HOME", user.home.path());
        command
            .env("HF_TOKEN_PATH", path)
            .env("HF_ENDPOINT", "http://127.0.0.1:9");
        let run = tokio::task::spawn_blocking(move || command.output());
        let output = tokio::time::timeout(Duration::from_secs(30), run)
            .await
            .expect("it ends")
            .expect("joined");
        let refused: Outcome = output.expect("runs").into();
        assert_eq!(
            (refused.code, refused.json()["reason"].as_str()),
            (78, Some("bad_configuration")),
            "{refused:?}"
        );

        assert!(refused.out.contains("HF_TOKEN_PATH"), "{refused:?}");
    }
}
