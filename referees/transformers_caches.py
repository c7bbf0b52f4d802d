"""Builds a model of transformers on the meta device, runs one forward pass, and prints what its cache holds.

The model has no weights and the pass computes nothing: tensors have only shapes and dtypes. The row's
`cache_bytes` is the sum of the floating tensors that the cache object holds after the pass, and
`allocated_bytes` what their storages keep: a slice of a window keeps the whole prompt's keys.

One JSON object per model goes to standard output; a model that cannot be built or run gets an `error`.

With `--rows`, small configurations run on the CPU instead, with random weights: classes that ask tensors for
their values run there, too.
"""

import argparse
import collections
import gzip
import json
import os
import re
import signal
import struct
import sys
import time

# Automatic mappings of the classes that generate text.
MAPPINGS = (
    "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES",
    "MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES",
    "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
    "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES",
)

# Dtypes by their names in safetensors files.
STORED_NAMES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
}  # fmt: skip


class TooLong(Exception):
    """A model that takes longer than the limit."""


def class_names(model_type):
    """The classes of a model type that generate text, one from each automatic mapping that has one."""
    from transformers.models.auto import modeling_auto

    names = []
    for mapping in MAPPINGS:
        name = getattr(modeling_auto, mapping, {}).get(model_type)
        for name in name if isinstance(name, (tuple, list)) else [name]:
            if name and name not in names:
                names.append(name)
    return names


def all_model_types():
    """Every model type with a class that generates text."""
    from transformers.models.auto import modeling_auto

    types = []
    for mapping in MAPPINGS:
        for model_type in getattr(modeling_auto, mapping, {}):
            if model_type not in types:
                types.append(model_type)
    return types


def configuration(folder, model_type):
    """The configuration of a folder, or the default one of a model type."""
    from transformers import AutoConfig

    if folder:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    return AutoConfig.for_model(model_type)


def model_classes(config):
    """The classes that the configuration names, then those of its type."""
    import transformers

    names = dict.fromkeys([*(config.architectures or []), *class_names(config.model_type)])
    classes = [getattr(transformers, name, None) for name in names]
    found = [kind for kind in classes if kind is not None]
    if not found:
        raise ValueError(f"no class of {config.model_type} generates text")
    return found


def shorten(config, layers):
    """Keeps the first `layers` layers of the text model, so that slow scans end; returns the former count."""
    text = config.get_text_config(decoder=True)
    had = getattr(text, "num_hidden_layers", None)
    if not layers or not had or had <= layers:
        return None
    for name, value in list(vars(text).items()):
        if isinstance(value, list) and len(value) == had:
            setattr(text, name, value[:layers])
    text.num_hidden_layers = layers
    return had


def build(config, dtype):
    """The first class that accepts the configuration, on the meta device, with floats in `dtype`."""
    first = None
    for kind in model_classes(config):
        try:
            return build_class(kind, config, dtype)
        except TooLong:
            raise
        except Exception as error:
            first = first or error
    raise first


def build_class(kind, config, dtype):
    """A model on the meta device. Parameters that its class keeps in 32 bits stay so."""
    import torch

    text = config.get_text_config(decoder=True)
    text.use_cache = config.use_cache = True
    text.dtype = config.dtype = dtype
    torch.set_default_dtype(dtype)
    try:
        with torch.device("meta"):
            model = kind._from_config(config)
    finally:
        torch.set_default_dtype(torch.float32)

    # The other implementations ask the router's output which experts are in use.
    if hasattr(model, "set_experts_implementation"):
        try:
            model.set_experts_implementation("batched_mm")
        except (ValueError, NotImplementedError):
            pass
    return model.eval()


def inputs(model, tokens):
    """Arguments of a forward pass over `tokens` tokens, by the kind of model."""
    import torch

    config = model.config
    ids = torch.zeros((1, tokens), dtype=torch.long, device="meta")
    if not getattr(config, "is_encoder_decoder", False):
        return [{"input_ids": ids}, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}]

    choices = [{"input_ids": ids, "decoder_input_ids": ids}]
    mels = getattr(config, "num_mel_bins", None) or getattr(getattr(config, "encoder_config", None), "num_mel_bins", None)
    frames = 2 * getattr(config, "max_source_positions", 1500)
    if mels:
        features = torch.zeros((1, mels, frames), dtype=model.dtype, device="meta")
        choices.append({"input_features": features, "decoder_input_ids": ids})
        choices.append({"input_features": features.transpose(1, 2), "decoder_input_ids": ids})
    sound = torch.zeros((1, 480_000), dtype=model.dtype, device="meta")
    choices.append({"input_values": sound, "decoder_input_ids": ids})
    return choices


def run(model, tokens):
    """The outputs of the first arguments that the model accepts."""
    import torch

    first = None
    for arguments in inputs(model, tokens):
        try:
            with torch.no_grad(), torch.device("meta"):
                return model(**arguments, use_cache=True, return_dict=True)
        except TooLong:
            raise
        except Exception as error:
            first = first or error
    raise first


