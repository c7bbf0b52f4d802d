//! Invalid values of a configuration, which are ignored. Each of them becomes a warning.

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde_json::Value;

use super::fields::{Fields, contradiction};

/// The values that were ignored while reading one configuration, without duplicates.
#[derive(Debug, Default)]
pub(super) struct Ignored(RefCell<BTreeSet<String>>);

impl Ignored {
    /// Returns one warning for each ignored value.
    pub(super) fn into_warnings(self) -> Vec<String> {
        self.0.into_inner().into_iter().collect()
    }
}

impl Fields<'_> {
    /// Records that `key` is ignored, and why.
    pub(super) fn ignore(&self, key: &str, value: &Value, why: &str) {
        self.ignore_part(&contradiction(key, value, format!("{why}; it is ignored")));
    }

    /// Records that a part of the configuration is ignored because of `why`.
    pub(super) fn ignore_part(&self, why: &impl ToString) {
        self.ignored
            .0
            .borrow_mut()
            .insert(format!("config.json: {}", why.to_string()));
    }

    /// Keeps the entries of `listed` that are layers of the model, and ignores the others.
    pub(super) fn layers_of(&self, key: &str, listed: Vec<u64>, layers: usize) -> Vec<u64> {
        let (known, beyond): (Vec<u64>, Vec<u64>) =
            listed.into_iter().partition(|layer| *layer < layers as u64);
        if let Some(first) = beyond.first() {
            self.ignore(
                key,
                &Value::from(*first),
                &format!("the model has {layers} layers"),
            );
        }

        known
    }
}
