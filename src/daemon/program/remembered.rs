//! Answers given again.
//!
//! An answer is a pure function of the question, the model, the reading with what is claimed on it, and the site's rules:
//! [`probe::answer`](crate::probe::answer) reads no clock, no environment and no file. Where all of these are the very
//! same, so is the answer, and what was written for the first asker is given to the next. Schedulers ask one question
//! many times a second; readings change once a second, leases when they change.
//!
//! Nothing here decides what a caller may see: the model has been found for this caller before, and a model that it may
//! not see is not the one that is compared.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Settled;
use crate::api::Question;
use crate::api::service::Written;
use crate::bytes::Bytes;
use crate::devices::Snapshot;
use crate::model::Model;

/// Answers that are kept; each costs some ten kilobytes. Beyond it all are forgotten: a site that asks more different
/// questions within one reading gains nothing from keeping the wrong ones.
const MOST: usize = 64;

/// Everything that an answer follows from.
#[derive(Clone)]
pub(super) struct Grounds {
    /// The question as it is written, with the site's defaults in it: equal bytes are an equal question.
    question: Vec<u8>,
    model: Arc<Model>,
    /// Whether the model may have changed since it was read.
    stale: bool,
    snapshot: Arc<Snapshot>,
    claims: BTreeMap<String, Bytes>,
    settled: Arc<Settled>,
}

impl Grounds {
    /// `None` where an answer is not worth keeping: the question carries its model or its devices itself.
    pub(super) fn new(
        question: &Question,
        (model, stale): (&Arc<Model>, bool),
        (snapshot, claims): (&Arc<Snapshot>, &BTreeMap<String, Bytes>),
        settled: &Arc<Settled>,
    ) -> Option<Self> {
        if question.gpus.is_some() || question.model.metadata.is_some() {
            return None;
        }
        Some(Self {
            question: serde_json::to_vec(question).ok()?,
            model: Arc::clone(model),
            stale,
            snapshot: Arc::clone(snapshot),
            claims: claims.clone(),
            settled: Arc::clone(settled),
        })
    }

    /// Whether both lead to the same answer. What is held cannot have been freed, so one address is one value.
    fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.snapshot, &other.snapshot)
            && Arc::ptr_eq(&self.model, &other.model)
            && Arc::ptr_eq(&self.settled, &other.settled)
            && self.stale == other.stale
            && self.claims == other.claims
            && self.question == other.question
    }
}

/// The answers of late.
#[derive(Default)]
pub(super) struct Remembered(Mutex<HashMap<Vec<u8>, (Grounds, Written)>>);

impl Remembered {
    /// What was answered on these very grounds.
    pub(super) fn find(&self, grounds: &Grounds) -> Option<Written> {
        let kept = self.kept();
        let (held, written) = kept.get(&grounds.question)?;
        held.same(grounds).then(|| written.clone())
    }

    /// Keeps an answer; an older one to the same question goes.
    pub(super) fn keep(&self, grounds: Grounds, written: Written) {
        let mut kept = self.kept();
        if kept.len() >= MOST && !kept.contains_key(&grounds.question) {
            kept.clear();
        }
        kept.insert(grounds.question.clone(), (grounds, written));
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<Vec<u8>, (Grounds, Written)>> {
        // Whole entries go in and out: a panic elsewhere leaves none half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Remembered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remembered").field("answers", &self.kept().len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Answer;
    use crate::config::Config;
    use crate::devices::declared;

    fn settled() -> Arc<Settled> {
        let config = Config::default();
        let rules = super::super::build::rules(&config).unwrap();
        Arc::new(Settled { config, rules })
    }

    fn model() -> Arc<Model> {
        let metadata = serde_json::json!({
            "version": crate::model::source::metadata::VERSION, "format": "safetensors", "gated": false,
            "identity": {"repo": "a/b", "revision": null, "commit": null, "file": null},
            "files": [], "siblings": [], "projectors": [], "tensors": [], "documents": {}, "unreadable": {},
            "components": [], "base_model": null, "gguf": null, "hub_totals": null,
            "evidence": {"kind": "every_header"}, "doubts": []
        });
        Arc::new(crate::model::source::metadata::assemble(&serde_json::from_value(metadata).unwrap()).unwrap())
    }

    #[test]
    fn only_the_very_same_grounds_give_an_answer_again() {
        let snapshot = || Arc::new(declared::resolve("2x24GiB", std::time::SystemTime::UNIX_EPOCH).unwrap().snapshot);
        let question: Question = serde_json::from_str(r#"{"model": {"repo": "a/b"}}"#).unwrap();
        let (here, model, settled, none) = (snapshot(), model(), settled(), BTreeMap::new());
        let grounds =
            |question: &Question, model: &Arc<Model>, stale, here: &Arc<Snapshot>, claims: &BTreeMap<_, _>| {
                Grounds::new(question, (model, stale), (here, claims), &settled).unwrap()
            };
        let first = grounds(&question, &model, false, &here, &none);
        let kept = Remembered::default();
        assert!(kept.find(&first).is_none());
        kept.keep(first.clone(), Written::new(&Answer { message: "kept".to_owned(), ..Answer::default() }));
        assert!(kept.find(&first).unwrap().json().windows(4).any(|part| part == b"kept"));

        let claims = BTreeMap::from([("declared-0".to_owned(), Bytes::gib(1))]);
        let longer = Question { frontier: true, ..question.clone() };
        let other_model = self::model();
        for (what, other) in [
            ("a later reading, equal or not", grounds(&question, &model, false, &snapshot(), &none)),
            ("a claim", grounds(&question, &model, false, &here, &claims)),
            ("a model read again", grounds(&question, &other_model, false, &here, &none)),
            ("a model that may be old", grounds(&question, &model, true, &here, &none)),
            ("another question", grounds(&longer, &model, false, &here, &none)),
            ("other rules", Grounds { settled: self::settled(), ..first.clone() }),
        ] {
            assert!(kept.find(&other).is_none(), "{what}");
        }
        let declared = Question { gpus: Some("1x24GiB".to_owned()), ..question };
        assert!(Grounds::new(&declared, (&model, false), (&here, &none), &settled).is_none());
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let kept = Remembered::default();
        let (here, model, settled, none) = (
            Arc::new(declared::resolve("1x24GiB", std::time::SystemTime::UNIX_EPOCH).unwrap().snapshot),
            model(),
            settled(),
            BTreeMap::new(),
        );
        for number in 0..3 * MOST {
            let question: Question =
                serde_json::from_value(serde_json::json!({"model": {"repo": format!("a/{number}")}})).unwrap();
            let grounds = Grounds::new(&question, (&model, false), (&here, &none), &settled).unwrap();
            kept.keep(grounds.clone(), Written::new(&Answer::default()));
            assert!(kept.find(&grounds).is_some() && kept.kept().len() <= MOST);
        }
    }
}
