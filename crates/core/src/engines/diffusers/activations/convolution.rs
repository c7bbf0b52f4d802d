//! Live tensors of convolutional blocks: a walk that keeps the highest sum.
//!
//! Sources: diffusers 0.42.1 `models/resnet.py` (`ResnetBlock2D.forward`), `models/upsampling.py`
//! (`Upsample2D.forward`), `models/attention_processor.py` (`AttnProcessor2_0`).

use crate::bytes::Bytes;

/// The highest sums of live tensors on a walk through a network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LivePeak {
    /// Live tensors.
    pub(super) live: Bytes,
    /// Live tensors during a convolution, with copies of its input and output in another layout.
    /// cuDNN makes them for its kernels that want channels last.
    pub(super) with_layouts: Bytes,
}

impl LivePeak {
    /// Counts `bytes` that live at once.
    pub(super) fn see(&mut self, bytes: Bytes) {
        self.live = self.live.max(bytes);
    }

    /// Counts a convolution from `input` to `output` while `held` bytes live, both included.
    pub(super) fn see_convolution(&mut self, held: Bytes, input: Bytes, output: Bytes) {
        self.see(held);
        self.with_layouts = self.with_layouts.max(held + input + output);
    }

    /// Counts a residual block from `input` to `output` while `held` bytes live, the input
    /// included.
    ///
    /// Normalization and activation are not in place: both live with the input. The sum with the
    /// residual and its division by 1 are tensors of their own.
    pub(super) fn see_residual_block(&mut self, held: Bytes, input: Bytes, output: Bytes) {
        let has_shortcut = input != output;
        self.see(held + input * 2);
        self.see_convolution(held + input + output, input, output);
        self.see_convolution(held + output * 2, output, output);

        if has_shortcut {
            self.see_convolution(held + output * 2, input, output);
            self.see(held + output * 4);
        } else {
            self.see(held + output * 3);
        }
    }

    /// Counts the doubling of `input`'s sides while `held` bytes live, the input included; returns
    /// the output's bytes.
    pub(super) fn see_upsampling(&mut self, held: Bytes, input: Bytes) -> Bytes {
        let output = input * 4;
        self.see_convolution(held + output * 2, output, output);
        output
    }
}
