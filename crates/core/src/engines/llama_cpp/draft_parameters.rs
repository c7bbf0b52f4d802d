//! llama-server's parameters of speculative decoding.
//!
//! Source: llama.cpp b12032 `common/common.h` (`common_params_speculative`),
//! `common/speculative.cpp` (`common_speculative_n_max`, `common_speculative_type_from_name_map`).

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::parameters::{bad, dtype, not_counted, small, truth, whole};
use crate::engines::EngineError;
use crate::model::Dtype;

/// Tokens that a draft proposes by default.
const DRAFTED: u64 = 3;

/// The most layers of any model (`LLAMA_MAX_LAYERS`).
const MOST_LAYERS: u32 = 512;

/// Tokens that n-grams propose by default: all lookups in maps, and the others.
const DRAFTED_BY_MAPS: u64 = 48;
const DRAFTED_BY_HASHES: u64 = 64;
const DRAFTED_BY_CACHES: u64 = 8;

/// The parameters of a draft.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct DraftParameters {
    /// Whether the model's own next-token layers draft.
    pub(crate) next_token: bool,
    /// Whether a second model drafts.
    pub(crate) model: bool,
    /// The most tokens that n-grams propose.
    ngrams: Option<u64>,
    /// The names in `spec_type`, as asked.
    pub(crate) names: Vec<String>,
    pub(crate) n_max: Option<u64>,
    pub(crate) n_ubatch: Option<u64>,
    pub(crate) n_gpu_layers: Option<u32>,
    pub(crate) n_cpu_moe: Option<u32>,
    pub(crate) type_k: Option<Dtype>,
    pub(crate) type_v: Option<Dtype>,
}

impl DraftParameters {
    /// Tokens that the next-token layers or the second model propose.
    pub(crate) fn drafted(&self) -> u64 {
        self.n_max.unwrap_or(DRAFTED)
    }

    /// Rows of logits of one sequence: its token, and the most that anything proposes.
    pub(crate) fn output_rows(&self) -> u64 {
        let drafted = (self.next_token || self.model).then(|| self.drafted());

        drafted.max(self.ngrams).unwrap_or(0).saturating_add(1)
    }

    /// Whether anything proposes tokens.
    pub(crate) fn is_on(&self) -> bool {
        self.next_token || self.model || self.ngrams.is_some()
    }

    /// Types of the draft's keys and values: its own, never the model's.
    pub(crate) fn cache_types(&self) -> [Dtype; 2] {
        [self.type_k, self.type_v].map(|given| given.unwrap_or(Dtype::F16))
    }

    /// The value of `--spec-type`; `None` if nothing drafts.
    pub(crate) fn spec_type(&self) -> Option<String> {
        if !self.is_on() {
            return None;
        }
        if self.names.is_empty() {
            return Some("draft-simple".to_owned());
        }

        Some(self.names.join(","))
    }

    /// The parameters in force, by name, for the answer.
    pub(super) fn report(&self) -> BTreeMap<&'static str, Value> {
        let Some(spec_type) = self.spec_type() else {
            return BTreeMap::new();
        };

        let mut all = BTreeMap::from([("spec_type", json!(spec_type))]);
        if !self.next_token && !self.model {
            return all;
        }

        let [keys, values] = self
            .cache_types()
            .map(|dtype| dtype.name().to_ascii_lowercase());
        all.insert("spec_draft_n_max", json!(self.drafted()));
        all.insert("spec_draft_type_k", json!(keys));
        all.insert("spec_draft_type_v", json!(values));

        let numbers = [
            ("spec_draft_n_ubatch", self.n_ubatch),
            ("spec_draft_ngl", self.n_gpu_layers.map(u64::from)),
            ("spec_draft_n_cpu_moe", self.n_cpu_moe.map(u64::from)),
        ];
        for (name, number) in numbers {
            all.extend(number.map(|number| (name, json!(number))));
        }

