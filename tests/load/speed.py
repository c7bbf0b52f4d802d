#!/usr/bin/env python3
"""The figures of docs/performance.md that need the daemon as a process.

    cargo build --release --bin hf-mem-probe --example socket_speed
    tests/load/speed.py target/release/hf-mem-probe target/release/examples/socket_speed
"""

import os
import statistics
import subprocess
import sys
import time

from load import MODEL, Daemon, question


def main():
    binary, *speed = (os.path.abspath(path) for path in sys.argv[1:3])
    starts = []
    for _ in range(15):
        daemon = Daemon(binary, gpus=None, settings='[devices]\nnvml_library = "/nonexistent/libnvidia-ml.so.1"\n')
        daemon.process.kill()
        daemon.process.wait()
        starts.append(daemon.start() * 1e3)
        daemon.end()
    print(f"start to READY, no driver: median {statistics.median(starts):.1f} ms, least {min(starts):.1f} ms")

    daemon = Daemon(binary)
    body = question(binary)
    print(f"resident, idle, no model known: {daemon.figures()[0] / 1024:.1f} MiB")
    path = daemon.folder / "body.json"
    path.write_bytes(body)
    daemon.ask("POST", "/v1/fits", body)
    if speed:
        subprocess.run([*speed, str(daemon.socket), str(path)], check=True)
    times = []
    for _ in range(60):
        began = time.perf_counter()
        subprocess.run([binary, "fits", str(MODEL), "--socket", str(daemon.socket)], capture_output=True, check=True)
        times.append((time.perf_counter() - began) * 1e3)
    print(f"fits as a whole process (local model, its headers read and sent): median {statistics.median(times):.1f} ms")
    print(f"resident after all this: {daemon.figures()[0] / 1024:.1f} MiB")
    daemon.end()


if __name__ == "__main__":
    main()
