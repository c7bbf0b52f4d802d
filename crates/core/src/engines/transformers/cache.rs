//! transformers' caches of keys and values after N tokens: every token of full layers, and W - 1
//! tokens of sliding ones.
//!
//! Source: transformers 5.24 `cache_utils.py` (`DynamicLayer`, `DynamicSlidingWindowLayer`,
//! `DynamicIndexedLayer`, `EncoderDecoderCache`).

use super::compressed_cache;
use super::encoder_input::EncoderInput;
use super::settings::TransformersSettings;
use crate::bytes::Bytes;
use crate::engines::shared::layer_kinds::RankLayers;
use crate::engines::{Interval, Workload};
use crate::model::architecture::{Architecture, Attention, LatentAttention, Mixer, Span};

/// Bytes of a 32-bit float.
const FLOAT32: u64 = 4;

/// The most that a codec's convolutions keep: 32 layers of 1024 channels over 16 samples, in 32-bit
/// floats.
const CODEC_CONVOLUTIONS: Bytes = Bytes::mib(2);

/// The caches of one model under the parameters in force.
#[derive(Clone, Copy, Debug)]
pub(super) struct LayerCaches<'a> {
    architecture: &'a Architecture,
    settings: &'a TransformersSettings,
}

impl<'a> LayerCaches<'a> {
    pub(super) const fn new(
        architecture: &'a Architecture,
        settings: &'a TransformersSettings,
    ) -> Self {
        Self {
            architecture,
            settings,
        }
    }

    /// Bytes that one mixer caches of a sequence of `tokens`.
    fn bytes(&self, mixer: &Mixer, tokens: u64) -> Bytes {
        let element = self.settings.element_bytes();
        match mixer {
            Mixer::Attention(attention) if !attention.shares_cache => {
                Bytes::product([self.cached_tokens(attention.span, tokens)])
                    * self.attention_elements(attention)
                    * element
            }
            Mixer::Latent(latent) => self.latent_bytes(latent, tokens),
            _ => Bytes::ZERO,
        }
    }

    /// Tokens that a layer of this span keeps of `tokens`.
    fn cached_tokens(&self, span: Span, tokens: u64) -> u64 {
        match span {
            Span::Full => tokens.saturating_add(self.architecture.prefix_tokens()),
            // A static layer allocates its whole window; a dynamic layer drops the token that
            // leaves it.
            Span::Sliding { window } | Span::Chunked { chunk: window }
                if self.settings.static_cache =>
            {
                tokens.min(window)
            }
            Span::Sliding { window } | Span::Chunked { chunk: window } => {
                tokens.min(window.saturating_sub(1))
            }
            Span::Cross { tokens: longest } => {
                EncoderInput::of(self.architecture).most_tokens(longest, tokens)
            }
            Span::Bidirectional => 0,
        }
    }

    /// Elements of a token in a layer with keys and values.
    fn attention_elements(&self, attention: &Attention) -> u64 {
        match self.architecture.cached_latent() {
            Some(latent) if self.settings.caches_latent => latent,
            _ => self
                .cached_heads(attention)
                .saturating_mul(attention.key_dim.saturating_add(attention.value_dim)),
        }
    }

    /// Heads of the cached keys.
    ///
    /// Falcon's new decoder repeats keys and values for all query heads before it caches them
    /// (`FalconAttention._split_heads`).
    fn cached_heads(&self, attention: &Attention) -> u64 {
        if self.architecture.model_type == "falcon" && attention.kv_heads > 1 {
            attention.heads
        } else {
            attention.kv_heads
        }
    }

    /// Bytes that a layer with latent attention caches of a sequence of `tokens`.
    fn latent_bytes(&self, latent: &LatentAttention, tokens: u64) -> Bytes {
        let element = self.settings.element_bytes();
        if let Some(ratio) = latent.compress_ratio {
            return compressed_cache::bytes(latent, ratio, tokens, element);
        }

        let width = self.latent_elements(latent) * element;
        self.cached_latents(latent, tokens) * width + self.index_bytes(latent, tokens)
    }

    /// Latents that a layer keeps of `tokens`.
    fn cached_latents(&self, latent: &LatentAttention, tokens: u64) -> Bytes {
        let span = match latent.window {
            Some(window) => Span::Sliding { window },
            None => Span::Full,
        };

        Bytes::product([self.cached_tokens(span, tokens)])
    }

    /// Bytes of an indexer's keys of `tokens` (`update_indexer`), in the model's dtype unless its
    /// class computes them in another.
    fn index_bytes(&self, latent: &LatentAttention, tokens: u64) -> Bytes {
        let Some(indexer) = latent.indexer.filter(|_| self.settings.caches_latent) else {
            return Bytes::ZERO;
        };

        let element = if self.architecture.has_float32_index_keys() {
            FLOAT32
        } else {
            self.settings.element_bytes()
        };
        let width = self
            .architecture
            .packed_index_elements()
            .unwrap_or(indexer.head_dim);
        Bytes::product([tokens, width, element])
    }

    /// Elements of a token's latent in a layer with latent attention.
    fn latent_elements(&self, latent: &LatentAttention) -> u64 {
        if !self.settings.caches_latent {
            let width = latent
                .nope_dim
                .saturating_add(latent.rope_dim)
                .saturating_add(latent.value_dim);
            return latent.heads.saturating_mul(width);
        }

        latent.kv_lora_rank.saturating_add(latent.rope_dim)
    }

