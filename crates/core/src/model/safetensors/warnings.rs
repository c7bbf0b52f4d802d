//! The warnings about one header, bounded in number.

/// Maximum number of listed warnings. Further ones are counted.
const MAX_WARNINGS: usize = 8;

/// Collects the warnings about one header.
#[derive(Default)]
pub(super) struct HeaderWarnings {
    listed: Vec<String>,
    more: u64,
}

impl HeaderWarnings {
    /// Adds a warning, or only counts it if the list is full.
    pub(super) fn add(&mut self, warning: impl FnOnce() -> String) {
        if self.listed.len() < MAX_WARNINGS {
            self.listed.push(warning());
        } else {
            self.more += 1;
        }
    }

    /// Returns all warnings, with `first` at the start.
    pub(super) fn finish(mut self, first: Option<String>) -> Vec<String> {
        if let Some(first) = first {
            self.listed.insert(0, first);
            if self.listed.len() > MAX_WARNINGS {
                self.listed.truncate(MAX_WARNINGS);
                self.more += 1;
            }
        }

        if self.more > 0 {
            self.listed
                .push(format!("and {} more warnings about this header", self.more));
        }

        self.listed
    }
}
