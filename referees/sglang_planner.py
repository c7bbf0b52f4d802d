"""Runs SGLang's own sizing of its pools, without a GPU, and prints what it decides.

The wheel's Python code resolves the server's arguments, reads the model's configuration and divides a
budget of bytes among the pools exactly as the scheduler does. Compiled modules are replaced by empty
ones: sizing calls none of their functions. The platform reports the device that you name.

One JSON object per model goes to standard output; a model that SGLang refuses gets an `error`.
"""

import argparse
import importlib
import importlib.metadata
import json
import os
import sys
import time
import types

import vllm_planner

# Compiled parts of SGLang, and packages that only run on a GPU or serve requests.
ABSENT = (
    "IPython", "cuda", "cutlass", "deep_ep", "deep_gemm", "deepseek_recipe", "distro", "easydict", "flash_attn",
    "flash_mla", "flashinfer", "humming", "interegular", "kernels", "modelscope", "numba", "nvidia",
    "nvshmem", "outlines", "pynvml", "quack", "sgl_kernel", "sglang_kernel", "smg_grpc_proto",
    "smg_grpc_servicer", "tilelang", "tml_renderers", "torch_memory_saver", "torchao", "xxhash", "zstandard",
    "blobfile",
)  # fmt: skip

# Modules that sizing imports, under `sglang.srt`.
IMPORTED = (
    "server_args", "configs.model_config", "models.registry", "mem_cache.kv_cache_configurator",
    "model_executor.pool_configurator", "model_executor.model_runner_components.kv_pool_runtime",
    "model_executor.model_runner_components.load_model_utils", "speculative.spec_info",
)  # fmt: skip


def install_device(capability, total_bytes, name):
    """Makes torch report one CUDA device, of a build with CUDA."""
    import torch

    torch.version.cuda = torch.version.cuda or "13.0"
    vllm_planner.install_cuda(capability, total_bytes, name)


def configurator(folder, options):
    """SGLang's object that sizes the pools of one target model (model_runner.py: init_kv_cache_configurator)."""
    from sglang.srt import runtime_context
    from sglang.srt.configs.model_config import AttentionArch, ModelConfig
    from sglang.srt.mem_cache.kv_cache_configurator import KVCacheConfigurator
    from sglang.srt.mem_cache.kv_cache_dtype import configure_kv_cache_dtype
    from sglang.srt.model_executor.model_runner_components.kv_pool_runtime import is_post_capture_kv_active
    from sglang.srt.model_executor.model_runner_components.layer_setup import resolve_layer_indices
    from sglang.srt.model_executor.model_runner_components.load_model_utils import resolve_sliding_window_size
    from sglang.srt.model_executor.model_runner_components.spec_aux_hidden_state import (
        resolve_spec_aux_hidden_state_config,
    )
    from sglang.srt.server_args import ServerArgs
    from sglang.srt.speculative.spec_info import SpeculativeAlgorithm

    arguments = ServerArgs(model_path=folder, skip_tokenizer_init=True, load_format="dummy", **options)
    runtime_context.publish(
        arguments, role="scheduler", ranks=runtime_context.SpawnRanks(world_rank=0, gpu_id=0)
    )
    config = ModelConfig.from_server_args(arguments)

    # What sizing asks of the model itself: nothing, where the configuration answers.
    model = types.SimpleNamespace()
    name, dtype = configure_kv_cache_dtype(
        server_args_kv_cache_dtype=runtime_context.get_model().kv_cache_dtype,
        model=model,
        model_dtype=config.dtype,
        is_draft_worker=False,
        is_dflash=False,
        speculative_draft_attention_backend=None,
    )
    algorithm = SpeculativeAlgorithm.from_string(runtime_context.get_spec().speculative_algorithm)
    # The target's pools hold the draft's layers, which its configuration counts.
    draft = resolve_spec_aux_hidden_state_config(
        server_args=arguments, model_config=config, spec_algorithm=algorithm, is_draft_worker=False
    )
    return KVCacheConfigurator(
        device="cuda",
        gpu_id=0,
        attn_dp_size=1,
        pp_size=1,
        pp_group=None,
        model=model,
        model_config=config,
        server_args=arguments,
        kv_cache_dtype=dtype,
        kv_cache_dtype_str=name or runtime_context.get_model().kv_cache_dtype,
        model_dtype=config.dtype,
        page_size=runtime_context.get_schedule().page_size,
        sliding_window_size=resolve_sliding_window_size(model, config),
        spec_algorithm=algorithm,
        is_draft_worker=False,
        post_capture_kv_active=is_post_capture_kv_active(
            server_args=arguments, is_draft_worker=False, spec_algorithm=algorithm, token_to_kv_pool_allocator=None
        ),
        spec_aux_config=draft,
        is_hybrid_swa=config.is_hybrid_swa,
        is_hybrid_swa_compress=config.is_hybrid_swa_compress,
        use_mla_backend=config.attention_arch == AttentionArch.MLA,
        layer_info=resolve_layer_indices(model=model, model_config=config, is_draft_worker=False),
        forward_stream=None,
        req_to_token_pool=None,
        token_to_kv_pool_allocator=None,
        memory_pool_config=None,
    )


