#!/usr/bin/env python3
"""Writes the table of the architectures that an engine's releases have, from unpacked wheels.

FOLDER holds one folder for each release, named by its version, with the wheel's Python code:
vLLM's `vllm/model_executor/models/registry.py`, SGLang's `sglang/srt/models/*.py`. The files are
parsed, never run. Architectures that every release has are left out: the table says nothing of them.

    referees/architecture_tables.py vllm FOLDER > crates/core/src/engines/profiles/architectures/vllm.toml
"""

import argparse
import ast
import re
from pathlib import Path

# Suffixes that engines replace to run a generative class for pooling (vLLM `config/model.py`,
# `_SUFFIX_TO_DEFAULTS`). A release may run such a class under the name of its generative sibling.
POOLING = (
    "ForTextEncoding", "EmbeddingModel", "ForSequenceClassification", "ForTokenClassification",
    "ForAudioClassification", "ForImageClassification", "ForVideoClassification",
    "ClassificationModel", "ForRewardModeling", "RewardModel", "ForSequenceEmbedding",
)  # fmt: skip


def numbers(version):
    return tuple(int(number) for number in re.findall(r"\d+", version))


def dictionary_names(tree, *, without):
    """The string keys of the module's dictionaries of models."""
    names = set()
    for node in tree.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        value = getattr(node, "value", None)
        if not isinstance(target, ast.Name) or not isinstance(value, ast.Dict):
            continue
        if not target.id.endswith("MODELS") or any(part in target.id for part in without):
            continue
        names |= {key.value for key in value.keys if isinstance(key, ast.Constant)}
    return names


def vllm_names(release):
    models = release / "vllm/model_executor/models"
    for name in ("registry.py", "__init__.py"):
        if (models / name).exists():
            tree = ast.parse((models / name).read_text())
            names = dictionary_names(
                tree, without=("PREVIOUSLY", "OOT", "BACKEND", "ROCM", "PARTIALLY", "SPECULATIVE")
            )
            if names:
                return names
    raise SystemExit(f"{release}: no registry")


def sglang_names(release):
    """Every class that a module of `srt/models` names as its entry."""
    names = set()
    for file in sorted((release / "sglang/srt/models").glob("**/*.py")):
        for node in ast.parse(file.read_text("utf-8-sig")).body:
            if not isinstance(node, ast.Assign) or getattr(node.targets[0], "id", "") != "EntryClass":
                continue
            names |= {part.id for part in ast.walk(node.value) if isinstance(part, ast.Name)}
    return names


READERS = {"vllm": vllm_names, "sglang": sglang_names}


def spans(releases, names_of):
    """For each architecture the first release that has it and, if it was removed, the first without it."""
    found = {}
    for release in releases:
        for name in names_of[release]:
            first, _ = found.get(name, (release, release))
            found[name] = (first, release)

    after = dict(zip(releases, releases[1:]))
    return {
        name: [first] if last == releases[-1] else [first, after[last]] for name, (first, last) in found.items()
    }


def is_pooling(name):
    return name.endswith(POOLING) or (name.endswith("Model") and not name.endswith("LMHeadModel"))


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("engine", choices=sorted(READERS))
    arguments.add_argument("folder", type=Path)
    options = arguments.parse_args()

    folders = [path for path in options.folder.iterdir() if path.is_dir()]
    releases = sorted((path.name for path in folders), key=numbers)
    names_of = {name: READERS[options.engine](options.folder / name) for name in releases}
    table = spans(releases, names_of)

    print("# Architectures that only some releases have: the first release that has it and, if it was")
    print("# removed, the first one without it. Written by referees/architecture_tables.py from the wheels of")
    print("# these releases; an architecture that is not listed is in all of them, or in none.\n")
    print("releases = [")
    for start in range(0, len(releases), 10):
        print("    " + " ".join(f'"{release}",' for release in releases[start : start + 10]))
    print("]\n")
    print("[architectures]")
    for name, span in sorted(table.items()):
        if span != [releases[0]] and not is_pooling(name):
            bounds = ", ".join(f'"{release}"' for release in span)
            print(f"{name} = [{bounds}]")


if __name__ == "__main__":
    main()
