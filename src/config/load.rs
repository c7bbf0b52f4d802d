//! Loads a [`Config`] from a file: read, parse, validate, warn.

use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::{Config, ConfigError, Warning};
use crate::files::{self, Disk};

/// The largest configuration file that is read.
const FILE_CAP_BYTES: u64 = 1 << 20;

/// Reads `path`. Valid but unwise settings are returned as warnings.
///
/// It waits for the disk. Never call it on the runtime of a daemon that answers.
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
            why: "every user of this host can write this file, and so choose where the daemon \
                  sends its token; run `chmod o-w` on it"
                .to_owned(),
        });
    }

    Ok((config, warnings))
}

/// Returns the text of a file and its permission bits.
fn read(disk: &Disk, path: &Path) -> io::Result<(String, u32)> {
    let mode = disk.metadata(path)?.mode();
    Ok((disk.read_text(path, FILE_CAP_BYTES)?, mode))
}

impl Config {
    /// Parses and validates `text`, the content of `path`.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|error| ConfigError::Syntax {
            path: path.to_owned(),
            line: error.span().map_or(1, |span| line_of(text, &span)),
            message: error.message().to_owned(),
        })?;
        config
            .validate()
            .map_err(|invalid| ConfigError::InvalidValue {
                path: path.to_owned(),
                line: key_span(text, invalid.key).map(|span| line_of(text, &span)),
                key: invalid.key,
                why: invalid.why,
            })?;

        Ok(config)
    }
}

/// The line, counted from 1, on which `span` begins.
fn line_of(text: &str, span: &Range<usize>) -> usize {
    let before = text.get(..span.start).unwrap_or_default();
    before.matches('\n').count() + 1
}

/// Returns the place at which `text` sets the key `section.name`, if it does.
fn key_span(text: &str, key: &str) -> Option<Range<usize>> {
    let (section, name) = key.split_once('.')?;
    let document = DeTable::parse(text).ok()?;
    let DeValue::Table(keys) = document.get_ref().get(section)?.get_ref() else {
        return None;
    };

    keys.get_key_value(name).map(|(key, _)| key.span())
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
    fn errors_name_file_line_and_key() {
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

        let kind = error("[hub]\noffline = \"yes\"\n");
        assert!(
            kind.starts_with("/etc/x.toml:2: invalid type: string \"yes\""),
            "{kind}"
        );
        let duration = error("[socket]\npath = \"/a\"\nheader_deadline = \"soon\"\n");
        assert!(
            duration.starts_with("/etc/x.toml:3: 'soon' is not a duration"),
            "{duration}"
        );
    }

    #[test]
    fn invalid_values_name_their_line() {
        for (text, line, form) in [
            (
                "[log]\n[socket]\n  connections = 0\n",
                3,
                "a key of a section",
            ),
            ("\nsocket.connections = 0\n", 2, "a dotted key"),
            (
                "socket = { mode = \"0660\", connections = 0 }\n",
                1,
                "an inline table",
            ),
        ] {
            assert_eq!(
                error(text),
                format!("/etc/x.toml:{line}: socket.connections: must be at least 1"),
                "{form}"
            );
        }

        let mirrors = error("[log]\n[hub.endpoints]\n\"acme/\" = \"nowhere\"\n");
        assert!(
            mirrors.starts_with("/etc/x.toml:2: hub.endpoints: 'nowhere' is not a URL"),
            "{mirrors}"
        );
    }

    #[test]
    fn text_other_than_toml_is_rejected() {
        let text = error("socket:\n  path: /run/x\n");
        assert!(text.starts_with("/etc/x.toml:1: "), "{text}");
    }

    #[test]
    fn empty_file_is_the_defaults() {
        assert_eq!(
            Config::parse("", Path::new("x")).unwrap(),
            Config::default()
        );
    }
}
