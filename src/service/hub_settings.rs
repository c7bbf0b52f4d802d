//! The Hub's settings: everything from the configuration, the proxies from the environment.

use std::io;
use std::path::Path;
use std::time::Duration;

use hf_mem_core::report::Problem;
use hf_mem_core::report::problem::Reason;

use super::token_access::TokenAccess;
use crate::accounts::Accounts;
use crate::api::peer::Operators;
use crate::config::{Config, HubConfig};
use crate::files;
use crate::repository::settings::{PrefixEndpoint, parse_endpoint};
use crate::repository::{HubSettings, Token};

/// The largest token file.
const MAX_TOKEN_BYTES: u64 = 8192;

/// Rejects unknown users and groups, invalid endpoints, and missing token files. Reads no token.
pub(super) fn check(config: &Config) -> Result<(), Problem> {
    token_access(config)?;
    parse_endpoint("hub.endpoint", &config.hub.endpoint)?;

    for endpoint in config.hub.endpoints.values() {
        parse_endpoint("hub.endpoints", endpoint)?;
    }

    if let Some(path) = &config.hub.token_file {
        check_token_file("hub.token_file", path)?;
    }

    for path in config.hub.endpoint_token_files.values() {
        check_token_file("hub.endpoint_token_files", path)?;
    }

    Ok(())
}

/// Rejects a token file that is missing or whose disk hangs. Only the daemon may be able to read
/// an existing one.
fn check_token_file(key: &str, path: &Path) -> Result<(), Problem> {
    let file = path.to_owned();
    match files::try_wait(path, move |disk| disk.metadata(&file)) {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::TimedOut
            ) =>
        {
            Err(bad_file(key, path, &error))
        }
        _ => Ok(()),
    }
}

/// Returns which callers may use the daemon's token.
pub(super) fn token_access(config: &Config) -> Result<TokenAccess, Problem> {
    TokenAccess::new(
        &config.access,
        Accounts::of_this_host(),
        Operators::of_this_process(),
    )
    .map_err(|error| Problem::new(error.reason(), format!("[access] {error}")))
}

/// Builds the settings and reads the token files.
pub(super) fn settings(config: &HubConfig) -> Result<HubSettings, Problem> {
    let mut settings = HubSettings::from_environment(|name| std::env::var(name).ok())?;

    // The environment's endpoint applies only if the file leaves the default.
    if config.endpoint != HubConfig::default().endpoint {
        settings.endpoint = parse_endpoint("hub.endpoint", &config.endpoint)?;
    }

    for (prefix, endpoint) in &config.endpoints {
        settings.endpoints.push(PrefixEndpoint {
            prefix: prefix.clone(),
            endpoint: parse_endpoint("hub.endpoints", endpoint)?,
            token: match config.endpoint_token_files.get(prefix) {
                Some(path) => read_token("hub.endpoint_token_files", path)?,
                None => None,
            },
        });
    }

    settings.offline |= config.offline;
    settings.limits.total = config.retry_budget;
    settings.limits.attempt = config.read_timeout.max(Duration::from_millis(1));
    settings.limits.concurrency = config.concurrency.max(1);
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY");
    if let Some(path) = config.token_path(credentials.as_deref().map(Path::new)) {
        settings.token = read_token("hub.token_file", &path)?;
    }

    settings.limits.connect = config.connect_timeout;
    Ok(settings)
}

/// Reads the token in the file at `path`; an empty file contains none.
fn read_token(key: &str, path: &Path) -> Result<Option<Token>, Problem> {
    let file = path.to_owned();
    let text = files::try_wait(path, move |disk| disk.read_text(&file, MAX_TOKEN_BYTES))
        .map_err(|error| bad_file(key, path, &error))?;

    Ok(Token::new(&text))
}

fn bad_file(key: &str, path: &Path, error: &io::Error) -> Problem {
    Problem::new(
        Reason::BadConfiguration,
        format!("{key} {}: {error}", path.display()),
    )
}
