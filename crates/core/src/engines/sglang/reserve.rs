//! `mem_fraction_static`, which leaves memory outside the pools for activations, graphs and
//! workspaces.
//!
//! Source: SGLang 0.5.23 `arg_groups/memory_hook.py`.

use super::SglangPrepared;
use super::settings::default_decode;
use crate::bytes::Bytes;
use crate::device::DeviceFacts;
use crate::engines::Split;
use crate::model::architecture::FeedForward;

/// The largest workspace of FlashInfer, in MiB.
const MAX_FLASHINFER_WORKSPACE_MIB: u64 = 512;

impl SglangPrepared<'_> {
    /// The fraction in force on `device` under `split`, in millionths, rounded to three decimals.
    pub(super) fn fraction(&self, split: &Split, device: &DeviceFacts) -> u64 {
        if let Some(asked) = self.settings.asked_fraction {
            return asked;
        }

        let total_mib = (device.total_bytes.get() >> 20).max(1);
        let reserved = self.reserved_mib(split, total_mib).min(total_mib);
        let thousandths = (total_mib - reserved)
            .saturating_mul(1000)
            .saturating_add(total_mib / 2)
            / total_mib;
        let fraction = thousandths * 1000;

        self.architecture.vision.map_or(fraction, |vision| {
            // A larger vision tower lowers the fraction, by this factor:
            // 0.95 x clamp(1 - 0.1 (layers x width^2 / (24 x 1024^2) - 1), 0.8, 1.05).
            let tower = vision
                .layers
                .saturating_mul(vision.hidden_size)
                .saturating_mul(vision.hidden_size);
            let relative = u128::from(tower) * 1_000_000 / (24 * 1024 * 1024);
            let factor = (1_100_000_u128.saturating_sub(relative / 10)).clamp(800_000, 1_050_000);

            u64::try_from(u128::from(fraction) * 95 * factor / 100_000_000).unwrap_or(fraction)
        })
    }

    /// MiB outside the pools.
    fn reserved_mib(&self, split: &Split, total_mib: u64) -> u64 {
        let constants = &self.constants;
        let decode = self.max_decode_batch(split, total_mib);
        let graphs = if self.settings.graphs {
            let prefill = if self.latent {
                constants.prefill_graphs_latent_mib
            } else {
                prefill_sizes(self.settings.chunk).saturating_mul(8)
            };

            constants
                .decode_mib
                .saturating_mul(decode)
                .saturating_add(prefill)
        } else {
            0
        };

        let chunk = self
            .settings
            .chunk
            .max(2048)
            .saturating_mul(constants.chunk_token_millionths)
            / 1_000_000;

        let ranks = u64::from(split.tensor) * split.stages.len() as u64;
        let reserved = (constants.base_mib + ranks * 1024 / 8)
            .saturating_add(chunk)
            .saturating_add(graphs);

        if total_mib > 60 * 1024 {
            reserved.max(constants.minimum_large_mib)
        } else {
            reserved
        }
    }

    /// Bytes outside the pools that must stay free on `device`.
    pub(super) fn reserve(&self, split: &Split, device: &DeviceFacts) -> Bytes {
        let fraction = self.fraction(split, device);
        device
            .total_bytes
            .scale(1_000_000_u64.saturating_sub(fraction), 1_000_000)
    }

    /// The largest decode batch that SGLang captures: as asked, or by device memory.
    fn max_decode_batch(&self, split: &Split, total_mib: u64) -> u64 {
        self.settings
            .max_decode_batch
            .unwrap_or_else(|| default_decode(total_mib, split.tensor))
    }

    /// The minimum for one prefill step, the sampler, graphs and workspaces.
    ///
    /// A fraction that the user asks for must leave this much, or the server fails under load. The
    /// step follows vLLM's formula for activations, as the layers are the same. FlashInfer's
    /// workspace is 384 to 512 MiB (`layers/attention/flashinfer_backend.py`). Graphs are counted
    /// as `mem_fraction_static` counts them.
    pub(super) fn transient(&self, split: &Split, device: &DeviceFacts) -> Bytes {
        let (architecture, element) = (self.architecture, self.settings.compute.bytes());
        let (tensor, tokens) = (u64::from(split.tensor.max(1)), self.settings.chunk);

        let dense = architecture
            .layers
            .iter()
            .filter_map(|layer| match layer.feed_forward {
                FeedForward::Dense { width } => Some(width),
                _ => None,
            });

        let hidden = architecture.hidden_size;
        let width = dense
            .max()
            .unwrap_or(0)
            .div_ceil(tensor)
            .saturating_mul(3)
            .saturating_add(hidden.saturating_mul(2));

        let experts = architecture.experts.map_or(0, |experts| {
            let width = if split.expert_parallel {
                experts.width
            } else {
                experts.width.div_ceil(tensor)
            };

            experts.active.saturating_mul(
                width
                    .max(hidden)
                    .saturating_add(width.saturating_mul(2).max(hidden)),
            )
        });
        let step = Bytes::product([element, tokens, width.saturating_add(experts)]);

        let total_mib = (device.total_bytes.get() >> 20).max(1);
        let decode = self.max_decode_batch(split, total_mib);
        let checked = self
            .settings
            .speculation
            .map_or(1, |speculation| speculation.tokens);
        let rows = decode.saturating_mul(checked);
        let logits = Bytes::product([rows, architecture.vocab_size, element.saturating_add(4)]);

        let graphs = if self.settings.graphs {
            self.constants.decode_mib.saturating_mul(rows)
        } else {
            0
        };

        let draft = self
            .draft
            .as_ref()
            .map_or(Bytes::ZERO, |draft| draft.transient(split, device));

        step.max(logits) + Bytes::mib(graphs) + Bytes::mib(MAX_FLASHINFER_WORKSPACE_MIB) + draft
    }
}

/// Number of prefill graph sizes up to the chunk: by 32 to 1024, by 256 to 4096, by 512 beyond.
fn prefill_sizes(chunk: u64) -> u64 {
    let by_32 = chunk.min(1024) / 32;
    let by_256 = chunk.min(4096).saturating_sub(1024) / 256;
    let by_512 = chunk.saturating_sub(4096) / 512;

    by_32 + by_256 + by_512
}
