"""Runs vLLM's own planner of the key-value cache, without a GPU, and prints what it decides.

The wheel's Python code builds the engine's configuration, the model on the meta device and the groups
of its cache exactly as the engine does. Compiled modules are replaced by empty ones: planning calls
none of their functions. The platform reports the compute capability and the memory that you name.

One JSON object per model goes to standard output; a model that vLLM refuses gets an `error`.
"""

import argparse
import importlib.abc
import importlib.machinery
import inspect
import json
import os
import sys
import time
import types
from unittest import mock

# Compiled parts of vLLM's wheel, and packages that only run on a GPU.
ABSENT = (
    "vllm._C", "vllm._C_stable_libtorch", "vllm._moe_C", "vllm._moe_C_stable_libtorch", "vllm._rocm_C",
    "vllm._flashmla_C", "vllm._flashmla_extension_C", "vllm._deepselect_C", "vllm._flashkda_C",
    "vllm._qutlass_C", "vllm.cumem_allocator", "vllm.fs_io_C", "vllm.spinloop",
    "vllm.third_party.deep_gemm", "vllm.vllm_flash_attn._vllm_fa2_C", "vllm.vllm_flash_attn._vllm_fa3_C",
    "vllm._flashkda_C", "flashinfer", "cutlass", "tilelang", "numba", "cv2", "pynvml",
    "prometheus_fastapi_instrumentator", "model_hosting_container_standards",
)  # fmt: skip


class EmptyModule(types.ModuleType):
    """A module in which every name exists and does nothing."""

    __path__ = []
    __version__ = "0.7.2"

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        value = mock.MagicMock(name=f"{self.__name__}.{name}")
        # A size that FlashInfer would compute is never more than what is there.
        value.return_value.__gt__ = lambda *_: False
        setattr(self, name, value)
        return value


class EmptyModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the modules of `absent`, and what lies under them."""

    absent = ABSENT

    def find_spec(self, name, path=None, target=None):
        if any(name == absent or name.startswith(absent + ".") for absent in self.absent):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return EmptyModule(spec.name)

    def exec_module(self, module):
        pass


def install_operators(capability):
    """Gives the operators of vLLM's compiled modules, which planning only asks what they support."""
    import torch
    from torch._ops import _OpNamespace

    supports = {
        "cutlass_scaled_mm_supports_fp8": capability >= (8, 9),
        "cutlass_scaled_mm_supports_block_fp8": capability >= (9, 0),
        "cutlass_scaled_mm_supports_fp4": capability >= (10, 0),
        "cutlass_group_gemm_supported": capability >= (9, 0),
        "cutlass_sparse_scaled_mm_supported": capability[0] == 9,
    }
    found = _OpNamespace.__getattr__

    def operator(namespace, name):
        try:
            return found(namespace, name)
        except AttributeError:
            if not namespace.name.startswith(("_C", "_moe_C", "_vllm_", "_flashkda", "_flashmla", "_qutlass", "_rocm")):
                raise
            if name.startswith("__"):
                raise
            value = mock.MagicMock(name=f"torch.ops.{namespace.name}.{name}", return_value=supports.get(name, 0))
            setattr(namespace, name, value)
            return value

    _OpNamespace.__getattr__ = operator
    register = torch.library.register_fake

    def register_fake(name, *rest, **named):
        if isinstance(name, str) and name.startswith(("_C", "_moe_C", "_vllm_", "_flashkda", "_flashmla", "_qutlass", "_rocm")):
            return lambda function: function
        return register(name, *rest, **named)

    torch.library.register_fake = register_fake


