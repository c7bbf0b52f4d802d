"""Builds the components of a pipeline on the meta device, runs each one's stage of a call, and prints the peak of live bytes.

Nothing is computed: tensors have only shapes and dtypes. A dispatch mode sees every tensor that an operation
creates, and the end of every storage. The row's `activation_peak_bytes` is the peak beyond the parameters, each
storage rounded up to 512 bytes as torch's CUDA allocator does.

Attention through `scaled_dot_product_attention` counts as CUDA's fused kernels do: the output, one 32-bit number
a query, and a mask in the dtype of the query. No scores are kept.

`with_layouts_bytes` is the peak over convolutions if cuDNN copies their input and output to another layout.

With `--set offload_type=...`, group offloading is diffusers' own: its groups and hooks run, and only the copies
between devices are replaced by a count. `offload_peak_bytes` is then the peak of weights on the device and
activations together.

One JSON object per component goes to standard output; a component that cannot be built or run gets an `error`.
"""

import argparse
import collections
import inspect
import json
import os
import sys
import time
import weakref

import torch
import torch.nn.functional as functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Published configurations, by the names of their repositories; classes' defaults where a dictionary is empty.
PUBLISHED = {
    "stabilityai/stable-diffusion-3-medium-diffusers": {
        "pipeline": "StableDiffusion3Pipeline",
        "transformer": ("SD3Transformer2DModel", {
            "sample_size": 128, "num_layers": 24, "num_attention_heads": 24, "attention_head_dim": 64,
            "caption_projection_dim": 1536, "joint_attention_dim": 4096, "pos_embed_max_size": 192,
        }),
        "vae": ("AutoencoderKL", {
            "block_out_channels": [128, 256, 512, 512], "down_block_types": ["DownEncoderBlock2D"] * 4,
            "up_block_types": ["UpDecoderBlock2D"] * 4, "layers_per_block": 2, "latent_channels": 16,
            "use_quant_conv": False, "use_post_quant_conv": False,
        }),
    },
    "stabilityai/stable-diffusion-3.5-medium": {
        "pipeline": "StableDiffusion3Pipeline",
        "transformer": ("SD3Transformer2DModel", {
            "sample_size": 128, "num_layers": 24, "num_attention_heads": 24, "attention_head_dim": 64,
            "caption_projection_dim": 1536, "joint_attention_dim": 4096, "pos_embed_max_size": 384,
            "qk_norm": "rms_norm", "dual_attention_layers": list(range(13)),
        }),
    },
    "stabilityai/stable-diffusion-3.5-large": {
        "pipeline": "StableDiffusion3Pipeline",
        "transformer": ("SD3Transformer2DModel", {
            "sample_size": 128, "num_layers": 38, "num_attention_heads": 38, "attention_head_dim": 64,
            "caption_projection_dim": 2432, "joint_attention_dim": 4096, "pos_embed_max_size": 192,
            "qk_norm": "rms_norm",
        }),
    },
    "PixArt-alpha/PixArt-XL-2-1024-MS": {
        "pipeline": "PixArtAlphaPipeline",
        "transformer": ("PixArtTransformer2DModel", {"caption_channels": 4096, "use_additional_conditions": True}),
    },
    "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS": {
        "pipeline": "PixArtSigmaPipeline",
        "transformer": ("PixArtTransformer2DModel", {"caption_channels": 4096, "use_additional_conditions": False}),
    },
    "Wan-AI/Wan2.1-T2V-1.3B-Diffusers": {
        "pipeline": "WanPipeline",
        "transformer": ("WanTransformer3DModel", {"num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30}),
        "vae": ("AutoencoderKLWan", {}),
    },
    "Wan-AI/Wan2.1-T2V-14B-Diffusers": {
        "pipeline": "WanPipeline",
        "transformer": ("WanTransformer3DModel", {}),
    },
    "Lightricks/LTX-Video": {
        "pipeline": "LTXPipeline",
        "transformer": ("LTXVideoTransformer3DModel", {}),
        "vae": ("AutoencoderKLLTXVideo", {}),
    },
    "zai-org/CogVideoX-2b": {
        "pipeline": "CogVideoXPipeline",
        "transformer": ("CogVideoXTransformer3DModel", {}),
        "vae": ("AutoencoderKLCogVideoX", {}),
    },
    "zai-org/CogVideoX-5b": {
        "pipeline": "CogVideoXPipeline",
        "transformer": ("CogVideoXTransformer3DModel", {
            "num_attention_heads": 48, "num_layers": 42, "use_rotary_positional_embeddings": True,
        }),
    },
    "hunyuanvideo-community/HunyuanVideo": {
        "pipeline": "HunyuanVideoPipeline",
        "transformer": ("HunyuanVideoTransformer3DModel", {}),
        "vae": ("AutoencoderKLHunyuanVideo", {}),
    },
    "Alpha-VLLM/Lumina-Image-2.0": {
        "pipeline": "Lumina2Pipeline",
        "transformer": ("Lumina2Transformer2DModel", {"cap_feat_dim": 2304}),
    },
    "Tongyi-MAI/Z-Image-Turbo": {
        "pipeline": "ZImagePipeline",
        "transformer": ("ZImageTransformer2DModel", {}),
    },
}  # fmt: skip

# A call's sizes by pipeline: height, width, frames, tokens of the prompt, guidance scale.
DEFAULTS = {
    "StableDiffusionPipeline": (512, 512, 1, 77, 7.5),
    "StableDiffusionXLPipeline": (1024, 1024, 1, 77, 5.0),
    "FluxPipeline": (1024, 1024, 1, 512, 3.5),
    "QwenImagePipeline": (1024, 1024, 1, 512, 4.0),
    "StableDiffusion3Pipeline": (1024, 1024, 1, 256, 7.0),
    "PixArtAlphaPipeline": (1024, 1024, 1, 120, 4.5),
    "PixArtSigmaPipeline": (1024, 1024, 1, 300, 4.5),
    "WanPipeline": (480, 832, 81, 512, 5.0),
    "LTXPipeline": (512, 704, 161, 128, 3.0),
    "CogVideoXPipeline": (480, 720, 49, 226, 6.0),
    "HunyuanVideoPipeline": (720, 1280, 129, 256, 6.0),
    "Lumina2Pipeline": (1024, 1024, 1, 256, 4.0),
    "ZImagePipeline": (1024, 1024, 1, 512, 5.0),
}

# Pipelines whose denoiser runs once on a batch with and without the prompt.
DOUBLED = {
    "StableDiffusionPipeline", "StableDiffusionXLPipeline", "StableDiffusion3Pipeline", "PixArtAlphaPipeline",
    "PixArtSigmaPipeline", "LTXPipeline", "CogVideoXPipeline", "ZImagePipeline",
}  # fmt: skip


class Ledger(TorchDispatchMode):
    """Counts the bytes of live storages and their peak."""

    def __init__(self):
        super().__init__()
        self.live, self.peak, self.weights, self.seen, self.at_peak = 0, 0, 0, {}, None
        self.with_layouts = 0
        self.operation = ""
        self.keep = False

    def add(self, size):
        self.live += size
        if self.live > self.peak:
            self.peak = self.live
            if self.keep:
                self.at_peak = (self.operation, collections.Counter(self.seen.values()))

    def track(self, tensor):
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.seen or tensor.device.type != "meta":
            return
        size = -(-storage.nbytes() // 512) * 512
        self.seen[key] = (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
        weakref.finalize(storage, self.end, key, size)
        self.add(size)

    def end(self, key, size):
        del self.seen[key]
        self.live -= size

    def exclude(self, module):
        """Marks the parameters and buffers of a module, which are no activations; returns their bytes."""
        total, seen = 0, set()
        for tensor in [*module.parameters(), *module.buffers()]:
            key = tensor.untyped_storage()._cdata
            self.seen[key] = ("weight", tuple(tensor.shape))
            if key not in seen:
                total += tensor.untyped_storage().nbytes()
            seen.add(key)
        return total

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.operation = str(function)
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.track(leaf)
        if function is torch.ops.aten.convolution.default:
            copies = sum(tensor.numel() * tensor.element_size() for tensor in (args[0], result))
            self.with_layouts = max(self.with_layouts, self.live + copies)
        return result


class FusedAttention(TorchFunctionMode):
    """Replaces attention by what CUDA's fused kernels allocate."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is not functional.scaled_dot_product_attention:
            return function(*args, **kwargs)
        names = ("query", "key", "value", "attn_mask")
        query, key, value, mask = ({**dict(zip(names, args)), **kwargs}.get(name) for name in names)
        batch, heads, length, _ = query.shape
        if mask is not None and mask.dtype == torch.bool:
            mask = torch.empty(mask.shape, dtype=query.dtype, device=query.device)
        sums = torch.empty((batch, heads, length), dtype=torch.float32, device=query.device)
        output = torch.empty((batch, length, heads, value.shape[-1]), dtype=query.dtype, device=query.device)
        del sums, mask
        return output.transpose(1, 2)


class Call:
    """The sizes of one call of a pipeline."""

    def __init__(self, pipeline, settings):
        height, width, frames, tokens, guidance = DEFAULTS[pipeline]
        self.pipeline = pipeline
        self.height = int(settings.get("height", height))
        self.width = int(settings.get("width", width))
        self.frames = int(settings.get("num_frames", frames))
        self.tokens = int(settings.get("max_sequence_length", tokens))
        self.guidance = float(settings.get("guidance_scale", guidance))
        self.images = int(settings.get("num_images_per_prompt", 1))
        self.passes = 2 if pipeline in DOUBLED and self.guidance > 1 else 1
        self.batch = self.images * self.passes


def empty(*shape, dtype=None):
    return torch.empty(shape, dtype=dtype, device="meta")


def long(*shape):
    return torch.zeros(shape, dtype=torch.long, device="meta")


def denoiser_inputs(model, call, step, dtype):
    """Arguments of one step of the denoiser."""
    kind, config, batch, tokens = type(model).__name__, model.config, call.batch, call.tokens
    high, wide = call.height // step, call.width // step
    frames = call.frames
    if kind == "UNet2DConditionModel":
        given = {"sample": empty(batch, config.in_channels, high, wide, dtype=dtype), "timestep": empty(dtype=torch.float32),
                 "encoder_hidden_states": empty(batch, tokens, config.cross_attention_dim, dtype=dtype)}  # fmt: skip
        if config.addition_embed_type == "text_time":
            ids = 6
            pooled = config.projection_class_embeddings_input_dim - ids * config.addition_time_embed_dim
            given["added_cond_kwargs"] = {"text_embeds": empty(batch, pooled, dtype=dtype), "time_ids": empty(batch, ids, dtype=dtype)}
        return given
    if kind == "FluxTransformer2DModel":
        patches = (high // 2) * (wide // 2)
        given = {"hidden_states": empty(batch, patches, config.in_channels, dtype=dtype),
                 "encoder_hidden_states": empty(batch, tokens, config.joint_attention_dim, dtype=dtype),
                 "pooled_projections": empty(batch, config.pooled_projection_dim, dtype=dtype),
                 "timestep": empty(batch, dtype=dtype), "img_ids": empty(patches, 3, dtype=dtype),
                 "txt_ids": empty(tokens, 3, dtype=dtype)}  # fmt: skip
        if config.guidance_embeds:
            given["guidance"] = empty(batch, dtype=torch.float32)
        return given
    if kind == "QwenImageTransformer2DModel":
        patches = (high // 2) * (wide // 2)
        given = {"hidden_states": empty(batch, patches, config.in_channels, dtype=dtype),
                 "encoder_hidden_states": empty(batch, tokens, config.joint_attention_dim, dtype=dtype),
                 "encoder_hidden_states_mask": None, "timestep": empty(batch, dtype=dtype),
                 "img_shapes": [[(1, high // 2, wide // 2)]] * batch}  # fmt: skip
        if "txt_seq_lens" in inspect.signature(model.forward).parameters:
            given["txt_seq_lens"] = [tokens] * batch
        return given
    if kind == "SD3Transformer2DModel":
        # 77 tokens of the CLIP encoders go before those of T5.
        return {"hidden_states": empty(batch, config.in_channels, high, wide, dtype=dtype),
                "encoder_hidden_states": empty(batch, 77 + tokens, config.joint_attention_dim, dtype=dtype),
                "pooled_projections": empty(batch, config.pooled_projection_dim, dtype=dtype),
                "timestep": empty(batch, dtype=torch.float32)}  # fmt: skip
    if kind == "PixArtTransformer2DModel":
        conditions = {"resolution": None, "aspect_ratio": None}
        if config.sample_size == 128:
            conditions = {"resolution": empty(batch, 2, dtype=dtype), "aspect_ratio": empty(batch, 1, dtype=dtype)}
        return {"hidden_states": empty(batch, config.in_channels, high, wide, dtype=dtype),
                "encoder_hidden_states": empty(batch, tokens, config.caption_channels, dtype=dtype),
                "encoder_attention_mask": long(batch, tokens), "timestep": empty(batch, dtype=torch.float32),
                "added_cond_kwargs": conditions}  # fmt: skip
    if kind == "WanTransformer3DModel":
        return {"hidden_states": empty(batch, config.in_channels, (frames - 1) // 4 + 1, high, wide, dtype=dtype),
                "timestep": empty(batch, dtype=torch.float32),
                "encoder_hidden_states": empty(batch, tokens, config.text_dim, dtype=dtype)}  # fmt: skip
    if kind == "LTXVideoTransformer3DModel":
        shape = ((frames - 1) // 8 + 1, call.height // 32, call.width // 32)
        patches = shape[0] * shape[1] * shape[2]
        return {"hidden_states": empty(batch, patches, config.in_channels, dtype=dtype),
                "encoder_hidden_states": empty(batch, tokens, config.caption_channels, dtype=dtype),
                "encoder_attention_mask": long(batch, tokens), "timestep": empty(batch, dtype=torch.float32),
                "num_frames": shape[0], "height": shape[1], "width": shape[2],
                "rope_interpolation_scale": (8 / 25, 32, 32)}  # fmt: skip
    if kind == "CogVideoXTransformer3DModel":
        count = (frames - 1) // 4 + 1
        given = {"hidden_states": empty(batch, count, config.in_channels, high, wide, dtype=dtype),
                 "encoder_hidden_states": empty(batch, tokens, config.text_embed_dim, dtype=dtype),
                 "timestep": long(batch)}  # fmt: skip
        if config.use_rotary_positional_embeddings:
            patches = count * (high // 2) * (wide // 2)
            given["image_rotary_emb"] = tuple(empty(patches, config.attention_head_dim, dtype=torch.float32) for _ in range(2))
        return given
    if kind == "HunyuanVideoTransformer3DModel":
        return {"hidden_states": empty(batch, config.in_channels, (frames - 1) // 4 + 1, high, wide, dtype=dtype),
                "timestep": long(batch), "encoder_hidden_states": empty(batch, tokens, config.text_embed_dim, dtype=dtype),
                "encoder_attention_mask": torch.ones(batch, tokens, dtype=torch.long, device="meta"),
                "pooled_projections": empty(batch, config.pooled_projection_dim, dtype=dtype),
                "guidance": empty(batch, dtype=dtype)}  # fmt: skip
    if kind == "Lumina2Transformer2DModel":
        return {"hidden_states": empty(batch, config.in_channels, high, wide, dtype=dtype), "timestep": empty(batch, dtype=dtype),
                "encoder_hidden_states": empty(batch, tokens, config.cap_feat_dim, dtype=dtype),
                "encoder_attention_mask": torch.ones(batch, tokens, dtype=torch.bool, device="cpu")}  # fmt: skip
    if kind == "ZImageTransformer2DModel":
        return {"x": [empty(config.in_channels, 1, high, wide, dtype=dtype) for _ in range(batch)], "t": empty(batch, dtype=dtype),
                "cap_feats": [empty(tokens, config.cap_feat_dim, dtype=dtype) for _ in range(batch)]}  # fmt: skip
    raise ValueError(f"no inputs of {kind} are known")


def latents_of(model, call, step, dtype):
    """The latents that a decoder gets."""
    kind, config = type(model).__name__, model.config
    channels = getattr(config, "latent_channels", None) or getattr(config, "z_dim", None)
    if kind in ("AutoencoderKL", "AutoencoderTiny", "AutoencoderDC"):
        return empty(call.images, channels, call.height // step, call.width // step, dtype=dtype)
    if kind == "AutoencoderKLLTXVideo":
        return empty(call.images, channels, (call.frames - 1) // 8 + 1, call.height // 32, call.width // 32, dtype=dtype)
    return empty(call.images, channels, (call.frames - 1) // 4 + 1, call.height // step, call.width // step, dtype=dtype)


def encoder_inputs(model, call):
    """The prompt that a text encoder gets; a pipeline repeats its output for the images."""
    kind = type(model).__name__
    tokens = 77 if kind.startswith("CLIP") else call.tokens
    ids = long(1, tokens)
    if kind.startswith("CLIP"):
        return {"input_ids": ids, "output_hidden_states": "Flux" not in call.pipeline}
    if kind.startswith("Qwen2_5"):
        # A template goes before the prompt, which the encoder cuts at 1024 tokens.
        tokens = 34 + 1024
        return {"input_ids": long(1, tokens), "position_ids": long(3, 1, tokens), "output_hidden_states": True}
    if "Flux" in call.pipeline or "StableDiffusion3" in call.pipeline:
        return {"input_ids": ids, "output_hidden_states": False}
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def build(library, name, config, dtype):
    """A component on the meta device, with the parameters that its class keeps in 32 bits."""
    import diffusers
    import transformers

    torch.set_default_dtype(dtype)
    try:
        with torch.device("meta"):
            if library == "transformers":
                kind = getattr(transformers, name)
                model = kind._from_config(kind.config_class.from_dict(config))
            else:
                kind = getattr(diffusers, name)
                model = kind.from_config(config)
    finally:
        torch.set_default_dtype(torch.float32)
    keep = list(getattr(kind, "_keep_in_fp32_modules", None) or [])
    if library == "transformers" and dtype != torch.float16:
        keep = []
    model = model.to(dtype)
    for path, parameter in model.named_parameters():
        if any(part in keep for part in path.split(".")):
            parameter.data = parameter.data.to(torch.float32)
    return model.eval()


class Moves:
    """Counts what group offloading has on the device, in place of moving it."""

    def __init__(self, ledger):
        self.ledger, self.on_device = ledger, {}

    def install(self):
        from diffusers.hooks import group_offloading

        moves = self

        def tensors(group):
            found = [*group.parameters, *group.buffers]
            for module in group.modules:
                found += [*module.parameters(), *module.buffers()]
            return found

        def onload(group):
            for tensor in tensors(group):
                if id(tensor) not in moves.on_device:
                    moves.on_device[id(tensor)] = tensor.numel() * tensor.element_size()
                    moves.ledger.weights += moves.on_device[id(tensor)]
                    moves.ledger.add(moves.on_device[id(tensor)])

        def offload(group):
            for tensor in tensors(group):
                size = moves.on_device.pop(id(tensor), 0)
                moves.ledger.weights -= size
                moves.ledger.live -= size

        class Transfers:
            def synchronize(self):
                pass

        class Backend:
            Stream = Transfers

            def __init__(self, device):
                pass

        group_offloading.ModuleGroup._init_cpu_param_dict = lambda group: {}
        group_offloading.ModuleGroup.onload_ = onload
        group_offloading.ModuleGroup.offload_ = offload
        group_offloading.TorchDeviceBackend = Backend
        group_offloading.send_to_device = lambda value, device, non_blocking=False: value


def offload_sequentially(model, ledger):
    """Counts each module's own tensors on the device while it runs, as accelerate's `cpu_offload` does."""
    offload_buffers = len(model._parameters) > 0
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        if offload_buffers:
            own += list(module.buffers(recurse=False))
        size = sum(tensor.numel() * tensor.element_size() for tensor in own)
        if not size:
            continue

        def before(module, args, size=size):
            ledger.weights += size
            ledger.add(size)

        def after(module, args, result, size=size):
            ledger.weights -= size
            ledger.live -= size

        module.register_forward_pre_hook(before)
        module.register_forward_hook(after)


def offload(model, settings, ledger):
    """Applies the offloading that the settings name."""
    kind = settings.get("offload_type")
    if kind is None:
        return
    if kind == "sequential":
        offload_sequentially(model, ledger)
        return
    from diffusers.hooks import apply_group_offloading

    if not getattr(model, "_supports_group_offloading", True):
        raise ValueError(f"{type(model).__name__} does not support group offloading")
    blocks = settings.get("num_blocks_per_group")
    apply_group_offloading(
        model, torch.device("meta"), torch.device("cpu"), offload_type=kind,
        num_blocks_per_group=int(blocks) if blocks else None, use_stream=settings.get("use_stream") == "true",
        record_stream=settings.get("record_stream") == "true",
    )  # fmt: skip


def run_stage(model, role, call, step, dtype, settings, ledger):
    """One run of a component."""
    if role == "vae":
        if settings.get("enable_vae_tiling") == "true":
            model.enable_tiling()
        if settings.get("enable_vae_slicing") == "true":
            model.enable_slicing()
        latents = latents_of(model, call, step, dtype)
        if getattr(model.config, "timestep_conditioning", False):
            return model.decode(latents, empty(call.images, dtype=dtype), return_dict=False)[0]
        return model.decode(latents, return_dict=False)[0]
    if role == "encoder":
        return model(**encoder_inputs(model, call))
    given = denoiser_inputs(model, call, step, dtype)
    return model(**given, return_dict=False)[0]


def row_of(repo, component, library, name, config, pipeline, step, arguments):
    """The row of one component."""
    import diffusers

    settings = dict(item.split("=", 1) for item in arguments.set)
    dtype = getattr(torch, arguments.dtype)
    call = Call(pipeline, settings)
    role = "encoder" if "text_encoder" in component else "vae" if component == "vae" else "denoiser"
    row = {"model": repo, "engine": "diffusers", "engine_version": diffusers.__version__, "component": component, "class": name,
           "dtype": arguments.dtype, "height": call.height, "width": call.width, "num_frames": call.frames,
           "batch": call.batch if role == "denoiser" else call.images if role == "vae" else 1, "settings": settings}  # fmt: skip
    begin = time.process_time()
    try:
        if role == "vae" and dtype == torch.float16 and config.get("force_upcast", True) and "XL" in pipeline:
            # The pipeline casts the decoder to 32 bits, and its latents.
            row["upcast"] = True
            dtype = torch.float32
        model = build(library, name, config, dtype)
        ledger = Ledger()
        ledger.keep = arguments.live
        row["parameter_bytes"] = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
        row["resident_bytes"] = ledger.exclude(model)
        if settings.get("offload_type"):
            Moves(ledger).install()
        offload(model, settings, ledger)
        with torch.no_grad(), FusedAttention(), ledger, torch.device("meta"):
            # Prefetching knows the order of the groups after the first pass.
            for _ in range(2 if settings.get("use_stream") == "true" else 1):
                ledger.peak = 0
                result = run_stage(model, role, call, step, dtype, settings, ledger)
                del result
        row["offload_peak_bytes" if settings.get("offload_type") else "activation_peak_bytes"] = ledger.peak
        if ledger.with_layouts:
            row["with_layouts_bytes"] = ledger.with_layouts
        if arguments.live:
            operation, tensors = ledger.at_peak
            row["operation"] = operation
            row["live"] = {f"{dtype} {list(shape)}": count for (dtype, shape), count in tensors.items() if dtype != "weight"}
    except Exception as error:
        if arguments.trace:
            import traceback

            traceback.print_exc()
        lines = str(error).strip().splitlines()
        row["error"] = f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]
    row["cpu_seconds"] = round(time.process_time() - begin, 1)
    return row


def components(folder, name):
    """The components of a folder or of a published configuration: (name, library, class, configuration)."""
    if name:
        published = PUBLISHED[name]
        parts = [(part, "diffusers", *value) for part, value in published.items() if part != "pipeline"]
        return name, published["pipeline"], parts
    with open(os.path.join(folder, "model_index.json")) as file:
        index = json.load(file)
    parts = []
    for part, value in index.items():
        path = os.path.join(folder, part, "config.json")
        if isinstance(value, list) and value[0] in ("diffusers", "transformers") and os.path.exists(path):
            with open(path) as file:
                parts.append((part, *value, json.load(file)))
    repo = os.path.join(os.path.basename(os.path.dirname(folder)), os.path.basename(folder))
    return repo, index["_class_name"], parts


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="*", help="a pipeline's folder with its configurations")
    parser.add_argument("--type", action="append", default=[], help="a published pipeline whose configuration the script knows")
    parser.add_argument("--all", action="store_true", help="every such pipeline")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a parameter of the call")
    parser.add_argument("--dtype", default="bfloat16", help="dtype of the parameters")
    parser.add_argument("--component", action="append", default=[], help="only this component")
    parser.add_argument("--live", action="store_true", help="print the tensors that live at the peak")
    parser.add_argument("--trace", action="store_true", help="print where diffusers failed")
    arguments = parser.parse_args()

    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    jobs = [(os.path.abspath(folder), None) for folder in arguments.folder]
    jobs += [(None, name) for name in (PUBLISHED if arguments.all else arguments.type)]
    for folder, name in jobs:
        repo, pipeline, parts = components(folder, name)
        for component, library, kind, config in parts:
            if arguments.component and component not in arguments.component:
                continue
            row = row_of(repo, component, library, kind, config, pipeline, 8, arguments)
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    sys.exit(main())
