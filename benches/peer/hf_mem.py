#!/usr/bin/env python3
"""hf-mem beside hf-mem-probe, in one run, on a Hub look-alike on loopback: requests, bytes and wall time of a cold estimate.

  hf_mem.py --serve SERVE.PY --probe target/release/hf-mem-probe --venv DIR [--latency-ms 50] [--repeat 3] [--repo owner/name ...]

Then, of hf-mem-probe alone: the same question again (no request), 200 askers of one cold model through the daemon (one
asker's requests), and every model while one request in ten fails with 429 or 503 (the right answer, within the budget).

hf-mem has the Hub's address built in, so a shim in front of it sends its requests to the look-alike; nothing else of it is
changed. It is installed from PyPI into --venv on the first run. Each cold run starts with nothing cached; the median of
the repeats is shown. The exit code is 1 where a bar is missed.
"""
import argparse, concurrent.futures, json, os, socket, statistics, subprocess, sys, tempfile, time, urllib.request

# Name, the file that both are asked for, what kind it is.
REPOS = [("deepseek-ai/DeepSeek-V3", None, "mixture, 163 shards"), ("Qwen/Qwen3-8B", None, "dense, sharded"),
         ("Qwen/Qwen2.5-1.5B", None, "dense, one file"), ("Qwen/Qwen3-0.6B-GGUF", "Qwen3-0.6B-Q8_0.gguf", "GGUF"),
         ("black-forest-labs/FLUX.1-schnell", None, "diffusers"), ("black-forest-labs/FLUX.1-dev", None, "diffusers"),
         ("stabilityai/stable-diffusion-xl-base-1.0", None, "diffusers, U-Net"), ("Qwen/Qwen2.5-VL-7B-Instruct", None, "vision"),
         ("Qwen/Qwen2.5-7B-Instruct-AWQ", None, "quantised"), ("google/embeddinggemma-300m", None, "sentence-transformers")]
BUDGET_SECONDS = 30  # hf-mem-probe's own for one model

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


