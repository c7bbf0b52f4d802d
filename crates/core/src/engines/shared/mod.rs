//! What engines compute alike: weights by tensor-parallel rule and cache payload by attention
//! family (vLLM, SGLang), parameters, and what a torch process holds.
//!
//! SGLang's model code began as vLLM's; both divide the same layers in the same way. What differs
//! (page arithmetic, pools, workspaces, legality) stands in each engine's own folder.

pub(crate) mod asked;
pub mod cache;
pub(crate) mod checkpoint_checks;
pub(crate) mod device_support;
pub mod dtype;
pub(crate) mod latent_cache;
pub(crate) mod launch_arguments;
pub mod layer_kinds;
pub mod parameter_names;
pub mod parameters;
pub(crate) mod python;
pub mod shard_size;
pub(crate) mod split_rules;
pub mod tensor_parallel;
pub mod topology;
pub(crate) mod torch;
pub mod weights;
