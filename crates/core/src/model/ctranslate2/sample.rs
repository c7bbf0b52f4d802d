//! Whisper models as a converter writes them, for tests. Their data is never materialized.

use crate::model::Dtype;

/// The sizes and types of a model.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the fields are the sizes' own names")]
pub struct WhisperSizes {
    pub encoder_layers: u32,
    pub decoder_layers: u32,
    pub width: u32,
    pub feed_forward: u32,
    pub heads: u16,
    pub vocabulary: u32,
    pub mels: u32,
    pub positions: u32,
    pub weights: Dtype,
    pub others: Dtype,
    pub is_tied: bool,
}

impl WhisperSizes {
    /// Whisper large-v3 in float16.
    pub const LARGE_V3: Self = Self {
        encoder_layers: 32,
        decoder_layers: 32,
        width: 1280,
        feed_forward: 5120,
        heads: 20,
        vocabulary: 51_866,
        mels: 128,
        positions: 1500,
        weights: Dtype::F16,
        others: Dtype::F16,
        is_tied: true,
    };
    /// Whisper large-v3-turbo in float16.
    pub const TURBO: Self = Self {
        decoder_layers: 4,
        ..Self::LARGE_V3
    };
    /// distil-large-v3 in float16.
    pub const DISTIL_LARGE_V3: Self = Self {
        decoder_layers: 2,
        ..Self::LARGE_V3
    };
    /// Whisper large-v2 in float16.
    pub const LARGE_V2: Self = Self {
        vocabulary: 51_865,
        mels: 80,
        ..Self::LARGE_V3
    };
    /// Whisper tiny in float16.
    pub const TINY: Self = Self {
        encoder_layers: 4,
        decoder_layers: 4,
        width: 384,
        feed_forward: 1536,
        heads: 6,
        vocabulary: 51_865,
        mels: 80,
        ..Self::LARGE_V3
    };
    /// The model of which CTranslate2 4.8.5 wrote the lengths in the tests.
    pub const SMALLEST: Self = Self {
        encoder_layers: 2,
        decoder_layers: 3,
        width: 64,
        feed_forward: 256,
        heads: 4,
        vocabulary: 512,
        mels: 80,
        ..Self::LARGE_V3
    };

    /// The same sizes in other types.
    pub const fn stored_as(self, weights: Dtype, others: Dtype) -> Self {
        Self {
            weights,
            others,
            ..self
        }
    }

    /// Writes the file in binary version 6 and revision 3.
    pub fn file(self) -> SampleFile {
        self.file_of("WhisperSpec", 3)
    }

    /// As [`WhisperSizes::file`], with another specification.
    pub fn file_of(self, spec: &str, revision: u32) -> SampleFile {
        let mut variables = self.variables();
        variables.sort();

        let mut file = SampleFile::default();
        file.write(&6_u32.to_le_bytes());
        file.name(spec);
        file.write(&revision.to_le_bytes());
        file.write(
            &u32::try_from(variables.len())
                .unwrap_or(u32::MAX)
                .to_le_bytes(),
        );
        for variable in &variables {
            file.variable(variable);
        }

        file.write(&u32::from(self.is_tied).to_le_bytes());
        if self.is_tied {
            file.name("decoder/projection/weight");
            file.name("decoder/embeddings/weight");
        }

        file
    }

    fn variables(&self) -> Vec<SampleVariable> {
        let (width, heads) = (self.width, self.heads.to_le_bytes());
        let mut all = vec![
            SampleVariable::number("decoder/activation", Dtype::I8, &[3]),
            SampleVariable::number("decoder/alibi", Dtype::I8, &[0]),
            SampleVariable::number("decoder/alibi_use_positive_positions", Dtype::I8, &[0]),
            SampleVariable::number("decoder/alignment_heads", Dtype::I16, &[1, 0]),
            SampleVariable::number("decoder/alignment_layer", Dtype::I16, &[255, 255]),
            SampleVariable::number("decoder/num_heads", Dtype::I16, &heads),
            SampleVariable::number("decoder/pre_norm", Dtype::I8, &[1]),
            SampleVariable::number("decoder/scale_alibi", Dtype::I8, &[0]),
            SampleVariable::number("decoder/scale_embeddings", Dtype::I8, &[0]),
            SampleVariable::number("decoder/start_from_zero_embedding", Dtype::I8, &[0]),
            SampleVariable::number("encoder/num_heads", Dtype::I16, &heads),
        ];

        self.weight("decoder/embeddings", &[self.vocabulary, width], &mut all);
        if !self.is_tied {
            self.weight("decoder/projection", &[self.vocabulary, width], &mut all);
        }
        all.push(self.other("decoder/position_encodings/encodings", &[448, width]));
        self.linear("encoder/conv1", &[width, self.mels, 3], &mut all);
        self.linear("encoder/conv2", &[width, width, 3], &mut all);
        all.push(self.other(
            "encoder/position_encodings/encodings",
            &[self.positions, width],
        ));

        for (stack, layers) in [
            ("decoder", self.decoder_layers),
            ("encoder", self.encoder_layers),
        ] {
            self.norm(&format!("{stack}/layer_norm"), &mut all);
            for layer in 0..layers {
                self.layer(&format!("{stack}/layer_{layer}"), &mut all);
            }
        }

        all
    }

