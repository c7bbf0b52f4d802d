//! The phases of a reserved graph's layers: feed-forwards, recurrent mixers and attention.

use super::blocks::{Block, Blocks};
use super::cache::{is_index, key_row, state, value_row};
use super::distinct_layers::CountedLayer;
use super::flash_kernels::AttentionMode;
use super::new_architectures::is_new;
use super::reserved_graph::{HALF, Peak, ReservedGraph};
use super::widths::{inner_width, sum};
use crate::bytes::Bytes;
use crate::model::Dtype;
use crate::model::architecture::{Attention, LatentAttention, Mixer, Recurrent};

impl ReservedGraph<'_> {
    /// The phases of the device's own layers.
    pub(super) fn phases(&self, layers: &[CountedLayer<'_>], blocks: &Blocks) -> Peak {
        let mut peak = self.feed_forward(blocks);
        let base = peak;
        for (layer, _) in layers {
            for mixer in layer.mixers() {
                match mixer {
                    Mixer::Recurrent(recurrent) => self.recurrent(recurrent, &mut peak),
                    Mixer::None => {}
                    Mixer::Attention(attention) if is_index(attention) => {}
                    Mixer::Latent(latent) if latent.compress_ratio.is_some() => {
                        self.compressed_attention(latent, &mut peak);
                        self.flash_copies(mixer, &mut peak);
                    }
                    Mixer::Attention(_) | Mixer::Latent(_) => {
                        self.attention(mixer, blocks, base, &mut peak);
                    }
                }
            }
        }

        self.family_phases(layers, base, &mut peak);
        if self.has_output {
            let logits = Bytes::product([4, self.outputs, self.architecture.vocab_size]);
            let high = base.high.max(self.streams(8));
            peak.raise(logits + self.streams(4), logits + high);
        }

        // Other orders of the graph take a row more, and shapes that no dry run had another.
        let orders: u64 = match &*self.architecture.class {
            "limite" => 5,
            "gemma-embedding2" | "kolibri1" | "minimax-01" | "vllm-decision2" => 4,
            class if is_new(class) => 2,
            _ => 1,
        };
        peak.plus(self.input_rows(), self.streams(orders + self.kept_rows))
    }

    /// Rows that the model's input keeps live in all layers.
    pub(super) fn input_rows(&self) -> Bytes {
        let path = self.input;
        let streams = match (path.has_streams, path.per_layer) {
            (true, _) => 5,
            (false, 0) => 0,
            (false, _) => 2,
        };
        let deepstack = match path.deepstack {
            0 => 0,
            _ if !self.is_first => 0,
            layers => layers.saturating_add(1).saturating_mul(2),
        };

        self.rows(path.per_layer) + self.streams(streams) + self.streams(deepstack)
    }

    /// The phases of the feed-forward blocks.
    pub(super) fn feed_forward(&self, blocks: &Blocks) -> Peak {
        let mut peak = Peak::default();
        let skipped = if blocks.skipped_attentions > 0 { 5 } else { 1 };
        if blocks.dense.width > 0 {
            let inner = self.rows(inner_floats(blocks.dense));
            let outer = self.streams(self.dense_streams(blocks));
            peak.raise(inner + outer, inner + outer + self.streams(skipped));
        }

        let active = self
            .architecture
            .experts
            .map_or(0, |experts| experts.active);
        if blocks.expert.width > 0 {
            self.experts(blocks, active, &mut peak);
        }

        if blocks.shared.width > 0 {
            let inner = self.rows(inner_floats(blocks.shared)) + self.streams(5);
            peak.raise(inner, inner + self.streams(1));
        }

        peak
    }

    /// Rows of the residual stream that are live, or lost in holes, in a dense feed-forward.
    pub(super) fn dense_streams(&self, blocks: &Blocks) -> u64 {
        match (blocks.dense.has_gate, self.is_uncached()) {
            (true, _) => 4 + u64::from(blocks.is_parallel),
            // Norms after the blocks keep a row more.
            (false, true) => 5,
            // Learned positions leave no hole behind the embedding.
            (false, false) if self.input.added_rows > 0 => 3,
            (false, false) => 4,
        }
    }

    /// The phases of routed experts: in their width, and when their outputs are summed.
    pub(super) fn experts(&self, blocks: &Blocks, active: u64, peak: &mut Peak) {
        // Experts can run in a narrower space than the residual stream (Kimi K3).
        let entering = match blocks.expert.input {
            0 => self.architecture.hidden_size,
            input => input,
        };
        let routed_row = self.rows(entering.saturating_mul(active));
        let inner = self.rows(inner_floats(blocks.expert)) * active.max(1);
        let inner = if blocks.expert.has_gate {
            inner + self.streams(4)
        } else {
            inner + routed_row + self.streams(4)
        };
        let scaled = if self.architecture.class == "granite_swa" {
            6
        } else {
            1
        };
        peak.raise(inner, inner + self.streams(scaled));

        let mut routed = routed_row * 2 + self.streams(5);
        if blocks.is_parallel {
            routed += routed_row;
        }

        if blocks.has_delta_net {
            routed += self.streams(5);
        }

        // Windowed models with equal masks keep a third copy.
        let third = if blocks.has_windows
            || matches!(&*self.architecture.class, "k2-horizon" | "bailingmoe3")
        {
            routed_row
        } else {
            Bytes::ZERO
        };
        // Queries wider than the residual stream leave wider holes below the routed rows
        // (GLM-4.5-Air: 12 288 elements of queries over 4096).
        let wider = blocks.queries.saturating_sub(self.architecture.hidden_size);
        let holes = (self.rows(wider) * 4).min(routed_row);
        peak.raise(routed, routed + third.max(holes) + self.streams(2));
    }

    /// The phase of a recurrent mixer.
    pub(super) fn recurrent(&self, recurrent: &Recurrent, peak: &mut Peak) {
        if matches!(recurrent, Recurrent::Rwkv { .. }) {
            let is_seventh = self.architecture.class.contains("rwkv7");
            let (likely, high) = if is_seventh { (19, 21) } else { (14, 18) };
            peak.raise(self.streams(likely), self.streams(high));
            return;
        }

        let inner = self.rows(inner_width(recurrent));
        // States that roll back leave the graph with all their copies.
        let copies = match self.layout.snapshots {
            0 | 1 => Bytes::ZERO,
            snapshots => state(recurrent) * self.layout.slots * snapshots,
        };
        peak.raise(
            self.streams(3) + inner.scale(9, 2) + copies,
            self.streams(5) + inner * 7 + copies,
        );
    }

    /// Adds the phase of flash attention with copies of a cache that is not F16.
    ///
    /// The copies may not fit into the holes that wider blocks leave: those of parallel blocks, and
    /// those of dense layers before experts.
    pub(super) fn flash(&self, mixer: &Mixer, blocks: &Blocks, base: Peak, peak: &mut Peak) {
        let plain = self.queries(mixer);
        let copies = self.half_copies(mixer);
        if copies == Bytes::ZERO {
            peak.raise(plain, plain + self.streams(1));
            return;
        }

        if self.is_unusual() {
            let wide = plain.scale(5, 4) + self.wide_streams(3) + self.streams(8);
            peak.high = peak.high.max(copies + wide);
        }

        if blocks.has_windows && blocks.expert.width > 0 {
            let below = plain.max(base.high) + self.streams(9);
            peak.high = peak.high.max(copies + below);
        }

        // The copies of a layer outlive the skipped layers behind it.
        let copies = copies * blocks.skipped_attentions.saturating_add(1);

        let dense = self.rows(inner_floats(blocks.dense)) + self.streams(4);
        if blocks.is_parallel {
            peak.raise(
                copies + dense + self.streams(1),
                copies + dense + self.streams(4),
            );
        } else if blocks.dense.width > 0 && blocks.expert.width > 0 {
            peak.raise(
                plain + copies,
                copies + dense.max(plain + self.streams(3)) + self.streams(2),
            );
        } else {
            // SenseNova U1 rotates queries along three axes.
            let is_rotated = self.architecture.class == "sensenova_u1";
            let holes = if blocks.expert.width > 0 || blocks.is_recurrent || is_rotated {
                9
            } else {
                5
            };
            peak.raise(plain + copies, copies + plain + self.streams(holes));
        }
    }

    /// Adds the copies of a cache that is not F16 to the upper bound.
    fn flash_copies(&self, mixer: &Mixer, peak: &mut Peak) {
        if self.layout.attention == AttentionMode::Flash {
            peak.high += self.half_copies(mixer);
        }
    }

    /// The phase of an attention; `base` is the feed-forwards' peak.
    pub(super) fn attention(&self, mixer: &Mixer, blocks: &Blocks, base: Peak, peak: &mut Peak) {
        let plain = self.queries(mixer);
        let (cells, heads) = match mixer {
            Mixer::Attention(attention) => (self.cells(attention.span), attention.heads),
            Mixer::Latent(latent) => (self.layout.latent_cells(latent), latent.heads),
            Mixer::Recurrent(_) | Mixer::None => return,
        };

        let scores = self.rows(cells.saturating_mul(heads));
        match self.layout.attention {
            AttentionMode::FlashOnHost => {}
            AttentionMode::Flash => self.flash(mixer, blocks, base, peak),
            _ if self.is_biased() => {
                // The relative bias of each head is live in all layers.
                let bias = scores.scale(9, 2) + self.streams(6);
                peak.raise(bias, bias + self.streams(1));
            }
            AttentionMode::Scores => {
                peak.raise(
                    scores + plain,
                    scores + plain.max(base.high) + self.streams(3),
                );
            }
            AttentionMode::ScoresAfterFlash => {
                let scores = scores + self.transposed_values(mixer);
                peak.raise(
                    scores + plain,
                    scores + plain.max(base.high) + self.streams(4),
                );
            }
        }

        if let Mixer::Latent(latent) = mixer
            && latent.indexer.is_some()
        {
            // The indexer scores one head at a time. Without flash attention its scores meet those
            // of all heads.
            let index = self.rows(cells);
            let others = if self.layout.attention.is_flash() {
                plain
            } else {
                scores + plain
            };
            peak.raise(index + plain, index + others + self.streams(2));
        }
    }

    /// Whether attention adds a relative bias (T5).
    pub(super) fn is_biased(&self) -> bool {
        matches!(&*self.architecture.class, "t5" | "t5encoder")
    }

    /// Bytes of queries and outputs of an attention with the residual stream.
    pub(super) fn queries(&self, mixer: &Mixer) -> Bytes {
        let floats = match mixer {
            Mixer::Attention(attention) => query_floats(attention),
            Mixer::Latent(latent) => latent_floats(latent),
            Mixer::Recurrent(_) | Mixer::None => 0,
        };
        self.rows(floats) + self.streams(3)
    }

    /// Bytes of the values of all streams, which are transposed before they meet the scores.
    pub(super) fn transposed_values(&self, mixer: &Mixer) -> Bytes {
        let (row, cells) = match mixer {
            Mixer::Attention(attention) => (value_row(attention), self.cells(attention.span)),
            Mixer::Latent(latent) => (latent.kv_lora_rank, self.layout.latent_cells(latent)),
            Mixer::Recurrent(_) | Mixer::None => (0, 0),
        };
        Bytes::product([HALF, row, cells, self.layout.streams])
    }

    /// Bytes of the F16 copies of one layer's cache, if it has another type
    /// (`ggml_cuda_flash_attn_ext_get_alloc_size`).
    pub(super) fn half_copies(&self, mixer: &Mixer) -> Bytes {
        if self.is_uncached() {
            return Bytes::ZERO;
        }

        let copy_bytes = |dtype: Dtype, row: u64, cells: u64| {
            if dtype == Dtype::F16 {
                Bytes::ZERO
            } else {
                Bytes::product([HALF, row, cells, self.layout.streams])
            }
        };

        match mixer {
            Mixer::Attention(attention) => {
                let cells = self.cells(attention.span);
                copy_bytes(self.layout.keys, key_row(attention), cells)
                    + copy_bytes(self.layout.values, value_row(attention), cells)
            }
            Mixer::Latent(latent) => copy_bytes(
                self.layout.keys,
                sum([latent.kv_lora_rank, latent.rope_dim]),
                self.layout
                    .latent_cells(latent)
                    .saturating_add(self.past_cells(latent)),
            ),
            Mixer::Recurrent(_) | Mixer::None => Bytes::ZERO,
        }
    }
}

