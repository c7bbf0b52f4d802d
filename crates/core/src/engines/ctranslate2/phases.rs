//! Caches of the decoder, and the peak of encoding and decoding.
//!
//! Sources: CTranslate2 4.8.1 `src/layers/whisper.cc` (`WhisperEncoder`), `src/layers/attention.cc`
//! (`MultiHeadAttention`, `dot_product_attention`), `src/layers/transformer.cc`
//! (`TransformerDecoder::decode`, `replicate_state`), `src/decoding.cc` (`BeamSearch::search`,
//! `GreedySearch::search`), `src/ops/conv1d_gpu.cu`.

use super::compute_type::ComputeType;
use super::settings::Ctranslate2Settings;
use super::sizes::ModelSizes;
use crate::bytes::Bytes;
use crate::engines::{Interval, Workload};

/// The memory of one worker that depends on the workload.
#[derive(Clone, Copy, Debug)]
pub(super) struct WorkerMemory {
    /// Keys and values, of the text and of the encoder's output.
    pub(super) cache: Interval,
    /// Keys and values of the text, in the phase that needs most.
    pub(super) text_cache: Bytes,
    /// The need of either phase beyond the cache.
    pub(super) step: Interval,
}

/// The phases of one worker.
#[derive(Clone, Copy, Debug)]
pub(super) struct Phases<'a> {
    pub(super) sizes: &'a ModelSizes,
    pub(super) settings: &'a Ctranslate2Settings,
    pub(super) compute: ComputeType,
}

