//! Generated files in packages: manual pages and completions match the binary's output.
//!
//! After a change of the command line, run this test with `UPDATE_SHELL_FILES=1`.
#![expect(clippy::unwrap_used, reason = "the helpers of tests may fail them")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Returns the binary's standard output.
fn print(arguments: &[&str]) -> String {
    // The environment must not change the output.
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

fn check_file(path: &str, arguments: &[&str]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("packaging")
        .join(path);
    let fresh = print(arguments);
    assert!(!fresh.is_empty());

    if std::env::var_os("UPDATE_SHELL_FILES").is_some() {
        fs::write(&path, fresh).unwrap();
        return;
    }

    let stored = fs::read_to_string(&path).unwrap_or_default();
    let differing = stored
        .lines()
        .zip(fresh.lines())
        .position(|(stored, fresh)| stored != fresh);

    assert!(
        stored == fresh,
        "{} is not what `hf-mem-probe {}` writes (first at line {:?}): run this test with UPDATE_SHELL_FILES=1",
        path.display(),
        arguments.join(" "),
        differing.map(|line| line + 1)
    );
}

/// Returns the subcommands that the page of the command `words` lists.
///
/// A line of the list has only the name of a page.
fn subcommands(words: &[String], page: &str) -> Vec<Vec<String>> {
    let page = page.replace(r"\-", "-");
    let own = page_name(words) + "-";
    let names = page.lines().filter_map(|line| line.strip_suffix("(1)"));
    names
        .map(|page_name| [words, &[page_name.strip_prefix(&own).unwrap().to_owned()]].concat())
        .collect()
}

/// Returns the page name of the command `words`.
fn page_name(words: &[String]) -> String {
    [&["hf-mem-probe".to_owned()], words].concat().join("-")
}

#[test]
fn manual_pages_are_current_and_complete() {
    let mut pages = BTreeSet::new();
    let mut unread = vec![Vec::new()];
    while let Some(words) = unread.pop() {
        let arguments: Vec<&str> = ["manual"]
            .into_iter()
            .chain(words.iter().map(String::as_str))
            .collect();
        unread.extend(subcommands(&words, &print(&arguments)));
        let page = format!("{}.1", page_name(&words));
        check_file(&format!("man/{page}"), &arguments);
        pages.insert(page);
    }

    assert!(
        pages.contains("hf-mem-probe-fits.1") && pages.contains("hf-mem-probe-lease-renew.1"),
        "{pages:?}"
    );
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/man");
    let stored = fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap());
    assert_eq!(
        stored.collect::<BTreeSet<_>>(),
        pages,
        "a page for each command, and no other"
    );
}

#[test]
fn completions_are_current() {
    check_file("completions/hf-mem-probe.bash", &["completions", "bash"]);
    check_file("completions/_hf-mem-probe", &["completions", "zsh"]);
    check_file("completions/hf-mem-probe.fish", &["completions", "fish"]);
}

/// Returns source and destination of each file in a package.
fn assets(package: &str) -> Vec<(String, String)> {
    let manifest =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let list = manifest["package"]["metadata"][package]["assets"]
        .as_array()
        .unwrap()
        .clone();

    let asset_pair = |asset: &toml::Value| match asset {
        toml::Value::Array(words) => (words[0].clone(), words[1].clone()),
        named => (named["source"].clone(), named["dest"].clone()),
    };

    let path_text = |value: toml::Value| value.as_str().unwrap().trim_start_matches('/').to_owned();
    list.iter()
        .map(asset_pair)
        .map(|(source, destination)| (path_text(source), path_text(destination)))
        .collect()
}

#[test]
fn packages_have_same_files() {
    let [deb, rpm] = ["deb", "generate-rpm"].map(assets);
    let source_paths = |assets: &[(String, String)]| {
        assets
            .iter()
            .map(|(source, _)| source.clone())
            .collect::<BTreeSet<_>>()
    };

    let mut of_deb = source_paths(&deb);

    // Only Debian has this file: an .rpm has the license as a field.
    assert!(of_deb.remove("debian/copyright"));
    assert_eq!(of_deb, source_paths(&rpm));

    for assets in [deb, rpm] {
        // The hint of an invalid configuration and the manual pages name these.
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