class Bench:
    def __init__(self, options, endpoint):
        self.options, self.endpoint, self.missed = options, endpoint, []
        self.python = os.path.join(options.venv, "bin", "python")

    def get(self, path):
        with urllib.request.urlopen(self.endpoint + path) as answer:
            return json.load(answer)

    def environment(self, home):
        return dict(PATH=os.environ.get("PATH", ""), PEER_ENDPOINT=self.endpoint, HF_ENDPOINT=self.endpoint, HF_TOKEN="hf_ok",
                    NO_COLOR="1", HOME=home, HF_HOME=home, XDG_CACHE_HOME=home)

    def timed(self, command, home):
        self.get("/__stats?reset=1")
        started = time.monotonic()
        done = subprocess.run(command, env=self.environment(home), capture_output=True, text=True)
        wall = time.monotonic() - started
        seen = self.get("/__stats")
        return {"wall": wall, "requests": seen["requests"], "bytes": seen["bytes"], "code": done.returncode,
                "out": done.stdout, "error": (done.stderr.strip().splitlines() or [""])[-1][:100]}

    def cold(self, command):
        runs = []
        for _ in range(self.options.repeat):
            with tempfile.TemporaryDirectory() as home:
                runs.append(self.timed(command, home))
        return dict(runs[-1], wall=statistics.median(run["wall"] for run in runs))

    def theirs(self, repo, file):
        return [self.python, "-c", SHIM, "--model-id", repo] + (["--gguf-file", file] if file else [])

    def ours(self, repo, file):
        return [self.options.probe, "estimate", repo, "--local", "--json"] + (["--file", file] if file else [])

    def bar(self, what, held):
        print("  %-90s %s" % (what, "yes" if held else "NO"))
        if not held:
            self.missed.append(what)

    def beside(self, repos):
        print("%-34s %-22s %21s %21s %21s" % ("", "", "wall s", "requests", "KiB"))
        print("%-34s %-22s %8s %6s %5s %8s %6s %5s %8s %6s %5s" % (("repository", "kind") + ("hf-mem", "ours", "ratio") * 3))
        results = {}
        for repo, file, kind in repos:
            with tempfile.TemporaryDirectory() as home:
                # One run that does not count, so that the look-alike has made its headers.
                self.timed(self.theirs(repo, file), home)
            a, b = self.cold(self.theirs(repo, file)), self.cold(self.ours(repo, file))
            row = []
            for key, scale in (("wall", 1), ("requests", 1), ("bytes", 1024)):
                shape = "%.2f" if key == "wall" else "%.0f"
                row += [shape % (a[key] / scale), shape % (b[key] / scale), "%.1f" % (a[key] / b[key]) if b[key] else "-"]
            print("%-34s %-22s %8s %6s %5s %8s %6s %5s %8s %6s %5s" % tuple([repo, kind] + row), flush=True)
            for name, run in (("hf-mem", a), ("hf-mem-probe", b)):
                if run["code"]:
                    print("    %s: exit %d: %s" % (name, run["code"], run["error"]))
            results[repo] = (a, b)
        return results

    def warm(self, repos):
        counts = []
        for repo, file, _ in repos:
            with tempfile.TemporaryDirectory() as home:
                first, again = self.timed(self.ours(repo, file), home), self.timed(self.ours(repo, file), home)
                counts.append(again["requests"] if again["out"] == first["out"] else -1)
        self.bar("warm: requests %s, the same answers" % counts, not any(counts))

    def crowd(self, repo, one):
        with tempfile.TemporaryDirectory() as home:
            path = os.path.join(home, "api.sock")
            config = os.path.join(home, "config.toml")
            for folder in ("cache", "state"):
                os.mkdir(os.path.join(home, folder))
            with open(config, "w") as file:
                file.write('[socket]\npath = "%s"\ngroup = "%d"\n[hub]\ncache_directory = "%s/cache"\n[leases]\nstate_directory = '
                           '"%s/state"\n' % (path, os.getgid(), home, home))
            daemon = subprocess.Popen([self.options.probe, "daemon", "--config", config, "--gpus", "8xH200"],
                                      env=self.environment(home), stderr=subprocess.DEVNULL)
            try:
                while not os.path.exists(path):
                    time.sleep(0.02)
                self.get("/__stats?reset=1")
                body = json.dumps({"model": {"repo": repo}})
                request = ("POST /v1/fits HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n"
                           "content-length: %d\r\n\r\n%s" % (len(body), body)).encode()

                def ask(_):
                    with socket.socket(socket.AF_UNIX) as client:
                        client.settimeout(60)
                        client.connect(path)
                        client.sendall(request)
                        answer = b"".join(iter(lambda: client.recv(1 << 16), b""))
                    return b'"verdict":"fits"' in answer.replace(b" ", b"")
                with concurrent.futures.ThreadPoolExecutor(200) as pool:
                    answers = list(pool.map(ask, range(200)))
                requests = self.get("/__stats")["requests"]
            finally:
                daemon.terminate()
                daemon.wait()
        self.bar("200 askers of cold %s: %d answers, %d requests" % (repo, sum(answers), requests), all(answers) and requests <= one)

    def failing(self, repos, right):
        self.get("/__config?fail_rate=0.1")
        wrong, slowest, requests, runs = [], 0, 0, 0
        for _ in range(self.options.repeat):
            for repo, file, _ in repos:
                with tempfile.TemporaryDirectory() as home:
                    run = self.timed(self.ours(repo, file), home)
                runs, requests, slowest = runs + 1, requests + run["requests"], max(slowest, run["wall"])
                if run["out"] != right[repo][1]["out"]:
                    wrong.append("%s: exit %d" % (repo, run["code"]))
        self.get("/__config?fail_rate=0")
        self.bar("1 in 10 requests fails: %d of %d right, slowest %.1f s of %d" % (runs - len(wrong), runs, slowest, BUDGET_SECONDS),
                 not wrong and slowest < BUDGET_SECONDS)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", required=True)
    parser.add_argument("--probe", required=True)
    parser.add_argument("--venv", required=True)
    parser.add_argument("--latency-ms", type=int, default=50)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--port", type=int, default=8899)
    parser.add_argument("--repo", action="append")
    options = parser.parse_args()
    options.probe = os.path.abspath(options.probe)
    endpoint = "http://127.0.0.1:%d" % options.port
    bench = Bench(options, endpoint)
    if not os.path.exists(bench.python):
        subprocess.check_call([sys.executable, "-m", "venv", options.venv])
        subprocess.check_call([bench.python, "-m", "pip", "install", "--quiet", "hf-mem"])
    ready = os.path.join(tempfile.mkdtemp(), "ready")
    server = subprocess.Popen([sys.executable, options.serve, "--port", str(options.port), "--latency-ms", str(options.latency_ms),
                               "--quiet", "--ready-file", ready], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not os.path.exists(ready):
            if time.monotonic() > deadline:
                sys.exit("the look-alike did not start")
            time.sleep(0.05)
        repos = [(repo, None, "") for repo in options.repo] if options.repo else REPOS
        results = bench.beside(repos)
        theirs, ours = results[repos[0][0]]
        first = repos[0][0]
        bench.bar("%s cold: %.1f x faster (5)" % (first, theirs["wall"] / ours["wall"]), theirs["wall"] >= 5 * ours["wall"])
        bench.bar("%s cold: 1/%.0f of the requests (1/4)" % (first, theirs["requests"] / ours["requests"]),
                  ours["requests"] * 4 <= theirs["requests"])
        for repo, (theirs, ours) in results.items():
            what = "%s cold: %d requests, hf-mem %d; %.1f x faster (2)" % (
                repo, ours["requests"], theirs["requests"], theirs["wall"] / ours["wall"])
            bench.bar(what, ours["requests"] <= theirs["requests"] and theirs["wall"] >= 2 * ours["wall"])
        bench.warm(repos)
        bench.crowd(first, ours["requests"])
        bench.failing(repos, results)
    finally:
        server.terminate()
        server.wait()
    sys.exit(1 if bench.missed else 0)


if __name__ == "__main__":
    main()
