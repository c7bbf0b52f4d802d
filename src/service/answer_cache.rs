//! Answers given again.
//!
//! An answer is a pure function of the question, the model, the reading with what is claimed on it,
//! and the site's rules: [`probe::answer`](hf_mem_core::evaluate::answer) reads no clock, no
//! environment and no file. Where all of these are the very same, so is the answer, and what was
//! written for the first asker is given to the next. Schedulers ask one question many times a
//! second; readings change once a second, leases when they change.
//!
//! A question is known again by its bytes, before it is parsed: equal bytes are an equal question.
//! Nothing here decides what a caller may see: the model is looked up for every caller anew, and
//! one that it may not see is not the one that is compared.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hf_mem_core::bytes::Bytes;
use hf_mem_core::device::Snapshot;
use hf_mem_core::model::Model;

use super::ActiveConfig;
use crate::admission::limits::MAX_CACHED_ANSWER_BYTES;
use crate::repository::ModelReference;
use crate::server::service::SerializedAnswer;

/// Answers that are kept; each costs some ten kilobytes, and at most [`MAX_CACHED_ANSWER_BYTES`]. Beyond
/// it all are forgotten: a site that asks more different questions within one reading gains nothing
/// from keeping the wrong ones.
const MOST: usize = 64;
/// Bytes that all of them may take, with the models that they keep in memory: a model of usual size
/// takes some 30 KiB, and one written to take memory takes several MiB.
const MOST_BYTES: u64 = 8 << 20;

/// What an answer follows from, beside the question.
#[derive(Debug)]
pub(super) struct CacheInputs {
    pub(super) model: Arc<Model>,
    /// Whether the model may have changed since it was read.
    pub(super) stale: bool,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) claims: BTreeMap<String, Bytes>,
    pub(super) settled: Arc<ActiveConfig>,
}

impl CacheInputs {
    /// Whether both lead to the same answer. What is held cannot have been freed, so one address is
    /// one value.
    fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.snapshot, &other.snapshot)
            && Arc::ptr_eq(&self.model, &other.model)
            && Arc::ptr_eq(&self.settled, &other.settled)
            && self.stale == other.stale
            && self.claims == other.claims
    }
}

/// An answer, and what it followed from.
#[derive(Debug)]
pub(super) struct CachedAnswer {
    reference: ModelReference,
    grounds: CacheInputs,
    written: SerializedAnswer,
    /// What the answer and its model take.
    bytes: u64,
}

impl CachedAnswer {
    pub(super) fn new(
        reference: ModelReference,
        grounds: CacheInputs,
        written: SerializedAnswer,
    ) -> Self {
        let bytes = grounds
            .model
            .heap_bytes()
            .saturating_add(written.json().len() as u64);

        Self {
            reference,
            grounds,
            written,
            bytes,
        }
    }

    /// The model that was asked about.
    pub(super) fn reference(&self) -> &ModelReference {
        &self.reference
    }

    /// The answer, where it follows from `grounds` too.
    pub(super) fn written_on(&self, grounds: &CacheInputs) -> Option<SerializedAnswer> {
        self.grounds.same(grounds).then(|| self.written.clone())
    }
}

/// The answers of late, by their questions as they were written.
#[derive(Default)]
pub(super) struct AnswerCache(Mutex<HashMap<Box<[u8]>, Arc<CachedAnswer>>>);

impl AnswerCache {
    /// What was answered to `body`, on whatever grounds.
    pub(super) fn find(&self, body: &[u8]) -> Option<Arc<CachedAnswer>> {
        self.kept().get(body).cloned()
    }

