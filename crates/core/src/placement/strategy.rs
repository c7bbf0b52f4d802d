//! The kinds of placement and their words.

use crate::engines::{Offload, PreparedEngine, Split};
pub use crate::report::strategy::Strategy;

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
