//! The site's settings for answers without the daemon: the same file, read the same way.

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

/// What the site says of engines and placement.
pub(super) struct Site {
    config: Config,
    /// Engines with the site's constants, and its preference among equally good ways.
    pub(super) rules: Rules,
    /// Why the site's settings are not in force.
    pub(super) warning: Option<String>,
}

impl Site {
    /// From the file that `--config` names, else from the daemon's usual one. Where there is none,
    /// the built-in settings.
    pub(super) fn read(named: Option<&Path>) -> Result<Self, Problem> {
        let (config, warning) = match named {
            Some(path) => (config::load(path)?.0, None),
            None => usual(config::load(Path::new(DEFAULT_CONFIG_FILE)))?,
        };

        let rules = service::site_rules(&config)?;
        Ok(Self {
            config,
            rules,
            warning,
        })
    }

    /// Puts the site's default engine into `question`, as the daemon does.
    pub(super) fn complete(&self, question: &mut Question, model: &Model) {
        service::complete(&self.config, question, model);
    }

    /// Bytes that the site keeps free on each device of this host.
    pub(super) fn margin(&self) -> Bytes {
        self.config.placement.margin.get()
    }

    /// Bytes that are kept back on devices that others than compute processes use.
    pub(super) fn margins(&self) -> Margins {
        Margins {
            display_bytes: self.config.devices.display_margin.get(),
            ..Margins::default()
        }
    }
}

/// What the usual file gives: it may be absent, and it may be closed to this user. One that is
/// wrong is refused, as the daemon refuses it: the built-in figures in place of the site's could
/// say that a model fits which does not.
fn usual(
    loaded: Result<(Config, Vec<Warning>), ConfigError>,
) -> Result<(Config, Option<String>), Problem> {
    match loaded {
        Ok((config, _)) => Ok((config, None)),
        Err(ConfigError::Unreadable { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok((Config::default(), None))
        }
        Err(error @ ConfigError::Unreadable { .. }) if is_closed(&error) => {
            let warning = format!(
                "{error}: the built-in engine constants and margins are used, not the site's"
            );
            Ok((Config::default(), Some(warning)))
        }
        Err(error) => Err(error.into()),
    }
}

fn is_closed(error: &ConfigError) -> bool {
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
            usual(unreadable(io::ErrorKind::NotFound)).unwrap(),
            (Config::default(), None)
        );
    }

    #[test]
    fn a_closed_file_is_warned_of() {
        let (config, warning) = usual(unreadable(io::ErrorKind::PermissionDenied)).unwrap();
        assert_eq!(config, Config::default());
        assert!(warning.is_some_and(|text| text.contains(DEFAULT_CONFIG_FILE) && text.contains("built-in")));
    }

    #[test]
    fn a_wrong_file_is_refused() {
        usual(unreadable(io::ErrorKind::TimedOut)).unwrap_err();
        usual(Config::parse("[engine]", Path::new("x")).map(|config| (config, Vec::new())))
            .unwrap_err();
    }
}