    /// Keeps an answer to `body`, unless it is a long one. An older one to it goes, and so do all
    /// that followed from another reading.
    pub(super) fn keep(&self, body: &[u8], answer: CachedAnswer) {
        let mut kept = self.kept();
        kept.retain(|_, other| Arc::ptr_eq(&other.grounds.snapshot, &answer.grounds.snapshot));
        kept.remove(body);
        let taken = answer.bytes.saturating_add(body.len() as u64);
        if answer.written.json().len() > MAX_CACHED_ANSWER_BYTES || taken > MOST_BYTES {
            return;
        }

        let others = kept
            .iter()
            .map(|(body, other)| other.bytes.saturating_add(body.len() as u64));
        if kept.len() >= MOST || others.fold(taken, u64::saturating_add) > MOST_BYTES {
            kept.clear();
        }

        kept.insert(body.into(), Arc::new(answer));
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<Box<[u8]>, Arc<CachedAnswer>>> {
        // Whole entries go in and out: a panic elsewhere leaves none half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for AnswerCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remembered")
            .field("answers", &self.kept().len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use hf_mem_core::report::Answer;

    fn settled() -> Arc<ActiveConfig> {
        let config = Config::default();
        let rules = super::super::build::rules(&config).unwrap();
        Arc::new(ActiveConfig { config, rules })
    }

    fn model() -> Arc<Model> {
        let metadata = serde_json::json!({
            "version": hf_mem_core::model::metadata::VERSION, "format": "safetensors", "gated": false,
            "identity": {"repo": "a/b", "revision": null, "commit": null, "file": null},
            "files": [], "siblings": [], "projectors": [], "tensors": [], "documents": {}, "unreadable": {},
            "components": [], "base_model": null, "gguf": null, "hub_totals": null,
            "evidence": {"kind": "every_header"}, "doubts": []
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

    fn answer(grounds: CacheInputs, message: &str) -> CachedAnswer {
        let reference = ModelReference::parse("a/b", None, |_| false).unwrap();
        let written = SerializedAnswer::new(&Answer {
            message: message.to_owned(),
            ..Answer::default()
        });
        CachedAnswer::new(reference, grounds, written)
    }

    #[test]
    fn only_the_very_same_grounds_give_an_answer_again() {
        let (here, model, settled) = (snapshot(), model(), settled());
        let grounds = || CacheInputs {
            model: Arc::clone(&model),
            stale: false,
            snapshot: Arc::clone(&here),
            claims: BTreeMap::new(),
            settled: Arc::clone(&settled),
        };

        let remembered = AnswerCache::default();
        assert!(remembered.find(b"a question").is_none());
        remembered.keep(b"a question", answer(grounds(), "kept"));

        assert!(
            remembered.find(b"a question ").is_none(),
            "another question"
        );

        let kept = remembered.find(b"a question").unwrap();
        assert_eq!(kept.reference().name(), "a/b");

        assert!(
            kept.written_on(&grounds())
                .unwrap()
                .json()
                .windows(4)
                .any(|part| part == b"kept")
        );

        let claims = BTreeMap::from([("declared-0".to_owned(), Bytes::gib(1))]);
        for (what, other) in [
            (
                "a later reading, equal or not",
                CacheInputs {
                    snapshot: snapshot(),
                    ..grounds()
                },
            ),
            (
                "a claim",
                CacheInputs {
                    claims,
                    ..grounds()
                },
            ),
            (
                "a model read again",
                CacheInputs {
                    model: self::model(),
                    ..grounds()
                },
            ),
            (
                "a model that may be old",
                CacheInputs {
                    stale: true,
                    ..grounds()
                },
            ),
            (
                "other rules",
                CacheInputs {
                    settled: self::settled(),
                    ..grounds()
                },
            ),
        ] {
            assert!(kept.written_on(&other).is_none(), "{what}");
        }
    }

    #[test]
    fn what_is_kept_is_bounded_and_of_one_reading() {
        let remembered = AnswerCache::default();
        let (here, model, settled) = (snapshot(), model(), settled());
        let grounds = |snapshot: &Arc<Snapshot>| CacheInputs {
            model: Arc::clone(&model),
            stale: false,
            snapshot: Arc::clone(snapshot),
            claims: BTreeMap::new(),
            settled: Arc::clone(&settled),
        };

        for number in 0..3 * MOST {
            let body = number.to_string();
            remembered.keep(body.as_bytes(), answer(grounds(&here), "x"));
            assert!(remembered.find(body.as_bytes()).is_some() && remembered.kept().len() <= MOST);
        }

        assert!(remembered.kept().len() > 1);
        let last = (3 * MOST - 1).to_string();
        remembered.keep(
            last.as_bytes(),
            answer(grounds(&here), &"x".repeat(MAX_CACHED_ANSWER_BYTES)),
        );

        assert!(
            remembered.find(last.as_bytes()).is_none(),
            "a long answer is not kept, nor the older one"
        );
        remembered.keep(b"later", answer(grounds(&snapshot()), "x"));

        assert_eq!(
            remembered.kept().len(),
            1,
            "those of the reading before are gone"
        );
    }

    #[test]
    fn kept_answers_are_bounded_by_bytes() {
        let remembered = AnswerCache::default();
        let (here, model, settled) = (snapshot(), model(), settled());
        let large = |bytes: u64| {
            let model = Arc::clone(&model);
            let grounds = CacheInputs {
                model,
                stale: false,
                snapshot: Arc::clone(&here),
                claims: BTreeMap::new(),
                settled: Arc::clone(&settled),
            };

            CachedAnswer {
                bytes,
                ..answer(grounds, "x")
            }
        };

        for number in 0..10_u8 {
            remembered.keep(&[number], large(MOST_BYTES / 3));
            let kept: u64 = remembered.kept().values().map(|kept| kept.bytes).sum();
            assert!(
                remembered.find(&[number]).is_some() && kept <= MOST_BYTES,
                "{kept} bytes"
            );
        }

        remembered.keep(&[9], large(MOST_BYTES + 1));
        assert!(
            remembered.find(&[9]).is_none(),
            "a model that takes all the room is not kept, nor the older answer"
        );
    }
}
