#!/usr/bin/env python3
"""Measures the daemon's resident memory on a Hub look-alike: idle, after DeepSeek-V3, after every model, and its peak.

    cargo build --release --bin hf-mem-probe
    tests/load/memory.py target/release/hf-mem-probe [--hub ../shared/hub] [--models N] [--check]

Standard library only. The script requests each model once through the socket, with declared GPUs and an empty cache. The daemon
runs with `MALLOC_ARENA_MAX=1`, as in the service unit. `--check` compares the figures with the bars of docs/performance.md and
exits with 1 if one is exceeded. Without the look-alike the script prints that and exits with 0.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from load import ROOT, Daemon

LARGE = "deepseek-ai/DeepSeek-V3"
# MiB: idle, after all models, peak.
BARS = {"idle": 10, "after all": 30, "highest": 64}


def resident(daemon):
    """Returns VmRSS, VmHWM and the anonymous part of VmRSS, in MiB."""
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    read = {line.split(":")[0]: line.split()[1] for line in status.splitlines() if len(line.split()) > 1}
    return [int(read[name]) / 1024 for name in ("VmRSS", "VmHWM", "RssAnon")]


def settled(daemon, seconds):
    """Returns the figures once they are stable for a second, or after `seconds`."""
    end, last, since = time.monotonic() + seconds, None, time.monotonic()
    while time.monotonic() < end:
        now = resident(daemon)
        if last is None or abs(now[0] - last[0]) > 0.1:
            last, since = now, time.monotonic()
        elif time.monotonic() - since >= 1:
            break
        time.sleep(0.05)
    return resident(daemon)


def serve(folder, port):
    """Starts the look-alike and waits until it listens."""
    ready = Path(tempfile.mkdtemp(prefix="memory-")) / "ready"
    command = [sys.executable, folder / "serve.py", "--port", str(port), "--quiet", "--ready-file", ready]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while not ready.exists():
        if server.poll() is not None or time.monotonic() > end:
            sys.exit("the look-alike did not start")
        time.sleep(0.05)
    return server


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--hub", default=ROOT.parent / "shared/hub", type=Path)
    parser.add_argument("--port", type=int, default=8897)
    parser.add_argument("--models", type=int, help="only the first N models")
    parser.add_argument("--only", help="only models whose name contains this")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a bar is exceeded")
    parser.add_argument("--verbose", action="store_true", help="print the figures after each model")
    options = parser.parse_args()
    if not (options.hub / "serve.py").exists():
        print(f"skipped: no Hub look-alike in {options.hub}")
        return 0
    server = serve(options.hub, options.port)
    address = f"http://127.0.0.1:{options.port}"
    try:
        return measure(options, address)
    finally:
        server.terminate()
        server.wait()


def measure(options, address):
    with urllib.request.urlopen(f"{address}/__ids") as answer:
        known = json.load(answer)
    described = options.hub / "models"
    names = [name for name in known if (described / name / "meta.json").exists()][: options.models]
    names = [name for name in names if not options.only or options.only in name]
    environment = {"MALLOC_ARENA_MAX": "1", "HF_TOKEN": "hf_ok", **{k: v for k, v in os.environ.items() if k.startswith(("MALLOC_", "GLIBC_", "MIMALLOC_"))}}
    daemon = Daemon(os.path.abspath(options.binary), hub=address, environment=environment, patience=("120s", "60s"))
    try:
        figures = {"idle": settled(daemon, 3)}
        daemon_ask(daemon, LARGE)
        figures["after one"] = settled(daemon, 5)
        verdicts = {}
        for name in names:
            verdict = daemon_ask(daemon, name)
            verdicts[verdict] = verdicts.get(verdict, 0) + 1
            if options.verbose:
                print("%-60s %s" % (name, " ".join("%.1f" % figure for figure in resident(daemon))), flush=True)
        figures["after all"] = settled(daemon, 5)
    finally:
        daemon.end()
    for what, label in (("idle", "idle"), ("after one", f"after {LARGE}"), ("after all", f"after {len(names)} models")):
        print("%-34s %5.1f MiB resident, %5.1f of it anonymous" % (label, figures[what][0], figures[what][2]))
    highest = figures["after all"][1]
    print("%-34s %5.1f MiB" % ("highest (VmHWM)", highest))
    print("verdicts: " + ", ".join(f"{verdict} {count}" for verdict, count in sorted(verdicts.items())))
    found = {"idle": figures["idle"][0], "after all": figures["after all"][0], "highest": highest}
    missed = [f"{what}: {found[what]:.1f} of {bar} MiB" for what, bar in BARS.items() if found[what] > bar]
    for line in missed:
        print(f"above its bar: {line}")
    return 1 if missed and options.check else 0


def daemon_ask(daemon, name):
    """Returns the verdict on one model."""
    status, text = daemon.ask("POST", "/v1/fits", json.dumps({"model": {"repo": name}}).encode(), timeout=120)
    if status != 200:
        sys.exit(f"{name}: {status} {text[:300]}")
    return json.loads(text)["verdict"]


if __name__ == "__main__":
    sys.exit(main())
