//! Which layers see only a window.
//!
//! Source: llama.cpp `load_arch_hparams` of each model (`src/models/*.cpp`, before that
//! `src/llama-model.cpp`) and `llama_hparams::set_swa_pattern` (`src/llama-hparams.cpp`).

use super::keys::Keys;
use crate::model::architecture::{Span, Unsupported};

/// A family's rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Windows {
    /// All layers see everything, whatever the file says.
    Never,
    /// Layers of every `period` except one see the window of `attention.sliding_window`; 0 or no
    /// key turns it off.
    Period {
        /// Layers of a round.
        period: u64,
        /// The full layer comes first in the round, not last.
        full_first: bool,
        /// The window where the file has no key: `None` makes the layers full.
        default: Option<u64>,
    },
    /// `attention.sliding_window_pattern` says it for each layer; required.
    Listed,
    /// Llama 4: three of four layers see chunks of 8192 tokens, unless the file gives a window of
    /// 0.
    Chunks,
    /// EXAONE 4: a window only in the model of 64 layers.
    LargeOnly,
}

/// What each of `layers` layers sees; the first `decoders` of them are the model's own, next-token
/// layers follow.
pub(super) fn spans(
    keys: &Keys<'_>,
    rule: Windows,
    decoders: u64,
    layers: u64,
) -> Result<Vec<Span>, Unsupported> {
    const WINDOW: &str = "attention.sliding_window";
    const PATTERN: &str = "attention.sliding_window_pattern";

    let full = || (0..layers).map(|_| Span::Full).collect::<Vec<_>>();
    let by = |slides: &dyn Fn(u64) -> bool, span: Span| {
        (0..layers)
            .map(|layer| if slides(layer) { span } else { Span::Full })
            .collect::<Vec<_>>()
    };

    match rule {
        Windows::Never => Ok(full()),
        Windows::Chunks => match keys.optional(WINDOW)? {
            Some(0) => Ok(full()),
            _ => Ok(by(&|layer| layer % 4 < 3, Span::Chunked { chunk: 8192 })),
        },
        Windows::LargeOnly if layers != 64 => Ok(full()),
        Windows::LargeOnly => {
            let window = keys.optional(WINDOW)?.unwrap_or(4096);
            Ok(by(&|layer| layer % 4 < 3, Span::Sliding { window }))
        }
        Windows::Listed => {
            let window = keys.positive(WINDOW)?;

            // The list may or may not go on over the next-token layers.
            let all = keys
                .per_layer(PATTERN, layers)
                .or_else(|_| keys.per_layer(PATTERN, decoders))?;
            let Some(listed) = all else {
                return Err(keys.missing(PATTERN));
            };

            let span = |slides: u64| {
                if slides == 0 {
                    Span::Full
                } else {
                    Span::Sliding { window }
                }
            };

            let mut spans: Vec<Span> = listed.into_iter().map(span).collect();
            spans.extend((spans.len() as u64..layers).map(|_| Span::Full));

            Ok(spans)
        }
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
                return Ok(full());
            };

            let span = Span::Sliding { window };

            // Newer files carry the round's length, or a flag for each layer, themselves.
            let period = match keys.optional(PATTERN) {
                Ok(given) => given.unwrap_or(period),
                Err(_) => return spans(keys, Windows::Listed, decoders, layers),
            };

            Ok(match (period, full_first) {
                (0, _) => by(&|_| true, span),
                (period, true) => by(&|layer| layer % period != 0, span),
                (period, false) => by(&|layer| layer % period < period - 1, span),
            })
        }
    }
}