def install_platform(capability, total_bytes, name):
    """Makes vLLM see one CUDA device of this compute capability and memory."""
    import torch
    from vllm import platforms
    from vllm.platforms.cuda import CudaPlatformBase
    from vllm.platforms.interface import DeviceCapability

    class Device(CudaPlatformBase):
        @classmethod
        def get_device_capability(cls, device_id=0):
            return DeviceCapability(*capability)

        @classmethod
        def get_device_name(cls, device_id=0):
            return name

        @classmethod
        def get_device_total_memory(cls, device_id=0):
            return total_bytes

        @classmethod
        def has_device_capability(cls, wanted, device_id=0):
            wanted = wanted if isinstance(wanted, tuple) else divmod(wanted, 10)
            return capability >= tuple(wanted)

        @classmethod
        def is_fully_connected(cls, device_ids):
            return True

        @classmethod
        def current_device(cls):
            return "meta"

        @classmethod
        def device_count(cls):
            return 1

        @classmethod
        def num_compute_units(cls, device_id=0):
            return 132

        @classmethod
        def is_integrated_gpu(cls, device_id=0):
            return False

        @classmethod
        def import_kernels(cls):
            pass

        @classmethod
        def get_cuda_runtime_major(cls):
            return 13

        @classmethod
        def is_pin_memory_available(cls):
            return True

        @classmethod
        def get_device_uuid(cls, device_id=0):
            return "GPU-00000000-0000-0000-0000-000000000000"

        @classmethod
        def log_warnings(cls):
            pass

    platforms._current_platform = Device()
    install_cuda(capability, total_bytes, name)


def install_cuda(capability, total_bytes, name):
    """Makes torch report one CUDA device of this compute capability and memory, all of it free."""
    import torch

    properties = types.SimpleNamespace(
        name=name, major=capability[0], minor=capability[1], total_memory=total_bytes,
        multi_processor_count=132, warp_size=32, shared_memory_per_block_optin=232448,
        max_threads_per_multi_processor=2048, L2_cache_size=52428800, is_integrated=False,
    )  # fmt: skip
    torch.cuda.get_device_properties = lambda *_: properties
    torch.cuda.get_device_capability = lambda *_: capability
    torch.cuda.get_device_name = lambda *_: name
    torch.cuda.current_device = lambda: 0
    torch.cuda.device_count = lambda: 1
    torch.cuda.is_available = lambda: True
    torch.cuda.mem_get_info = lambda *_: (total_bytes, total_bytes)
    torch.cuda.empty_cache = lambda: None
    torch.cuda.synchronize = lambda *_: None
    torch.cuda.Stream = mock.MagicMock
    torch.cuda.Event = mock.MagicMock
    torch.cuda.current_stream = mock.MagicMock()
    torch.cuda.is_current_stream_capturing = lambda: False
    torch.cuda.set_device = lambda *_: None


def install_triton_driver(capability):
    """Gives Triton a driver that names the device; nothing is compiled or run."""
    import torch
    import triton
    from triton.backends.compiler import GPUTarget

    target = GPUTarget("cuda", capability[0] * 10 + capability[1], 32)
    device = {"max_shared_mem": 232448, "multiprocessor_count": 132, "warpSize": 32, "max_num_regs": 65536}
    driver = mock.MagicMock(name="triton driver")
    driver.get_current_target.return_value = target
    driver.get_current_device.return_value = 0
    driver.get_active_torch_device.return_value = torch.device("cuda", 0)
    driver.utils.get_device_properties.return_value = device
    triton.runtime.driver.set_active(driver)


def start_process_group():
    """One process: the groups of tensor and pipeline parallelism hold only it."""
    import tempfile

    from vllm.distributed import parallel_state

    store = tempfile.NamedTemporaryFile(prefix="referee-", delete=False).name
    os.unlink(store)
    parallel_state.init_distributed_environment(
        world_size=1, rank=0, local_rank=0, distributed_init_method=f"file://{store}", backend="gloo"
    )


def start_model_groups():
    """The groups of one model: they hang on its experts, so the last model's are dropped."""
    from vllm.distributed import parallel_state

    parallel_state.destroy_model_parallel()
    parallel_state.ensure_model_parallel_initialized(1, 1)


