#!/usr/bin/env python3
"""Derives the engine columns of vectors.json from each vector's `layers` and settings alone, and says what differs.

A second implementation, written from the formulas in docs/conformance.md and sharing no code with the program under test:
python3 conformance/derive.py [--write] [vectors.json]; exit code 1 where a column disagrees, unless --write writes it.
"""
import json, math, os, sys

BLOCK, STEP_TOKENS, SEQUENCES = 16, 8192, 1024
# Tokens between two checkpoints of a gated delta net.
CHECKPOINT_TOKENS = 64


def ceil(number, by):
    return -(-number // by)


def state_elements(layer):
    """(convolution, recurrence) of one sequence in one layer; None where the layer has no state."""
    kind, get = layer["kind"], layer.get
    if kind == "mamba1":
        return get("inner") * (get("conv") - 1), get("inner") * get("state")
    if kind == "mamba2":
        return (get("inner") + 2 * get("groups") * get("state")) * (get("conv") - 1), get("heads") * get("head_dim") * get("state")
    if kind == "gated_delta":
        keys, values = get("key_heads") * get("key_dim"), get("value_heads") * get("value_dim")
        return (2 * keys + values) * (get("conv") - 1), values * get("key_dim")
    if kind == "kda":
        return 3 * get("heads") * get("head_dim") * (get("conv") - 1), get("heads") * get("head_dim") ** 2
    if kind == "lightning":
        return 0, get("heads") * get("head_dim") ** 2
    if kind == "short_conv":
        return get("width") * (get("conv") - 1), 0
    if kind == "rwkv":
        return get("token_shift") * get("hidden"), get("hidden") * get("head_size")
    return None


def row(layer):
    """Elements that one token leaves in one layer."""
    if layer["kind"] == "latent":
        return layer["rank"] + layer["rope_dim"]
    return layer["kv_heads"] * (layer["key_dim"] + layer["value_dim"])


def own(layers):
    """Layers that keep something."""
    return [layer for layer in layers if layer["kind"] != "bidirectional" and not layer.get("shares_cache")]


def vllm(vector):
    context, flight, state_bytes = vector["context"], 2 * STEP_TOKENS, vector["state_bytes"]
    kinds, checkpoints, step = {}, 0, 1
    for layer in own(vector["layers"]):
        state = state_elements(layer)
        if state is not None:
            each = 4 if layer["kind"] in ("kda", "lightning") else state_bytes
            key = ("state", 2 * state[0] + each * state[1], None)
            # Mamba-2 and gated delta nets export a checkpoint during prefill, the latter on a grid of tokens. The
            # gated delta nets of OLMo-Hybrid run on a kernel without exports.
            if layer["kind"] == "mamba2":
                checkpoints = 1
            elif layer["kind"] == "gated_delta" and vector["config"]["model_type"] != "olmo_hybrid":
                checkpoints, step = 1, CHECKPOINT_TOKENS
        else:
            span = "full" if layer["kind"] == "latent" else layer["kind"]
            tokens = layer.get("tokens") if span in ("sliding", "chunked", "cross") else None
            key = (span, 2 * row(layer) + (132 if layer.get("indexer") else 0), tokens)
        kinds[key] = kinds.get(key, 0) + layer["count"]
    latent = any(layer["kind"] == "latent" for layer in vector["layers"])
    sparse = any(layer.get("indexer") for layer in vector["layers"])
    tokens = [key for key in kinds if key[0] != "state"]
    states = [key for key in kinds if key[0] == "state"]
    block = 64 if sparse else BLOCK
    if not tokens:
        width = sum(key[1] * count for key, count in kinds.items())
        return {"bytes_per_block": width, "kv_bytes": width}

    def blocks(key, size):
        if key[0] == "sliding":
            return ceil(min(key[2] - 1 + flight, context), size) + 1
        if key[0] == "chunked":
            return ceil(min(key[2] + flight, context), size)
        return ceil(key[2], size) if key[0] == "cross" else ceil(context, size)

    if len(kinds) == 1 or (not states and len({(key[0], key[2]) for key in kinds}) == 1):
        width = sum(key[1] * count * block for key, count in kinds.items())
        return {"block_tokens": block, "bytes_per_block": width, "kv_bytes": width * blocks(tokens[0], block)}
    widest = max(key[1] for key in tokens)
    if states:
        # Attention's block grows until its page holds a state.
        step = math.lcm(max(block, 128) if latent else block, step)
        block = step * ceil(max(key[1] for key in states), step * widest)
    few, many = min(kinds.values()), max(kinds.values())
    group = many if many * 2 < few * 3 else few
    needed = 0
    for key, count in kinds.items():
        each = 2 + checkpoints if key[0] == "state" else blocks(key, block * (widest // key[1]))
        needed += ceil(count, group) * each
    width = group * block * widest
    return {"block_tokens": block, "bytes_per_block": width, "kv_bytes": width * needed}


def sglang(vector):
    full = window = 0
    for layer in own(vector["layers"]):
        if state_elements(layer) is not None:
            continue
        each = layer["count"] * (2 * row(layer) + (132 if layer.get("indexer") else 0))
        if layer["kind"] in ("sliding", "chunked") and vector.get("sglang_window_pool"):
            window += each
        else:
            full += each
    return {"bytes_per_token": full + ceil(window * 4, 5)}


def llama_cpp(vector):
    pad = lambda cells: ceil(cells, 256) * 256
    context, kv, states = pad(vector["context"]), 0, 0
    for layer in own(vector["layers"]):
        state = state_elements(layer)
        if state is not None:
            states += layer["count"] * 4 * sum(state)
            continue
        cells = context
        if layer["kind"] in ("sliding", "chunked"):
            cells = pad(min(context, layer["tokens"] + 512))
        kv += layer["count"] * cells * 2 * (row(layer) + layer.get("indexer", 0))
    return {"kv_bytes": kv, "state_bytes": states}


def main():
    arguments = [argument for argument in sys.argv[1:] if argument != "--write"]
    path = arguments[0] if arguments else os.path.join(os.path.dirname(__file__), "vectors.json")
    checked = wrong = 0
    text = open(path).read()
    for vector in json.loads(text)["vectors"]:
        for name, derive in (("vllm", vllm), ("sglang", sglang), ("llama_cpp", llama_cpp)):
            if name in vector:
                checked += 1
                derived = derive(vector)
                if derived != vector[name]:
                    wrong += 1
                    print("%s: %s states %s, derived %s" % (vector["name"], name, vector[name], derived))
                    old, new = ('"%s": %s' % (name, json.dumps(column)) for column in (vector[name], derived))
                    start = text.index(json.dumps(vector["name"]))
                    text = text[:start] + text[start:].replace(old, new, 1)
    if "--write" in sys.argv and wrong:
        open(path, "w").write(text)
        return 0
    print("%d columns derived, %d differ" % (checked, wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
