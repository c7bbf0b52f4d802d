"""Makes a GGUF file of full size out of its header, with a hole where the weights are."""

import gzip
import os
import shutil

SUFFIXES = (".header.gguf.gz", ".gguf.gz", ".header.gguf", ".gguf")


def name_of(path):
    """The model's name: the file's without the endings of a GGUF file."""
    for suffix in SUFFIXES:
        if path.name.endswith(suffix):
            return path.name.removesuffix(suffix)
    return path.name


def unpacked(path, scratch):
    """The file itself, or what a packed file holds, in the folder `scratch`."""
    if path.suffix != ".gz":
        return path
    target = scratch / f"{name_of(path)}.gguf"
    with gzip.open(path) as packed, open(target, "wb") as header:
        shutil.copyfileobj(packed, header)
    return target


def extended(path, file_bytes, scratch):
    """The file if it has this size, or a copy in `scratch` that has it."""
    if path.stat().st_size >= file_bytes:
        return path
    target = scratch / f"{name_of(path)}.gguf"
    if target != path:
        shutil.copyfile(path, target)
    os.truncate(target, file_bytes)
    return target
