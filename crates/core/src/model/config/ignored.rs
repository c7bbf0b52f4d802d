//! Figures of a configuration that are not used because they cannot be meant: none is left out in
//! silence.

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde_json::Value;

use super::fields::{Fields, contradiction};

/// What was left out while one configuration was read, each once.
#[derive(Debug, Default)]
pub(super) struct Ignored(RefCell<BTreeSet<String>>);

impl Ignored {
    /// A sentence for each.
    pub(super) fn into_warnings(self) -> Vec<String> {
        self.0.into_inner().into_iter().collect()
    }
}

impl Fields<'_> {
    /// Records that `key` is not used, and why.
    pub(super) fn ignore(&self, key: &str, value: &Value, why: &str) {
        self.ignore_part(&contradiction(key, value, format!("{why}; it is not used")));
    }

    /// Records that a part of the configuration is not used because of `why`.
    pub(super) fn ignore_part(&self, why: &impl ToString) {
        self.ignored
            .0
            .borrow_mut()
            .insert(format!("config.json: {}", why.to_string()));
    }

    /// `listed` without what is no layer of a model of `layers`.
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
