//! A verdict for every file of a repository that holds one model in many quantizations.
//!
//! The answer itself is about one file, the one that the engine loads by default. The list helps
//! the user to choose another.

use std::collections::BTreeMap;

use super::host_view::HostView;
use super::request::{Rules, ask};
use crate::bytes::Bytes;
use crate::engines::{Basis, Interval, Offload};
use crate::model::variant::{Content, Known, label};
use crate::model::{Format, Model};
use crate::placement::{Placement, Strategy, plan};
use crate::report::answer::{Answer, Suggestion, Verdict};
use crate::report::file::{FileAnswer, FileKind, FilesAnswer};
use crate::report::problem::Problem;
use crate::report::question::Question;
use crate::wire_word::WireWord;

/// Bits a weight beyond which quality does not improve: models are published in 16-bit types.
const FULL_PRECISION_BITS: f64 = 16.0;

/// The rule of the recommendation, as the answer states it.
const RULE: &str = "the most bits a weight (16 at most) among the files that fit, all on devices before any that needs host memory; \
                    of equals the smaller";

/// Adds a line for every file of the repository to `answer`, which is about `model`.
///
/// Does nothing if there is no choice. `judged` says whether `host` has the devices of the
/// question, so that there are verdicts.
pub(super) fn list(
    answer: &mut Answer,
    question: &Question,
    model: &Model,
    host: &HostView,
    rules: &Rules,
    judged: bool,
) -> Result<(), Problem> {
    if model.variants.is_empty() || model.format != Format::Gguf || question.model.file.is_some() {
        return Ok(());
    }

    let mut list = Vec::new();
    let mut contexts = BTreeMap::new();
    for variant in &model.variants {
        let basis = if matches!(variant.known, Known::Length) {
            Basis::Assumed
        } else {
            Basis::Exact
        };

        let (path, parts, file_bytes) = (variant.path.clone(), variant.parts, variant.file_bytes);
        let answered = variant.known == Known::Itself;

        let line = Line {
            path,
            parts,
            file_bytes,
            basis,
            answered,
        };

        list.push(match (model.variant(variant), &variant.known) {
            (Some(other), _) => {
                let (file, context) = line.judge(&other, question, host, rules)?;
                contexts.insert(file.file.clone(), context);
                file
            }
            (None, Known::NoModel(content)) => line.without_figures(kind(*content), None),
            (None, Known::Unreadable(why)) => {
                line.without_figures(FileKind::Model, Some(why.clone()))
            }
            (None, _) => {
                line.without_figures(FileKind::Model, Some("its length is unknown".to_owned()))
            }
        });
    }

    for projector in model.components.iter().filter(|part| part.name == "mmproj") {
        let file_bytes = Some(projector.bytes);
        let line = Line {
            path: projector.class.clone(),
            parts: 1,
            file_bytes,
            basis: Basis::Exact,
            answered: false,
        };

        list.push(line.without_figures(FileKind::Projector, None));
    }

    list.sort_by(|left, right| {
        left.kind
            .cmp(&right.kind)
            .then(
                right
                    .bits_per_weight
                    .unwrap_or_default()
                    .total_cmp(&left.bits_per_weight.unwrap_or_default()),
            )
            .then(right.stored_bytes.cmp(&left.stored_bytes))
            .then_with(|| left.file.cmp(&right.file))
    });

    if !judged {
        for file in &mut list {
            (file.verdict, file.short_by_bytes) = (None, None);
        }
    }

    if answer.verdict == Some(Verdict::Unknown) {
        // If one file is not understood, none is, and the answer states the reason once.
        for file in list
            .iter_mut()
            .filter(|file| file.verdict == Some(Verdict::Unknown))
        {
            file.why_not = None;
        }
    }

    let best = recommended(&list, &contexts);
    if let (Some(best), false) = (best, answer.verdict == Some(Verdict::Fits)) {
        answer.suggestions.extend(suggestion(best, &list));
    }

    let recommended = best.map(|file| file.file.clone());
    answer.files = Some(FilesAnswer {
        recommended,
        rule: RULE.to_owned(),
        list,
    });

    Ok(())
}