def start_workspaces():
    """Starts the buffers that the layers of some models share, in releases that have them."""
    import torch

    try:
        from vllm.v1.worker.workspace import init_workspace_manager
    except ImportError:
        return
    init_workspace_manager(torch.device("meta"))


def without_devices():
    """Moves the tensors that code allocates on a GPU to the meta device."""
    import torch
    from torch.overrides import TorchFunctionMode

    class OnMeta(TorchFunctionMode):
        def __torch_function__(self, function, types, positional=(), named=None):
            named = dict(named or {})
            if str(named.get("device", "")).startswith("cuda"):
                named["device"] = torch.device("meta")
            return function(*positional, **named)

    return OnMeta()


def build(folder, options):
    """The engine's configuration and the model on the meta device."""
    import torch
    from vllm.config import set_current_vllm_config
    from vllm.engine.arg_utils import EngineArgs
    from vllm.model_executor.model_loader.utils import initialize_model
    try:
        from vllm.utils.torch_utils import set_default_torch_dtype
    except ImportError:
        from vllm.model_executor.model_loader.utils import set_default_torch_dtype
    from vllm.model_executor.models import registry

    # A second process would not have the stand-ins.
    registry._run_in_subprocess = lambda collect: collect()

    arguments = EngineArgs(
        model=folder, skip_tokenizer_init=True, load_format="dummy", trust_remote_code=False, **options
    )
    from vllm.usage.usage_lib import UsageContext

    config = arguments.create_engine_config(UsageContext.OPENAI_API_SERVER)
    # Models of transformers that vLLM wraps allocate on the configuration's device.
    config.device_config.device = torch.device("meta")
    with set_current_vllm_config(config):
        if not torch.distributed.is_initialized():
            start_process_group()
        start_model_groups()
        start_workspaces()
        dtype = set_default_torch_dtype(config.model_config.dtype)
        with dtype, torch.device("meta"), without_devices():
            model = initialize_model(vllm_config=config)
            draft = build_draft(config, model)
    return config, model, draft


def build_draft(config, model):
    """The draft on the meta device, as the runner loads it next to the model; `None` without weights.

    A checkpoint with embeddings or a head of its own keeps them only if they differ from the model's.
    The figures are those of a checkpoint without them, whose draft shares the model's.
    """
    speculative = config.speculative_config
    if speculative is None or speculative.draft_model_config is None:
        return None
    if not (speculative.use_eagle() or speculative.uses_draft_model() or speculative.method == "mtp"):
        return None

    from vllm.model_executor.model_loader.utils import initialize_model
    from vllm.v1.worker.gpu.spec_decode.eagle import utils as eagle
    from vllm.v1.worker.gpu.spec_decode.standalone_ar import speculator as standalone

    def initialize(*, vllm_config, model_config=None, prefix="", **_):
        return initialize_model(vllm_config=vllm_config, model_config=model_config, prefix=prefix)

    eagle.get_model = standalone.get_model = initialize
    if speculative.uses_draft_model():
        runner = types.SimpleNamespace(
            speculative_config=speculative, vllm_config=config, draft_model_config=speculative.draft_model_config
        )
        return standalone.StandaloneARSpeculator.load_draft_model(runner, model, set())
    return eagle.load_eagle_model(model, config)


def tensor_bytes(tensors):
    """Bytes of tensors, each storage once."""
    known = {id(tensor): tensor for tensor in tensors}
    return sum(tensor.numel() * tensor.element_size() for tensor in known.values())


def plan(config, model, draft, pool_bytes):
    """The groups of the cache for a pool of `pool_bytes`, as the engine forms them."""
    from vllm.config import set_current_vllm_config
    from vllm.platforms import current_platform

    with set_current_vllm_config(config), without_devices():
        current_platform.update_block_size_for_backend(config)
        specs = layer_specs(config)
        backends = backend_names(config)
        row = {
            "backends": backends,
            "parameter_bytes": tensor_bytes(model.parameters()),
            "buffer_bytes": tensor_bytes(model.buffers()),
        }
        if draft is not None:
            shared = {id(tensor) for tensor in [*model.parameters(), *model.buffers()]}
            row |= {
                "draft_class": type(draft).__name__,
                "draft_parameter_bytes": tensor_bytes(t for t in draft.parameters() if id(t) not in shared),
                "draft_buffer_bytes": tensor_bytes(t for t in draft.buffers() if id(t) not in shared),
            }
        if not specs:
            return {**row, "groups": [], "kv_needed_bytes": 0}
        return {**row, **planned(config, specs, pool_bytes)}


