#!/usr/bin/env python3
"""Load and faults against a running daemon. Prints figures, and exits with 1 if a check fails.

    tests/load/load.py BINARY [--driver libsimulated_nvml.so] [--soak SECONDS] [SCENARIO ...]

Standard library only. It starts daemons of its own in a temporary folder; nothing outside it is touched. `disk_full`
and `read_only` mount small file systems and need root. Deadlines are made short so that a run takes a minute or two.
"""

import argparse
import http.server
import json
import os
import re
import resource
import select
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "tests/fixtures/Qwen3-8B"
GIB = 1 << 30
failures = []


def report(scenario, held, **figures):
    words = ", ".join(f"{name} {value}" for name, value in figures.items())
    print(f"{'ok  ' if held else 'FAIL'} {scenario}: {words}", flush=True)
    if not held:
        failures.append(scenario)


class Daemon:
    """A daemon in a folder of its own."""

    def __init__(self, binary, gpus="8xH100-80GB", settings="", arguments=(), state=None, environment=None,
                 hub="http://127.0.0.1:9", patience=("5s", "3s")):
        self.binary, self.arguments, self.gpus = binary, list(arguments), gpus
        self.environment = environment or {}
        self.folder = Path(tempfile.mkdtemp(prefix="load-"))
        self.socket = self.folder / "api.sock"
        self.state = state or self.folder
        for name in ("state", "cache"):
            (self.state / name).mkdir(exist_ok=True)
        self.config = self.folder / "config.toml"
        self.config.write_text(
            f'[socket]\npath = "{self.socket}"\ngroup = "{os.getgid()}"\nheader_deadline = "2s"\n'
            f'handler_deadline = "{patience[0]}"\nwrite_deadline = "2s"\n[hub]\nendpoint = "{hub}"\n'
            f'retry_budget = "{patience[1]}"\ncache_directory = "{self.state}/cache"\n'
            f'[leases]\nstate_directory = "{self.state}/state"\n{settings}'
        )
        self.process = None
        self.start()

    def start(self):
        """Starts the daemon. Returns the seconds until it answered."""
        notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notify = self.folder / "notify"
        notify.unlink(missing_ok=True)
        notices.bind(str(notify))
        notices.settimeout(60)
        environment = {"NOTIFY_SOCKET": str(notify), "PATH": os.environ["PATH"], **self.environment}
        command = [self.binary, "daemon", "--config", str(self.config), *self.arguments]
        if self.gpus:
            command += ["--gpus", self.gpus]
        began = time.perf_counter()
        self.log = open(self.folder / "log", "ab")
        self.process = subprocess.Popen(command, env=environment, stderr=self.log)
        while not notices.recv(4096).startswith(b"READY=1"):
            pass
        took = time.perf_counter() - began
        notices.close()
        return took

    def connect(self, timeout=10.0):
        caller = socket.socket(socket.AF_UNIX)
        caller.settimeout(timeout)
        caller.connect(str(self.socket))
        return caller

    def ask(self, method="GET", path="/v1/health", body=b"", caller=None, timeout=10.0):
        """Returns status and body of one request."""
        own = caller is None
        caller = caller or self.connect(timeout)
        try:
            caller.sendall(request(method, path, body))
            return answer(caller)
        finally:
            if own:
                caller.close()

    def figures(self):
        """Returns resident KiB, descriptors and threads."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        read = {line.split(":")[0]: line.split()[1] for line in status.splitlines() if len(line.split()) > 1}
        descriptors = len(os.listdir(f"/proc/{self.process.pid}/fd"))
        return int(read["VmRSS"]), descriptors, int(read["Threads"])

    def settled_descriptors(self, wanted, seconds=10):
        end = time.monotonic() + seconds
        while self.figures()[1] > wanted and time.monotonic() < end:
            time.sleep(0.05)
        return self.figures()[1]

    def end(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
        return self.process.returncode


def request(method, path, body=b"", extra=""):
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{extra}"
    if body or method == "POST":
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


def answer(caller, rest=b""):
    """Reads one answer. Returns (status, body)."""
    held = rest
    while b"\r\n\r\n" not in held:
        more = caller.recv(65536)
        if not more:
            raise ConnectionError(f"closed after {len(held)} bytes")
        held += more
    head, _, body = held.partition(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    while len(body) < length:
        more = caller.recv(65536)
        if not more:
            raise ConnectionError("closed within a body")
        body += more
    return int(head.split()[1]), body


def question(binary):
    """Returns the body that the command line sends for a local model, from a socket that does not answer."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/api.sock"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen(4)
        caught = []

        def catch():
            while not caught:
                caller, _ = listener.accept()
                held = b""
                while b"\r\n\r\n" not in held:
                    held += caller.recv(65536)
                head, _, body = held.partition(b"\r\n\r\n")
                lengths = [int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")]
                while lengths and len(body) < lengths[0]:
                    body += caller.recv(65536)
                if head.startswith(b"POST"):
                    caught.append(body)
                    listener.close()  # otherwise the client would retry and wait
                caller.close()

        thread = threading.Thread(target=catch, daemon=True)
        thread.start()
        subprocess.run([binary, "fits", str(MODEL), "--socket", path], capture_output=True, timeout=60)
        thread.join(10)
        return caught[0]


def connections(binary, options):
    """10 000 callers at once: the cap holds, the rest waits or is rejected, nothing leaks."""
    daemon = Daemon(binary)
    daemon.ask()
    before = daemon.figures()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 20000) if hard > 0 else 20000, hard))
    held, refused = [], 0
    began = time.monotonic()
    peak = 0
    for number in range(10_000):
        caller = socket.socket(socket.AF_UNIX)
        caller.setblocking(False)
        try:
            caller.connect(str(daemon.socket))
            caller.send(request("GET", "/v1/health"))
            held.append(caller)
        except (BlockingIOError, ConnectionError):
            refused += 1
            caller.close()
        if number % 500 == 0:
            peak = max(peak, daemon.figures()[1])
    time.sleep(0.5)
    peak = max(peak, daemon.figures()[1])
    during = daemon.figures()
    for caller in held:
        caller.close()
    took = time.monotonic() - began
    settled = daemon.settled_descriptors(before[1])
    status, _ = daemon.ask()
    # socket.connections are served, as many more are accepted and wait, and a sixteenth is reserved for root.
    most = 128 + 128 + 128 // 16
    report("connections", settled <= before[1] and status == 200 and peak <= before[1] + most, tried=10_000,
           connected=len(held), would_wait=refused, seconds=round(took, 1), descriptors_before=before[1],
           descriptors_most=peak, descriptors_after=settled, rss_kib_before=before[0], rss_kib_during=during[0],
           answers_after=status)
    daemon.end()


