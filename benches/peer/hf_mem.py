#!/usr/bin/env python3
"""hf-mem beside hf-mem-probe, in one run, on a Hub look-alike on loopback: requests, bytes and wall time of a cold estimate.

  hf_mem.py --serve SERVE.PY --probe target/release/hf-mem-probe --venv DIR [--latency-ms 50] [--repo owner/name ...]

hf-mem has the Hub's address built in, so a shim in front of it sends its requests to the look-alike; nothing else of it is
changed. It is installed from PyPI into --venv on the first run. Each program starts with nothing cached.
"""
import argparse, json, os, subprocess, sys, tempfile, time, urllib.request

REPOS = ["deepseek-ai/DeepSeek-V3", "Qwen/Qwen3-8B", "meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen3-30B-A3B",
         "black-forest-labs/FLUX.1-schnell", "google/embeddinggemma-300m"]

SHIM = """
import os, sys
import httpx2
base = os.environ["PEER_ENDPOINT"]
request = httpx2.AsyncClient.request
async def redirected(self, method, url, *args, **kwargs):
    return await request(self, method, str(url).replace("https://huggingface.co", base), *args, **kwargs)
httpx2.AsyncClient.request = redirected
from hf_mem import cli
sys.argv = ["hf-mem"] + sys.argv[1:]
cli.main()
"""


def stats(endpoint, reset=False):
    with urllib.request.urlopen(endpoint + "/__stats" + ("?reset=1" if reset else "")) as answer:
        return json.load(answer)


def timed(endpoint, command, env):
    stats(endpoint, reset=True)
    started = time.monotonic()
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    wall = time.monotonic() - started
    seen = stats(endpoint)
    return {"wall": wall, "requests": seen["requests"], "bytes": seen["bytes"], "code": done.returncode,
            "error": (done.stderr.strip().splitlines() or [""])[-1][:100]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", required=True)
    parser.add_argument("--probe", required=True)
    parser.add_argument("--venv", required=True)
    parser.add_argument("--latency-ms", type=int, default=50)
    parser.add_argument("--port", type=int, default=8899)
    parser.add_argument("--repo", action="append")
    options = parser.parse_args()
    python = os.path.join(options.venv, "bin", "python")
    if not os.path.exists(python):
        subprocess.check_call([sys.executable, "-m", "venv", options.venv])
        subprocess.check_call([python, "-m", "pip", "install", "--quiet", "hf-mem"])
    endpoint = "http://127.0.0.1:%d" % options.port
    ready = os.path.join(tempfile.mkdtemp(), "ready")
    server = subprocess.Popen([sys.executable, options.serve, "--port", str(options.port), "--latency-ms", str(options.latency_ms),
                               "--quiet", "--ready-file", ready])
    try:
        deadline = time.monotonic() + 60
        while not os.path.exists(ready):
            if time.monotonic() > deadline:
                sys.exit("the look-alike did not start")
            time.sleep(0.05)
        print("%-38s %21s %21s %21s" % ("", "wall s", "requests", "KiB"))
        print("%-38s %8s %6s %5s %8s %6s %5s %8s %6s %5s" % (("repository",) + ("hf-mem", "ours", "ratio") * 3))
        for repo in options.repo or REPOS:
            env = dict(os.environ, PEER_ENDPOINT=endpoint, HF_ENDPOINT=endpoint, HF_TOKEN="hf_ok", NO_COLOR="1")
            with tempfile.TemporaryDirectory() as home:
                env.update(HOME=home, HF_HOME=home, XDG_CACHE_HOME=home)
                # One run of each that does not count, so that the look-alike has made its headers; ours caches nothing then.
                timed(endpoint, [python, "-c", SHIM, "--model-id", repo], env)
                theirs = timed(endpoint, [python, "-c", SHIM, "--model-id", repo], env)
                ours = timed(endpoint, [options.probe, "estimate", repo, "--local", "--json"], env)
            row = []
            for key, scale in (("wall", 1), ("requests", 1), ("bytes", 1024)):
                a, b = theirs[key] / scale, ours[key] / scale
                shape = "%.2f" if key == "wall" else "%.0f"
                row += [shape % a, shape % b, "%.1f" % (a / b) if b else "-"]
            print("%-38s %8s %6s %5s %8s %6s %5s %8s %6s %5s" % tuple([repo] + row))
            for name, run in (("hf-mem", theirs), ("hf-mem-probe", ours)):
                if run["code"]:
                    print("    %s: exit %d: %s" % (name, run["code"], run["error"]))
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