def layer_specs(config):
    """What each layer's cache holds, as the runner of this version collects it."""
    try:
        from vllm.v1.worker.gpu.attn_utils import get_kv_cache_spec

        return get_kv_cache_spec(config)
    except (ImportError, AttributeError):
        pass
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    runner = types.SimpleNamespace(vllm_config=config, shared_kv_cache_layers={}, cache_config=config.cache_config)
    return GPUModelRunner.get_kv_cache_spec(runner)


def backend_names(config):
    """Names of the attention backends, in the order in which layers use them first."""
    from vllm.config import get_layers_from_vllm_config
    from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase

    names = []
    for layer in get_layers_from_vllm_config(config, AttentionLayerBase).values():
        try:
            name = layer.get_attn_backend().get_name()
        except Exception:
            continue
        if name not in names:
            names.append(name)
    return names


def planned(config, specs, pool_bytes):
    """Groups, blocks and the bytes that one request of the longest context needs."""
    try:
        from vllm.v1.core import kv_cache_planning as planning
    except ImportError:
        from vllm.v1.core import kv_cache_utils as planning
    try:
        from vllm.v1.kv_cache_interface import register_all_kvcache_specs

        register_all_kvcache_specs(config)
    except ImportError:
        try:
            from vllm.v1.core.single_type_kv_cache_manager import register_all_kvcache_specs

            register_all_kvcache_specs(config)
        except ImportError:
            pass

    resolve_layout(config, specs)
    if hasattr(planning, "get_global_kv_cache_groups"):
        from vllm.v1.core.kv_cache_config_builder import get_kv_cache_config_builder

        groups = planning.get_global_kv_cache_groups(config, [specs])
        cache = planning.get_kv_cache_configs(config, [specs], [pool_bytes], groups)[0]
        builder = get_kv_cache_config_builder(config)
        needed = planning._max_memory_usage_bytes_from_groups(builder, config, groups)
        per_block = planning._pool_bytes_per_block_from_builder(builder, config, groups)
    else:
        cache = planning.get_kv_cache_configs(config, [specs], [pool_bytes])[0]
        groups = cache.kv_cache_groups
        measure = getattr(planning, "_max_memory_usage_bytes_from_groups", None)
        needed = measure(config, groups) if measure else planning.max_memory_usage_bytes(config, specs.values())
        per_block = block_bytes(planning, config, cache)
    try:
        concurrency = planning.get_max_concurrency_for_kv_cache_config(config, cache)
    except AttributeError:
        from vllm.v1.core import kv_cache_utils

        concurrency = kv_cache_utils.get_max_concurrency_for_kv_cache_config(config, cache)
    return {
        "block_size_tokens": min(group.kv_cache_spec.block_size for group in groups),
        "bytes_per_block": per_block,
        "groups": [
            {
                "spec": type(group.kv_cache_spec).__name__,
                "layers": len(group.layer_names),
                "block_size": group.kv_cache_spec.block_size,
                "page_bytes": group.kv_cache_spec.page_size_bytes,
            }
            for group in groups
        ],
        "kv_needed_bytes": int(needed),
        "kv_pool_bytes": pool_bytes,
        "blocks": cache.num_blocks,
        "capacity_tokens": int(concurrency * config.model_config.max_model_len),
    }


