//! The generated files that packages ship: the manual page and the completions are what the binary writes today.
//! After a change of the command line run this with `UPDATE_SHELL_FILES=1`.
#![expect(clippy::unwrap_used, reason = "the helpers of tests may fail them")]

use std::fs;
use std::path::Path;
use std::process::Command;

/// What the binary writes to standard output.
fn written(arguments: &[&str]) -> String {
    // Nothing of the environment may change what is generated.
    let output = Command::new(env!("CARGO_BIN_EXE_hf-mem-probe")).args(arguments).env_clear().output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn hold(path: &str, arguments: &[&str]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(path);
    let fresh = written(arguments);
    assert!(!fresh.is_empty());
    if std::env::var_os("UPDATE_SHELL_FILES").is_some() {
        fs::write(&path, fresh).unwrap();
        return;
    }
    let kept = fs::read_to_string(&path).unwrap();
    let differing = kept.lines().zip(fresh.lines()).position(|(kept, fresh)| kept != fresh);
    assert!(
        kept == fresh,
        "{} is not what `hf-mem-probe {}` writes (first at line {:?}): run this test with UPDATE_SHELL_FILES=1",
        path.display(),
        arguments.join(" "),
        differing.map(|line| line + 1)
    );
}

#[test]
fn the_manual_page_is_current() {
    hold("man/hf-mem-probe.1", &["manual"]);
}

#[test]
fn the_completions_are_current() {
    hold("completions/hf-mem-probe.bash", &["completions", "bash"]);
    hold("completions/_hf-mem-probe", &["completions", "zsh"]);
    hold("completions/hf-mem-probe.fish", &["completions", "fish"]);
}
