"""Writes small Whisper models with CTranslate2's own converter, runs them on the CPU, and prints what they take.

Files: the length of `model.bin` in each type, and how the library resolves each compute type.
Blocks: the live blocks of the process at the peak of a transcription, by size, in multiples of one layer's keys (of the
audio, or of the text). They show which caches each beam and each sampled candidate has for itself.

One JSON object per case goes to standard output.
"""

import argparse
import collections
import ctypes
import json
import os
import subprocess
import sys
import tempfile

import ctranslate2
import numpy as np
from ctranslate2.specs import whisper_spec

TYPES = ("float32", "float16", "bfloat16", "int8_float32", "int8_float16", "int8_bfloat16", "int16")
SPECIAL = (
    "<|endoftext|> <|startoftranscript|> <|en|> <|translate|> <|transcribe|> <|startoflm|> <|startofprev|> "
    "<|nospeech|> <|notimestamps|>"
).split()
TIMES = 20


def fill(spec, sizes):
    """Sets every variable of the specification to random numbers."""
    rng = np.random.default_rng(0)
    width, inner = sizes["width"], sizes["inner"]

    def random(*shape):
        return (rng.standard_normal(shape) * 0.02).astype(np.float32)

    def linear(layer, *shape):
        layer.weight, layer.bias = random(*shape), random(shape[0])

    def norm(layer):
        layer.gamma, layer.beta = random(width), random(width)

    def block(layer):
        norm(layer.self_attention.layer_norm)
        linear(layer.self_attention.linear[0], 3 * width, width)
        linear(layer.self_attention.linear[1], width, width)
        norm(layer.ffn.layer_norm)
        linear(layer.ffn.linear_0, inner, width)
        linear(layer.ffn.linear_1, width, inner)

    encoder, decoder = spec.encoder, spec.decoder
    linear(encoder.conv1, width, sizes["mels"], 3)
    linear(encoder.conv2, width, width, 3)
    encoder.position_encodings.encodings = random(sizes["positions"], width)
    decoder.position_encodings.encodings = random(448, width)
    decoder.embeddings.weight = random(sizes["vocabulary"], width)
    decoder.projection.weight = decoder.embeddings.weight
    norm(encoder.layer_norm)
    norm(decoder.layer_norm)

    for layer in encoder.layer:
        block(layer)
    for layer in decoder.layer:
        block(layer)
        norm(layer.attention.layer_norm)
        for number, times in enumerate((1, 2, 1)):
            linear(layer.attention.linear[number], times * width, width)


def write(folder, sizes, quantization=None):
    """Writes a model in `folder`, and returns the length of its file."""
    spec = whisper_spec.WhisperSpec(sizes["encoder"], sizes["heads"], sizes["decoder"], sizes["heads"])
    fill(spec, sizes)

    words = sizes["vocabulary"] - len(SPECIAL) - TIMES
    times = ["<|%.2f|>" % (0.02 * time) for time in range(TIMES)]
    spec.register_vocabulary(["t%d" % word for word in range(words)] + SPECIAL + times)
    spec.config.suppress_ids = spec.config.suppress_ids_begin = spec.config.lang_ids = []
    spec.config.alignment_heads = [[0, 0]]
    spec.validate()
    spec.optimize(quantization)
    os.makedirs(folder, exist_ok=True)
    spec.save(folder)
    return os.path.getsize(os.path.join(folder, "model.bin"))


def files():
    """Prints the length of a small model in each type, and the types that the CPU loads it with."""
    sizes = dict(encoder=2, decoder=3, heads=4, width=64, inner=256, vocabulary=512, mels=80, positions=1500)
    for quantization in TYPES:
        with tempfile.TemporaryDirectory() as folder:
            row = {"type": quantization, "ctranslate2": ctranslate2.__version__}
            try:
                row["bytes"] = write(folder, sizes, quantization)
                loaded = ctranslate2.models.Whisper(folder, device="cpu")
                row["loaded"] = loaded.compute_type
            except RuntimeError as error:
                row["error"] = str(error)
            print(json.dumps(row), flush=True)


def blocks(kind, chunks, beams, candidates):
    """Prints the live blocks at the peak of one transcription of `chunks` chunks."""
    sizes = dict(encoder=1, decoder=6, heads=8, width=512, inner=2048, vocabulary=1024, mels=80, positions=1500)
    shim = ctypes.CDLL(None)
    shim.live_blocks_reset.argtypes = [ctypes.c_size_t]
    shim.live_blocks_at_peak.restype = ctypes.c_size_t

    with tempfile.TemporaryDirectory() as folder:
        write(folder, sizes)
        model = ctranslate2.models.Whisper(folder, device="cpu", compute_type="float32", intra_threads=1)

    width, positions, heads = sizes["width"], sizes["positions"], sizes["heads"]
    rng = np.random.default_rng(0)
    if kind == "encode":
        shape = (chunks, sizes["mels"], 2 * positions)
    else:
        shape = (chunks, positions, width)
    features = ctranslate2.StorageView.from_array(rng.standard_normal(shape).astype(np.float32))

    first = sizes["vocabulary"] - TIMES - len(SPECIAL)
    prompt = [first + 1, first + 2, first + 4, first + 8]
    shim.live_blocks_reset(128 << 10)
    length = 0
    if kind == "encode":
        model.encode(features)
    else:
        options = {"beam_size": beams}
        if kind == "sample":
            options = {"beam_size": 1, "num_hypotheses": candidates, "sampling_topk": 0, "sampling_temperature": 1.0}
        results = model.generate(
            features, [prompt] * chunks, max_length=448, suppress_tokens=[first], suppress_blank=False, **options
        )
        length = len(prompt) - 1 + len(results[0].sequences_ids[0])

    room = (ctypes.c_size_t * 65536)()
    found = list(room[: shim.live_blocks_at_peak(room, len(room))])
    hypotheses = candidates if kind == "sample" else beams

    # A block is a little longer than its tensor.
    units = {
        "audio_keys": 4 * chunks * positions * width,
        "audio_keys_of_candidates": 4 * chunks * positions * width * candidates,
        "text_keys": 4 * chunks * length * width * hypotheses,
        "hidden": 4 * chunks * positions * width,
        "scores": 4 * chunks * heads * positions * positions,
    }
    named = collections.Counter()
    for size in found:
        near = [name for name, unit in units.items() if unit and -0.01 * unit <= size - unit <= 0.02 * unit]
        named["/".join(near) or str(size)] += 1

    row = {"kind": kind, "chunks": chunks, "beams": beams, "candidates": candidates, "tokens": length}
    row |= {"decoder_layers": sizes["decoder"], "bytes_at_peak": sum(found), "units": units, "blocks": dict(named)}
    print(json.dumps(row), flush=True)


def main():
    """Prints all rows; each case with blocks runs in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--case", nargs=4, metavar=("KIND", "CHUNKS", "BEAMS", "CANDIDATES"))
    parser.add_argument("--shim", help="the library of live_blocks.c")
    arguments = parser.parse_args()
    if arguments.case:
        kind, *numbers = arguments.case
        return blocks(kind, *map(int, numbers))

    files()
    cases = ("beam 4 1 1", "beam 4 5 1", "sample 4 1 5", "encode 1 1 1", "encode 4 1 1")
    for case in cases if arguments.shim else ():
        environment = os.environ | {"LD_PRELOAD": arguments.shim}
        command = [sys.executable, __file__, "--case", *case.split()]
        subprocess.run(command, env=environment, check=True)


if __name__ == "__main__":
    main()
