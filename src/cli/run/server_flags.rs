//! The memory flags of the engines' servers.

/// The meaning of a flag for the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FlagMeaning {
    /// The model.
    Model,
    /// The model as a Hub repository; `owner/name:QUANT` names a file of it.
    Repository,
    /// A file of the repository.
    File,
    /// An engine parameter with a value.
    Parameter(&'static str),
    /// An engine parameter with a length in tokens, such as `32k`.
    Tokens(&'static str),
    /// An engine parameter that the flag turns on, and that `no-` before the flag turns off.
    Switch(&'static str),
    /// A switch with an optional value (`on`, `off`, `auto`).
    Choice(&'static str),
    /// An engine parameter that can be a list with one number per device.
    Largest(&'static str),
    /// A flag that takes no device memory, at most host memory.
    NoDeviceMemory,
    /// The tensor-parallel degree.
    Tensor,
    /// The number of pipeline stages.
    Pipeline,
    /// The number of model copies or hosts. One lease covers one placement, so it must be 1.
    Copies,
    /// A flag that changes the memory taken, which the lease ignores with a note.
    NotFollowed(&'static str),
    /// A flag that takes memory that no lease covers.
    Refused(&'static str),
}

/// A flag by all its names, without leading dashes and with `-` for `_`.
#[derive(Debug)]
pub(super) struct Flag {
    pub(super) names: &'static [&'static str],
    pub(super) meaning: FlagMeaning,
}

const fn flag(names: &'static [&'static str], meaning: FlagMeaning) -> Flag {
    Flag { names, meaning }
}

use FlagMeaning::{
    Choice, Copies, File, Largest, Model, NoDeviceMemory, NotFollowed, Parameter, Pipeline,
    Refused, Repository, Switch, Tensor, Tokens,
};

const IN_A_FILE: &str = "flags in a file are not read";

/// vLLM 0.8 to 0.24 (`engine/arg_utils.py`).
pub(super) const VLLM: &[Flag] = &[
    flag(&["model", "model-tag"], Model),
    flag(&["tensor-parallel-size", "tp"], Tensor),
    flag(&["pipeline-parallel-size", "pp"], Pipeline),
    flag(&["data-parallel-size", "dp"], Copies),
    flag(&["prefill-context-parallel-size", "pcp"], Copies),
    flag(&["nnodes", "n"], Copies),
    flag(
        &["decode-context-parallel-size", "dcp"],
        Parameter("decode_context_parallel_size"),
    ),
    flag(
        &["gpu-memory-utilization"],
        Parameter("gpu_memory_utilization"),
    ),
    flag(&["max-model-len"], Tokens("max_model_len")),
    flag(&["max-num-seqs"], Parameter("max_num_seqs")),
    flag(
        &["max-num-batched-tokens"],
        Tokens("max_num_batched_tokens"),
    ),
    flag(&["block-size"], Parameter("block_size")),
    flag(&["kv-cache-dtype"], Parameter("kv_cache_dtype")),
    flag(&["dtype"], Parameter("dtype")),
    flag(&["quantization", "q"], Parameter("quantization")),
    flag(&["cpu-offload-gb"], Parameter("cpu_offload_gb")),
    flag(&["max-loras"], Parameter("max_loras")),
    flag(&["max-lora-rank"], Parameter("max_lora_rank")),
    flag(&["limit-mm-per-prompt"], Parameter("limit_mm_per_prompt")),
    flag(&["mamba-cache-mode"], Parameter("mamba_cache_mode")),
    flag(
        &["mamba-ssm-cache-dtype"],
        Parameter("mamba_ssm_cache_dtype"),
    ),
    flag(&["enforce-eager"], Switch("enforce_eager")),
    flag(&["enable-lora"], Switch("enable_lora")),
    flag(
        &["enable-expert-parallel", "ep"],
        Switch("enable_expert_parallel"),
    ),
    flag(&["enable-prefix-caching"], Switch("enable_prefix_caching")),
    flag(
        &["enable-chunked-prefill"],
        Switch("enable_chunked_prefill"),
    ),
    flag(&["async-scheduling"], Switch("async_scheduling")),
    flag(&["language-model-only"], Switch("language_model_only")),
    flag(
        &["disable-hybrid-kv-cache-manager"],
        Switch("disable_hybrid_kv_cache_manager"),
    ),
    flag(
        &["kv-cache-memory-bytes"],
        Refused("it sizes the cache beyond the leased share"),
    ),
    flag(&["config"], NotFollowed(IN_A_FILE)),
];

/// SGLang 0.5 (`server_args.py`).
pub(super) const SGLANG: &[Flag] = &[
    flag(&["model-path", "model"], Model),
    flag(&["tp-size", "tensor-parallel-size", "tp"], Tensor),
    flag(&["pp-size", "pipeline-parallel-size", "pp"], Pipeline),
    flag(&["dp-size", "data-parallel-size", "dp"], Copies),
    flag(&["nnodes"], Copies),
    flag(
        &["ep-size", "expert-parallel-size", "ep"],
        Parameter("ep_size"),
    ),
    flag(&["mem-fraction-static"], Parameter("mem_fraction_static")),
    flag(&["context-length"], Tokens("context_length")),
    flag(&["max-running-requests"], Parameter("max_running_requests")),
    flag(&["chunked-prefill-size"], Parameter("chunked_prefill_size")),
    flag(&["kv-cache-dtype"], Parameter("kv_cache_dtype")),
    flag(&["dtype"], Parameter("dtype")),
    flag(&["page-size"], Parameter("page_size")),
    flag(
        &["swa-full-tokens-ratio"],
        Parameter("swa_full_tokens_ratio"),
    ),
    flag(
        &["mamba-full-memory-ratio"],
        Parameter("mamba_full_memory_ratio"),
    ),
    flag(&["mamba-ssm-dtype"], Parameter("mamba_ssm_dtype")),
    flag(&["quantization"], Parameter("quantization")),
    flag(&["cuda-graph-max-bs"], Parameter("cuda_graph_max_bs")),
    flag(&["disable-cuda-graph"], Switch("disable_cuda_graph")),
    flag(&["disable-radix-cache"], Switch("disable_radix_cache")),
    flag(
        &["max-total-tokens"],
        NotFollowed("the lease covers the whole share, even if the pool is smaller"),
    ),
    flag(
        &["enable-dp-attention"],
        Refused("data-parallel attention is not supported"),
    ),
    flag(&["config"], NotFollowed(IN_A_FILE)),
];

/// llama-server (`common/arg.cpp`).
pub(super) const LLAMA_SERVER: &[Flag] = &[
    flag(&["m", "model"], Model),
    flag(&["hf", "hfr", "hf-repo"], Repository),
    flag(&["hff", "hf-file"], File),
    flag(
        &["mu", "model-url"],
        Refused("the file at a URL is not read; name its repository with -hf"),
    ),
    flag(
        &["mmu", "mmproj-url"],
        Refused("the file at a URL is not read; name a file of the repository with --mmproj"),
    ),
    flag(&["c", "ctx-size"], Parameter("n_ctx")),
    flag(&["b", "batch-size"], Parameter("n_batch")),
    flag(&["ub", "ubatch-size"], Parameter("n_ubatch")),
    flag(&["np", "parallel"], Parameter("n_parallel")),
    flag(&["ctk", "cache-type-k"], Parameter("type_k")),
    flag(&["ctv", "cache-type-v"], Parameter("type_v")),
    flag(
        &["ngl", "gpu-layers", "n-gpu-layers"],
        Parameter("n_gpu_layers"),
    ),
    flag(&["ts", "tensor-split"], Parameter("tensor_split")),
    flag(&["sm", "split-mode"], Parameter("split_mode")),
    flag(&["ncmoe", "n-cpu-moe"], Parameter("n_cpu_moe")),
    flag(&["mm", "mmproj"], Parameter("mmproj")),
    flag(&["fitt", "fit-target"], Largest("fit_target")),
    flag(&["fit"], Choice("fit")),
    flag(&["fa", "flash-attn"], Choice("flash_attn")),
    flag(&["kvu", "kv-unified"], Switch("kv_unified")),
    flag(&["cmoe", "cpu-moe"], Switch("cpu_moe")),
    flag(&["swa-full"], Switch("swa_full")),
    flag(&["nkvo", "no-kv-offload"], Switch("no_kv_offload")),
    flag(&["kvo", "kv-offload"], Switch("kv_offload")),
    flag(&["mmap"], Switch("use_mmap")),
    flag(&["no-mmap"], Switch("no_mmap")),
    flag(&["no-mmproj"], Switch("no_mmproj")),
    flag(&["no-mmproj-offload"], Switch("no_mmproj_offload")),
    flag(
        &["md", "model-draft", "hfd", "hf-repo-draft"],
        Refused("a draft model's memory is not counted"),
    ),
    flag(
        &["ot", "override-tensor"],
        NotFollowed("tensors moved by a pattern are not counted"),
    ),
    flag(
        &["lora", "lora-scaled", "control-vector"],
        NotFollowed("an adapter's bytes are not counted"),
    ),
    flag(&["mg", "main-gpu"], NotFollowed("choose devices with --on")),
    flag(&["dev", "device"], NotFollowed("choose devices with --on")),
    flag(&["rpc"], NotFollowed("devices of other hosts are not read")),
    flag(
        &[
            "mlock",
            "direct-io",
            "dio",
            "cache-ram",
            "cram",
            "cache-prompt",
            "cache-reuse",
            "context-shift",
            "ctx-checkpoints",
            "ctxcp",
            "swa-checkpoints",
            "slot-save-path",
            "defrag-thold",
            "dt",
        ],
        NoDeviceMemory,
    ),
];