def cache_of(outputs):
    """The cache among the outputs of a pass."""
    for name in ("past_key_values", "cache_params", "state", "mems"):
        found = outputs.get(name) if hasattr(outputs, "get") else getattr(outputs, name, None)
        if found is not None:
            return found
    return None


def held_tensors(value, path, seen):
    """The floating tensors that an object holds, with their paths."""
    import torch

    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, torch.Tensor):
        if value.is_floating_point():
            yield path, value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from held_tensors(item, f"{path}.*" if isinstance(name, int) else f"{path}.{name}", seen)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from held_tensors(item, f"{path}[*]", seen)
    elif type(value).__module__.startswith("transformers") and hasattr(value, "__dict__"):
        if not hasattr(value, "to_dict"):
            for name, item in vars(value).items():
                yield from held_tensors(item, f"{path}.{name}", seen)


def stored_tensors(model):
    """Names, dtypes and shapes of the file that `save_pretrained` writes."""
    state = model.state_dict()
    try:
        from transformers.core_model_loading import revert_weight_conversion

        state = revert_weight_conversion(model, state)
    except ImportError:
        pass
    tied = set(getattr(model, "all_tied_weights_keys", None) or {})
    ignored = getattr(model, "_keys_to_ignore_on_save", None) or []
    return {
        name: (STORED_NAMES[str(tensor.dtype).removeprefix("torch.")], list(tensor.shape), tensor.numel() * tensor.element_size())
        for name, tensor in state.items()
        if name not in tied and not any(re.search(pattern, name) for pattern in ignored)
    }


def save(folder, model, tensors):
    """Writes config.json and the header of the weights' file; returns the file's bytes."""
    os.makedirs(folder, exist_ok=True)
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    at, header = 0, {"__metadata__": {"format": "pt"}}
    for name, (dtype, shape, size) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with gzip.open(os.path.join(folder, "model.safetensors.header.gz"), "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
    return 8 + len(text) + at


def row_of(folder, model_type, arguments):
    """One model's row, or why transformers does not run it."""
    import torch
    import transformers

    row = {"model_type": model_type, "transformers": transformers.__version__}
    if folder:
        row["model"] = os.path.join(os.path.basename(os.path.dirname(folder)), os.path.basename(folder))
    begin = time.process_time()
    try:
        config = configuration(folder, model_type)
        row["model_type"] = config.model_type
        had = shorten(config, arguments.layers)
        model = build(config, getattr(torch, arguments.dtype))
        row["class"] = type(model).__name__
        stored = stored_tensors(model)
        if arguments.save:
            name = row.get("model") or os.path.join("classes", config.model_type)
            row["folder"] = name
            row["file_bytes"] = save(os.path.join(arguments.save, name), model, stored)
        row["stored_bytes"] = sum(size for _, _, size in stored.values())
        row["parameters"] = sum(parameter.numel() for parameter in model.parameters())

        text = config.get_text_config(decoder=True)
        limits = [getattr(text, name, None) for name in ("max_position_embeddings", "n_positions", "max_target_positions")]
        row["tokens"] = min([arguments.tokens, *(limit for limit in limits if isinstance(limit, int) and limit > 0)])
        cache = cache_of(run(model, row["tokens"]))
        shapes, total, storages = collections.Counter(), 0, {}
        for path, tensor in held_tensors(cache, "", set()):
            total += tensor.numel() * tensor.element_size()
            storage = tensor.untyped_storage()
            storages[storage._cdata] = storage.nbytes()
            shapes[f"{path} {str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"] += 1
        if cache is not None:
            row |= {"cache_type": type(cache).__name__, "cache_bytes": total, "allocated_bytes": sum(storages.values())}
        row["cache_tensors"] = dict(shapes)
        if had:
            row["shortened_from_layers"] = had
    except Exception as error:
        if arguments.trace:
            import traceback

            traceback.print_exc()
        lines = str(error).strip().splitlines()
        row["error"] = f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]
    row["cpu_seconds"] = round(time.process_time() - begin, 1)
    return row


