//! Warns of settings that are valid but unwise.

use std::fmt;

use super::{Config, Size};

/// A setting that is valid but unwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The key with its section, or the file.
    pub what: String,
    /// Why it is unwise, and what to do.
    pub why: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)
    }
}

impl Warning {
    fn new(what: &str, why: impl Into<String>) -> Self {
        Self {
            what: what.to_owned(),
            why: why.into(),
        }
    }
}

impl Config {
    /// Returns the settings that are valid but unwise.
    pub fn warnings(&self) -> Vec<Warning> {
        let mut warnings = Vec::new();
        if self.socket.mode.0 & 0o007 != 0 {
            warnings.push(Warning::new(
                "socket.mode",
                "every user of this host can ask, and hold leases; use 0660 and a group",
            ));
        }

        if self.socket.mode.0 & 0o200 == 0 {
            warnings.push(Warning::new(
                "socket.mode",
                "the daemon's own user cannot connect, so `health` fails for it",
            ));
        }

        if self.socket.connections_per_user > self.socket.connections {
            warnings.push(Warning::new(
                "socket.connections_per_user",
                "is more than socket.connections, so one user can take all connections",
            ));
        }

        if self.socket.body_cap > Size::mib(64) {
            warnings.push(Warning::new(
                "socket.body_cap",
                "the daemon can hold this much memory for each connection",
            ));
        }

        if self.devices.declared.is_some() {
            warnings.push(Warning::new(
                "devices.declared",
                "the daemon does not read this host's GPUs: answers are hypothetical",
            ));
        }

        for url in std::iter::once(&self.hub.endpoint).chain(self.hub.endpoints.values()) {
            if url.starts_with("http://") && !is_loopback(url) {
                warnings.push(Warning::new(
                    "hub.endpoint",
                    format!("{url} is not encrypted: a token would be sent in the clear"),
                ));
            }
        }

        if self.hub.retry_budget > self.socket.handler_deadline {
            warnings.push(Warning::new(
                "hub.retry_budget",
                "is longer than socket.handler_deadline: requests time out first",
            ));
        }

        if self.hub.offline && self.hub.token_file.is_some() {
            warnings.push(Warning::new(
                "hub.token_file",
                "is not used while hub.offline is true",
            ));
        }

        warnings
    }
}

fn is_loopback(text: &str) -> bool {
    url::Url::parse(text).is_ok_and(|url| match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_earn_no_warning() {
        assert_eq!(Config::default().warnings(), []);
    }

    #[test]
    fn open_socket_and_plain_http_warn() {
        let mut config = Config::default();
        config.socket.mode.0 = 0o666;
        config.hub.endpoint = "http://hub.internal:8080".into();

        let what: Vec<_> = config
            .warnings()
            .into_iter()
            .map(|warning| warning.what)
            .collect();
        assert_eq!(what, ["socket.mode", "hub.endpoint"]);
        config.hub.endpoint = "http://127.0.0.1:8080".into();
        assert_eq!(config.warnings().len(), 1);
    }
}
