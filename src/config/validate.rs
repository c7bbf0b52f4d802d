//! Rejects values that cannot work.

use std::time::Duration;

use super::{Config, HistoryConfig, HubConfig, Size, SocketConfig};

/// A value that cannot work: the key, and what is wrong with it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct InvalidValue {
    pub(super) key: &'static str,
    pub(super) why: String,
}

/// The longest path in a `sockaddr_un`, without its closing zero (unix(7)).
const MAX_SOCKET_PATH_BYTES: usize = 107;

/// The shortest deadline or interval that a setting can have.
const MIN_DURATION: Duration = Duration::from_millis(10);

/// The longest duration of any setting. The program adds durations to clock readings, and a longer
/// one could overflow them.
const MAX_DURATION: Duration = Duration::from_secs(366 * 86_400);

impl Config {
    /// Returns the first value that cannot work.
    pub(super) fn validate(&self) -> Result<(), InvalidValue> {
        socket(&self.socket)?;
        self.durations()?;
        history(&self.history)?;

        if self.devices.max_age < self.devices.sample_interval {
            return invalid(
                "devices.max_age",
                "is shorter than devices.sample_interval, so every reading would be stale",
            );
        }

        if self.leases.default_ttl > self.leases.max_ttl {
            return invalid("leases.default_ttl", "is longer than leases.max_ttl");
        }

        hub(&self.hub)?;
        for (key, path) in [
            ("hub.cache_directory", &self.hub.cache_directory),
            ("leases.state_directory", &self.leases.state_directory),
        ] {
            if !path.is_absolute() {
                return invalid(key, "must be an absolute path");
            }
        }

        match self.log.filter.parse::<tracing_subscriber::EnvFilter>() {
            Ok(_) => Ok(()),
            Err(error) => invalid("log.filter", error.to_string()),
        }
    }

    fn durations(&self) -> Result<(), InvalidValue> {
        for (key, duration) in [
            ("socket.header_deadline", self.socket.header_deadline),
            ("socket.handler_deadline", self.socket.handler_deadline),
            ("socket.write_deadline", self.socket.write_deadline),
            ("socket.drain_deadline", self.socket.drain_deadline),
            ("devices.sample_interval", self.devices.sample_interval),
            ("devices.max_age", self.devices.max_age),
            ("devices.read_deadline", self.devices.read_deadline),
            ("hub.connect_timeout", self.hub.connect_timeout),
            ("hub.read_timeout", self.hub.read_timeout),
            ("hub.retry_budget", self.hub.retry_budget),
            ("leases.default_ttl", self.leases.default_ttl),
            ("leases.max_ttl", self.leases.max_ttl),
        ] {
            if duration < MIN_DURATION {
                return invalid(key, "must be at least 10ms");
            }
            at_most_a_year(key, duration)?;
        }

        for (key, duration) in [
            ("devices.idle_release", self.devices.idle_release),
            ("hub.branch_age", self.hub.branch_age),
            ("leases.max_wait", self.leases.max_wait),
            ("history.interval", self.history.interval),
            ("history.keep", self.history.keep),
        ] {
            at_most_a_year(key, duration)?;
        }

        Ok(())
    }
}

fn invalid<T>(key: &'static str, why: impl Into<String>) -> Result<T, InvalidValue> {
    Err(InvalidValue {
        key,
        why: why.into(),
    })
}

fn at_most_a_year(key: &'static str, duration: Duration) -> Result<(), InvalidValue> {
    if duration > MAX_DURATION {
        return invalid(key, "must be at most a year");
    }

    Ok(())
}

fn socket(config: &SocketConfig) -> Result<(), InvalidValue> {
    if !config.path.is_absolute() {
        return invalid("socket.path", "must be an absolute path");
    }

    if config.path.as_os_str().len() > MAX_SOCKET_PATH_BYTES {
        return invalid(
            "socket.path",
            "is longer than 107 bytes, the limit for the address of a Unix socket",
        );
    }

    for (key, count) in [
        ("socket.connections", config.connections),
        ("socket.connections_per_user", config.connections_per_user),
    ] {
        if count == 0 {
            return invalid(key, "must be at least 1");
        }
    }

    if config.connections > 65_536 {
        return invalid("socket.connections", "must be at most 65536");
    }

    if config.body_cap < Size::kib(1) {
        return invalid(
            "socket.body_cap",
            "must be at least 1KiB, more than any question takes",
        );
    }

    Ok(())
}

