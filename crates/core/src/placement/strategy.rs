//! The word for a way of placing a model.

use std::fmt;

use crate::engines::{Offload, PreparedEngine, Split};

/// A way of placing a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Strategy {
    /// One device.
    Single,
    /// Every layer divided over several devices.
    TensorParallel,
    /// Whole layers on each of several devices, by the engine's own rule.
    PipelineParallel,
    /// Stages of several devices each.
    TensorPipelineParallel,
    /// Whole layers on each of several devices, as many as each has room for.
    LayerSplit,
    /// Routed experts of some layers in host memory.
    ExpertOffload,
    /// Some layers in host memory.
    LayerOffload,
    /// One pipeline component on the device at a time.
    ComponentOffload,
    /// One leaf module on the device at a time.
    LeafOffload,
}

impl Strategy {
    /// The way that `split` is for this engine. Where its ranks are processes, stages are a
    /// pipeline, whether or not layers may be divided unevenly; else one process walks the devices,
    /// layer by layer.
    pub fn of(split: &Split, engine: &dyn PreparedEngine) -> Self {
        match (split.offload, split.tensor, split.stages.len()) {
            (Offload::Experts { .. }, ..) => Self::ExpertOffload,
            (Offload::Layers { .. }, ..) => Self::LayerOffload,
            (Offload::Components, ..) => Self::ComponentOffload,
            (Offload::Leaves, ..) => Self::LeafOffload,
            (Offload::None, 0 | 1, 0 | 1) => Self::Single,
            (Offload::None, _, 0 | 1) => Self::TensorParallel,
            (Offload::None, 0 | 1, _) if engine.uneven() && !engine.ranks_are_processes() => {
                Self::LayerSplit
            }
            (Offload::None, 0 | 1, _) => Self::PipelineParallel,
            (Offload::None, ..) => Self::TensorPipelineParallel,
        }
    }

    /// The word as it stands in an answer.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::TensorParallel => "tensor_parallel",
            Self::PipelineParallel => "pipeline_parallel",
            Self::TensorPipelineParallel => "tensor_pipeline_parallel",
            Self::LayerSplit => "layer_split",
            Self::ExpertOffload => "expert_offload",
            Self::LayerOffload => "layer_offload",
            Self::ComponentOffload => "component_offload",
            Self::LeafOffload => "leaf_offload",
        }
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}
