//! Which Hubs serve small files at the address that `resolve` redirects to, so that each costs one
//! request instead of two.
//!
//! The Hub redirects a file that is not in LFS from `/{repo}/resolve/{commit}/{path}` to
//! `/api/resolve-cache/models/{repo}/{commit}/{path}`. A mirror may not know the second address,
//! and the Hub may change it. So an answer from there counts only if it has the listed length of
//! the file. Otherwise the client asks `resolve`.

use std::collections::HashMap;
use std::sync::Mutex;

use crate::lock_ignoring_poison::lock_ignoring_poison;

/// Consecutive unusable answers after which the client stops asking a Hub there.
const MAX_MISSES: u32 = 3;

/// Path segments before the repository's name.
pub(super) const PATH_PREFIX: [&str; 3] = ["api", "resolve-cache", "models"];

/// Consecutive unusable answers by endpoint. The settings bound the number of endpoints.
#[derive(Debug, Default)]
pub(super) struct ResolveCache(Mutex<HashMap<String, u32>>);

impl ResolveCache {
    /// Whether to ask `endpoint` there.
    pub(super) fn is_available(&self, endpoint: &str) -> bool {
        let misses = lock_ignoring_poison(&self.0);
        misses
            .get(endpoint)
            .is_none_or(|misses| *misses < MAX_MISSES)
    }

    /// Records whether an answer of `endpoint` was usable.
    pub(super) fn record_answer(&self, endpoint: &str, is_useful: bool) {
        let mut misses = lock_ignoring_poison(&self.0);
        let count = misses.entry(endpoint.to_owned()).or_default();
        *count = if is_useful {
            0
        } else {
            count.saturating_add(1)
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misses_in_a_row_disable_hub() {
        let resolve_cache = ResolveCache::default();
        let answers = [false, false, true, false, false];
        for useful in answers {
            resolve_cache.record_answer("http://hub/", useful);
        }

        assert!(resolve_cache.is_available("http://hub/"));
        resolve_cache.record_answer("http://hub/", false);
        assert!(
            !resolve_cache.is_available("http://hub/")
                && resolve_cache.is_available("http://other/")
        );
    }
}
