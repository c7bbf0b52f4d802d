//! The layers that attend to a window only.
//!
//! Source: llama.cpp `load_arch_hparams` of each model (`src/models/*.cpp`, before that
//! `src/llama-model.cpp`) and `llama_hparams::set_swa_pattern` (`src/llama-hparams.cpp`).

use super::keys::Keys;
use crate::model::architecture::{Span, Unsupported};

const WINDOW: &str = "attention.sliding_window";
const PATTERN: &str = "attention.sliding_window_pattern";

/// A family's rule for windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Windows {
    /// All layers have full attention, even if the file states a window.
    Never,
    /// All layers of a period except one have the window of `attention.sliding_window`.
    ///
    /// No layer has a window if the key is 0 or absent.
    Period {
        /// Number of layers in a period.
        period: u64,
        /// Whether the full layer comes first in the period instead of last.
        full_first: bool,
        /// The window if the file has no key; `None` means full attention.
        default: Option<u64>,
    },
    /// `attention.sliding_window_pattern` lists the layers with a window, and is required.
    Listed,
    /// Three of four layers have chunks of 8192 tokens (Llama 4).
    ///
    /// No layer has chunks if the file has a window of 0.
    Chunks,
    /// Only models of 64 layers have windows (EXAONE 4).
    LargeOnly,
}

/// Returns the span of each of `layers` layers.
///
/// The first `decoders` layers are the model's own. Layers for multi-token prediction follow.
pub(super) fn spans(
    keys: &Keys<'_>,
    rule: Windows,
    decoders: u64,
    layers: u64,
) -> Result<Vec<Span>, Unsupported> {
    match rule {
        Windows::Never => Ok(full_spans(layers)),
        Windows::Chunks if keys.optional(WINDOW)? == Some(0) => Ok(full_spans(layers)),
        Windows::Chunks => {
            let span = Span::Chunked { chunk: 8192 };
            Ok(spans_where(layers, span, |layer| layer % 4 < 3))
        }
        Windows::LargeOnly if layers != 64 => Ok(full_spans(layers)),
        Windows::LargeOnly => {
            let window = keys.optional(WINDOW)?.unwrap_or(4096);
            let span = Span::Sliding { window };
            Ok(spans_where(layers, span, |layer| layer % 4 < 3))
        }
        Windows::Listed => listed_spans(keys, decoders, layers),
        Windows::Period {
            period,
            full_first,
            default,
        } => {
            let Some(window) = keys
                .optional(WINDOW)?
                .or(default)
                .filter(|window| *window > 0)
            else {
                return Ok(full_spans(layers));
            };

            // Newer files state the length of the period, or a flag for each layer.
            let period = match keys.optional(PATTERN) {
                Ok(stated) => stated.unwrap_or(period),
                Err(_) => return listed_spans(keys, decoders, layers),
            };

            Ok(spans_where(
                layers,
                Span::Sliding { window },
                |layer| match (period, full_first) {
                    (0, _) => true,
                    (period, true) => layer % period != 0,
                    (period, false) => layer % period < period - 1,
                },
            ))
        }
    }
}

fn listed_spans(keys: &Keys<'_>, decoders: u64, layers: u64) -> Result<Vec<Span>, Unsupported> {
    let window = keys.positive(WINDOW)?;

    // The list either includes the layers for multi-token prediction or ends before them.
    let flags = keys
        .per_layer(PATTERN, layers)
        .or_else(|_| keys.per_layer(PATTERN, decoders))?
        .ok_or_else(|| keys.missing(PATTERN))?;

    Ok(spans_where(layers, Span::Sliding { window }, |layer| {
        let flag = usize::try_from(layer).ok().and_then(|at| flags.get(at));
        flag.is_some_and(|flag| *flag != 0)
    }))
}

fn full_spans(layers: u64) -> Vec<Span> {
    (0..layers).map(|_| Span::Full).collect()
}

/// Returns `span` for the layers that `has_window` selects, and full attention for the others.
fn spans_where(layers: u64, span: Span, has_window: impl Fn(u64) -> bool) -> Vec<Span> {
    (0..layers)
        .map(|layer| if has_window(layer) { span } else { Span::Full })
        .collect()
}