    /// Bytes of a prompt that one mixer's cache keeps allocated until the next token.
    ///
    /// A window is a slice of the prompt's keys and values, and the slice keeps the whole tensor
    /// (`DynamicSlidingWindowLayer.update`).
    fn retained(&self, mixer: &Mixer, tokens: u64) -> Bytes {
        let (window, width) = match mixer {
            Mixer::Attention(attention) if !attention.shares_cache => match attention.span {
                Span::Sliding { window } | Span::Chunked { chunk: window } => {
                    (window, self.attention_elements(attention))
                }
                _ => return Bytes::ZERO,
            },
            Mixer::Latent(latent) => match (latent.compress_ratio, latent.window) {
                (Some(_), Some(window)) => (window, compressed_cache::retained_elements(latent)),
                (None, Some(window)) => (window, self.latent_elements(latent)),
                _ => return Bytes::ZERO,
            },
            _ => return Bytes::ZERO,
        };

        let kept = tokens.min(window.saturating_sub(1));
        let step = self.settings.prefill_chunk.unwrap_or(tokens);
        let allocated = tokens.min(step.saturating_add(kept));
        Bytes::product([
            allocated.saturating_sub(kept),
            width,
            self.settings.element_bytes(),
        ])
    }

    /// Whether windows keep tokens of the prompt that they no longer show.
    pub(super) fn retains_prompt(&self) -> bool {
        let context = self.settings.workload.context;
        let architecture = self.architecture;
        self.settings.use_cache
            && !self.settings.static_cache
            && architecture
                .mixers(0..architecture.layer_count())
                .any(|mixer| self.retained(mixer, context) > Bytes::ZERO)
    }

    /// The caches of stage `stage`, which holds `layers`, after the workload.
    pub(super) fn of_stage(
        &self,
        stage: usize,
        layers: &RankLayers<'_>,
        workload: Workload,
    ) -> Interval {
        self.held(layers, workload)
            .plus(self.streaming(stage, workload))
    }

    /// The caches of `layers` after the workload.
    ///
    /// The keys of an image or a recording count if the prompt has one: the low end has none.
    fn held(&self, layers: &RankLayers<'_>, workload: Workload) -> Interval {
        if !self.settings.use_cache {
            return Interval::default();
        }

        let (mut text, mut images) = (Bytes::ZERO, Bytes::ZERO);
        for (mixer, count) in layers.mixers() {
            let bytes = self.bytes(mixer, workload.context) * count * workload.sequences;
            if self.attends_to_media(mixer) {
                images += bytes;
            } else {
                text += bytes;
            }
        }

        Interval::new(text, text + images, text + images)
    }

    /// Whether a layer attends to an image or a recording, whose length is unknown.
    fn attends_to_media(&self, mixer: &Mixer) -> bool {
        let is_cross = matches!(mixer, Mixer::Attention(attention)
            if matches!(attention.span, Span::Cross { .. }));

        is_cross
            && (self.architecture.encoder.is_none()
                || EncoderInput::of(self.architecture) == EncoderInput::UpToLongest)
    }

    /// The caches of a streaming encoder, which are on the device of the first stage.
    ///
    /// A codec runs in 32-bit floats outside of the model's pass, so its share is assumed: the low
    /// end has none.
    fn streaming(&self, stage: usize, workload: Workload) -> Interval {
        let Some(encoder) = self.architecture.streaming_encoder else {
            return Interval::default();
        };
        if !self.settings.use_cache || stage > 0 {
            return Interval::default();
        }

        let elements = encoder.elements(workload.context) * workload.sequences;
        if encoder.is_codec {
            let most = elements * 4;
            Interval::new(Bytes::ZERO, Bytes::ZERO, most + CODEC_CONVOLUTIONS)
        } else {
            Interval::exact(elements * self.settings.element_bytes())
        }
    }

    /// Memory in addition to the caches of `layers` while they grow.
    ///
    /// Concatenation copies one layer at a time; behind the prompt, windows keep what they no
    /// longer show. Both happen, but the low end has neither.
    pub(super) fn growth(&self, layers: &RankLayers<'_>, workload: Workload) -> Interval {
        if !self.settings.use_cache || self.settings.static_cache {
            return Interval::default();
        }

        let (mut largest, mut retained) = (Bytes::ZERO, Bytes::ZERO);
        for (mixer, count) in layers.mixers() {
            largest = largest.max(self.bytes(mixer, workload.context));
            retained += self.retained(mixer, workload.context) * count;
        }

        let (largest, retained) = (largest * workload.sequences, retained * workload.sequences);
        Interval::new(Bytes::ZERO, largest.max(retained), largest + retained)
    }

    /// Cache bytes of one more token, over the layers whose window is not yet full.
    pub(super) fn per_token(&self) -> Bytes {
        if !self.settings.use_cache {
            return Bytes::ZERO;
        }

        let architecture = self.architecture;
        let context = self.settings.workload.context;
        architecture
            .mixers(0..architecture.layer_count())
            .map(|mixer| self.added_by_token(mixer, context))
            .sum()
    }

    /// Cache bytes of one mixer for one more token after `tokens`.
    fn added_by_token(&self, mixer: &Mixer, tokens: u64) -> Bytes {
        if let Mixer::Latent(LatentAttention {
            compress_ratio: Some(ratio),
            ..
        }) = mixer
        {
            // Entries come in steps of `ratio` tokens: the mean of a step, rounded up.
            let step = (*ratio).max(1);
            let later = self.bytes(mixer, tokens.saturating_add(step));
            return later
                .less(self.bytes(mixer, tokens))
                .unwrap_or(Bytes::OVERFLOW)
                .div_ceil(step);
        }

        let later = self.bytes(mixer, tokens.saturating_add(1));
        later
            .less(self.bytes(mixer, tokens))
            .unwrap_or(Bytes::OVERFLOW)
    }
}
