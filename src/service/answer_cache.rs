//! Caches serialized answers.
//!
//! An answer is a pure function of the question, the model, the reading with its claims, and the
//! site's rules: [`evaluate::answer`](hf_mem_core::evaluate::answer) reads no clock, no environment
//! and no file. If all of these are the same objects, the daemon returns the serialized answer of
//! an earlier request. Schedulers ask one question many times a second. Readings change once a
//! second, and leases when they change.
//!
//! The cache key is the request's body, before it is parsed: equal bytes are an equal question.
//! The cache does not decide what a caller may see. The model is looked up again for every caller,
//! and a model that the caller may not see is never the one that is compared.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::Snapshot;

use super::ActiveConfig;
use super::found_model::{ReadModels, References};
use crate::admission::server_limits::MAX_CACHED_ANSWER_BYTES;
use crate::lock_ignoring_poison::lock_ignoring_poison;
use crate::server::service::SerializedAnswer;

/// The most answers in the cache. Each takes some ten kilobytes, and at most
/// [`MAX_CACHED_ANSWER_BYTES`]. A further answer empties the cache: with more different questions
/// than this within one reading, no choice of entries to keep pays off.
const MAX_ANSWERS: usize = 64;

/// The most bytes of all answers and the models that they keep in memory. A usual model takes some
/// 30 KiB, and one written to take memory takes several MiB.
const MAX_BYTES: u64 = 8 << 20;

/// The inputs of an answer, apart from the question.
#[derive(Debug)]
pub(super) struct CacheInputs {
    pub(super) models: ReadModels,
    /// Whether a model can have changed since it was read.
    pub(super) stale: bool,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) claims: BTreeMap<String, Bytes>,
    pub(super) active: Arc<ActiveConfig>,
}

impl CacheInputs {
    /// Returns whether both lead to the same answer. Both hold their objects, so equal addresses
    /// are equal values.
    fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.snapshot, &other.snapshot)
            && self.models.same(&other.models)
            && Arc::ptr_eq(&self.active, &other.active)
            && self.stale == other.stale
            && self.claims == other.claims
    }
}

/// An answer and its inputs.
#[derive(Debug)]
pub(super) struct CachedAnswer {
    references: References,
    inputs: CacheInputs,
    answer: SerializedAnswer,
    /// The memory of the answer and its models.
    bytes: u64,
}

impl CachedAnswer {
    pub(super) fn new(
        references: References,
        inputs: CacheInputs,
        answer: SerializedAnswer,
    ) -> Self {
        let bytes = inputs
            .models
            .heap_bytes()
            .saturating_add(answer.json().len() as u64);

        Self {
            references,
            inputs,
            answer,
            bytes,
        }
    }

    /// The models of the question.
    pub(super) fn references(&self) -> &References {
        &self.references
    }

    /// Returns the answer if it also follows from `inputs`.
    pub(super) fn answer_for(&self, inputs: &CacheInputs) -> Option<SerializedAnswer> {
        self.inputs.same(inputs).then(|| self.answer.clone())
    }
}

/// Recent answers by the bodies of their requests.
#[derive(Default)]
pub(super) struct AnswerCache(Mutex<HashMap<Box<[u8]>, Arc<CachedAnswer>>>);

impl AnswerCache {
    /// Returns the answer to `body`, whatever its inputs.
    pub(super) fn find(&self, body: &[u8]) -> Option<Arc<CachedAnswer>> {
        self.entries().get(body).cloned()
    }