/// Returns the recommended file by [`RULE`].
///
/// `contexts` has the tokens of each file's placement. An engine may shrink its default context for
/// a large file; files that run with more come first.
fn recommended<'a>(
    list: &'a [FileAnswer],
    contexts: &BTreeMap<String, Option<u64>>,
) -> Option<&'a FileAnswer> {
    let placed_context = |file: &FileAnswer| contexts.get(&file.file).copied().flatten();
    let fitting = list
        .iter()
        .filter(|file| file.kind == FileKind::Model && file.verdict == Some(Verdict::Fits));

    fitting.min_by(|left, right| {
        uses_host(left)
            .cmp(&uses_host(right))
            .then_with(|| placed_context(right).cmp(&placed_context(left)))
            .then_with(|| useful_bits(right).total_cmp(&useful_bits(left)))
            .then_with(|| left.stored_bytes.cmp(&right.stored_bytes))
    })
}

/// Whether the file's placement keeps part of the model in host memory.
fn uses_host(file: &FileAnswer) -> bool {
    file.strategy
        .as_ref()
        .and_then(WireWord::known)
        .is_some_and(Strategy::is_offload)
}

/// Returns the bits a weight that add to quality.
fn useful_bits(file: &FileAnswer) -> f64 {
    file.bits_per_weight
        .unwrap_or_default()
        .min(FULL_PRECISION_BITS)
}

/// Returns a suggestion of the recommended file, if the file of the answer does not fit.
fn suggestion(best: &FileAnswer, list: &[FileAnswer]) -> Option<Suggestion> {
    let own = list
        .iter()
        .find(|file| file.answered)
        .and_then(|file| file.required_bytes)?;
    let bits = best.bits_per_weight?;

    let by_length = if best.basis == Some(Basis::Assumed) {
        " (judged by its length)"
    } else {
        ""
    };

    Some(Suggestion {
        change: format!("file={}", best.file),
        message: format!(
            "--file {} would fit, at {bits:.2} bits a weight{by_length}",
            best.file
        ),
        verdict: Verdict::Fits,
        saves_bytes: own.saturating_sub(best.required_bytes?),
    })
}

/// Returns the kind of a file that is no model.
fn kind(content: Content) -> FileKind {
    match content {
        Content::Projector => FileKind::Projector,
        Content::Adapter => FileKind::Adapter,
        Content::Other => FileKind::Other,
    }
}

/// A file of the list, not yet judged.
struct Line {
    path: String,
    parts: u32,
    file_bytes: Option<Bytes>,
    basis: Basis,
    answered: bool,
}

impl Line {
    /// Returns the answer for a file without figures.
    fn without_figures(self, kind: FileKind, why_not: Option<String>) -> FileAnswer {
        FileAnswer {
            kind,
            quantization: label(&self.path),
            file: self.path,
            parts: self.parts,
            stored_bytes: self.file_bytes.map(Bytes::get),
            bits_per_weight: None,
            required_bytes: None,
            likely_bytes: None,
            basis: None,
            verdict: None,
            strategy: None,
            devices: None,
            max_context: None,
            short_by_bytes: None,
            answered: self.answered,
            why_not,
        }
    }

    /// Judges the file, placed by itself on the devices; with the tokens of its placement.
    fn judge(
        self,
        model: &Model,
        question: &Question,
        host: &HostView,
        rules: &Rules,
    ) -> Result<(FileAnswer, Option<u64>), Problem> {
        let (basis, bits) = (self.basis, bits_per_weight(model));
        let mut file = FileAnswer {
            basis: Some(basis),
            ..self.without_figures(FileKind::Model, None)
        };

        file.bits_per_weight = bits;
        file.stored_bytes = file
            .stored_bytes
            .or_else(|| Some(model.inventory.bytes().get()));

        let plan = match plan(&ask(question, model, rules)?, &host.availability) {
            Ok(plan) => plan,
            // An error of one file must not hide the others.
            Err(error) => {
                file.verdict = Some(Verdict::Unknown);
                file.why_not = Some(error.to_string());
                return Ok((file, None));
            }
        };
        let settled = plan.settled.as_ref();
        let context = settled.map(|settled| settled.workload.context);

        file.verdict = Some(plan.verdict());
        match &plan.recommended {
            Some(placement) => {
                add_placement(&mut file, placement);
                file.short_by_bytes = Some(plan.short_by.get());
            }
            None => file.why_not = Some(plan.why),
        }

        Ok((file, context))
    }
}