def slow_loris(binary, options):
    """Callers that send one header byte every half second are closed at the header deadline (2 s in this test)."""
    daemon = Daemon(binary)
    before = daemon.figures()
    callers = [daemon.connect() for _ in range(60)]
    for caller in callers:
        caller.sendall(b"GET /v1/health HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        caller.setblocking(False)
    began, open_callers, times = time.monotonic(), set(callers), []
    other = daemon.ask()[0]
    while open_callers and time.monotonic() - began < 15:
        time.sleep(0.5)
        for caller in list(open_callers):
            try:
                caller.send(b"x")
                if select.select([caller], [], [], 0)[0] and not caller.recv(4096):
                    raise ConnectionError
            except BlockingIOError:
                pass
            except OSError:
                open_callers.discard(caller)
                times.append(time.monotonic() - began)
    settled = daemon.settled_descriptors(before[1])
    report("slow_loris", not open_callers and other == 200 and settled <= before[1], callers=len(callers),
           cut=len(times), last_cut_after_seconds=round(max(times, default=0), 1), another_caller=other,
           descriptors_after=settled)
    daemon.end()


def half_open(binary, options):
    """Callers that send nothing, or close their sending half, are disconnected."""
    daemon = Daemon(binary)
    before = daemon.figures()
    silent = [daemon.connect() for _ in range(30)]
    closed = [daemon.connect() for _ in range(30)]
    for caller in closed:
        caller.sendall(b"POST /v1/fits HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        caller.shutdown(socket.SHUT_WR)
    began = time.monotonic()
    time.sleep(0.3)  # until they are accepted
    most = daemon.figures()[1]
    settled = daemon.settled_descriptors(before[1], 15)
    report("half_open", settled <= before[1], silent=30, half_closed=30, all_gone_after_seconds=round(time.monotonic() - began, 1),
           descriptors_before=before[1], descriptors_most=most, descriptors_after=settled)
    for caller in silent + closed:
        caller.close()
    daemon.end()


def giant_bodies(binary, options):
    """Bodies over the cap, declared or chunked, deep JSON and endless headers are rejected, and not kept in memory."""
    daemon = Daemon(binary)
    daemon.ask()
    before = daemon.figures()
    declared = daemon.connect()
    declared.sendall(b"POST /v1/fits HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1099511627776\r\n\r\n{")
    declared_status = answer(declared)[0]
    chunked = daemon.connect()
    chunked.sendall(b"POST /v1/fits HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
    sent, status = 0, None
    try:
        for _ in range(4096):
            chunked.sendall(b"10000\r\n" + b" " * 65536 + b"\r\n")
            sent += 65536
    except OSError:
        pass
    try:
        status = answer(chunked)[0]
    except OSError:
        status = "closed"
    deep = daemon.ask("POST", "/v1/fits", b"[" * 200_000)[0]
    path = daemon.ask("GET", "/" + "a" * 60_000)[0]
    headers = daemon.connect()
    try:
        headers.sendall(request("GET", "/v1/health", extra="".join(f"X-{n}: {'y' * 200}\r\n" for n in range(5000))))
        headers_status = answer(headers)[0]
    except OSError:
        headers_status = "closed"
    after = daemon.figures()
    held = (declared_status == 413 and status in (413, "closed") and 400 <= deep < 500 and 400 <= path < 500
            and (headers_status == "closed" or 400 <= headers_status < 500) and daemon.ask()[0] == 200)
    report("giant_bodies", held, declared_1_tib=declared_status, chunked_256_mib=f"{status} after {sent >> 20} MiB",
           deep_json=deep, path_60_kb=path, headers_1_mb=headers_status, rss_kib_before=before[0], rss_kib_after=after[0])
    daemon.end()


def pipelining(binary, options):
    """Many requests in one write: all are answered, in order."""
    daemon = Daemon(binary)
    caller = daemon.connect()
    count = 200
    began = time.monotonic()
    writer = threading.Thread(target=caller.sendall, args=(request("GET", "/v1/health") * count,))
    writer.start()
    text = b""
    while text.count(b'"uptime_seconds"') < count:
        more = caller.recv(1 << 20)
        if not more:
            break
        text += more
    writer.join()
    answered = text.count(b"HTTP/1.1 200")
    report("pipelining", answered == count, sent=count, answered=answered, milliseconds=round((time.monotonic() - began) * 1e3))
    caller.close()
    daemon.end()


def kill_under_load(binary, options):
    """kill -9 while eight callers ask. A new daemon replaces the stale socket."""
    daemon = Daemon(binary)
    body = question(binary)
    stop, counts, lock = threading.Event(), {"answered": 0, "failed": 0, "wrong": 0}, threading.Lock()

    def work():
        while not stop.is_set():
            try:
                status, text = daemon.ask("POST", "/v1/fits", body)
                outcome = "answered" if status == 200 and json.loads(text)["verdict"] else "wrong"
            except OSError:
                outcome = "failed"
                time.sleep(0.005)
            with lock:
                counts[outcome] += 1

    workers = [threading.Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    gaps = []
    for _ in range(5):
        time.sleep(0.7)
        daemon.process.kill()
        daemon.process.wait()
        gaps.append(daemon.start())
    time.sleep(0.5)
    stop.set()
    for worker in workers:
        worker.join()
    report("kill_under_load", counts["wrong"] == 0 and counts["answered"] > 0, kills=5, **counts,
           ready_again_ms=f"{min(gaps) * 1e3:.0f}..{max(gaps) * 1e3:.0f}", stopped_with=daemon.end())


def on_small_disk(scenario, binary, prepare):
    folder = Path(tempfile.mkdtemp(prefix="load-disk-"))
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        print(f"skip {scenario}: cannot mount: {mounted.stderr.decode().strip()}")
        folder.rmdir()
        return
    try:
        for name in ("state", "cache"):
            (folder / name).mkdir()
        prepare(folder)
        try:
            daemon = Daemon(binary, state=folder)
        except (TimeoutError, OSError) as error:
            report(scenario, False, start=repr(error))
            return
        body = question(binary)
        status, text = daemon.ask("POST", "/v1/fits", body)
        asked = {"question": json.loads(body), "ttl_seconds": 60, "holder": {"name": "disk"}}
        lease_status, lease = daemon.ask("POST", "/v1/leases", json.dumps(asked).encode())
        held = json.loads(daemon.ask("GET", "/v1/leases")[1])["leases"]
        reasons = degraded(daemon)
        # A lease that cannot be persisted is not granted, and health reports it.
        refused = lease_status != 200 and not held and "leases" in reasons
        report(scenario, status == 200 and refused and daemon.process.poll() is None,
               fits=f"{status} {json.loads(text).get('verdict')}", lease=f"{lease_status} {json.loads(lease).get('reason')}",
               degraded=reasons, stopped_with=daemon.end())
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)
        folder.rmdir()


def disk_full(binary, options):
    """State and cache on a full disk: questions are still answered."""

    def fill(folder):
        try:
            with open(folder / "filler", "wb", buffering=0) as filler:
                while True:
                    filler.write(b"\0" * 4096)
        except OSError:
            pass

    on_small_disk("disk_full", binary, fill)


def read_only(binary, options):
    """State and cache on a read-only disk: questions are still answered."""
    on_small_disk("read_only", binary,
                  lambda folder: subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True))


def hub_down(binary, options):
    """No process listens at the Hub's address: questions about repositories fail soon, other questions are unaffected."""
    daemon = Daemon(binary)
    local = question(binary)
    unknown = json.dumps({"model": {"repo": "owner/name"}}).encode()
    status, text = daemon.ask("POST", "/v1/fits", unknown, timeout=30)
    if status == 400:
        print(f"     the question was: {text[:200]}")
    began = time.monotonic()
    outcome = []

    def ask():
        outcome.append(daemon.ask("POST", "/v1/fits", unknown, timeout=30))

    asking = [threading.Thread(target=ask) for _ in range(20)]
    for one in asking:
        one.start()
    times = []
    while any(one.is_alive() for one in asking) or len(times) < 20:
        start = time.perf_counter()
        local_status, _ = daemon.ask("POST", "/v1/fits", local)
        times.append((time.perf_counter() - start) * 1e3)
    took = time.monotonic() - began
    reasons = sorted({json.loads(text).get("reason", "?") for _, text in outcome})
    report("hub_down", reasons == ["hub_unreachable"] and local_status == 200, asked=20, reasons=reasons,
           last_told_after_seconds=round(took, 2), local_questions_meanwhile=len(times),
           their_median_ms=round(statistics.median(times), 1), their_most_ms=round(max(times), 1))
    daemon.end()


COMMIT = "0123456789abcdef0123456789abcdef01234567"
PLAIN = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32,
         "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 14336,
         "vocab_size": 128256, "max_position_embeddings": 8192, "torch_dtype": "bfloat16"}


def weights(tensors, name):
    """Returns the header of a file of one-byte tensors, and the length of the file."""
    entry = '"%s":{"dtype":"U8","shape":[1],"data_offsets":[%d,%d]}'
    text = ("{" + ",".join(entry % (name % at, at, at + 1) for at in range(tensors)) + "}").encode()
    return len(text).to_bytes(8, "little") + text, 8 + len(text) + tensors


def hostile_repositories():
    """Hostile repositories by name: files with their content and their length."""
    whole = lambda text: (text, len(text))
    plain = whole(json.dumps(PLAIN).encode())
    many, kinds = weights(1_000_000, "layers.%x.w"), weights(1_000_000, "%x")
    kept = weights(19_000, "model.%x")
    folded = weights(1_000_000, "layers.%d.w")
    zeros = whole(b"[" + b",".join([b"0"] * 3_600_000) + b"]")
    nested = whole(b"[" + b",".join([b'{"":0}'] * 140_000) + b"]")
    parts = [f"part{at}" for at in range(16)]
    pipeline = whole(json.dumps({"_class_name": "P", **{part: ["diffusers", "X"] for part in parts}}).encode())
    index = whole(b'{"weight_map":{' + b",".join(b'"%x":"m"' % at for at in range(4_000_000)) + b"}}")
    small = weights(1, "w%d")
    # A vocabulary of ten million empty words makes a very long header.
    key = b"tokenizer.ggml.tokens"
    gguf = whole(b"GGUF" + struct.pack("<IQQQ", 3, 1, 1, len(key)) + key + struct.pack("<IIQ", 9, 8, 10_000_000) + bytes(80_000_000))
    return {
        "one_header": {"config.json": plain, "m.safetensors": many},
        "kinds": {"config.json": plain, "m.safetensors": kinds},
        "one_kind": {"config.json": plain, "m.safetensors": folded},
        "four_headers": {"config.json": plain, **{f"m-{at}.safetensors": kinds for at in range(4)}},
        "pipeline": {"model_index.json": pipeline, **{f"{part}/config.json": zeros for part in parts},
                     **{f"{part}/diffusion_pytorch_model.safetensors": small for part in parts}},
        "short_documents": {"config.json": nested, "m.safetensors": small},
        "index": {"config.json": plain, "model.safetensors.index.json": index, "m": small},
        "files": {"config.json": plain, "m.safetensors": small, **{f"x/{at:060d}": small for at in range(60_000)}},
        "split": {f"m-{at:05}-of-00024.gguf": gguf for at in range(1, 25)},
        **{f"kept{at}": {"config.json": plain, "m.safetensors": kept} for at in range(12)},
    }


def serve_repositories(repositories):
    """Starts a Hub with these repositories. Returns its server and its address."""

    class Answers(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def send(self, status, body, **headers):
            self.send_response(status)
            for name, value in {"content_length": str(len(body)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):
            path = urllib.parse.unquote(self.path.split("?")[0])
            of = re.match("/api/models/evil/([^/]+)/revision/", path)
            if of and of[1] in repositories:
                files = [{"rfilename": name, "size": size} for name, (_, size) in repositories[of[1]].items()]
                answer = {"id": f"evil/{of[1]}", "sha": COMMIT, "gated": False, "private": False, "siblings": files}
                return self.send(200, json.dumps(answer).encode())
            of = re.match("/evil/([^/]+)/resolve/[^/]+/(.*)", path)
            content, size = repositories.get(of[1] if of else "", {}).get(of[2] if of else "", (None, 0))
            if content is None:
                return self.send(404, b"{}")
            span = re.match(r"bytes=(\d+)-(\d+)", self.headers.get("range") or "")
            if not span:
                return self.send(200, content)
            first, last = int(span[1]), min(int(span[2]), size - 1)
            body = content[first:last + 1].ljust(last + 1 - first, b"\0")
            return self.send(206, body, content_range=f"bytes {first}-{last}/{size}")

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, *_):
            """A client that has read enough disconnects."""

    server = Server(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_address[1]}"


def hostile_hub(binary, options):
    """Repositories that are made to take memory and time, requested one by one and all at once."""
    repositories = hostile_repositories()
    hub, address = serve_repositories(repositories)
    # An allocator that returns large blocks to the system, as in the service unit.
    daemon = Daemon(binary, hub=address, patience=("120s", "110s"), environment={"MALLOC_ARENA_MAX": "1"})
    figure = lambda name: int(re.search(rf"{name}:\s+(\d+)", Path(f"/proc/{daemon.process.pid}/status").read_text())[1]) >> 10
    slowest, going = [0.0], [True]

    def watch():
        while going[0]:
            start = time.perf_counter()
            daemon.ask(timeout=60)
            slowest[0] = max(slowest[0], time.perf_counter() - start)
            time.sleep(0.01)

    watcher = threading.Thread(target=watch)
    watcher.start()

    def ask(name, answers):
        body = json.dumps({"model": {"repo": f"evil/{name}"}}).encode()
        status, text = daemon.ask("POST", "/v1/fits", body, timeout=150)
        answers[name] = json.loads(text).get("reason", status) if status != 200 else 200

    answers, rows = {}, []
    for name in repositories:
        before = time.perf_counter()
        ask(name, answers)
        rows.append((name, answers[name], time.perf_counter() - before, figure("VmRSS"), figure("VmHWM")))
    for name, answer, seconds, resident, high in rows:
        print(f"     {name}: {answer} after {seconds:.1f} s, resident {resident} MiB, high water {high} MiB")
    alone = figure("VmHWM")
    asking = [threading.Thread(target=ask, args=(name, answers)) for name in repositories for _ in range(3)]
    for one in asking:
        one.start()
    for one in asking:
        one.join()
    going[0] = False
    watcher.join()
    high = figure("VmHWM")
    held = high <= 300 and slowest[0] <= 1.0 and daemon.process.poll() is None
    report("hostile_hub", held, high_water_one_by_one_mib=alone, high_water_all_at_once_mib=high,
           resident_after_mib=figure("VmRSS"), slowest_health_ms=round(slowest[0] * 1e3), stopped_with=daemon.end())
    hub.shutdown()


class Driver:
    """The simulated driver: a folder with the library and its scenario."""

    def __init__(self, library):
        self.folder = Path(tempfile.mkdtemp(prefix="load-driver-"))
        shutil.copy(library, self.folder / "libnvidia-ml.so.1")
        self.play()

    def play(self, lost=(), **faults):
        devices = []
        for number in (1, 2):
            devices.append({"uuid": f"GPU-00000000-0000-4000-8000-00000000000{number}", "name": "NVIDIA H100 80GB HBM3",
                            "pci_bus_id": f"00000000:0{number}:00.0", "compute_capability": [9, 0],
                            "memory": {"total_bytes": 80 * GIB, "reserved_bytes": GIB // 2, "used_bytes": 0},
                            "faults": {"*": {"code": 15}} if number in lost else {}})
        (self.folder / "new").write_text(json.dumps({"devices": devices, "faults": faults}))
        (self.folder / "new").rename(self.folder / "scenario.json")

    def daemon(self, binary):
        settings = '[devices]\nsample_interval = "100ms"\nmax_age = "1s"\nread_deadline = "1s"\n'
        return Daemon(binary, gpus=None, settings=settings, arguments=["--nvml", str(self.folder / "libnvidia-ml.so.1")])

    def end(self):
        shutil.rmtree(self.folder)


def degraded(daemon):
    """Returns the degraded parts, each with its reason."""
    health = json.loads(daemon.ask()[1])
    parts = {part["name"]: part["reason"] for part in health["parts"] if part["status"] != "ok"}
    assert (health["status"] == "degraded") == bool(parts)
    return parts


def until(what, seconds=8):
    """Waits until `what()` returns something, and returns it."""
    end = time.monotonic() + seconds
    while not (found := what()) and time.monotonic() < end:
        time.sleep(0.05)
    return found


def health(binary, options):
    """Every cause that can degrade a part is reported for that part, until it has ended."""
    if not options.driver:
        print("skip health: no --driver")
        return
    driver = Driver(options.driver)
    daemon = driver.daemon(binary)
    daemon.ask("GET", "/v1/gpus")
    causes = {"well": "" if not degraded(daemon) else str(degraded(daemon))}

    def cause(name, part, words):
        daemon.ask("GET", "/v1/gpus", timeout=30)
        found = until(lambda: words in degraded(daemon).get(part, "") and degraded(daemon)[part])
        causes[name] = "" if found else f"wanted {words!r}, found {degraded(daemon)}"
        print(f"     {name}: {part}: {found}")

    daemon.ask("POST", "/v1/nvml/release", b'{"seconds": 2}')
    causes["released"] = "" if "is released" in degraded(daemon).get("devices", "") else str(degraded(daemon))
    time.sleep(2.1)
    driver.play(lost=(2,))
    cause("one GPU lost", "devices", "1 of 2 devices cannot be used")
    driver.play(**{"nvmlInit_v2": {"code": 9}, "nvmlDeviceGetCount_v2": {"code": 9}})
    cause("driver not loaded", "devices", "not loaded")
    driver.play(**{"*": {"hang": True}})
    cause("driver hangs", "devices", "has not answered")
    driver.play()
    back = lambda: daemon.ask("GET", "/v1/gpus", timeout=30)[0] == 200 and not degraded(daemon)
    causes["recovered"] = "" if until(back, 20) else str(degraded(daemon))
    daemon.ask("POST", "/v1/fits", json.dumps({"model": {"repo": "owner/name"}}).encode(), timeout=30)
    cause("Hub down", "hub", "did not answer")
    text = daemon.ask("GET", "/metrics")[1]
    counted = all(int(line.rsplit(b" ", 1)[1]) > 0 for line in text.splitlines()
                  if line.startswith((b"hf_mem_probe_nvml_errors_total", b'hf_mem_probe_hub_requests_total{outcome="unreachable"')))
    daemon.process.kill()
    daemon.process.wait()
    for name in ("state", "cache"):
        shutil.rmtree(daemon.folder / name)
    daemon.start()
    cause("no cache folder", "cache", "does not exist")
    cause("no state folder", "leases", "cannot open")
    wrong = {name: what for name, what in causes.items() if what}
    report("health", not wrong and counted, causes=len(causes), wrong=wrong, counted_in_metrics=counted, stopped_with=daemon.end())
    driver.end()


def promtool(binary, options):
    """Checks `/metrics` with Prometheus' own parser, after every kind of event has happened."""
    if not shutil.which("promtool"):
        print("skip promtool: it is not installed (Debian: prometheus)")
        return
    daemon = Daemon(binary)
    for body in (question(binary), b"{", json.dumps({"model": {"repo": "owner/name"}}).encode()):
        daemon.ask("POST", "/v1/fits", body, timeout=30)
    text = daemon.ask("GET", "/metrics")[1]
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True)
    caller = daemon.connect()
    caller.sendall(request("GET", "/v1/health", extra="X-Request-Id: job-7\r\n"))
    echoed = b"x-request-id: job-7" in caller.recv(65536).lower()
    report("promtool", checked.returncode == 0 and not checked.stderr and echoed, exit=checked.returncode,
           said=checked.stderr.decode().strip() or "nothing", families=text.count(b"# TYPE"), lines=text.count(b"\n"),
           request_id_comes_back=echoed)
    daemon.end()


def long_questions(binary, options):
    """Eight callers send questions that take seconds to plan. Others are answered meanwhile."""
    daemon = Daemon(binary)
    one = json.loads(question(binary))
    one["gpus"] = "64xH100-80GB"
    body = json.dumps({"questions": [one] * 64}).encode()
    outcome, times = [], []

    def ask():
        outcome.append(daemon.ask("POST", "/v1/fits", body, timeout=60)[0])

    asking = [threading.Thread(target=ask) for _ in range(8)]
    began = time.monotonic()
    for caller in asking:
        caller.start()
    while any(caller.is_alive() for caller in asking):
        start = time.perf_counter()
        daemon.ask("GET", "/v1/gpus", timeout=60)
        times.append((time.perf_counter() - start) * 1e3)
        time.sleep(0.01)
    report("long_questions", max(times) < 1000 and set(outcome) <= {200, 504}, statuses=sorted(outcome),
           all_told_after_seconds=round(time.monotonic() - began, 1), others_meanwhile=len(times),
           their_median_ms=round(statistics.median(times), 1), their_most_ms=round(max(times), 1), stopped_with=daemon.end())


FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"


def clock_steps(binary, options):
    """The wall clock goes a day forward, two back, and stops: leases depend on the clock since boot."""
    if not os.path.exists(FAKETIME):
        print("skip clock_steps: libfaketime is not installed (Debian: faketime)")
        return
    step = Path(tempfile.mkdtemp(prefix="load-clock-")) / "step"
    step.write_text("+0")
    daemon = Daemon(binary, environment={"LD_PRELOAD": FAKETIME, "FAKETIME_TIMESTAMP_FILE": str(step), "FAKETIME_NO_CACHE": "1",
                                         "FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1"})
    body = question(binary)
    asked = {"question": json.loads(body), "ttl_seconds": 600, "holder": {"name": "clock"}}
    daemon.ask("POST", "/v1/leases", json.dumps(asked).encode())
    left, shown, statuses = [], [], []
    for to in ("+0", "+1d", "-1d", "@2026-01-01 00:00:00", "+0"):
        step.write_text(to)
        statuses.append(daemon.ask("POST", "/v1/fits", body)[0])
        leases = json.loads(daemon.ask("GET", "/v1/leases")[1])["leases"]
        left.append([lease["expires_in_seconds"] for lease in leases])
        shown.append([lease["expires_at"][:10] for lease in leases][0:1])
    lived = all(len(each) == 1 and 570 <= each[0] <= 600 for each in left)
    stepped = len({str(day) for day in shown}) >= 4  # otherwise the steps did not reach the daemon, and the test shows nothing
    report("clock_steps", lived and stepped and set(statuses) == {200}, seconds_left=left, expires_by_the_wall=shown,
           statuses=statuses, stopped_with=daemon.end())
    shutil.rmtree(step.parent)


def nvml_hung(binary, options):
    """The driver's library hangs: the daemon answers, reports it, and stops on a signal."""
    if not options.driver:
        print("skip nvml_hung: no --driver")
        return
    driver = Driver(options.driver)
    daemon = driver.daemon(binary)
    body = question(binary)
    well = json.loads(daemon.ask("POST", "/v1/fits", body)[1])
    driver.play(**{"*": {"hang": True}})
    time.sleep(3)
    began = time.perf_counter()
    status, text = daemon.ask("POST", "/v1/fits", body, timeout=30)
    took = time.perf_counter() - began
    hung = json.loads(text)
    reasons = degraded(daemon)
    threads = daemon.figures()[2]
    began = time.perf_counter()
    code = daemon.end()
    stopped = time.perf_counter() - began
    report("nvml_hung", "devices" in reasons and stopped < 10 and hung.get("verdict") != "fits",
           well=f"{well.get('verdict')}", hung=f"{status} {hung.get('verdict', hung.get('reason'))} in {took * 1e3:.0f} ms",
           health=reasons, threads=threads, stopped_with=code, stop_seconds=round(stopped, 2))
    driver.end()


def soak(binary, options):
    """Mixed work for a fixed time: resident memory, descriptors and threads at start and end."""
    daemon = Daemon(binary)
    body = question(binary)
    for _ in range(300):
        daemon.ask("POST", "/v1/fits", body)
    before, began, count = daemon.figures(), time.monotonic(), 0
    middle = None
    while time.monotonic() - began < options.soak:
        caller = daemon.connect()
        for number in range(20):
            kind = number % 5
            if kind == 0:
                status = daemon.ask("POST", "/v1/estimates", body, caller)[0]
            elif kind == 1:
                status = daemon.ask("GET", "/metrics", caller=caller)[0]
            elif kind == 2:
                status = daemon.ask("POST", "/v1/fits", b"{", caller)[0]
            elif kind == 3:
                status = daemon.ask("GET", "/v1/gpus", caller=caller)[0]
            else:
                status = daemon.ask("POST", "/v1/fits", body, caller)[0]
            count += 1
            if status == 400 and kind == 2:
                continue
            if status != 200:
                report("soak", False, status=status, kind=kind)
                return
        caller.close()
        if middle is None and time.monotonic() - began > options.soak / 2:
            middle = daemon.figures()
    settled = daemon.settled_descriptors(before[1])
    after = daemon.figures()
    names = ("rss_kib", "descriptors", "threads")
    figures = {name: f"{before[n]} / {(middle or before)[n]} / {after[n]}" for n, name in enumerate(names)}
    # Threads for long work end ten seconds after the last of it.
    held = settled <= before[1] and after[2] <= before[2] + 2 and after[0] < before[0] + 4096
    report("soak", held, seconds=options.soak, requests=count, start_middle_end="", **figures, stopped_with=daemon.end())


SCENARIOS = [connections, slow_loris, half_open, giant_bodies, pipelining, kill_under_load, disk_full, read_only,
             hub_down, hostile_hub, nvml_hung, health, promtool,
             clock_steps, long_questions, soak]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("--driver")
    parser.add_argument("--soak", type=float, default=20)
    parser.add_argument("scenario", nargs="*")
    options = parser.parse_intermixed_args()
    for scenario in SCENARIOS:
        if options.scenario and scenario.__name__ not in options.scenario:
            continue
        try:
            scenario(os.path.abspath(options.binary), options)
        except Exception as error:  # an error in one scenario must not hide the others
            report(scenario.__name__, False, error=repr(error))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
