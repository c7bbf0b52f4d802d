//! What vLLM and SGLang compute alike: weights by tensor-parallel rule, cache payload by attention family, parameters.
//!
//! SGLang's model code began as vLLM's; both divide the same layers in the same way. What differs (page arithmetic,
//! pools, workspaces, legality) stands in each engine's own folder.

pub mod cache;
pub mod dtype;
pub mod layer_kinds;
pub mod parameters;
pub mod resident;
pub mod rule;
pub mod topology;
pub mod weights;
