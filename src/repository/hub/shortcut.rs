//! Small files at the address that `resolve` redirects to, so that each costs one request and not
//! two.
//!
//! The Hub redirects a file that is not in LFS from `/{repo}/resolve/{commit}/{path}` to
//! `/api/resolve-cache/models/{repo}/{commit}/{path}`. A mirror may know nothing of the second
//! address, and the Hub may change it: an answer from there counts only where it has the length
//! that the file is listed with, and everything else is asked for by `resolve`.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Answers of no use after which a Hub is no longer asked there.
const MAX_MISSES: u32 = 3;

/// Segments of the address before the repository's name.
pub(super) const BEFORE: [&str; 3] = ["api", "resolve-cache", "models"];

/// Which Hubs answer at the shorter address, by endpoint. There are as many as the settings name.
#[derive(Debug, Default)]
pub(super) struct Shortcuts(Mutex<HashMap<String, u32>>);

impl Shortcuts {
    /// Whether `endpoint` is worth asking there.
    pub(super) fn is_open(&self, endpoint: &str) -> bool {
        let misses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        misses
            .get(endpoint)
            .is_none_or(|misses| *misses < MAX_MISSES)
    }

    /// Records whether an answer of `endpoint` could be used.
    pub(super) fn answered(&self, endpoint: &str, is_useful: bool) {
        let mut misses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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
    fn shortcut_closes_after_misses_in_a_row() {
        let shortcuts = Shortcuts::default();
        let answers = [false, false, true, false, false];
        for useful in answers {
            shortcuts.answered("http://hub/", useful);
        }

        assert!(shortcuts.is_open("http://hub/"));
        shortcuts.answered("http://hub/", false);
        assert!(!shortcuts.is_open("http://hub/") && shortcuts.is_open("http://other/"));
    }
}
