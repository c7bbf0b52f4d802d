//! Computations that several engines share: weights by tensor-parallel rule and cache payload by
//! attention family (vLLM, SGLang), parameters, and the memory of a torch process.
//!
//! SGLang's model code began as vLLM's, so both divide the same layers in the same way. Differences
//! (page arithmetic, pools, workspaces, legality) are in each engine's own folder.

pub(crate) mod asked;
pub mod cache;
pub(crate) mod checkpoint_checks;
pub(crate) mod device_support;
pub mod dtype;
pub(crate) mod latent_cache;
pub(crate) mod launch_arguments;
pub mod layer_kinds;
mod parameter_file;
pub mod parameter_names;
pub mod parameters;
pub(crate) mod python;
pub mod shard_size;
pub(crate) mod split_rules;
mod tensor_names;
pub mod tensor_parallel;
pub mod topology;
pub(crate) mod torch;
pub(crate) mod unlisted_types;
pub(crate) mod unread_families;
mod value_forms;
pub mod weights;
