//! vLLM's constants for one version range, read once from the profile.

use crate::bytes::Bytes;
use crate::engines::profile::{Profile, ProfileError, Ratio};

macro_rules! constants {
    ($($field:ident: $kind:ident -> $type:ty;)+) => {
        /// The constants of `profiles/vllm.toml`, which documents each with its source.
        #[derive(Clone, Copy, Debug)]
        pub(super) struct Constants { $(pub(super) $field: $type,)+ }

        impl Constants {
            /// Reads every constant; the error names a missing one.
            pub(super) fn read(profile: &Profile) -> Result<Self, ProfileError> {
                Ok(Self { $($field: profile.$kind(stringify!($field))?,)+ })
            }
        }
    };
}

constants! {
    gpu_memory_utilization: millionths -> u64;
    block_tokens: count -> u64;
    latent_block_tokens_sm90: count -> u64;
    latent_block_tokens_sm100: count -> u64;
    sparse_block_tokens: count -> u64;
    latent_block_tokens_fp8_sm90: count -> u64;
    wide_fp8_block_tokens_sm90: count -> u64;
    gemma4_block_tokens_sm100: count -> u64;
    hybrid_prefix_caching: flag -> bool;
    keeps_all_states: flag -> bool;
    qwen3_vision_rope_axes: count -> u64;
    chunked_windows: flag -> bool;
    mamba2_checkpoint_blocks: count -> u64;
    gated_delta_checkpoint_blocks: count -> u64;
    gated_delta_checkpoint_tokens: count -> u64;
    large_gpu_gib: count -> u64;
    huge_gpu_gib: count -> u64;
    batched_tokens_huge: count -> u64;
    batched_tokens_large: count -> u64;
    batched_tokens_small: count -> u64;
    sequences_large: count -> u64;
    sequences_small: count -> u64;
    in_flight_batches_async: count -> u64;
    sampler_bytes_per_logit: ratio -> Ratio;
    sampler_bytes_per_logit_high: ratio -> Ratio;
    activation_base_mib: mib -> Bytes;
    activation_low_ratio: ratio -> Ratio;
    activation_high_ratio: ratio -> Ratio;
    activation_high_mib: mib -> Bytes;
    activation_other_cards_mib: mib -> Bytes;
    persistent_sampler_state: flag -> bool;
    graph_base_mib: mib -> Bytes;
    graph_per_layer_mib: mib -> Bytes;
    graph_experts_mib: mib -> Bytes;
    graph_tensor4_ratio: ratio -> Ratio;
    graph_low_ratio: ratio -> Ratio;
    graph_high_ratio: ratio -> Ratio;
    graph_small_gpu_ratio: ratio -> Ratio;
    whole_prefill: flag -> bool;
    refuses_half: flag -> bool;
    capacity_by_request: flag -> bool;
    graph_most_tokens: count -> u64;
    graph_most_tokens_wide: count -> u64;
    weights_low_ratio: ratio -> Ratio;
    weights_high_ratio: ratio -> Ratio;
    weights_high_mib: mib -> Bytes;
    weights_soft_low_ratio: ratio -> Ratio;
    weights_soft_high_ratio: ratio -> Ratio;
    weights_marlin_high_ratio: ratio -> Ratio;
    graphs_in_budget: flag -> bool;
    context_mib_per_multiprocessor: mib -> Bytes;
    context_libraries_mib: mib -> Bytes;
    context_libraries_high_mib: mib -> Bytes;
    context_unknown_mib: mib -> Bytes;
    communication_before_fabric_mib: mib -> Bytes;
    communication_before_fabric_high_mib: mib -> Bytes;
    communication_before_sm100_high_mib: mib -> Bytes;
    communication_before_consumer_mib: mib -> Bytes;
    communication_before_consumer_high_mib: mib -> Bytes;
    communication_growth_fabric_mib: mib -> Bytes;
    communication_growth_fabric_low_mib: mib -> Bytes;
    communication_growth_fabric_high_mib: mib -> Bytes;
    communication_growth_consumer_mib: mib -> Bytes;
    communication_growth_consumer_low_mib: mib -> Bytes;
    communication_growth_consumer_high_mib: mib -> Bytes;
    runtime_growth_mib: mib -> Bytes;
    runtime_growth_low_mib: mib -> Bytes;
    runtime_growth_high_mib: mib -> Bytes;
    runtime_stage_mib: mib -> Bytes;
    flashinfer_workspace_mib: mib -> Bytes;
    latent_workspace_rows: count -> u64;
    mxfp4_marlin_sm90: flag -> bool;
    multimodal_low_mib: mib -> Bytes;
    multimodal_high_mib: mib -> Bytes;
}