/// Adds the figures of a placement.
fn add_placement(file: &mut FileAnswer, placement: &Placement) {
    let required: Interval = placement.ranks.iter().map(|rank| rank.required).sum();
    file.required_bytes = Some(required.high.get());
    file.likely_bytes = Some(required.likely.get());
    file.strategy = Some(placement.strategy.into());
    file.devices = u32::try_from(placement.ranks.len()).ok();
    file.max_context = placement.max_context;
    debug_assert!(placement.split.offload == Offload::None || placement.strategy.is_offload());
}

/// Returns the stored bits for each element, to a hundredth.
fn bits_per_weight(model: &Model) -> Option<f64> {
    let elements = model.inventory.elements();
    let hundredths = u128::from(model.inventory.bytes().get()) * 800;
    let rounded = hundredths
        .checked_add(u128::from(elements) / 2)?
        .checked_div(u128::from(elements))?;
    Some(f64::from(u32::try_from(rounded).ok()?) / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, bits: f64, verdict: Verdict, strategy: Strategy) -> FileAnswer {
        let line = Line {
            path: name.to_owned(),
            parts: 1,
            file_bytes: None,
            basis: Basis::Exact,
            answered: false,
        };

        let bare = line.without_figures(FileKind::Model, None);
        FileAnswer {
            bits_per_weight: Some(bits),
            verdict: Some(verdict),
            strategy: Some(strategy.into()),
            stored_bytes: Some(name.len() as u64),
            ..bare
        }
    }

    fn best(list: &[FileAnswer]) -> Option<&str> {
        recommended(list, &BTreeMap::new()).map(|file| file.file.as_str())
    }

    #[test]
    fn most_bits_that_fit_are_recommended() {
        let q8 = file("q8", 8.5, Verdict::Fits, Strategy::Single);
        let q4 = file("q4", 4.8, Verdict::Fits, Strategy::Single);
        let bf16 = file("bf16", 16.0, Verdict::Tight, Strategy::Single);
        assert_eq!(best(&[q4.clone(), q8.clone(), bf16.clone()]), Some("q8"));
        let spilled = file("q8", 8.5, Verdict::Fits, Strategy::LayerOffload);
        assert_eq!(best(&[q4.clone(), spilled.clone()]), Some("q4"));
        assert_eq!(best(&[bf16.clone(), spilled]), Some("q8"));
        assert_eq!(best(&[bf16]), None);
        let f32 = file("f32-is-longer", 32.0, Verdict::Fits, Strategy::Single);
        let f16 = file("f16", 16.0, Verdict::Fits, Strategy::Single);
        assert_eq!(best(&[f32, f16]), Some("f16"));

        let projector = FileAnswer {
            kind: FileKind::Projector,
            ..file("mmproj", 16.0, Verdict::Fits, Strategy::Single)
        };

        assert_eq!(best(&[projector, q4]), Some("q4"));
    }

    #[test]
    fn longer_context_precedes_bits() {
        let q8 = file("q8", 8.5, Verdict::Fits, Strategy::Single);
        let q4 = file("q4", 4.8, Verdict::Fits, Strategy::Single);
        let contexts = BTreeMap::from([
            ("q8".to_owned(), Some(4096)),
            ("q4".to_owned(), Some(131_072)),
        ]);
        let list = [q8, q4];
        assert_eq!(
            recommended(&list, &contexts).map(|file| &*file.file),
            Some("q4")
        );
    }
}