def block_bytes(planning, config, cache):
    """Bytes of a block in the pool; tensors can be views of one pool, so their sum is the last resort."""
    measure = getattr(planning, "_pool_bytes_per_block", None)
    if measure:
        arguments = [config, cache.kv_cache_groups]
        accepted = len(inspect.signature(measure).parameters)
        return measure(*arguments[-accepted:])

    sizes = sum(tensor.size for tensor in cache.kv_cache_tensors)
    return sizes // cache.num_blocks if cache.num_blocks else None


def resolve_layout(config, specs):
    """Settles the order of a block's axes, which padding depends on."""
    try:
        from vllm.v1.attention.backends import utils
    except ImportError:
        return
    if not hasattr(utils, "resolve_kv_cache_layout"):
        return
    from vllm.v1.worker.worker_base import WorkerBase

    layouts = WorkerBase.get_supported_kv_cache_layouts(types.SimpleNamespace(vllm_config=config))
    arguments = [config, [layouts], list(specs.values())]
    accepted = len(inspect.signature(utils.resolve_kv_cache_layout).parameters)
    utils.resolve_kv_cache_layout(*arguments[:accepted])


def row_of(folder, arguments, version):
    """One model's row, or why vLLM refuses it."""
    head = {
        "model": os.path.join(os.path.basename(os.path.dirname(folder)), os.path.basename(folder)),
        "engine": "vllm",
        "engine_version": version,
        "gpu": f"{arguments.gpu} (compute capability {arguments.capability})",
        "tensor_parallel": 1,
    }
    options = {key: value for key, value in arguments.set}
    begin = time.process_time()
    try:
        if arguments.context:
            options["max_model_len"] = arguments.context
        try:
            config, model, draft = build(folder, dict(options))
        except Exception as error:
            if "max_model_len" not in str(error) or not arguments.context:
                raise
            options.pop("max_model_len")
            config, model, draft = build(folder, dict(options))
        row = plan(config, model, draft, arguments.pool)
        head |= {
            "max_model_len": config.model_config.max_model_len,
            "max_num_batched_tokens": config.scheduler_config.max_num_batched_tokens,
            "max_num_seqs": config.scheduler_config.max_num_seqs,
            "kv_cache_dtype": config.cache_config.cache_dtype,
            "prefix_caching": config.cache_config.enable_prefix_caching,
            "mamba_cache_mode": getattr(config.cache_config, "mamba_cache_mode", None),
        }
        head |= row
    except Exception as error:
        if arguments.trace:
            import traceback

            traceback.print_exc()
        head["error"] = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"[:300]
    head["cpu_seconds"] = round(time.process_time() - begin, 1)
    return head


def pair(text):
    """`name=value`, where a value in JSON keeps its type."""
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="+", help="a model's folder with its config.json")
    parser.add_argument("--gpu", default="H100-80GB", help="name that the device reports")
    parser.add_argument("--capability", default="9.0", help="compute capability, such as 8.9")
    parser.add_argument("--memory", type=int, default=85_017_493_504, help="bytes of the device")
    parser.add_argument("--pool", type=int, default=40 << 30, help="bytes of the cache's pool")
    parser.add_argument("--context", type=int, default=8192, help="max_model_len, where the model has room for it")
    parser.add_argument("--set", type=pair, action="append", default=[], help="an engine argument, name=value")
    parser.add_argument("--trace", action="store_true", help="print where vLLM failed")
    arguments = parser.parse_args()

    sys.meta_path.insert(0, EmptyModules())
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    import vllm.version

    # Releases before 0.26 import the kernels of this package without asking whether it is there.
    if tuple(int(part) for part in vllm.version.__version__.split(".")[:2]) < (0, 26):
        EmptyModules.absent += ("humming",)

    major, minor = (int(part) for part in arguments.capability.split("."))
    install_operators((major, minor))
    install_triton_driver((major, minor))
    install_platform((major, minor), arguments.memory, arguments.gpu)
    for folder in arguments.folder:
        print(json.dumps(row_of(os.path.abspath(folder), arguments, vllm.version.__version__)), flush=True)


if __name__ == "__main__":
    main()