        all
    }

    /// The flags of llama-server for [`DraftParameters::report`].
    pub(super) fn flags(&self) -> Vec<(String, String)> {
        let report = self.report();
        let flags = report.iter().map(|(name, value)| {
            let text = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            (format!("--{}", name.replace('_', "-")), text)
        });

        flags.collect()
    }

    /// Sets the parameter `name`; returns whether it is a draft's.
    pub(super) fn set(&mut self, name: &str, value: &Value) -> Result<bool, EngineError> {
        match name {
            "spec_type" => self.set_types(name, value)?,
            "spec_draft_n_max" => self.n_max = Some(whole(name, value)?),
            "spec_draft_n_ubatch" => self.n_ubatch = Some(whole(name, value)?).filter(|n| *n > 0),
            "spec_draft_ngl" => match (value.as_i64(), value.as_str()) {
                (Some(-1), _) | (_, Some("auto" | "all" | "-1")) => {}
                _ => self.n_gpu_layers = Some(small(name, value)?),
            },
            "spec_draft_n_cpu_moe" => self.n_cpu_moe = Some(small(name, value)?),
            "spec_draft_cpu_moe" if truth(name, value)? => self.n_cpu_moe = Some(MOST_LAYERS),
            "spec_draft_cpu_moe" => {}
            "spec_draft_type_k" => self.type_k = Some(dtype(name, value)?),
            "spec_draft_type_v" => self.type_v = Some(dtype(name, value)?),
            _ => return Ok(false),
        }

        Ok(true)
    }

    fn set_types(&mut self, name: &str, value: &Value) -> Result<(), EngineError> {
        let known = "known: none, draft-simple, draft-mtp, ngram-simple, ngram-map-k, \
                     ngram-map-k4v, ngram-mod, ngram-cache";
        let Some(text) = value.as_str() else {
            return Err(bad(name, value, known));
        };

        for kind in text.split(',').map(str::trim) {
            match kind {
                "none" => continue,
                "draft-mtp" => self.next_token = true,
                "draft-simple" => self.model = true,
                "ngram-simple" | "ngram-map-k" | "ngram-map-k4v" => {
                    self.ngrams = self.ngrams.max(Some(DRAFTED_BY_MAPS));
                }
                "ngram-mod" => self.ngrams = self.ngrams.max(Some(DRAFTED_BY_HASHES)),
                "ngram-cache" => self.ngrams = self.ngrams.max(Some(DRAFTED_BY_CACHES)),
                "draft-eagle3" | "draft-dflash" | "draft-dspark" => {
                    let why = "the heads of EAGLE-3, DFlash and DSpark are not counted; draft-mtp \
                               and draft-simple are";
                    return Err(not_counted(name, value, why));
                }
                _ => return Err(bad(name, value, known)),
            }
            self.names.push(kind.to_owned());
        }

        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn types(text: &str) -> Result<DraftParameters, EngineError> {
        let mut all = DraftParameters::default();
        all.set("spec_type", &json!(text))?;
        Ok(all)
    }

    /// `common_speculative_n_max`, and a row for the token itself.
    #[test]
    fn rows_follow_longest_draft() {
        for (text, rows) in [
            ("none", 1),
            ("draft-mtp", 4),
            ("draft-simple", 4),
            ("ngram-mod", 65),
            ("draft-mtp,ngram-simple", 49),
            ("ngram-cache", 9),
        ] {
            assert_eq!(types(text).unwrap().output_rows(), rows, "{text}");
        }
    }

    #[test]
    fn heads_of_eagle_are_uncounted() {
        let refused = types("draft-eagle3").unwrap_err();
        assert!(
            matches!(refused, EngineError::UnsupportedParameter { .. }),
            "{refused}"
        );
        assert!(matches!(
            types("eagle"),
            Err(EngineError::BadParameter { .. })
        ));
    }

    #[test]
    fn draft_types_are_its_own() {
        let mut all = types("draft-mtp").unwrap();
        assert_eq!(all.cache_types(), [Dtype::F16, Dtype::F16]);
        assert!(all.set("spec_draft_type_k", &json!("q8_0")).unwrap());
        assert_eq!(all.cache_types(), [Dtype::Q8_0, Dtype::F16]);
        assert!(!all.set("n_ctx", &json!(1)).unwrap());
    }
}
