//! A verdict for every file of a repository that holds one model in many quantisations.
//!
//! The answer itself is about one of them, the one that the engine would load if nobody chose.
//! Choosing is what the list is for.

use std::cmp::Reverse;

use super::{HostView, Rules, ask};
use crate::bytes::Bytes;
use crate::engines::{Basis, Offload};
use crate::model::variant::{Content, Known, label};
use crate::model::{Format, Model};
use crate::placement::{Placement, Strategy, plan};
use crate::report::answer::{Answer, Suggestion, Verdict};
use crate::report::file::{FileAnswer, FileKind, FilesAnswer};
use crate::report::problem::Problem;
use crate::report::question::Question;
use crate::wire_word::WireWord;

/// Beyond this many bits a weight there is no better quality: models are published in 16-bit types.
const FULL_PRECISION_BITS: f64 = 16.0;

/// The rule, as it stands in the answer.
const RULE: &str = "the most bits a weight (16 at most) among the files that fit, all on devices before any that needs host memory; \
                    of equals the smaller";

/// Adds to `answer`, which is about `model`, a line for every file of its repository. Does nothing
/// where there is no choice. `judged` says whether `here` is what the asker has, so that there are
/// verdicts.
pub(super) fn list(
    answer: &mut Answer,
    question: &Question,
    model: &Model,
    here: &HostView,
    rules: &Rules,
    judged: bool,
) -> Result<(), Problem> {
    if model.variants.is_empty() || model.format != Format::Gguf || question.model.file.is_some() {
        return Ok(());
    }

    let mut list = Vec::new();
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
            (Some(other), _) => line.judge(&other, question, here, rules)?,
            (None, Known::NoModel(content)) => line.without_figures(kind(*content), None),
            (None, Known::Unreadable(why)) => {
                line.without_figures(FileKind::Model, Some(why.clone()))
            }
            (None, _) => {
                line.without_figures(FileKind::Model, Some("its length is not known".to_owned()))
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
        let bits = |file: &FileAnswer| file.bits_per_weight.unwrap_or_default();
        let rest = |file: &FileAnswer| (Reverse(file.stored_bytes), file.file.clone());
        left.kind
            .cmp(&right.kind)
            .then(bits(right).total_cmp(&bits(left)))
            .then_with(|| rest(left).cmp(&rest(right)))
    });

    if !judged {
        for file in &mut list {
            (file.verdict, file.short_by_bytes) = (None, None);
        }
    }

    if answer.verdict == Some(Verdict::Unknown) {
        // What is not understood of one is not understood of all, and the answer says it once.
        for file in list
            .iter_mut()
            .filter(|file| file.verdict == Some(Verdict::Unknown))
        {
            file.why_not = None;
        }
    }

    let best = recommended(&list);
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

/// The file to take by [`RULE`].
fn recommended(list: &[FileAnswer]) -> Option<&FileAnswer> {
    let fits =
        |file: &&FileAnswer| file.kind == FileKind::Model && file.verdict == Some(Verdict::Fits);
    let on_host = |file: &FileAnswer| {
        file.strategy
            .as_ref()
            .and_then(WireWord::known)
            .is_some_and(Strategy::is_offload)
    };

    let bits = |file: &FileAnswer| {
        file.bits_per_weight
            .unwrap_or_default()
            .min(FULL_PRECISION_BITS)
    };

    list.iter().filter(fits).min_by(|left, right| {
        let by_bits = || bits(right).total_cmp(&bits(left));
        on_host(left)
            .cmp(&on_host(right))
            .then_with(by_bits)
            .then_with(|| left.stored_bytes.cmp(&right.stored_bytes))
    })
}

/// The recommended file as a way out, where the one that is answered for does not fit.
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

fn kind(content: Content) -> FileKind {
    match content {
        Content::Projector => FileKind::Projector,
        Content::Adapter => FileKind::Adapter,
        Content::Other => FileKind::Other,
    }
}

/// A file before it is judged.
struct Line {
    path: String,
    parts: u32,
    file_bytes: Option<Bytes>,
    basis: Basis,
    answered: bool,
}

impl Line {
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

    /// The file on the devices, placed for itself.
    fn judge(
        self,
        model: &Model,
        question: &Question,
        here: &HostView,
        rules: &Rules,
    ) -> Result<FileAnswer, Problem> {
        let (basis, bits) = (self.basis, bits_per_weight(model));
        let mut file = FileAnswer {
            basis: Some(basis),
            ..self.without_figures(FileKind::Model, None)
        };

        file.bits_per_weight = bits;
        file.stored_bytes = file
            .stored_bytes
            .or_else(|| Some(model.inventory.bytes().get()));

        let plan = match plan(&ask(question, model, rules)?, &here.availability) {
            Ok(plan) => plan,
            // What is wrong with one file is no reason to say nothing of the others.
            Err(error) => {
                file.verdict = Some(Verdict::Unknown);
                file.why_not = Some(error.to_string());
                return Ok(file);
            }
        };

        file.verdict = Some(plan.verdict());
        match &plan.recommended {
            Some(placement) => {
                placed(&mut file, placement);
                file.short_by_bytes = Some(plan.short_by.get());
            }
            None => file.why_not = Some(plan.why),
        }

        Ok(file)
    }
}

fn placed(file: &mut FileAnswer, placement: &Placement) {
    let sum = |end: fn(&crate::engines::Interval) -> Bytes| {
        placement
            .ranks
            .iter()
            .map(|rank| end(&rank.required))
            .sum::<Bytes>()
            .get()
    };

    file.required_bytes = Some(sum(|need| need.high));
    file.likely_bytes = Some(sum(|need| need.likely));
    file.strategy = Some(placement.strategy.into());
    file.devices = u32::try_from(placement.ranks.len()).ok();
    file.max_context = placement.max_context;
    debug_assert!(placement.split.offload == Offload::None || placement.strategy.is_offload());
}

/// Stored bits for each element, to a hundredth.
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
        recommended(list).map(|file| file.file.as_str())
    }

    #[test]
    fn the_most_bits_that_fit_on_devices_are_recommended() {
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
}
