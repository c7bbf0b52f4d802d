//! The archive of the scripts that build a root file system: the system's own, never a fixed one.
#![expect(clippy::unwrap_used, reason = "the helpers of tests may fail them")]

use std::fs;
use std::path::Path;
use std::process::Command;

/// Returns the archive that the scripts pass to mmdebstrap if `/etc/apt` has `files`. `None` if the
/// scripts fail.
fn archive_for(files: &[(&str, &str)]) -> Option<String> {
    let apt = tempfile::tempdir().unwrap();
    fs::create_dir(apt.path().join("sources.list.d")).unwrap();

    for (name, text) in files {
        fs::write(apt.path().join(name), text).unwrap();
    }

    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/apt_mirror.sh");
    let output = Command::new(script)
        .arg("bookworm")
        .arg(apt.path())
        .output()
        .unwrap();

    output
        .status
        .success()
        .then(|| String::from_utf8(output.stdout).unwrap().trim().to_owned())
}

#[test]
fn one_line_sources_are_read() {
    let plain = "# deb http://off.test/debian bookworm main\ndeb-src http://src.test/debian bookworm main\n\
                 deb http://plain.test/debian\tbookworm main contrib # ours\n";
    assert_eq!(
        archive_for(&[("sources.list", plain)]).unwrap(),
        "deb http://plain.test/debian bookworm main"
    );

    let signed = "deb [ arch=amd64 signed-by=/keys/a.gpg ] https://signed.test/debian bookworm non-free main\n";
    let expected = "deb [signed-by=/keys/a.gpg] https://signed.test/debian bookworm main";
    assert_eq!(
        archive_for(&[("sources.list.d/a.list", signed)]).unwrap(),
        expected
    );
}

#[test]
fn deb822_sources_are_read() {
    let stanzas = "# ours\nTypes: deb deb-src\nURIs: http://security.test/debian-security\nSuites: bookworm-security\n\
                   Components: main\n\nEnabled: no\nTypes: deb\nURIs: http://off.test/debian\nSuites: bookworm\n\
                   Components: main\n\nTypes: deb\nURIs: http://one.test/debian http://two.test/debian\n\
                   Suites: bookworm-updates\n bookworm\nComponents: contrib\n main\nSigned-By: /keys/b.gpg\n";
    let expected = "deb [signed-by=/keys/b.gpg] http://one.test/debian bookworm main";
    assert_eq!(
        archive_for(&[("sources.list.d/b.sources", stanzas)]).unwrap(),
        expected
    );

    let inline = "Types: deb\nURIs: http://key.test/debian\nSuites: bookworm\nComponents: main\nSigned-By:\n \
                  -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n -----END PGP PUBLIC KEY BLOCK-----\n";
    assert_eq!(
        archive_for(&[("sources.list.d/c.sources", inline)]).unwrap(),
        "deb http://key.test/debian bookworm main"
    );
}

#[test]
fn same_suite_comes_first() {
    let files = [
        (
            "sources.list",
            "deb cdrom:[Debian]/ bookworm main\ndeb http://newer.test/debian trixie main\n",
        ),
        (
            "sources.list.d/a.list",
            "deb http://tool.test/apt bookworm tool\n",
        ),
    ];
    assert_eq!(
        archive_for(&files).unwrap(),
        "deb http://newer.test/debian bookworm main"
    );

    let same = (
        "sources.list.d/b.list",
        "deb http://same.test/debian bookworm main\n",
    );
    assert_eq!(
        archive_for(&[files[0], files[1], same]).unwrap(),
        "deb http://same.test/debian bookworm main"
    );
    assert_eq!(archive_for(&[files[1]]), None);
    assert_eq!(archive_for(&[]), None);
}

#[test]
fn scripts_name_no_mirror() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut users = 0;

    for entry in fs::read_dir(tests).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ending| ending != "sh") {
            continue;
        }

        let text = fs::read_to_string(&path).unwrap();
        let addresses = text
            .match_indices("://")
            .map(|(start, _)| &text[start + 3..]);
        for address in addresses {
            let host = address.split(['/', ' ', '\'', '"', '$']).next().unwrap();
            assert!(
                host == "localhost" || host.starts_with("127.") || host.ends_with("example.org"),
                "{}: {host}",
                path.display()
            );
        }

        users += usize::from(text.contains("support/apt_mirror.sh"));
    }

    assert_eq!(users, 3);
}
