//! The generated files that packages ship: the manual pages and the completions are what the binary
//! writes today. After a change of the command line run this with `UPDATE_SHELL_FILES=1`.
#![expect(clippy::unwrap_used, reason = "the helpers of tests may fail them")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

/// What the binary writes to standard output.
fn written(arguments: &[&str]) -> String {
    // Nothing of the environment may change what is generated.
    let output = Command::new(env!("CARGO_BIN_EXE_hf-mem-probe"))
        .args(arguments)
        .env_clear()
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );

    String::from_utf8(output.stdout).unwrap()
}

fn hold(path: &str, arguments: &[&str]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("packaging")
        .join(path);
    let fresh = written(arguments);
    assert!(!fresh.is_empty());

    if std::env::var_os("UPDATE_SHELL_FILES").is_some() {
        fs::write(&path, fresh).unwrap();
        return;
    }

    let kept = fs::read_to_string(&path).unwrap_or_default();
    let differing = kept
        .lines()
        .zip(fresh.lines())
        .position(|(kept, fresh)| kept != fresh);

    assert!(
        kept == fresh,
        "{} is not what `hf-mem-probe {}` writes (first at line {:?}): run this test with UPDATE_SHELL_FILES=1",
        path.display(),
        arguments.join(" "),
        differing.map(|line| line + 1)
    );
}

/// The commands that the page of the command `words` sends its reader to: a line of its list is a
/// page's name and no more.
fn below(words: &[String], page: &str) -> Vec<Vec<String>> {
    let page = page.replace(r"\-", "-");
    let own = name(words) + "-";
    let names = page.lines().filter_map(|line| line.strip_suffix("(1)"));
    names
        .map(|name| [words, &[name.strip_prefix(&own).unwrap().to_owned()]].concat())
        .collect()
}

/// The name of the page of the command `words`.
fn name(words: &[String]) -> String {
    [&["hf-mem-probe".to_owned()], words].concat().join("-")
}

#[test]
fn the_manual_pages_are_current_and_every_one_that_is_named_is_there() {
    let mut pages = BTreeSet::new();
    let mut unread = vec![Vec::new()];
    while let Some(words) = unread.pop() {
        let arguments: Vec<&str> = ["manual"]
            .into_iter()
            .chain(words.iter().map(String::as_str))
            .collect();
        unread.extend(below(&words, &written(&arguments)));
        let page = format!("{}.1", name(&words));
        hold(&format!("man/{page}"), &arguments);
        pages.insert(page);
    }

    assert!(
        pages.contains("hf-mem-probe-fits.1") && pages.contains("hf-mem-probe-lease-renew.1"),
        "{pages:?}"
    );
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/man");
    let kept = fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap());
    assert_eq!(
        kept.collect::<BTreeSet<_>>(),
        pages,
        "a page for each command, and no other"
    );
}

#[test]
fn the_completions_are_current() {
    hold("completions/hf-mem-probe.bash", &["completions", "bash"]);
    hold("completions/_hf-mem-probe", &["completions", "zsh"]);
    hold("completions/hf-mem-probe.fish", &["completions", "fish"]);
}

/// Source and destination of each file that a package brings.
fn assets(package: &str) -> Vec<(String, String)> {
    let manifest =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let list = manifest["package"]["metadata"][package]["assets"]
        .as_array()
        .unwrap()
        .clone();

    let pair = |asset: &toml::Value| match asset {
        toml::Value::Array(words) => (words[0].clone(), words[1].clone()),
        named => (named["source"].clone(), named["dest"].clone()),
    };

    let word = |value: toml::Value| value.as_str().unwrap().trim_start_matches('/').to_owned();
    list.iter()
        .map(pair)
        .map(|(source, destination)| (word(source), word(destination)))
        .collect()
}

#[test]
fn both_packages_bring_the_same_files() {
    let [deb, rpm] = ["deb", "generate-rpm"].map(assets);
    let sources = |assets: &[(String, String)]| {
        assets
            .iter()
            .map(|(source, _)| source.clone())
            .collect::<BTreeSet<_>>()
    };

    let mut of_deb = sources(&deb);

    // Debian's own record of the licences, which an .rpm has as a field.
    assert!(of_deb.remove("debian/copyright"));
    assert_eq!(of_deb, sources(&rpm));

    for assets in [deb, rpm] {
        // Named by the hint of a configuration that is wrong, and by the manual pages.
        for (source, folder) in [
            ("config.example.toml", "usr/share/doc/hf-mem-probe/"),
            ("packaging/man/*.1", "usr/share/man/man1/"),
        ] {
            assert!(
                assets.contains(&(source.to_owned(), folder.to_owned())),
                "{source}: {assets:?}"
            );
        }
    }
}