/// Floats of a feed-forward's inner rows: up, gate and their product, or one that is overwritten.
fn inner_floats(block: Block) -> u64 {
    block
        .width
        .saturating_mul(if block.has_gate { 3 } else { 1 })
}

/// Floats of queries and outputs.
fn query_floats(attention: &Attention) -> u64 {
    let widest = attention.key_dim.max(attention.value_dim);
    attention.heads.saturating_mul(widest).saturating_mul(2)
}

/// Floats of all heads while queries are projected into the latent space and back.
fn latent_floats(latent: &LatentAttention) -> u64 {
    let rows = sum([
        latent.kv_lora_rank.saturating_mul(2),
        latent.rope_dim,
        latent.nope_dim,
        latent.value_dim.saturating_mul(4),
    ]);
    latent.heads.saturating_mul(rows)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::engines::llama_cpp::LlamaCppPrepared;
    use crate::engines::llama_cpp::graphs::GraphDevice;
    use crate::engines::{AskedWorkload, Split};
    use crate::model::architecture::{Architecture, FeedForward, Layer, Span, Task};
    use crate::model::{Format, Identity, Inventory, Model};

    /// Two layers of a model 2048 wide, with 16 heads over 4 of keys and values.
    fn model(key_dim: u64) -> Model {
        let layer = Layer {
            mixer: Mixer::Attention(Attention {
                heads: 16,
                kv_heads: 4,
                key_dim,
                value_dim: key_dim,
                span: Span::Full,
                shares_cache: false,
            }),
            second_mixer: None,
            feed_forward: FeedForward::Dense { width: 6144 },
            passes: 1,
        };

        let architecture = Architecture {
            class: "llama".to_owned(),
            model_type: "llama".to_owned(),
            root_model_type: "llama".to_owned(),
            task: Task::Generate,
            hidden_size: 2048,
            intermediate_size: 6144,
            vocab_size: 64_000,
            heads: 16,
            max_context: Some(131_072),
            layers: vec![layer.clone(), layer],
            encoder: None,
            experts: None,
            rope: Vec::new(),
            tied_embeddings: None,
            dtype: None,
            state_dtype: None,
            vision: None,
            audio: false,
            streaming_encoder: None,
            mtp_layers: 0,
            quantization: None,
            notes: Vec::new(),
        };

        Model {
            identity: Identity::default(),
            format: Format::Gguf,
            architecture: Ok(architecture),
            parameters: None,
            inventory: Inventory::default(),
            weight_files: 1,
            components: Vec::new(),
            adapter: None,
            asks_for_pooling: false,
            draft: None,
            variants: Vec::new(),
            assumptions: Vec::new(),
            contradiction: None,
            warnings: Vec::new(),
        }
    }

    /// The likely buffer of the first of `devices`, in floats for each token of the micro-batch.
    fn buffer(key_dim: u64, context: u64, devices: u32, settings: &[(&str, &str)]) -> u64 {
        let model = model(key_dim);
        let mut given = BTreeMap::from([
            ("n_ctx".to_owned(), json!(context)),
            ("n_parallel".to_owned(), json!(1)),
        ]);
        for (name, value) in settings {
            given.insert((*name).to_owned(), json!(value));
        }

        let version = "b12032".parse().unwrap();
        let asked = AskedWorkload::default();
        let prepared = LlamaCppPrepared::new(&model, Some(&version), &given, &asked).unwrap();
        let layout = prepared.effective().layout(prepared.effective().workload);
        let split = Split {
            stages: (0..devices).map(|stage| stage..stage + 1).collect(),
            ..Split::single(2)
        };

        let device = GraphDevice {
            split: &split,
            has_output: devices == 1,
            is_first: true,
        };
        let layers = prepared.kinds.all();
        let graph = prepared.reserved_graph(layout, &device, &[]);
        let bytes = graph.buffer(&layers, &prepared.blocks(&(0..2))).likely;
        bytes.get() / (4 * 512)
    }

    /// Floats for each token in b12032's dry run of dense models of this shape (Granite, StableLM,
    /// Gemma): 13 rows of 2048 and the mask; with a quantized cache its copies and 5 rows.
    #[test]
    fn dense_buffer_matches_dry_run() {
        assert_eq!(buffer(128, 4096, 1, &[]), 28_679);
        assert_eq!(buffer(128, 32_768, 1, &[]), 43_015);
        let quantized = [("type_k", "q8_0"), ("type_v", "q8_0")];
        assert_eq!(buffer(128, 32_768, 1, &quantized), 59_399);
        assert_eq!(buffer(128, 32_768, 2, &[]), 116_764);
    }

    /// Heads of 160 have no kernel: scores of 16 heads, copied values, and the mask in F32.
    #[test]
    fn missing_kernel_adds_scores() {
        let scores = 32_768 * 16;
        let values = 32_768 * 4 * 160 * 2 / (4 * 512);
        let least = scores + values + 32_768;
        let buffer = buffer(160, 32_768, 1, &[]);
        assert!(buffer > least && buffer < least + 6 * 2048, "{buffer}");
    }
}
