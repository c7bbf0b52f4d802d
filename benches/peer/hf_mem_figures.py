#!/usr/bin/env python3
"""hf-mem's figures beside hf-mem-probe's, on the same models of a Hub look-alike on loopback, as a Markdown table.

  hf_mem_figures.py --serve SERVE.PY --probe target/release/hf-mem-probe --venv DIR [--context 32768] [--repo owner/name ...]

hf-mem is reached as in hf_mem.py: it has the Hub's address built in, and a shim sends its requests to the look-alike.
"""
import argparse, json, os, subprocess, sys, tempfile, time

from hf_mem import SHIM

REPOS = ["Qwen/Qwen3-8B", "meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen3-30B-A3B", "openai/gpt-oss-20b",
         "openai/gpt-oss-120b", "google/gemma-3-27b-it", "google/gemma-4-26B-A4B",
         "deepseek-ai/DeepSeek-V2-Lite", "deepseek-ai/DeepSeek-V3", "Qwen/Qwen3-Next-80B-A3B-Instruct",
         "Qwen/Qwen3.5-35B-A3B", "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", "MiniMaxAI/MiniMax-M2.5",
         "LiquidAI/LFM2-1.2B", "meta-llama/Llama-4-Scout-17B-16E-Instruct"]


def gib(count):
    return "-" if count is None else "%.2f" % (count / 2**30)


def components(probe, repo, engine, context, env):
    # One rank: what ranks hold twice must not count twice.
    line = [probe, "estimate", repo, "--engine", engine, "--context", str(context), "--tensor-parallel", "1",
            "--pipeline-parallel", "1", "--json"]
    answer = json.loads(subprocess.run(line, env=env, capture_output=True, text=True).stdout)
    found = (answer.get("requirement") or {}).get("components") or []
    total = lambda *names: sum(part["likely_bytes"] for part in found if part["name"] in names)
    return total("weights") or None, (total("kv_cache", "state") or None) if found else None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", required=True)
    parser.add_argument("--probe", required=True)
    parser.add_argument("--venv", required=True)
    parser.add_argument("--context", type=int, default=32768)
    parser.add_argument("--port", type=int, default=8898)
    parser.add_argument("--repo", action="append")
    options = parser.parse_args()
    python = os.path.join(options.venv, "bin", "python")
    if not os.path.exists(python):
        subprocess.check_call([sys.executable, "-m", "venv", options.venv])
        subprocess.check_call([python, "-m", "pip", "install", "--quiet", "hf-mem"])
    endpoint = "http://127.0.0.1:%d" % options.port
    ready = os.path.join(tempfile.mkdtemp(), "ready")
    server = subprocess.Popen([sys.executable, options.serve, "--port", str(options.port), "--quiet", "--ready-file", ready])
    try:
        while not os.path.exists(ready):
            time.sleep(0.05)
        home = tempfile.mkdtemp()
        env = dict(os.environ, PEER_ENDPOINT=endpoint, HF_ENDPOINT=endpoint, HF_TOKEN="hf_ok", HOME=home, XDG_CACHE_HOME=home,
                   HF_MEM_PROBE_SOCKET="/nonexistent", NO_COLOR="1")
        version = subprocess.run([python, "-c", "import importlib.metadata as m; print(m.version('hf-mem'))"],
                                 capture_output=True, text=True).stdout.strip()
        print("GiB at %d tokens, one sequence; hf-mem %s\n" % (options.context, version))
        print("| model | hf-mem weights | hf-mem KV | reference weights | reference KV | vLLM KV | SGLang KV |")
        print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
        for repo in options.repo or REPOS:
            line = [python, "-c", SHIM, "--model-id", repo, "--experimental", "--max-model-len", str(options.context), "--json-output"]
            done, mark = subprocess.run(line, env=env, capture_output=True, text=True), ""
            if done.returncode and "kv-cache-dtype" in done.stderr:
                # It knows the cache's dtype of FP8 checkpoints only.
                line += ["--kv-cache-dtype", "bfloat16"]
                done, mark = subprocess.run(line, env=env, capture_output=True, text=True), " (dtype given)"
            try:
                said = json.loads(done.stdout)
                peer = (gib(said.get("memory") or said.get("weights")), gib(said.get("kv_cache")) + mark)
            except (ValueError, TypeError):
                why = (done.stderr.strip().splitlines() or ["no answer"])[-1]
                peer = (why[:60], "-")
            weights, cache = components(options.probe, repo, "reference", options.context, env)
            _, vllm = components(options.probe, repo, "vllm", options.context, env)
            _, sglang = components(options.probe, repo, "sglang", options.context, env)
            print("| %s | %s | %s | %s | %s | %s | %s |" % (repo, *peer, gib(weights), gib(cache), gib(vllm), gib(sglang)))
            if os.environ.get("PEER_DEBUG"):
                print(done.stdout[:1500], done.stderr[-500:], file=sys.stderr)
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
