#!/usr/bin/env python3
"""Runs the examples of the documentation for curl, Python and systemd, unchanged, against its own daemon.

    tests/load/pages.py BINARY

The blocks are read off docs/integrations.md, docs/api.md and README.md; only the socket's path and the model's name are
put in. Standard library only; curl, and systemd-analyze where it is installed. Prints what came, and exits with 1 where
something else was expected.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from http.server import ThreadingHTTPServer
from pathlib import Path

import load
from load import MODEL, ROOT, Daemon, report
from speed import Hub

SOCKET = "/run/hf-mem-probe/api.sock"


def blocks(page, language, about):
    """Returns the fenced blocks of a page in a language that contain a word."""
    fenced = re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    return [block for block in fenced if about in block]


def objects(text):
    """Parses consecutive JSON objects."""
    decoder, found, text = json.JSONDecoder(), [], text.strip()
    while text:
        value, end = decoder.raw_decode(text)
        found.append(value)
        text = text[end:].lstrip()
    return found


def for_daemon(block, daemon):
    return block.replace(SOCKET, str(daemon.socket)).replace("owner/name", "Qwen/Qwen3-8B")


def run(command, text, environment):
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=120, env=environment)
    return done.returncode, done.stdout, done.stderr


def commands(block):
    """Returns the block's commands without the one that starts a daemon, since one runs already."""
    joined = [command for command in re.split(r"(?<!\\)\n", block) if command.strip()]
    return [command for command in joined if not command.startswith("hf-mem-probe daemon")]


def curl(page, daemon, environment):
    for number, block in enumerate(blocks(page, "sh", "curl"), 1):
        kinds, codes, lease = [], [], "ID"
        for command in commands(for_daemon(block, daemon)):
            code, out, err = run(["bash"], command.replace("/ID", f"/{lease}"), environment)
            answers = objects(out) if out.lstrip().startswith("{") else []
            codes.append(code)
            for answer in answers:
                lease = (answer.get("lease") or {}).get("id", lease)
                kinds.append(answer.get("verdict") or answer.get("status") or answer.get("state") or sorted(answer)[:3])
        failed = [kind for kind in kinds if isinstance(kind, int)]
        report(f"{page}, curl {number}", not any(codes) and len(kinds) == len(codes) and not failed, answers=kinds, codes=codes)


def python(page, daemon, environment):
    for number, block in enumerate(blocks(page, "python", "http.client"), 1):
        code, out, err = run([sys.executable, "-I", "-"], for_daemon(block, daemon), environment)
        report(f"{page}, Python {number}", (code, out) == (0, "fits fits\n"), printed=repr(out), errors=err[-200:])


def systemd(page, binary, environment):
    """Checks that systemd knows the unit's keys, and that its condition has the documented exit codes."""
    for number, block in enumerate(blocks(page, "ini", "ExecCondition"), 1):
        condition = re.search(r"^ExecCondition=\S+ (.*)$", block, re.MULTILINE).group(1)
        arguments = condition.replace("/srv/models/Qwen3-8B", str(MODEL)).split()
        codes = {
            "fits": run([binary, *arguments, "--gpus", "80GiB"], "", environment)[0],
            "does not fit": run([binary, *arguments, "--gpus", "8GiB"], "", environment)[0],
            "no driver": run([binary, *arguments, "--local", "--nvml", "/nonexistent"], "", environment)[0],
        }
        report(f"{page}, ExecCondition {number}", list(codes.values()) == [0, 1, 255], **codes)
        with tempfile.TemporaryDirectory() as folder:
            unit = Path(folder) / "vllm.service"
            unit.write_text(re.sub(r"(=)/usr/bin/(hf-mem-probe|vllm)", r"\1/bin/true", block))
            try:
                code, _, err = run(["systemd-analyze", "verify", "--recursive-errors=no", str(unit)], "", environment)
            except FileNotFoundError:
                print("skip systemd-analyze: not installed")
                continue
            # An unknown key is only a warning.
            report(f"{page}, unit {number}", (code, err.strip()) == (0, ""), code=code, said=repr(err.strip()[:200]))


def main():
    binary = os.path.abspath(sys.argv[1])
    hub = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    daemon = Daemon(binary, gpus="2x24GiB", hub=f"http://127.0.0.1:{hub.server_port}")
    environment = {"PATH": f"{Path(binary).parent}:{os.environ['PATH']}", "HF_MEM_PROBE_SOCKET": str(daemon.socket)}
    for page in ("docs/integrations.md", "docs/api.md", "README.md"):
        curl(page, daemon, environment)
        python(page, daemon, environment)
        systemd(page, binary, environment)
    daemon.end()
    sys.exit(1 if load.failures else 0)


if __name__ == "__main__":
    main()
