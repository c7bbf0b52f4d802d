"""Runs the planner over models and settings, and prints a row for each.

A file may be a whole GGUF file, or only its header (`.gguf.gz` is a packed header): what is missing is
added to a copy as a hole, because a `no_alloc` pass reads no weights. One JSON object per model and
setting goes to standard output; what llama.cpp refuses gets an `error`.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import headers

class Model:
    """A GGUF file of full size, in a scratch folder if the given file is only a header."""

    def __init__(self, planner, path, file_bytes, scratch):
        header = headers.unpacked(path, scratch)
        done = subprocess.run([planner, header, "only=sizes"], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{path}: {reason(done)}")

        sizes = json.loads(done.stdout)
        self.name = headers.name_of(path)
        self.header_bytes = sizes["header_bytes"]
        self.file_bytes = file_bytes or sizes["file_bytes"]
        self.path = headers.extended(header, self.file_bytes, scratch)


def reason(done):
    """Why llama.cpp ended: where it aborted, or its last message before the planner's own."""
    lines = [line.strip()[:300] for line in done.stderr.splitlines() if line.strip()]
    if done.returncode < 0:
        aborts = [line for line in lines if "GGML_ASSERT" in line or "GGML_ABORT" in line]
        lines = aborts[:1] or lines
    elif len(lines) > 1:
        lines.pop()
    return lines[-1] if lines else f"ended with status {done.returncode}"


def row_of(arguments, model, draft, settings):
    """The row of one model with these settings, and with a draft model or None."""
    command = [arguments.planner, model.path]
    command += [f"compute_capability={round(float(arguments.capability) * 100)}", f"memory={arguments.memory}"]
    command += ["trace=1"] if arguments.trace else []
    command += [f"draft={draft.path}"] if draft else []
    command += [f"{name}={value}" for name, value in settings.items()]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "GGML_NO_BACKTRACE": "1"})
    if arguments.trace:
        sys.stderr.write(done.stderr)

    row = {
        "model": model.name,
        "file_bytes": model.file_bytes,
        "header_bytes": model.header_bytes,
        "build": arguments.build,
        "settings": settings,
    }
    if draft:
        row["draft_model"] = draft.name
    if done.returncode == 2:
        sys.exit(reason(done))
    if done.returncode != 0:
        return {**row, "error": reason(done)}
    return {**row, **json.loads(done.stdout)}


def asked_settings(arguments, models):
    """Pairs of a model and its settings, in the order in which rows are printed."""
    if not arguments.like:
        for model in models:
            yield model, dict(arguments.set)
        return

    by_name = {model.name: model for model in models}
    for line in open(arguments.like):
        row = json.loads(line)
        if row["model"] in by_name:
            yield by_name[row["model"]], row["settings"] | dict(arguments.set)


def pair(text):
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"not a setting, NAME=VALUE: {text}")
    return name, value


def main():
    parser = argparse.ArgumentParser(prog="referees/llama_cpp", description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="+", type=pathlib.Path, help="a GGUF file, or its header (.gguf.gz)")
    parser.add_argument("--set", type=pair, action="append", default=[], help="a setting, NAME=VALUE")
    parser.add_argument("--draft", type=pathlib.Path, help="a GGUF file, or its header, that drafts for each model")
    parser.add_argument("--like", help="rows in JSON: repeat their settings for the files that bear their models' names")
    parser.add_argument("--file-bytes", type=int, help="size of the whole file; default: where its last tensor ends")
    parser.add_argument("--capability", default="8.9", help="compute capability of the devices")
    parser.add_argument("--memory", type=int, default=80 << 30, help="free bytes of each device")
    parser.add_argument("--trace", action="store_true", help="print the messages of llama.cpp")
    parser.add_argument("--planner", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--build", required=True, help=argparse.SUPPRESS)
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryDirectory() as second:
        paths = arguments.file
        models = [Model(arguments.planner, path, arguments.file_bytes, pathlib.Path(scratch)) for path in paths]
        draft = arguments.draft and Model(arguments.planner, arguments.draft, None, pathlib.Path(second))
        for model, settings in asked_settings(arguments, models):
            print(json.dumps(row_of(arguments, model, draft, settings)), flush=True)


if __name__ == "__main__":
    main()