def sized(sizes, pool_bytes):
    """The pools for a budget of `pool_bytes`, and the rates that SGLang derives them from."""
    from sglang.srt.model_executor.pool_configurator import create_memory_pool_configurator
    from sglang.srt.runtime_context import get_schedule

    # The budget is what the profile of a real device would leave, before it sets states apart.
    def budget(self, pre_model_load_memory):
        if self.mambaish_config is None:
            return pool_bytes
        return int(self._handle_max_mamba_cache(pool_bytes / (1 << 30)) * (1 << 30))

    type(sizes)._profile_available_bytes = budget
    config = sizes._resolve_memory_pool_config(0)
    rates = create_memory_pool_configurator(sizes)
    row = {
        "pool_bytes": pool_bytes,
        "pool_class": type(rates).__name__,
        "bytes_per_token": getattr(rates, "_cell_size", None),
        "full_bytes_per_token": getattr(rates, "_full_per_token", None),
        "window_bytes_per_token": getattr(rates, "_swa_per_token", None),
        "full_layers": getattr(rates, "_full_layers_num", None),
        "window_layers": getattr(rates, "_swa_layers_num", None),
        "max_total_num_tokens": config.max_total_num_tokens,
        "full_max_total_num_tokens": config.full_max_total_num_tokens,
        "swa_max_total_num_tokens": config.swa_max_total_num_tokens,
        "max_running_requests": config.max_running_requests,
    }
    if sizes.mambaish_config is not None:
        row["state_bytes_per_slot"] = sizes.mambaish_config.mamba2_cache_params.mamba_cache_per_req
        row["state_slots"] = get_schedule().max_mamba_cache_size
    return row


def chosen(sizes):
    """Settings that SGLang chooses for the device, which enter the memory."""
    from sglang.srt import runtime_context
    from sglang.srt.mem_cache.kv_cache_configurator import mm_runtime_reservation_gb

    schedule = runtime_context.get_schedule()
    graphs = runtime_context.get_exec().graph.cuda_graph_config
    speculative = runtime_context.get_spec()
    drafts = {}
    if speculative.speculative_algorithm is not None:
        drafts = {
            "speculative_algorithm": speculative.speculative_algorithm,
            "speculative_num_steps": speculative.speculative_num_steps,
            "speculative_eagle_topk": speculative.speculative_eagle_topk,
            "speculative_num_draft_tokens": speculative.speculative_num_draft_tokens,
            "draft_layers": sizes.spec_aux_config.eagle_draft_num_layers,
        }
    media_gib = mm_runtime_reservation_gb(
        is_multimodal=sizes.model_config.is_multimodal,
        mm_feature_transport=runtime_context.get_mm().mm_feature_transport,
    )
    return {
        "context_length": sizes.model_config.context_len,
        "kv_cache_dtype": sizes.kv_cache_dtype_str,
        "attention_backends": list(runtime_context.attention_backends()),
        "page_size": schedule.page_size,
        "mem_fraction_static": schedule.mem_fraction_static,
        "chunked_prefill_size": schedule.chunked_prefill_size,
        "cuda_graph_max_bs": getattr(graphs.decode, "max_bs", None),
        "media_reservation_bytes": int(media_gib * (1 << 30)),
        **drafts,
    }


def row_of(folder, arguments, version):
    """One model's row, or why SGLang refuses it."""
    head = {
        "model": os.path.join(os.path.basename(os.path.dirname(folder)), os.path.basename(folder)),
        "engine": "sglang",
        "engine_version": version,
        "gpu": f"{arguments.gpu} (compute capability {arguments.capability})",
        "tensor_parallel": 1,
    }
    begin = time.process_time()
    try:
        sizes = configurator(folder, dict(arguments.set))
        head |= chosen(sizes)
        head |= sized(sizes, arguments.pool)
    except Exception as error:
        if arguments.trace:
            import traceback

            traceback.print_exc()
        head["error"] = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"[:300]
    head["cpu_seconds"] = round(time.process_time() - begin, 1)
    return head


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="+", help="a model's folder with its config.json")
    parser.add_argument("--gpu", default="H100-80GB", help="name that the device reports")
    parser.add_argument("--capability", default="9.0", help="compute capability, such as 8.9")
    parser.add_argument("--memory", type=int, default=85_017_493_504, help="bytes of the device")
    parser.add_argument("--pool", type=int, default=40 << 30, help="bytes of the cache's pools")
    parser.add_argument("--set", type=vllm_planner.pair, action="append", default=[], help="an argument, name=value")
    parser.add_argument("--trace", action="store_true", help="print where SGLang failed")
    arguments = parser.parse_args()

    # Its own code checks types of packages that are absent here: it must see them as missing.
    import tvm_ffi  # noqa: F401

    vllm_planner.EmptyModules.absent = ABSENT
    sys.meta_path.insert(0, vllm_planner.EmptyModules())
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    major, minor = (int(part) for part in arguments.capability.split("."))
    install_device((major, minor), arguments.memory, arguments.gpu)
    vllm_planner.install_triton_driver((major, minor))

    # Arguments of one server leave traces in the process and its environment: each model gets its own,
    # which begins with the modules imported.
    for module in IMPORTED:
        importlib.import_module(f"sglang.srt.{module}")

    version = importlib.metadata.version("sglang")
    for folder in arguments.folder:
        child = os.fork()
        if child == 0:
            print(json.dumps(row_of(os.path.abspath(folder), arguments, version)), flush=True)
            os._exit(0)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
