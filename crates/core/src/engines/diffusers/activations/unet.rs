//! A U-Net: a walk through its blocks with the skips that wait for the way up.
//!
//! Source: diffusers 0.42.1 `models/unets/unet_2d_condition.py` and `unet_2d_blocks.py` (`forward`
//! of each block), `models/attention.py` (`BasicTransformerBlock`, `FeedForward`).

use super::super::pipeline::{Pipeline, PipelinePart};
use super::convolution::LivePeak;
use crate::bytes::Bytes;

/// Block types that the walk knows.
const KNOWN_BLOCKS: [&str; 5] = [
    "DownBlock2D",
    "CrossAttnDownBlock2D",
    "UpBlock2D",
    "CrossAttnUpBlock2D",
    "UNetMidBlock2DCrossAttn",
];

/// Levels and blocks of a level above which a configuration describes no U-Net. Published ones have
/// up to 5 and 4. The walk takes a step for each block.
const MAX_LEVELS: usize = 16;
const MAX_BLOCKS: u64 = 64;

/// A level of a U-Net.
#[derive(Clone, Debug)]
struct Level {
    channels: u64,
    /// Residual blocks on the way down; the way up has one more.
    blocks: u64,
    /// Attention heads on the way down, where there is attention.
    heads: u64,
    attends_down: bool,
    attends_up: bool,
    /// Elements of one channel.
    area: Bytes,
}

/// The walk's state.
struct UnetWalk<'l> {
    levels: &'l [Level],
    element: u64,
    /// Latents and prompt.
    inputs: Bytes,
    /// Outputs that wait for the way up, as (channels, bytes).
    skips: Vec<(u64, Bytes)>,
    peak: LivePeak,
}

/// The peak of one step on `batch` latents; `None` if the U-Net has other blocks.
pub(super) fn peak(
    part: &PipelinePart,
    pipeline: &Pipeline,
    element: u64,
    batch: u64,
) -> Option<LivePeak> {
    let levels = levels(part, pipeline, batch)?;
    let context = part.number("cross_attention_dim")?;
    let latents = levels.first()?.area * part.number("in_channels")?;
    let prompt = Bytes::product([batch, pipeline.text_tokens, context]);

    let mut walk = UnetWalk {
        levels: &levels,
        element,
        inputs: (latents + prompt) * element,
        skips: Vec::new(),
        peak: LivePeak::default(),
    };

    walk.down();
    walk.middle();
    walk.up()?;

    Some(walk.peak)
}

/// The levels of `part`, from full resolution down.
fn levels(part: &PipelinePart, pipeline: &Pipeline, batch: u64) -> Option<Vec<Level>> {
    let channels = part.numbers("block_out_channels");
    let (down, up) = (part.words("down_block_types"), part.words("up_block_types"));
    let middle = part
        .word("mid_block_type")
        .unwrap_or("UNetMidBlock2DCrossAttn");

    let known = down
        .iter()
        .chain(&up)
        .chain([&middle])
        .all(|block| KNOWN_BLOCKS.contains(block));
    if !known || channels.len() != down.len() || channels.len() != up.len() {
        return None;
    }

    // `attention_head_dim` was the number of heads when the first U-Nets were published.
    let heads = part.number_or_list("num_attention_heads", channels.len());
    let heads = heads.or_else(|| part.number_or_list("attention_head_dim", channels.len()))?;
    let blocks = match part.number_or_list("layers_per_block", channels.len()) {
        Some(blocks) => blocks,
        None => vec![2; channels.len()],
    };

    if channels.len() > MAX_LEVELS || blocks.iter().any(|blocks| *blocks > MAX_BLOCKS) {
        return None;
    }

    let step = pipeline.latent_step.max(1);
    let (mut width, mut height) = (
        pipeline.width.div_ceil(step),
        pipeline.height.div_ceil(step),
    );
    let mut levels = Vec::new();

    for (at, channels) in channels.iter().enumerate() {
        levels.push(Level {
            channels: *channels,
            blocks: *blocks.get(at)?,
            heads: *heads.get(at)?,
            attends_down: down.get(at)?.starts_with("CrossAttn"),
            attends_up: up.get(up.len() - 1 - at)?.starts_with("CrossAttn"),
            area: Bytes::product([width, height, batch]),
        });
        (width, height) = (width.div_ceil(2), height.div_ceil(2));
    }

    Some(levels)
}

impl UnetWalk<'_> {
    fn bytes(&self, level: &Level, channels: u64) -> Bytes {
        level.area * channels * self.element
    }

    /// Inputs and skips.
    fn held(&self) -> Bytes {
        self.inputs + self.skips.iter().map(|(_, bytes)| *bytes).sum()
    }

    /// Counts a transformer block after a residual block whose output lives on.
    ///
    /// The gated feed-forward has the most: the block's input, the sum, its norm and the output of
    /// attention; 8 widths of the projection, 4 of the gate and 4 of the product.
    fn attend(&mut self, held: Bytes, level: &Level) {
        let width = self.bytes(level, level.channels);
        let sums = level.area * level.heads * 4;
        self.peak.see(held + width * 21);
        self.peak.see(held + width * 9 + sums);
    }

    fn down(&mut self) {
        let Some(first) = self.levels.first() else {
            return;
        };

        let mut previous = first.channels;
        self.skips.push((previous, self.bytes(first, previous)));

        for (at, level) in self.levels.iter().enumerate() {
            for _ in 0..level.blocks {
                let (input, output) = (
                    self.bytes(level, previous),
                    self.bytes(level, level.channels),
                );
                let held = self.held();
                self.peak.see_residual_block(held, input, output);

                if level.attends_down {
                    self.attend(held, level);
                }

                self.skips.push((level.channels, output));
                previous = level.channels;
            }

            if let Some(below) = self.levels.get(at + 1) {
                let (input, output) = (
                    self.bytes(level, previous),
                    self.bytes(below, level.channels),
                );
                self.peak
                    .see_convolution(self.held() + output, input, output);
                self.skips.push((level.channels, output));
            }
        }
    }

    fn middle(&mut self) {
        let Some(last) = self.levels.last() else {
            return;
        };

        let (held, width) = (self.held(), self.bytes(last, last.channels));
        self.peak.see_residual_block(held, width, width);
        self.attend(held, last);
        self.peak.see_residual_block(held + width, width, width);
    }

    /// The way up: a block's input and all of its skips live until the block ends.
    fn up(&mut self) -> Option<()> {
        let last = self.levels.last()?;
        let mut previous = last.channels;

        for (at, level) in self.levels.iter().enumerate().rev() {
            let input = self.bytes(level, previous);
            let held = self.held() + input;
            let output = self.bytes(level, level.channels);
            let first_skip = self
                .skips
                .len()
                .checked_sub(usize::try_from(level.blocks).ok()? + 1)?;

            for (number, (skip, _)) in self.skips.split_off(first_skip).iter().rev().enumerate() {
                let joined = self.bytes(level, previous.saturating_add(*skip));
                if number > 0 {
                    self.peak.see(held + output + joined);
                }

                self.peak.see_residual_block(held + joined, joined, output);
                if level.attends_up {
                    self.attend(held, level);
                }

                previous = level.channels;
            }

            if at > 0 {
                self.peak.see_upsampling(held + output, output);
            }
        }

        Some(())
    }
}
