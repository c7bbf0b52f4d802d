//! The kinds of placement and their words.

use crate::engines::{Offload, PreparedEngine, Split};
use crate::wire_word::words;

words! {
    /// A kind of placement.
    pub enum Strategy {
        /// One device.
        Single = "single",
        /// Every layer divided over several devices.
        TensorParallel = "tensor_parallel",
        /// Whole layers on each of several devices, divided by the engine's own rule.
        PipelineParallel = "pipeline_parallel",
        /// Stages of several devices each.
        TensorPipelineParallel = "tensor_pipeline_parallel",
        /// Whole layers on each of several devices, as many as each can hold.
        LayerSplit = "layer_split",
        /// Routed experts of some layers in host memory.
        ExpertOffload = "expert_offload",
        /// Some layers in host memory.
        LayerOffload = "layer_offload",
        /// A single pipeline component on the device at a time.
        ComponentOffload = "component_offload",
        /// A single leaf module on the device at a time.
        LeafOffload = "leaf_offload",
    }
}

impl Strategy {
    /// Returns the kind of placement that `split` is for this engine.
    ///
    /// If the engine's ranks are processes, stages form a pipeline even if layers may be divided
    /// unevenly. Otherwise one process runs the devices layer by layer.
    pub fn new(split: &Split, engine: &dyn PreparedEngine) -> Self {
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

    /// Whether part of the model stays in host memory.
    pub const fn is_offload(self) -> bool {
        matches!(
            self,
            Self::ExpertOffload | Self::LayerOffload | Self::ComponentOffload | Self::LeafOffload
        )
    }
}
