#!/usr/bin/env python3
"""Measures the figures of docs/performance.md that need the daemon as a process.

    cargo build --release --bin hf-mem-probe --example socket_speed
    tests/load/speed.py target/release/hf-mem-probe target/release/examples/socket_speed [--models 200]

Standard library only. Models come from this script's own Hub on the loopback: the shipped Qwen3-8B under many names.
For one caller, daemon, echo and caller are pinned to one processor, so that the figures exclude the cost of waking another
processor. For many callers they use all processors.
"""

import argparse
import json
import os
import statistics
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from load import MODEL, Daemon, question

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """Serves the metadata and files of the shipped Qwen3-8B for any repository."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = self.path.split("?")[0]
        if path.startswith("/api/models/"):
            files = [{"rfilename": file.name, "size": file.stat().st_size} for file in sorted(MODEL.iterdir())]
            return self.give(json.dumps({"id": "/".join(path.split("/")[3:5]), "sha": COMMIT, "siblings": files}).encode())
        data = (MODEL / path.rsplit("/", 1)[-1]).read_bytes()
        bounds = self.headers.get("Range")
        if not bounds:
            return self.give(data)
        first, last = (int(bound) for bound in bounds.removeprefix("bytes=").split("-"))
        part = data[first : last + 1]
        return self.give(part, 206, {"Content-Range": f"bytes {first}-{first + len(part) - 1}/{len(data)}"})

    def give(self, body, status=200, headers=()):
        self.send_response(status)
        for name, value in {"Content-Length": len(body), **dict(headers)}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("socket_speed")
    parser.add_argument("--models", type=int, default=200)
    options = parser.parse_args()
    binary, speed = os.path.abspath(options.binary), os.path.abspath(options.socket_speed)

    starts = []
    for _ in range(15):
        daemon = Daemon(binary, gpus=None, settings='[devices]\nnvml_library = "/nonexistent/libnvidia-ml.so.1"\n')
        daemon.process.kill()
        daemon.process.wait()
        starts.append(daemon.start() * 1e3)
        daemon.end()
    print(f"start to READY, no driver: median {statistics.median(starts):.1f} ms, least {min(starts):.1f} ms")

    hub = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    daemon = Daemon(binary, hub=f"http://127.0.0.1:{hub.server_port}")
    print(f"resident, idle, no model known: {daemon.figures()[0] / 1024:.1f} MiB")
    for number in range(options.models):
        status, text = daemon.ask("POST", "/v1/fits", json.dumps({"model": {"repo": f"owner/model-{number}"}}).encode())
        assert status == 200, text
    print(f"resident, {options.models} models known: {daemon.figures()[0] / 1024:.1f} MiB")

    known = daemon.folder / "known.json"
    known.write_text(json.dumps({"model": {"repo": "owner/model-0"}}))
    sent = daemon.folder / "sent.json"
    sent.write_bytes(question(binary))
    print("model known, 8 devices:")
    for mode in ("one", "many"):
        processor = ["taskset", "-c", "0"] if mode == "one" else []
        if processor:
            subprocess.run(["taskset", "-a", "-p", "-c", "0", str(daemon.process.pid)], capture_output=True, check=True)
        subprocess.run([*processor, speed, str(daemon.socket), str(known), mode], check=True)
        if processor:
            everywhere = f"0-{os.cpu_count() - 1}"
            subprocess.run(["taskset", "-a", "-p", "-c", everywhere, str(daemon.process.pid)], capture_output=True, check=True)
    print("model's headers sent with the question (planned each time):")
    subprocess.run([speed, str(daemon.socket), str(sent), "one"], check=True)

    for what, model in (("known to the daemon", "owner/model-0"), ("local, its headers read and sent", str(MODEL))):
        times = []
        for _ in range(60):
            began = time.perf_counter()
            subprocess.run([binary, "fits", model, "--socket", str(daemon.socket)], capture_output=True, check=True)
            times.append((time.perf_counter() - began) * 1e3)
        print(f"fits as a whole process, model {what}: median {statistics.median(times):.1f} ms, least {min(times):.1f} ms")
    print(f"resident after all requests: {daemon.figures()[0] / 1024:.1f} MiB")
    daemon.end()


if __name__ == "__main__":
    main()
