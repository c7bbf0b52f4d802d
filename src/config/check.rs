//! What cannot work is refused; what is legal but unwise is warned of.

use std::fmt;
use std::time::Duration;

use super::{Config, Period};

/// Something legal but unwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The key with its section, or the file.
    pub what: String,
    /// Why, and what to do.
    pub why: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)
    }
}

/// A value that cannot work: the key, and what is wrong with it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Impossible {
    pub(super) key: &'static str,
    pub(super) why: String,
}

/// Longest path that `sockaddr_un` holds, without its closing zero (unix(7)).
const SOCKET_PATH_BYTES: usize = 107;

impl Config {
    /// Refuses what cannot work.
    pub(super) fn refuse(&self) -> Result<(), Impossible> {
        let refuse = |key, why: &str| {
            Err(Impossible {
                key,
                why: why.to_owned(),
            })
        };

        let socket = &self.socket;
        if !socket.path.is_absolute() {
            return refuse("socket.path", "must be an absolute path");
        }

        if socket.path.as_os_str().len() > SOCKET_PATH_BYTES {
            return refuse(
                "socket.path",
                "is longer than 107 bytes, the most that a Unix socket's address holds",
            );
        }

        for (key, count) in [
            ("socket.connections", socket.connections),
            ("socket.connections_per_user", socket.connections_per_user),
            ("hub.concurrency", self.hub.concurrency),
        ] {
            if count == 0 {
                return refuse(key, "must be at least 1");
            }
        }

        if socket.connections > 65_536 {
            return refuse("socket.connections", "must be at most 65536");
        }

        for (key, period) in [
            ("socket.header_deadline", socket.header_deadline),
            ("socket.handler_deadline", socket.handler_deadline),
            ("socket.write_deadline", socket.write_deadline),
            ("socket.drain_deadline", socket.drain_deadline),
            ("devices.sample_interval", self.devices.sample_interval),
            ("devices.max_age", self.devices.max_age),
            ("devices.read_deadline", self.devices.read_deadline),
            ("hub.connect_timeout", self.hub.connect_timeout),
            ("hub.read_timeout", self.hub.read_timeout),
            ("hub.retry_budget", self.hub.retry_budget),
            ("leases.default_ttl", self.leases.default_ttl),
            ("leases.max_ttl", self.leases.max_ttl),
        ] {
            if period.get() < Duration::from_millis(10) {
                return refuse(key, "must be at least 10ms");
            }
            bounded(key, period)?;
        }

        for (key, period) in [
            ("devices.idle_release", self.devices.idle_release),
            ("hub.branch_age", self.hub.branch_age),
            ("leases.max_wait", self.leases.max_wait),
            ("history.interval", self.history.interval),
            ("history.keep", self.history.keep),
        ] {
            bounded(key, period)?;
        }

        let history = &self.history;
        if !history.interval.get().is_zero() && history.interval.get() < Duration::from_secs(1) {
            return refuse(
                "history.interval",
                "must be at least 1s, or 0s for no readings of its own",
            );
        }

        if history.keep.get() < Duration::from_secs(60) {
            return refuse("history.keep", "must be at least 1m");
        }

        if history.max_bytes < super::Size::kib(64) || history.max_bytes > super::Size::mib(512) {
            return refuse("history.max_bytes", "must be 64KiB to 512MiB");
        }

        if socket.body_cap.get().get() < 1024 {
            return refuse(
                "socket.body_cap",
                "must be at least 1KiB: smaller than any question",
            );
        }

        if self.devices.max_age < self.devices.sample_interval {
            return refuse(
                "devices.max_age",
                "is shorter than devices.sample_interval: every reading would be stale",
            );
        }

        if self.leases.default_ttl > self.leases.max_ttl {
            return refuse("leases.default_ttl", "is longer than leases.max_ttl");
        }

        if let Err(why) = endpoint(&self.hub.endpoint) {
            return refuse("hub.endpoint", &why);
        }

        for (prefix, url) in &self.hub.endpoints {
            if prefix.is_empty() {
                return refuse(
                    "hub.endpoints",
                    "an empty prefix would take every repository; set hub.endpoint instead",
                );
            }
            if let Err(why) = endpoint(url) {
                return refuse("hub.endpoints", &why);
            }
        }

        if let Some(prefix) = self
            .hub
            .endpoint_token_files
            .keys()
            .find(|prefix| !self.hub.endpoints.contains_key(*prefix))
        {
            let why =
                format!("has a token for {prefix:?}, for which hub.endpoints has no endpoint");
            return refuse("hub.endpoint_token_files", &why);
        }

        for (key, path) in [
            ("hub.cache_directory", &self.hub.cache_directory),
            ("leases.state_directory", &self.leases.state_directory),
        ] {
            if !path.is_absolute() {
                return refuse(key, "must be an absolute path");
            }
        }

        if let Err(error) = self.log.filter.parse::<tracing_subscriber::EnvFilter>() {
            return Err(Impossible {
                key: "log.filter",
                why: error.to_string(),
            });
        }

        Ok(())
    }