def speech_inputs(model, tokens, ids):
    """Arguments of a pass over a short recording or a small image, by the type of model; `None` for text."""
    import torch

    config, kind = model.config, model.config.model_type

    def noise(*shape):
        return torch.randn(*shape).to(model.dtype)

    if kind in ("canary", "cohere_asr", "speech_to_text"):
        return {"input_features": noise(1, 320, 8), "decoder_input_ids": ids}
    if kind in ("speecht5", "speech-encoder-decoder"):
        return {"input_values": noise(1, 3200), "decoder_input_ids": ids}
    if kind in ("moonshine", "moonshine_streaming"):
        return {"input_values": noise(1, 16000), "decoder_input_ids": ids}
    if kind.startswith("seamless_m4t") and "SpeechTo" in type(model).__name__:
        return {"input_features": noise(1, 160, 160), "decoder_input_ids": ids}
    if kind == "voxtral_realtime":
        mels, frames = config.audio_config.num_mel_bins, config.audio_length_per_tok
        return {"input_ids": ids, "input_features": noise(1, mels, frames * tokens)}
    if kind == "kyutai_speech_to_text":
        return {"input_ids": torch.randint(7, 20, (1, tokens, config.num_codebooks + 1))}
    if kind == "vision-encoder-decoder":
        side = config.encoder.image_size
        return {"pixel_values": noise(1, 3, side, side), "decoder_input_ids": ids}
    if kind == "pix2struct":
        vision = config.vision_config
        patches = torch.cat([torch.ones(1, vision.seq_len, 2), torch.randn(1, vision.seq_len, vision.patch_embed_hidden_size)], -1)
        return {"flattened_patches": patches.to(model.dtype), "attention_mask": torch.ones(1, vision.seq_len), "decoder_input_ids": ids}
    if kind == "idefics":
        side, ones = config.vision_config.image_size, torch.ones(1, tokens, dtype=torch.long)
        return {"input_ids": ids, "attention_mask": ones, "pixel_values": noise(1, 1, 3, side, side), "image_attention_mask": ones[..., None]}
    if kind == "blip":
        patches = (config.vision_config.image_size // config.vision_config.patch_size) ** 2
        return {"input_ids": ids, "encoder_hidden_states": noise(1, patches + 1, config.vision_config.hidden_size)}
    if kind == "udop":
        return {"input_ids": ids, "bbox": torch.zeros(1, tokens, 4).to(model.dtype), "decoder_input_ids": ids}
    if kind == "pop2piano":
        return {"inputs_embeds": noise(1, tokens, config.d_model), "decoder_input_ids": ids}
    if kind == "dia":
        channels = config.decoder_config.num_channels
        return {"input_ids": ids[:, :40], "decoder_input_ids": torch.randint(5, 60, (1, tokens, channels))}
    return None


def small_row(row):
    """The row of a small configuration, with the bytes that its cache keeps on the CPU."""
    import torch
    from transformers import AutoConfig

    config = AutoConfig.for_model(**row["config"])
    config.architectures = row["config"].get("architectures")
    text = config.get_text_config(decoder=True)
    text.use_cache = config.use_cache = True
    text.dtype = config.dtype = torch.bfloat16
    torch.set_default_dtype(torch.bfloat16)
    try:
        model = model_classes(config)[0]._from_config(config).eval()
    finally:
        torch.set_default_dtype(torch.float32)

    ids = torch.randint(5, 50, (1, row["tokens"]))
    arguments = speech_inputs(model, row["tokens"], ids)
    if arguments is None:
        arguments = {"input_ids": ids} | ({"decoder_input_ids": ids} if getattr(config, "is_encoder_decoder", False) else {})
    with torch.no_grad():
        # BLIP passes no cache to its decoder outside of `generate`.
        run_model = model.text_decoder if config.model_type == "blip" else model
        outputs = run_model(**arguments, use_cache=True, return_dict=True)

    caches = [cache_of(outputs), getattr(outputs, "encoder_cache", None), getattr(outputs, "padding_cache", None)]
    total = sum(tensor.numel() * tensor.element_size() for _, tensor in held_tensors(caches, "", set()))
    return {"name": row["name"], "tokens": row["tokens"], "cache_bytes": total, "equal": total == row["cache_bytes"]}


def check_rows(path):
    """Prints a row for each line of a file of small configurations."""
    with open(path) as file:
        for line in file:
            print(json.dumps(small_row(json.loads(line))), flush=True)


def stop(signal_number, frame):
    raise TooLong("longer than the limit")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="*", help="a model's folder with its config.json")
    parser.add_argument("--type", action="append", default=[], help="a model type, with its default configuration")
    parser.add_argument("--all", action="store_true", help="every model type that generates text")
    parser.add_argument("--tokens", type=int, default=5000, help="tokens of the pass, where the model has room for them")
    parser.add_argument("--layers", type=int, help="keep only this many layers of the text model")
    parser.add_argument("--dtype", default="bfloat16", help="dtype of the parameters")
    parser.add_argument("--limit", type=int, default=120, help="CPU seconds that one model may take")
    parser.add_argument("--save", help="folder for config.json and the header of each model's weights")
    parser.add_argument("--trace", action="store_true", help="print where transformers failed")
    parser.add_argument("--rows", help="file of small configurations to run on the CPU, in place of models")
    arguments = parser.parse_args()

    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    import torch  # before the first model's time starts
    import torch.fx.experimental._config
    import transformers  # noqa: F401

    # Routers ask which experts have tokens; on the meta device all of them do.
    torch.fx.experimental._config.meta_nonzero_assume_all_nonzero = True
    if arguments.rows:
        check_rows(arguments.rows)
        return

    signal.signal(signal.SIGPROF, stop)
    jobs = [(os.path.abspath(folder), None) for folder in arguments.folder]
    jobs += [(None, model_type) for model_type in arguments.type]
    if arguments.all:
        jobs += [(None, model_type) for model_type in all_model_types()]
    for folder, model_type in jobs:
        signal.setitimer(signal.ITIMER_PROF, arguments.limit)
        row = row_of(folder, model_type, arguments)
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    sys.exit(main())