    fn layer(&self, name: &str, all: &mut Vec<SampleVariable>) {
        let (width, feed_forward) = (self.width, self.feed_forward);
        if name.starts_with("decoder") {
            self.norm(&format!("{name}/attention/layer_norm"), all);
            for (linear, times) in [(0, 1), (1, 2), (2, 1)] {
                let linear = format!("{name}/attention/linear_{linear}");
                self.linear(&linear, &[times * width, width], all);
            }
        }

        self.norm(&format!("{name}/self_attention/layer_norm"), all);
        for (linear, times) in [(0, 3), (1, 1)] {
            let linear = format!("{name}/self_attention/linear_{linear}");
            self.linear(&linear, &[times * width, width], all);
        }

        self.norm(&format!("{name}/ffn/layer_norm"), all);
        self.linear(&format!("{name}/ffn/linear_0"), &[feed_forward, width], all);
        self.linear(&format!("{name}/ffn/linear_1"), &[width, feed_forward], all);
    }

    fn linear(&self, name: &str, shape: &[u32], all: &mut Vec<SampleVariable>) {
        self.weight(name, shape, all);
        all.push(self.other(&format!("{name}/bias"), &shape[..1]));
    }

    fn norm(&self, name: &str, all: &mut Vec<SampleVariable>) {
        all.push(self.other(&format!("{name}/beta"), &[self.width]));
        all.push(self.other(&format!("{name}/gamma"), &[self.width]));
    }

    fn weight(&self, name: &str, shape: &[u32], all: &mut Vec<SampleVariable>) {
        all.push(SampleVariable::tensor(
            &format!("{name}/weight"),
            self.weights,
            shape,
        ));
        let scale = format!("{name}/weight_scale");
        match self.weights {
            Dtype::I8 => all.push(SampleVariable::tensor(&scale, Dtype::F32, &shape[..1])),
            Dtype::I16 => all.push(SampleVariable::number(&scale, Dtype::F32, &[0; 4])),
            _ => {}
        }
    }

    fn other(&self, name: &str, shape: &[u32]) -> SampleVariable {
        SampleVariable::tensor(name, self.others, shape)
    }
}

/// A variable; only one without dimensions has data.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct SampleVariable {
    name: String,
    dtype: Dtype,
    shape: Vec<u32>,
    data: Vec<u8>,
}

impl SampleVariable {
    fn tensor(name: &str, dtype: Dtype, shape: &[u32]) -> Self {
        Self {
            name: name.to_owned(),
            dtype,
            shape: shape.to_vec(),
            data: Vec::new(),
        }
    }

    fn number(name: &str, dtype: Dtype, data: &[u8]) -> Self {
        Self {
            data: data.to_vec(),
            ..Self::tensor(name, dtype, &[])
        }
    }
}

/// A file whose data is zeros that take no memory.
#[derive(Clone, Debug, Default)]
pub struct SampleFile {
    /// Offset and content of what is no tensor's data.
    pub written: Vec<(u64, Vec<u8>)>,
    /// Length of the file.
    pub length: u64,
}

impl SampleFile {
    /// The `bytes` bytes from `start` on; fewer at the end of the file.
    pub fn window(&self, start: u64, bytes: u64) -> Vec<u8> {
        let end = start.saturating_add(bytes).min(self.length);
        let mut window = vec![0; usize::try_from(end.saturating_sub(start)).unwrap_or(0)];

        for (offset, written) in &self.written {
            for (place, byte) in (*offset..).zip(written) {
                let slot = place
                    .checked_sub(start)
                    .and_then(|place| window.get_mut(usize::try_from(place).ok()?));
                if let Some(slot) = slot {
                    *slot = *byte;
                }
            }
        }

        window
    }

    fn write(&mut self, bytes: &[u8]) {
        self.written.push((self.length, bytes.to_vec()));
        self.length += bytes.len() as u64;
    }

    fn name(&mut self, name: &str) {
        let length = u16::try_from(name.len() + 1).unwrap_or(u16::MAX);
        self.write(&[&length.to_le_bytes(), name.as_bytes(), &[0]].concat());
    }

    fn variable(&mut self, variable: &SampleVariable) {
        let kind = match variable.dtype {
            Dtype::F32 => 0,
            Dtype::I8 => 1,
            Dtype::I16 => 2,
            Dtype::I32 => 3,
            Dtype::F16 => 4,
            _ => 5,
        };
        let elements: u64 = variable.shape.iter().copied().map(u64::from).product();
        let bytes = elements * variable.dtype.block().1;

        self.name(&variable.name);
        self.write(&[u8::try_from(variable.shape.len()).unwrap_or(u8::MAX)]);
        for size in &variable.shape {
            self.write(&size.to_le_bytes());
        }
        self.write(&[kind]);
        self.write(&u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes());
        self.write(&variable.data);
        self.length += bytes - variable.data.len() as u64;
    }
}
