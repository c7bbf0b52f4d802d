//! Checks the shipped `config.example.toml`, and the messages of `check-config`.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use hf_mem_probe::config::{self, Config, Size, UserQuota};

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config.example.toml")
}

fn warned(path: &Path) -> Result<Vec<config::Warning>, config::ConfigError> {
    config::load(path).map(|(_, warnings)| warnings)
}

#[test]
fn example_is_default_without_warnings() {
    let (config, _) = config::load(&example()).unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(config.warnings(), []);
}

#[test]
fn example_has_every_key() {
    let text = std::fs::read_to_string(example()).unwrap();
    let with_optional_keys: String = text
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.split(" = ").nth(1).is_some_and(|_| is_key(rest)) => {
                format!("{rest}\n")
            }
            _ => format!("{line}\n"),
        })
        .collect();

    let shown: toml::Table = with_optional_keys.parse().unwrap();

    let mut full = Config::default();
    full.devices.declared = Some(String::new());
    full.hub.token_file = Some(PathBuf::new());
    full.hub.endpoints.insert("acme/".to_owned(), String::new());
    full.hub
        .endpoint_token_files
        .insert("acme/".to_owned(), PathBuf::new());
    full.leases.user_bytes = Some(Size::gib(1));

    full.leases.users.insert(
        "ana".to_owned(),
        UserQuota {
            bytes: Some(Size::gib(320)),
            leases: Some(8),
        },
    );

    full.engines.default_engine = Some("vllm".parse().unwrap());
    full.engines.profiles_file = Some(PathBuf::new());
    full.engines.profiles = Some(toml::Table::new());
    let full = toml::Table::try_from(full).unwrap();

    assert_eq!(keys(&shown), keys(&full));
}

fn is_key(line: &str) -> bool {
    let left = line.split(" = ").next().unwrap_or_default();
    left.starts_with('"')
        || left
            .chars()
            .all(|letter| letter.is_ascii_lowercase() || letter == '_')
}

fn keys(table: &toml::Table) -> BTreeSet<String> {
    fn walk(table: &toml::Table, above: &str, into: &mut BTreeSet<String>) {
        for (key, value) in table {
            let path = format!("{above}.{key}");
            if let toml::Value::Table(inner) = value {
                walk(inner, &path, into);
            }
            into.insert(path);
        }
    }

    let mut into = BTreeSet::new();
    walk(table, "", &mut into);

    into
}

#[test]
fn world_writable_file_is_warned() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    std::fs::write(&path, "[log]\nfilter = \"debug\"\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(warned(&path).unwrap(), []);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    let warnings = warned(&path).unwrap();
    assert!(
        warnings[0]
            .why
            .contains("every user of this host may write this file"),
        "{warnings:?}"
    );
}

#[test]
fn unreadable_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    let error = warned(&path).unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("cannot read {}: ", path.display())),
        "{error}"
    );
    std::fs::write(&path, vec![b'#'; (1 << 20) + 1]).unwrap();

    assert!(
        warned(&path)
            .unwrap_err()
            .to_string()
            .contains("larger than")
    );

    std::fs::write(&path, [0xff, 0xfe, 0x00]).unwrap();
    assert!(
        warned(&path)
            .unwrap_err()
            .to_string()
            .contains("valid UTF-8")
    );

    let error = warned(folder.path()).unwrap_err().to_string();
    assert!(
        error.contains("it is a folder, not a regular file"),
        "{error}"
    );
}