fn history(config: &HistoryConfig) -> Result<(), InvalidValue> {
    if !config.interval.is_zero() && config.interval < Duration::from_secs(1) {
        return invalid(
            "history.interval",
            "must be at least 1s; 0s turns these readings off",
        );
    }

    if config.keep < Duration::from_secs(60) {
        return invalid("history.keep", "must be at least 1m");
    }

    if config.max_bytes < Size::kib(64) || config.max_bytes > Size::mib(512) {
        return invalid("history.max_bytes", "must be 64KiB to 512MiB");
    }

    Ok(())
}

fn hub(config: &HubConfig) -> Result<(), InvalidValue> {
    if config.concurrency == 0 {
        return invalid("hub.concurrency", "must be at least 1");
    }

    endpoint("hub.endpoint", &config.endpoint)?;
    for (prefix, url) in &config.endpoints {
        if prefix.is_empty() {
            return invalid(
                "hub.endpoints",
                "an empty prefix matches every repository; set hub.endpoint instead",
            );
        }

        endpoint("hub.endpoints", url)?;
    }

    let without_endpoint = config
        .endpoint_token_files
        .keys()
        .find(|prefix| !config.endpoints.contains_key(*prefix));
    match without_endpoint {
        Some(prefix) => invalid(
            "hub.endpoint_token_files",
            format!("has a token for {prefix:?}, for which hub.endpoints has no endpoint"),
        ),
        None => Ok(()),
    }
}

fn endpoint(key: &'static str, text: &str) -> Result<(), InvalidValue> {
    let url = match url::Url::parse(text) {
        Ok(url) => url,
        Err(error) => return invalid(key, format!("'{text}' is not a URL: {error}")),
    };

    if !matches!(url.scheme(), "http" | "https") {
        return invalid(key, format!("'{text}' must start with https:// or http://"));
    }

    // The text is not printed: it contains a secret.
    if !url.username().is_empty() || url.password().is_some() {
        return invalid(
            key,
            "must contain no user and no password; put the token into hub.token_file",
        );
    }

    if url.query().is_some() || url.fragment().is_some() {
        return invalid(key, format!("'{text}' must have no query and no fragment"));
    }

    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejected(change: impl FnOnce(&mut Config)) -> InvalidValue {
        let mut config = Config::default();
        change(&mut config);
        config.validate().unwrap_err()
    }

    type Change = fn(&mut Config);

    #[test]
    fn defaults_are_valid() {
        assert_eq!(Config::default().validate(), Ok(()));
    }

    #[test]
    fn invalid_values_name_their_key() {
        let cases: [(&str, Change); 9] = [
            ("socket.connections", |config| config.socket.connections = 0),
            ("socket.path", |config| {
                config.socket.path = "api.sock".into();
            }),
            ("socket.path", |config| {
                config.socket.path = format!("/{}", "x".repeat(107)).into();
            }),
            ("hub.endpoint", |config| {
                config.hub.endpoint = "ftp://x".into();
            }),
            ("leases.max_wait", |config| {
                config.leases.max_wait = Duration::from_secs(u64::MAX);
            }),
            ("log.filter", |config| config.log.filter = "info,=".into()),
            ("history.interval", |config| {
                config.history.interval = Duration::from_millis(999);
            }),
            ("history.keep", |config| {
                config.history.keep = Duration::from_secs(1);
            }),
            ("history.max_bytes", |config| {
                config.history.max_bytes = Size::kib(1);
            }),
        ];

        for (key, change) in cases {
            assert_eq!(rejected(change).key, key);
        }
    }

    #[test]
    fn endpoint_errors_hide_passwords() {
        let secret = rejected(|config| config.hub.endpoint = "https://me:hf_secret@hub".into());
        assert!(!secret.why.contains("hf_secret"), "{}", secret.why);
    }
}
