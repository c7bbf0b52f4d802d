//! Applies a configuration that was read again.

use std::path::Path;
use std::sync::Arc;

use hf_mem_core::report::Problem;
use hf_mem_core::report::problem::Reason;

use super::{ActiveConfig, HostService, build, check, leases};
use crate::config::Config;
use crate::files::Disk;
use crate::lock_ignoring_poison::lock_ignoring_poison;

/// The beginnings of the keys that each question reads again. All other keys need a restart.
const RELOADABLE_KEYS: [&str; 6] = [
    "placement",
    "engines.",
    "log.filter",
    "leases.default_ttl",
    "leases.max_ttl",
    "leases.user",
];

impl HostService {
    /// Puts `config` in force and returns the changed keys that need a restart.
    pub(super) async fn apply_config(&self, config: Config) -> Result<Vec<String>, Problem> {
        let new = config.clone();
        let read_rules = move |_: &Disk| {
            check(&new)?;
            Ok((build::rules(&new)?, leases::rules(&new)?))
        };

        let place = Path::new("the files that the configuration names");
        let (rules, ledger_rules) = self
            .site_files
            .run(place, read_rules)
            .await
            .unwrap_or_else(|hung| Err(Problem::new(Reason::BadConfiguration, hung.to_string())))?;

        // Compared with the configuration at the start: a key that needs a restart needs it until
        // the next start, over all reloads.
        let changed = self.initial_config.changed_keys(&config);
        self.log
            .set_filter(&config.log.filter)
            .map_err(|why| Problem::new(Reason::BadConfiguration, format!("log.filter: {why}")))?;

        self.leases
            .broker
            .set_rules(ledger_rules, config.leases.default_ttl)
            .await?;
        *lock_ignoring_poison(&self.active) = Arc::new(ActiveConfig { config, rules });

        Ok(changed
            .into_iter()
            .filter(|key| !is_reloadable(key))
            .collect())
    }
}

fn is_reloadable(key: &str) -> bool {
    RELOADABLE_KEYS.iter().any(|prefix| key.starts_with(prefix))
}