    /// Caches an answer to `body`, unless it is too long. It replaces the earlier answer to `body`
    /// and removes all answers that follow from another reading.
    pub(super) fn insert(&self, body: &[u8], cached: CachedAnswer) {
        let mut entries = self.entries();
        entries.retain(|_, other| Arc::ptr_eq(&other.inputs.snapshot, &cached.inputs.snapshot));
        entries.remove(body);
        let needed = cached.bytes.saturating_add(body.len() as u64);
        if cached.answer.json().len() > MAX_CACHED_ANSWER_BYTES || needed > MAX_BYTES {
            return;
        }

        let others = entries
            .iter()
            .map(|(body, other)| other.bytes.saturating_add(body.len() as u64));
        if entries.len() >= MAX_ANSWERS || others.fold(needed, u64::saturating_add) > MAX_BYTES {
            entries.clear();
        }

        entries.insert(body.into(), Arc::new(cached));
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<Box<[u8]>, Arc<CachedAnswer>>> {
        // Entries are inserted and removed whole, so a panic elsewhere leaves none half done.
        lock_ignoring_poison(&self.0)
    }
}

impl std::fmt::Debug for AnswerCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AnswerCache")
            .field("answers", &self.entries().len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use hf_mem_core::model::Model;
    use hf_mem_core::report::question::ModelQuestion;
    use hf_mem_core::report::{Answer, Question};

    use super::*;
    use crate::config::Config;

    /// The inputs of one answer, of which a test replaces one.
    struct Fixture {
        model: Arc<Model>,
        draft: Arc<Model>,
        snapshot: Arc<Snapshot>,
        active: Arc<ActiveConfig>,
    }

    impl Fixture {
        fn new() -> Self {
            Self {
                model: model(),
                draft: model(),
                snapshot: snapshot(),
                active: active(),
            }
        }

        fn inputs(&self) -> CacheInputs {
            CacheInputs {
                models: ReadModels {
                    model: Arc::clone(&self.model),
                    draft: Some(Arc::clone(&self.draft)),
                },
                stale: false,
                snapshot: Arc::clone(&self.snapshot),
                claims: BTreeMap::new(),
                active: Arc::clone(&self.active),
            }
        }
    }

    fn active() -> Arc<ActiveConfig> {
        let config = Config::default();
        let rules = super::super::build::rules(&config).unwrap();
        Arc::new(ActiveConfig { config, rules })
    }

    fn model() -> Arc<Model> {
        let metadata = serde_json::json!({
            "version": hf_mem_core::model::metadata::VERSION, "format": "safetensors",
            "identity": {"repo": "a/b", "revision": null, "commit": null, "file": null},
            "gated": false, "files": [], "siblings": [], "projectors": [], "tensors": [],
            "documents": {}, "unreadable": {}, "components": [], "base_model": null,
            "gguf": null, "hub_totals": null, "evidence": {"kind": "every_header"}, "doubts": []
        });

        Arc::new(
            hf_mem_core::model::metadata::assemble(&serde_json::from_value(metadata).unwrap())
                .unwrap(),
        )
    }

    fn snapshot() -> Arc<Snapshot> {
        Arc::new(
            crate::devices::snapshot_file::resolve("2x24GiB", std::time::SystemTime::UNIX_EPOCH)
                .unwrap()
                .snapshot,
        )
    }

    fn answer(inputs: CacheInputs, message: &str) -> CachedAnswer {
        let question = Question {
            model: ModelQuestion {
                repo: "a/b".to_owned(),
                ..ModelQuestion::default()
            },
            ..Question::default()
        };
        let references = References::of_question(&question).unwrap();
        let answer = SerializedAnswer::new(&Answer {
            message: message.to_owned(),
            ..Answer::default()
        });
        CachedAnswer::new(references, inputs, answer)
    }

    #[test]
    fn only_identical_inputs_hit_the_cache() {
        let fixture = Fixture::new();
        let cache = AnswerCache::default();
        assert!(cache.find(b"a question").is_none());
        cache.insert(b"a question", answer(fixture.inputs(), "cached"));
        assert!(cache.find(b"a question ").is_none(), "another question");

        let cached = cache.find(b"a question").unwrap();
        let json = cached.answer_for(&fixture.inputs()).unwrap().json().clone();
        assert!(json.windows(6).any(|part| part == b"cached"));

        let claims = BTreeMap::from([("declared-0".to_owned(), Bytes::gib(1))]);
        for (what, other) in [
            (
                "a later reading, equal or not",
                CacheInputs {
                    snapshot: snapshot(),
                    ..fixture.inputs()
                },
            ),
            (
                "a claim",
                CacheInputs {
                    claims,
                    ..fixture.inputs()
                },
            ),
            (
                "a model that was read again",
                CacheInputs {
                    models: ReadModels {
                        model: model(),
                        ..fixture.inputs().models
                    },
                    ..fixture.inputs()
                },
            ),
            (
                "a draft that was read again",
                CacheInputs {
                    models: ReadModels {
                        draft: Some(model()),
                        ..fixture.inputs().models
                    },
                    ..fixture.inputs()
                },
            ),
            (
                "no draft",
                CacheInputs {
                    models: ReadModels {
                        draft: None,
                        ..fixture.inputs().models
                    },
                    ..fixture.inputs()
                },
            ),
            (
                "a stale model",
                CacheInputs {
                    stale: true,
                    ..fixture.inputs()
                },
            ),
            (
                "other rules",
                CacheInputs {
                    active: active(),
                    ..fixture.inputs()
                },
            ),
        ] {
            assert!(cached.answer_for(&other).is_none(), "{what}");
        }
    }

    #[test]
    fn cache_is_bounded_by_answers() {
        let fixture = Fixture::new();
        let cache = AnswerCache::default();
        for number in 0..3 * MAX_ANSWERS {
            let body = number.to_string();
            cache.insert(body.as_bytes(), answer(fixture.inputs(), "x"));
            assert!(cache.find(body.as_bytes()).is_some() && cache.entries().len() <= MAX_ANSWERS);
        }

        assert!(cache.entries().len() > 1);
        let last = (3 * MAX_ANSWERS - 1).to_string();
        cache.insert(
            last.as_bytes(),
            answer(fixture.inputs(), &"x".repeat(MAX_CACHED_ANSWER_BYTES)),
        );

        assert!(
            cache.find(last.as_bytes()).is_none(),
            "a long answer is not cached, and the earlier one is removed"
        );
    }

    #[test]
    fn new_reading_empties_the_cache() {
        let mut fixture = Fixture::new();
        let cache = AnswerCache::default();
        for body in [b"one", b"two"] {
            cache.insert(body, answer(fixture.inputs(), "x"));
        }

        fixture.snapshot = snapshot();
        cache.insert(b"later", answer(fixture.inputs(), "x"));
        assert_eq!(cache.entries().len(), 1);
    }

    #[test]
    fn cache_is_bounded_by_bytes() {
        let fixture = Fixture::new();
        let cache = AnswerCache::default();
        let large_answer = |bytes: u64| CachedAnswer {
            bytes,
            ..answer(fixture.inputs(), "x")
        };

        for number in 0..10_u8 {
            cache.insert(&[number], large_answer(MAX_BYTES / 3));
            let held: u64 = cache.entries().values().map(|cached| cached.bytes).sum();
            assert!(
                cache.find(&[number]).is_some() && held <= MAX_BYTES,
                "{held} bytes"
            );
        }

        cache.insert(&[9], large_answer(MAX_BYTES + 1));
        assert!(
            cache.find(&[9]).is_none(),
            "an answer beyond the bound is not cached, and the earlier one is removed"
        );
    }
}
