//! `mem_fraction_static`: what SGLang keeps out of its pools for activations, graphs and
//! workspaces.
//!
//! Source: SGLang 0.5.23 `arg_groups/memory_hook.py`.

use super::SglangPrepared;
use super::settings::default_decode;
use crate::bytes::Bytes;
use crate::device::DeviceFacts;
use crate::engines::Split;
use crate::model::architecture::FeedForward;

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
            // Larger towers leave less: 0.95 x clamp(1 - 0.1 (layers x width^2 / (24 x 1024^2) -
            // 1), 0.8, 1.05).
            let tower = vision
                .layers
                .saturating_mul(vision.hidden_size)
                .saturating_mul(vision.hidden_size);
            let relative = u128::from(tower) * 1_000_000 / (24 * 1024 * 1024);
            let factor = (1_100_000_u128.saturating_sub(relative / 10)).clamp(800_000, 1_050_000);

            u64::try_from(u128::from(fraction) * 95 * factor / 100_000_000).unwrap_or(fraction)
        })
    }

    /// MiB kept out of the pools.
    fn reserved_mib(&self, split: &Split, total_mib: u64) -> u64 {
        let constants = &self.constants;
        let decode = self
            .settings
            .decode_most
            .unwrap_or_else(|| default_decode(total_mib, split.tensor));

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

    /// Bytes that must stay free beside the pools on `device`.
    pub(super) fn reserve(&self, split: &Split, device: &DeviceFacts) -> Bytes {
        let fraction = self.fraction(split, device);
        device
            .total_bytes
            .scale(1_000_000_u64.saturating_sub(fraction), 1_000_000)
    }
}

impl SglangPrepared<'_> {
    /// The least that one prefill step, the sampler, graphs and workspaces take: what a fraction
    /// that was asked for must leave for a run to last.
    ///
    /// The step by vLLM's law of activations, whose layers these are; FlashInfer's workspace is 384
    /// to 512 MiB (`layers/attention/flashinfer_backend.py`), graphs as `mem_fraction_static`
    /// itself counts them.
    pub(super) fn transient(&self, split: &Split, device: &DeviceFacts) -> Bytes {
        let (architecture, es) = (self.architecture, self.settings.compute.bytes());
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
        let step = Bytes::product([es, tokens, width.saturating_add(experts)]);
        let total_mib = (device.total_bytes.get() >> 20).max(1);

        let decode = self
            .settings
            .decode_most
            .unwrap_or_else(|| default_decode(total_mib, split.tensor));
        let logits = Bytes::product([decode, architecture.vocab_size, es.saturating_add(4)]);

        let graphs = if self.settings.graphs {
            self.constants.decode_mib.saturating_mul(decode)
        } else {
            0
        };

        step.max(logits) + Bytes::mib(graphs) + Bytes::mib(512)
    }
}

/// Prefill graph sizes up to the chunk: by 32 to 1024, by 256 to 4096, by 512 beyond.
fn prefill_sizes(chunk: u64) -> u64 {
    let part = |from: u64, to: u64, step: u64| chunk.min(to).saturating_sub(from) / step;
    part(0, 1024, 32) + part(1024, 4096, 256) + part(4096, chunk, 512)
}