impl Phases<'_> {
    /// The need of one worker.
    ///
    /// Encoding ends before decoding begins, so the likely need is the larger of the two. The high
    /// end has both, as if the allocator reused nothing.
    pub(super) fn worker(&self, workload: Workload) -> WorkerMemory {
        let (cache, text_cache) = self.cache(workload);
        let encoder = self.encoder(workload.sequences);
        let decoder = self.decoder(workload);

        let beyond = |peak: Bytes, cache: Bytes| peak.less(cache).unwrap_or(Bytes::ZERO);
        let step = Interval::new(
            beyond(encoder.low, cache.low),
            beyond(encoder.likely, cache.likely).max(decoder),
            encoder.high + decoder,
        );

        WorkerMemory {
            cache,
            text_cache,
            step,
        }
    }

    /// Keys and values of one more token of every hypothesis of one chunk.
    pub(super) fn per_token(&self) -> Bytes {
        self.text_cache(1, 1, self.settings.hypotheses())
    }

    /// Both caches while the beams are searched, and while candidates are sampled; and the text's
    /// part in the larger of the two.
    ///
    /// The low end has no text, because a chunk may hold little speech. Beams share the keys and
    /// values of the encoder's output (`replicate_state`). Sampled candidates have a copy each
    /// (`GreedySearch::search` repeats the whole state).
    fn cache(&self, workload: Workload) -> (Interval, Bytes) {
        let settings = self.settings;
        let Workload { context, sequences } = workload;
        let audio = self.audio_cache(sequences, 1);
        let beam_text = self.text_cache(context, sequences, settings.beam_size);
        let beams = audio + beam_text;

        if !settings.samples {
            return (Interval::new(audio, beams, beams), beam_text);
        }

        let sampled_text = self.text_cache(context, sequences, settings.best_of);
        let sampled = sampled_text + self.audio_cache(sequences, settings.best_of);
        let largest = beams.max(sampled);

        (
            Interval::new(audio, largest, largest),
            beam_text.max(sampled_text),
        )
    }

    /// Keys and values of `tokens` tokens of text.
    fn text_cache(&self, tokens: u64, chunks: u64, hypotheses: u64) -> Bytes {
        let rows = Bytes::product([tokens, chunks, hypotheses]);
        rows * self.key_and_value_bytes()
    }

    /// Keys and values of the encoder's output.
    fn audio_cache(&self, chunks: u64, copies: u64) -> Bytes {
        let rows = Bytes::product([self.sizes.positions, chunks, copies]);
        rows * self.key_and_value_bytes()
    }

    /// Bytes of one position's keys and values in all layers.
    fn key_and_value_bytes(&self) -> u64 {
        let elements = Bytes::product([2, self.sizes.decoder_layers, self.sizes.width]);
        (elements * self.compute.float_bytes()).get()
    }

    /// The peak of encoding `chunks` chunks.
    ///
    /// In the attention of a layer: its input, in a buffer as long as the first convolution's
    /// output, query, key, value and output, and the scores of all heads. Features take half of
    /// that width or less. Releases before 4.8.1 keep the scores a second time, behind
    /// the softmax. Two copies of the encoder's output may be alive in addition: the library's and
    /// its caller's.
    fn encoder(&self, chunks: u64) -> Interval {
        let sizes = self.sizes;
        let row = Bytes::product([chunks, sizes.positions]);
        let hidden = row * sizes.width * self.compute.float_bytes();
        let scores = row * sizes.encoder_heads * sizes.positions * self.compute.float_bytes();

        // Convolutions: the first one's output of twice as many positions, the unfolded input of
        // the second (kernel 3), and its output.
        let convolutions = hidden * 6;
        let kept = if self.settings.keeps_scores {
            scores
        } else {
            Bytes::ZERO
        };
        let attention = hidden * 7 + scores + kept;
        let peak = attention.max(convolutions).max(self.feed_forward(row));

        Interval::new(peak, peak + hidden, peak + hidden * 3)
    }

    /// The feed-forward of a layer over `rows` positions: input, normalized input, inner and, with
    /// 8-bit weights, the quantized input and the product in 32 bits (`Dense::operator()`).
    fn feed_forward(&self, rows: Bytes) -> Bytes {
        let (width, inner) = (self.sizes.width, self.sizes.feed_forward);
        let floats = (rows * width * 2 + rows * inner) * self.compute.float_bytes();
        let quantized = if self.compute.is_int8() {
            rows * width + rows * inner * 4
        } else {
            Bytes::ZERO
        };

        floats + quantized
    }

    /// The peak of decoding beyond the caches.
    ///
    /// The first step projects the encoder's output into one layer's keys and values. Later steps
    /// copy one layer's cache when it grows or when beams are reordered, and rank all words.
    fn decoder(&self, workload: Workload) -> Bytes {
        let sizes = self.sizes;
        let float = self.compute.float_bytes();
        let hypotheses = self.settings.hypotheses();
        let copies = self.settings.audio_copies();
        let Workload { context, sequences } = workload;

        // The output itself, the fused projection, its transposed copy, and its parts.
        let hidden = Bytes::product([sequences, sizes.positions, sizes.width]);
        let products = if self.compute.is_int8() {
            hidden * 9
        } else {
            Bytes::ZERO
        };
        let projection = hidden * 7 * float + products;

        let layer_rows = Bytes::product([context, sequences, hypotheses])
            + Bytes::product([sizes.positions, sequences, copies]);
        let moved = layer_rows * sizes.width * float;

        // Scores of a prompt's attention to the audio, and of a step's.
        let queries = (context / 2).max(hypotheses);
        let scores =
            Bytes::product([sequences, queries, sizes.decoder_heads, sizes.positions]) * float;

        // Logits, their probabilities in either precision, and the candidates.
        let words = Bytes::product([sequences, hypotheses, sizes.vocabulary]) * 16;

        projection.max(moved) + scores + words
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::model;
    use super::*;
    use crate::engines::{AskedWorkload, EngineRequest, sample};
    use crate::model::Dtype;
    use crate::model::ctranslate2::sample::WhisperSizes;

    /// The model of `referees/ctranslate2`.
    const REFEREE: WhisperSizes = WhisperSizes {
        encoder_layers: 1,
        decoder_layers: 6,
        width: 512,
        feed_forward: 2048,
        heads: 8,
        vocabulary: 1024,
        ..WhisperSizes::TINY
    };

    /// The memory of one worker in 32-bit floats, and the peak of its encoder.
    fn worker(samples: bool, beams: u64, workload: Workload) -> (WorkerMemory, Interval) {
        let model = model(REFEREE.stored_as(Dtype::F32, Dtype::F32));
        let sizes = ModelSizes::new(model.architecture.as_ref().unwrap()).unwrap();
        let request = EngineRequest {
            model: &model,
            version: None,
            parameters: &std::collections::BTreeMap::new(),
            asked: AskedWorkload::default(),
            devices: &[sample::device()],
        };
        let settings = Ctranslate2Settings {
            beam_size: beams,
            samples,
            ..Ctranslate2Settings::new(&request, &sizes).unwrap()
        };
        let phases = Phases {
            sizes: &sizes,
            settings: &settings,
            compute: ComputeType::Float32,
        };

        (phases.worker(workload), phases.encoder(workload.sequences))
    }

    /// CTranslate2 4.8.5, float32 on the CPU, 4 chunks, 227 tokens: blocks of 4 x 1500 x 512 floats
    /// (audio) and of 4 x 227 x 512 floats for each hypothesis (text), 6 layers of keys and values.
    /// The growing cache takes one more block of text.
    #[test]
    fn caches_equal_live_blocks() {
        const AUDIO_BLOCK: u64 = 12_288_000;
        const TEXT_BLOCK: u64 = 1_859_584;

        // (samples, beams, audio blocks, hypotheses of the text's blocks)
        let rows = [(false, 1, 12, 1), (false, 5, 12, 5), (true, 1, 12 * 5, 5)];
        for (samples, beams, audio, hypotheses) in rows {
            let workload = Workload {
                context: 227,
                sequences: 4,
            };
            let (memory, _) = worker(samples, beams, workload);
            let expected = AUDIO_BLOCK * audio + 12 * TEXT_BLOCK * hypotheses;
            assert_eq!(memory.cache.high.get(), expected, "{samples} {beams}");
            assert_eq!(memory.cache.low.get(), 12 * AUDIO_BLOCK);
        }
    }

    /// Tensors that are live at the peak of encoding 1 and 4 chunks in the same process: five of a
    /// chunk's width, one twice as long, the features and the scores.
    #[test]
    fn encoder_holds_live_blocks() {
        for (chunks, peak) in [(1, 94_464_240), (4, 377_856_240)] {
            let workload = Workload {
                context: 227,
                sequences: chunks,
            };
            let (_, encoder) = worker(false, 5, workload);
            assert!(
                encoder.low.get() <= peak && peak <= encoder.likely.get(),
                "{encoder:?}"
            );
            assert!(encoder.low.get() * 100 >= peak * 98, "{encoder:?}");
        }
    }
}
