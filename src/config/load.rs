//! From a file to a [`Config`]: read, parse, refuse, warn.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{Config, ConfigError, Warning};
use crate::files::{self, Disk};

/// The most that is read of a configuration.
const FILE_CAP_BYTES: u64 = 1 << 20;

/// Reads `path`; what is legal but unwise comes back as warnings. It waits for the disk: never
/// called on the runtime of a daemon that answers.
pub fn load(path: &Path) -> Result<(Config, Vec<Warning>), ConfigError> {
    let file = path.to_owned();
    let read = files::try_wait(path, move |disk| read(disk, &file));
    let (text, mode) = read.map_err(|source| match source.kind() {
        io::ErrorKind::FileTooLarge => ConfigError::TooLarge {
            path: path.to_owned(),
            cap_bytes: FILE_CAP_BYTES,
        },
        _ => ConfigError::Unreadable {
            path: path.to_owned(),
            source,
        },
    })?;

    let config = Config::parse(&text, path)?;
    let mut warnings = config.warnings();
    if mode & 0o002 != 0 {
        warnings.push(Warning {
            what: path.display().to_string(),
            why: "every user of this host may write this file, and so decide where the daemon's token is sent; \
                  chmod o-w it"
                .to_owned(),
        });
    }

    Ok((config, warnings))
}

/// The text of a file, with its permission bits.
fn read(disk: &Disk, path: &Path) -> io::Result<(String, u32)> {
    let mode = disk.metadata(path)?.mode();
    Ok((disk.read_text(path, FILE_CAP_BYTES)?, mode))
}

impl Config {
    /// Parses and checks `text`, which was read from `path`.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|error| ConfigError::Syntax {
            path: path.to_owned(),
            line: error.span().map_or(1, |span| line_at(text, span.start)),
            message: error.message().to_owned(),
        })?;
        config
            .refuse()
            .map_err(|impossible| ConfigError::Impossible {
                path: path.to_owned(),
                line: line_of(text, impossible.key),
                key: impossible.key,
                why: impossible.why,
            })?;

        Ok(config)
    }
}

/// The line, from 1, on which byte `offset` stands.
fn line_at(text: &str, offset: usize) -> usize {
    text.bytes()
        .take(offset)
        .filter(|byte| *byte == b'\n')
        .count()
        + 1
}

/// The line, from 1, that sets `section.name`, where one does so in the usual form.
fn line_of(text: &str, key: &str) -> Option<usize> {
    let (section, name) = key.split_once('.')?;
    let mut inside = false;

    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with('[') {
            let table = line
                .trim_start_matches('[')
                .split(']')
                .next()
                .unwrap_or_default()
                .trim();
            inside = table == section;

            if table == key {
                return Some(number + 1);
            }
        } else if inside
            && line
                .split('=')
                .next()
                .is_some_and(|left| left.trim() == name)
        {
            return Some(number + 1);
        }
    }

    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Config::parse(text, Path::new("/etc/x.toml"))
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn errors_name_the_file_the_line_and_the_key() {
        let unknown = error("[socket]\n\npaht = \"/run/a.sock\"\n");
        assert!(
            unknown.starts_with("/etc/x.toml:3: unknown field `paht`, expected one of `path`"),
            "{unknown}"
        );
        let section = error("[sockets]\n");
        assert!(
            section.starts_with("/etc/x.toml:1: unknown field `sockets`"),
            "{section}"
        );

        assert_eq!(
            error("[log]\n[socket]\n  connections = 0\n"),
            "/etc/x.toml:3: socket.connections: must be at least 1"
        );
        let kind = error("[hub]\noffline = \"yes\"\n");
        assert!(
            kind.starts_with("/etc/x.toml:2: invalid type: string \"yes\""),
            "{kind}"
        );
        let mirrors = error("[hub.endpoints]\n\"acme/\" = \"nowhere\"\n");
        assert!(
            mirrors.starts_with("/etc/x.toml:1: hub.endpoints: 'nowhere' is not a URL"),
            "{mirrors}"
        );
    }

    #[test]
    fn not_toml_at_all() {
        let text = error("socket:\n  path: /run/x\n");
        assert!(text.starts_with("/etc/x.toml:1: "), "{text}");
    }

    #[test]
    fn an_empty_file_is_the_defaults() {
        assert_eq!(
            Config::parse("", Path::new("x")).unwrap(),
            Config::default()
        );
    }
}
