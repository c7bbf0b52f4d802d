//! The kinds of placement, as answers name them.

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
