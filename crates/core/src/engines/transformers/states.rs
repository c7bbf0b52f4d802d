//! transformers' recurrent states: convolutions over `kernel` tokens in the model's dtype, and
//! states in a dtype that depends on the version.
//!
//! Source: transformers 5.24 `cache_utils.py` (`LinearAttentionLayer`), the `update_conv_state` and
//! `update_recurrent_state` of each model file.

use super::settings::TransformersSettings;
use crate::bytes::Bytes;
use crate::engines::Interval;
use crate::engines::logical::{conv_shape, state_elements};
use crate::engines::shared::layer_kinds::RankLayers;
use crate::model::architecture::{Mixer, Recurrent};

/// Bytes of a 32-bit float.
const FLOAT32: u64 = 4;

/// States of one sequence.
///
/// Before [`TransformersSettings::scan_states_float32`] the dtype depends on the kernels that are
/// installed, so the interval ends at 32-bit floats.
pub(super) fn states(layers: &RankLayers<'_>, settings: &TransformersSettings) -> Interval {
    layers
        .mixers()
        .filter_map(|(mixer, count)| match mixer {
            Mixer::Recurrent(recurrent) => Some(scaled(layer(recurrent, settings), count)),
            _ => None,
        })
        .sum()
}

/// States of one layer.
fn layer(recurrent: &Recurrent, settings: &TransformersSettings) -> Interval {
    let element = settings.element_bytes();
    let (_, elements) = state_elements(recurrent);
    let conv = conv_elements(recurrent) * element;
    let narrow = conv + elements * element;
    let wide = conv + elements * FLOAT32.max(element);

    match recurrent {
        // The file's own list of states, in all versions (`RwkvModel.forward`): two shifts in the
        // model's dtype, the rest in 32-bit floats.
        Recurrent::Rwkv { .. } => Interval::exact(wide),
        // `MiniMaxCache` keeps what its attention returns, in the dtype of the values.
        Recurrent::Lightning { .. } => Interval::exact(narrow),
        Recurrent::ShortConv { .. } => Interval::exact(conv),
        // `InklingShortConvolution` computes in 32-bit floats and keeps them.
        Recurrent::ConvStreams { .. } => {
            Interval::exact(conv_elements(recurrent) * FLOAT32.max(element))
        }
        Recurrent::PastInputs { .. } => Interval::exact(narrow),
        Recurrent::Mamba1 { .. } | Recurrent::Mamba2 { .. } => {
            if settings.scan_states_float32 {
                Interval::exact(wide)
            } else {
                Interval::new(narrow, narrow, wide)
            }
        }
        Recurrent::GatedDelta { .. } | Recurrent::Kda { .. } => {
            if settings.scan_states_float32 {
                Interval::exact(wide)
            } else if settings.delta_states_float32 {
                Interval::new(narrow, wide, wide)
            } else {
                Interval::new(narrow, narrow, wide)
            }
        }
    }
}

/// Elements of the convolution's state: `kernel` tokens, one more than the convolution looks back.
fn conv_elements(recurrent: &Recurrent) -> Bytes {
    match conv_shape(recurrent) {
        Some((channels, kernel)) => channels * kernel,
        None => state_elements(recurrent).0,
    }
}

/// The interval `count` times.
pub(super) fn scaled(interval: Interval, count: u64) -> Interval {
    Interval {
        low: interval.low * count,
        likely: interval.likely * count,
        high: interval.high * count,
    }
}