    /// Warns of what is legal but unwise.
    pub fn warnings(&self) -> Vec<Warning> {
        let mut warnings = Vec::new();
        let mut warn = |what: &str, why: &str| {
            warnings.push(Warning {
                what: what.to_owned(),
                why: why.to_owned(),
            });
        };

        if self.socket.mode.0 & 0o007 != 0 {
            warn(
                "socket.mode",
                "every user of this host may ask, and hold leases; use 0660 and a group",
            );
        }

        if self.socket.mode.0 & 0o200 == 0 {
            warn(
                "socket.mode",
                "the daemon's own user may not connect, so `health` fails for it",
            );
        }

        if self.socket.connections_per_user > self.socket.connections {
            warn(
                "socket.connections_per_user",
                "is more than socket.connections, so one user can take them all",
            );
        }

        if self.socket.body_cap > super::Size::mib(64) {
            warn(
                "socket.body_cap",
                "each connection may make the daemon hold this much",
            );
        }

        if self.devices.declared.is_some() {
            warn(
                "devices.declared",
                "this host's own GPUs are not read: answers are what-if",
            );
        }

        for url in std::iter::once(&self.hub.endpoint).chain(self.hub.endpoints.values()) {
            if url.starts_with("http://") && !is_loopback(url) {
                warn(
                    "hub.endpoint",
                    &format!("{url} is not encrypted: a token would be sent in the clear"),
                );
            }
        }

        if self.hub.retry_budget > self.socket.handler_deadline {
            warn(
                "hub.retry_budget",
                "is longer than socket.handler_deadline: callers are told of a timeout first",
            );
        }

        if self.hub.offline && self.hub.token_file.is_some() {
            warn("hub.token_file", "is not used while hub.offline is true");
        }

        warnings
    }
}

/// Times are added to the clock: what would leave its range is refused here.
fn bounded(key: &'static str, period: Period) -> Result<(), Impossible> {
    let year = Duration::from_secs(366 * 86_400);
    if period.get() > year {
        Err(Impossible {
            key,
            why: "must be at most a year".to_owned(),
        })
    } else {
        Ok(())
    }
}

fn endpoint(text: &str) -> Result<(), String> {
    let url = url::Url::parse(text).map_err(|error| format!("'{text}' is not a URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("'{text}' must start with https:// or http://"));
    }

    if !url.username().is_empty() || url.password().is_some() {
        return Err("must hold no user or password: put the token into hub.token_file".to_owned());
    }

    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("'{text}' must have no query and no fragment"));
    }

    Ok(())
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

    fn refused(change: impl FnOnce(&mut Config)) -> Impossible {
        let mut config = Config::default();
        change(&mut config);
        config.refuse().unwrap_err()
    }

    #[test]
    fn the_defaults_work_and_are_wise() {
        assert_eq!(Config::default().refuse(), Ok(()));
        assert_eq!(Config::default().warnings(), []);
    }

    #[test]
    fn what_cannot_work_is_named() {
        assert_eq!(
            refused(|config| config.socket.connections = 0).key,
            "socket.connections"
        );
        assert_eq!(
            refused(|config| config.socket.path = "api.sock".into()).key,
            "socket.path"
        );

        assert_eq!(
            refused(|config| config.socket.path = format!("/{}", "x".repeat(107)).into()).key,
            "socket.path"
        );
        assert_eq!(
            refused(|config| config.hub.endpoint = "ftp://x".into()).key,
            "hub.endpoint"
        );

        assert_eq!(
            refused(|config| config.leases.max_wait = Period::seconds(u64::MAX)).key,
            "leases.max_wait"
        );
        assert_eq!(
            refused(|config| config.log.filter = "info,=".into()).key,
            "log.filter"
        );

        assert_eq!(
            refused(|config| config.history.interval = Period::millis(999)).key,
            "history.interval"
        );
        assert_eq!(
            refused(|config| config.history.keep = Period::seconds(1)).key,
            "history.keep"
        );

        assert_eq!(
            refused(|config| config.history.max_bytes = super::super::Size::kib(1)).key,
            "history.max_bytes"
        );
        let secret = refused(|config| config.hub.endpoint = "https://me:hf_secret@hub".into());
        assert!(!secret.why.contains("hf_secret"), "{}", secret.why);
    }

    #[test]
    fn an_open_socket_and_a_clear_text_hub_are_warned_of() {
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
