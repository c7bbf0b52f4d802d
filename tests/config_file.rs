//! The shipped `config.example.toml`, and loading configuration files.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use hf_mem_probe::config::{self, Config, Size, UserQuota};

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config.example.toml")
}

fn load_warnings(path: &Path) -> Result<Vec<config::Warning>, config::ConfigError> {
    config::load(path).map(|(_, warnings)| warnings)
}

#[test]
fn example_is_the_defaults() {
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
    fn walk(table: &toml::Table, section: &str, into: &mut BTreeSet<String>) {
        for (key, value) in table {
            let path = format!("{section}.{key}");
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
fn world_writable_file_warns() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    std::fs::write(&path, "[log]\nfilter = \"debug\"\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(load_warnings(&path).unwrap(), []);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    let warnings = load_warnings(&path).unwrap();
    assert!(
        warnings[0]
            .why
            .contains("every user of this host can write this file"),
        "{warnings:?}"
    );
}

#[test]
fn unreadable_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    let error = load_warnings(&path).unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("cannot read {}: ", path.display())),
        "{error}"
    );
    std::fs::write(&path, vec![b'#'; (1 << 20) + 1]).unwrap();

    assert!(
        load_warnings(&path)
            .unwrap_err()
            .to_string()
            .contains("larger than")
    );

    std::fs::write(&path, [0xff, 0xfe, 0x00]).unwrap();
    assert!(
        load_warnings(&path)
            .unwrap_err()
            .to_string()
            .contains("valid UTF-8")
    );

    let error = load_warnings(folder.path()).unwrap_err().to_string();
    assert!(
        error.contains("it is a folder, not a regular file"),
        "{error}"
    );
}
