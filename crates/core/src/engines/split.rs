//! The division of a model over devices, and the part of it that stays in host memory.

use std::ops::Range;

/// The division of a model over ranks.
///
/// Rank `r` is tensor rank `r % tensor` of stage `r / tensor`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Tensor-parallel degree.
    pub tensor: u32,
    /// The layers of each stage, in order and without gaps. llama.cpp counts the output layer as
    /// layer L.
    pub stages: Vec<Range<u32>>,
    /// Whether each rank holds whole experts instead of a slice of each (vLLM's expert parallel).
    pub expert_parallel: bool,
    /// The part of the model that stays in host memory.
    pub offload: Offload,
}

/// The part of the model that stays in host memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Offload {
    /// Nothing, apart from what the engine always keeps there.
    #[default]
    None,
    /// Expert tensors of the first `layers` layers (llama.cpp's `--n-cpu-moe`).
    Experts {
        /// Number of layers whose experts are on the host.
        layers: u32,
    },
    /// The first `layers` layers (llama.cpp's `-ngl`).
    Layers {
        /// Number of layers on the host.
        layers: u32,
    },
    /// All but one pipeline component at a time (diffusers' model offload).
    Components,
    /// All but one leaf module at a time (diffusers' sequential offload).
    Leaves,
}

impl Split {
    /// Everything on one device.
    pub fn single(layers: u32) -> Self {
        Self::tensor(1, layers)
    }

    /// `tensor` ranks, one stage.
    pub fn tensor(tensor: u32, layers: u32) -> Self {
        Self {
            tensor,
            stages: std::iter::once(0..layers).collect(),
            expert_parallel: false,
            offload: Offload::None,
        }
    }

    /// A stage on each of `devices`, as equal as whole layers allow.
    ///
    /// Fails if a stage would have no layer.
    pub fn by_layers(devices: u32, layers: u32) -> Result<Self, IllegalSplit> {
        if devices == 0 || layers < devices {
            return Err(IllegalSplit(format!(
                "{layers} layers cannot be shared by {devices} devices"
            )));
        }

        let first_layer = |stage: u32| {
            u32::try_from(u64::from(layers) * u64::from(stage) / u64::from(devices))
                .unwrap_or(layers)
        };

        let stages = (0..devices)
            .map(|stage| first_layer(stage)..first_layer(stage + 1))
            .collect();

        Ok(Self {
            tensor: 1,
            stages,
            expert_parallel: false,
            offload: Offload::None,
        })
    }

    /// Number of devices in the split.
    pub fn ranks(&self) -> usize {
        self.tensor as usize * self.stages.len()
    }

    /// The stage of rank `rank` and its layers.
    pub fn stage_of(&self, rank: usize) -> (usize, Range<u32>) {
        let stage = rank / self.tensor.max(1) as usize;
        (stage, self.stages.get(stage).cloned().unwrap_or(0..0))
    }

    /// Whether `rank` belongs to the last stage, which holds the output head.
    pub fn is_last_stage(&self, rank: usize) -> bool {
        self.stage_of(rank).0 + 1 == self.stages.len()
    }
}

/// The reason why a split is illegal: `40 heads do not divide by 3`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct IllegalSplit(pub String);
