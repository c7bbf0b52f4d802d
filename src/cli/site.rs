//! Site settings for answers without the daemon, from the daemon's own configuration file.

use std::io;
use std::path::Path;

use hf_mem_core::bytes::Bytes;
use hf_mem_core::evaluate::Rules;
use hf_mem_core::model::Model;
use hf_mem_core::report::{Problem, Question};

use crate::config::{self, Config, ConfigError, Warning};
use crate::daemon::DEFAULT_CONFIG_FILE;
use crate::devices::nvml::Margins;
use crate::service;

/// The site's settings of engines and placement.
pub(super) struct Site {
    config: Config,
    /// Engines with the site's constants, and its preference among equally good placements.
    pub(super) rules: Rules,
    /// Why the site's settings are not used.
    pub(super) warning: Option<String>,
}

impl Site {
    /// Reads the file of `--config`, else the daemon's default file, else the built-in settings.
    pub(super) fn read(path: Option<&Path>) -> Result<Self, Problem> {
        let (config, warning) = match path {
            Some(path) => (config::load(path)?.0, None),
            None => accept_default_file(config::load(Path::new(DEFAULT_CONFIG_FILE)))?,
        };

        let rules = service::site_rules(&config)?;
        Ok(Self {
            config,
            rules,
            warning,
        })
    }

    /// Sets the site's default engine in `question`, as the daemon does.
    pub(super) fn complete(&self, question: &mut Question, model: &Model) {
        service::complete(&self.config, question, model);
    }

    /// Returns the bytes that the site keeps free on each device of this host.
    pub(super) fn margin(&self) -> Bytes {
        self.config.placement.margin.get()
    }

    /// Returns the bytes to reserve on devices with a display.
    pub(super) fn margins(&self) -> Margins {
        Margins {
            display_bytes: self.config.devices.display_margin.get(),
            ..Margins::default()
        }
    }
}

/// Accepts the result of loading the default file.
///
/// The file may be absent, and may be unreadable for this user. An invalid file is an error, as in
/// the daemon: with built-in figures instead of the site's, a wrong "fits" is possible.
fn accept_default_file(
    loaded: Result<(Config, Vec<Warning>), ConfigError>,
) -> Result<(Config, Option<String>), Problem> {
    match loaded {
        Ok((config, _)) => Ok((config, None)),
        Err(ConfigError::Unreadable { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok((Config::default(), None))
        }
        Err(error @ ConfigError::Unreadable { .. }) if is_denied(&error) => {
            let warning = format!(
                "{error}: using built-in engine constants and margins instead of the site's"
            );
            Ok((Config::default(), Some(warning)))
        }
        Err(error) => Err(error.into()),
    }
}

fn is_denied(error: &ConfigError) -> bool {
    matches!(error, ConfigError::Unreadable { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unreadable(kind: io::ErrorKind) -> Result<(Config, Vec<Warning>), ConfigError> {
        Err(ConfigError::Unreadable {
            path: DEFAULT_CONFIG_FILE.into(),
            source: kind.into(),
        })
    }

    #[test]
    fn no_file_means_built_in_settings() {
        assert_eq!(
            accept_default_file(unreadable(io::ErrorKind::NotFound)).unwrap(),
            (Config::default(), None)
        );
    }

    #[test]
    fn unreadable_file_gives_warning() {
        let (config, warning) =
            accept_default_file(unreadable(io::ErrorKind::PermissionDenied)).unwrap();
        assert_eq!(config, Config::default());
        assert!(warning.is_some_and(|text| text.contains(DEFAULT_CONFIG_FILE) && text.contains("built-in")));
    }

    #[test]
    fn invalid_file_is_rejected() {
        accept_default_file(unreadable(io::ErrorKind::TimedOut)).unwrap_err();
        let invalid = Config::parse("[engine]", Path::new("x"));
        accept_default_file(invalid.map(|config| (config, Vec::new()))).unwrap_err();
    }
}
