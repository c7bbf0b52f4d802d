#!/usr/bin/env python3
"""Tests the unit's limits; tests/systemd_limits.sh runs it as root in a virtual machine.

Each step prints its result. The exit status is 1 if a check fails.
"""

import grp
import json
import os
import pwd
import socket
import subprocess
import sys
import threading
import time
from http.server import ThreadingHTTPServer
from pathlib import Path

from load import answer, failures, question, report, request
from speed import Hub

UNIT = "hf-mem-probe.service"
SOCKET = "/run/hf-mem-probe/api.sock"
CONFIG = Path("/etc/hf-mem-probe/config.toml")
GROUP = Path("/sys/fs/cgroup/system.slice") / UNIT
MIB = 1 << 20
BODY_CAP = 4 * MIB


def systemctl(*words):
    return subprocess.run(["systemctl", *words], capture_output=True, text=True, check=False).stdout.strip()


def shown(name):
    return systemctl("show", "-P", name, UNIT)


def kernel(name):
    return (GROUP / name).read_text().strip()


def mib(number):
    return round(int(number) / MIB, 1)


def connect(timeout=30):
    caller = socket.socket(socket.AF_UNIX)
    # With a timeout set, Python does not wait while the kernel's queue is full, but fails (EAGAIN).
    caller.connect(SOCKET)
    caller.settimeout(timeout)
    return caller


def ask(method="GET", path="/v1/health", body=b""):
    with connect(90) as caller:
        caller.sendall(request(method, path, body))
        return answer(caller)


def inside(code, *arguments):
    """Runs Python in the service's control group. The kernel can kill it."""
    join = f"open('{GROUP}/cgroup.procs', 'w').write(str(__import__('os').getpid()))\n"
    return subprocess.run([sys.executable, "-c", join + code, *arguments], capture_output=True, text=True, timeout=120)


def events():
    return {name: int(count) for name, count in (line.split() for line in kernel("memory.events").splitlines())}


def install():
    state = {"total_bytes": 80 << 30, "reserved_bytes": 512 << 20, "used_bytes": 0}
    device = {"uuid": "GPU-00000000-0000-4000-8000-000000000001", "name": "NVIDIA H100 80GB HBM3",
              "pci_bus_id": "00000000:01:00.0", "memory": state, "compute_capability": [9, 0]}
    driver = Path("/srv/driver")  # the test's own disk is read-only
    driver.mkdir(parents=True)
    (driver / "libnvidia-ml.so.1").write_bytes(Path("/opt/test/driver/libnvidia-ml.so.1").read_bytes())
    (driver / "scenario.json").write_text(json.dumps({"devices": [device], "faults": {}}))
    subprocess.run(["dpkg", "-i", "/opt/test/one.deb"], capture_output=True, check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for address in ("10.9.9.9/32", "169.254.169.254/32"):
        subprocess.run(["ip", "address", "add", address, "dev", "lo"], check=True)
    hub = ThreadingHTTPServer(("0.0.0.0", 0), Hub)
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    text = CONFIG.read_text()
    for key, value in (("nvml_library", f'"{driver}/libnvidia-ml.so.1"'), ("endpoint", f'"http://10.9.9.9:{hub.server_port}"')):
        lines = [f"{key} = {value}" if line.startswith(f"{key} = ") else line for line in text.splitlines()]
        text = "\n".join(lines) + "\n"
    CONFIG.write_text(text)
    systemctl("restart", UNIT)
    return hub


def in_force():
    pairs = (("MemoryMax", "memory.max"), ("MemorySwapMax", "memory.swap.max"), ("TasksMax", "pids.max"))
    for name, file in pairs:
        report(f"{name} in force", shown(name) == kernel(file), shown=shown(name), kernel=kernel(file))
    pid = shown("MainPID")
    limits = {line[:26].strip(): line[26:].split() for line in Path(f"/proc/{pid}/limits").read_text().splitlines()}
    report("LimitNOFILE in force", limits["Max open files"][0] == shown("LimitNOFILE"), kernel=limits["Max open files"][0])
    score = Path(f"/proc/{pid}/oom_score_adj").read_text().strip()
    report("OOMScoreAdjust in force", score == shown("OOMScoreAdjust"), kernel=score)


def models(count):
    before = kernel("memory.current")
    for number in range(count):
        body = json.dumps({"model": {"repo": f"owner/model-{number}"}}).encode()
        status, text = ask("POST", "/v1/fits", body)
        if status != 200:
            return report("models known", False, number=number, status=status, text=text[:300])
    report("models known", True, count=count, idle_mib=mib(before), then_mib=mib(kernel("memory.current")), peak_mib=mib(kernel("memory.peak")))


class Watch:
    """Records the most tasks and the slowest health request during some work."""

    def __init__(self):
        self.tasks, self.slowest, self.failed, self.asked, self.going = 0, 0.0, [], 0, True
        self.thread = threading.Thread(target=self.run)

    def run(self):
        while self.going:
            self.tasks = max(self.tasks, int(kernel("pids.current")))
            began = time.monotonic()
            try:
                status, text = ask()
                if status != 200:
                    self.failed.append(f"{status} {text[:300]}")
            except OSError as error:
                self.failed.append(repr(error))
            self.slowest, self.asked = max(self.slowest, time.monotonic() - began), self.asked + 1
            time.sleep(0.02)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.going = False
        self.thread.join()


def loaded(what, work):
    with Watch() as watch:
        found = work()
    held = not watch.failed and events()["oom_kill"] == 0 and shown("NRestarts") == "0"
    report(what, held, **found, peak_mib=mib(kernel("memory.peak")), tasks=watch.tasks, health_asked=watch.asked,
           health_failed=watch.failed[:3], slowest_health_ms=round(watch.slowest * 1e3), throttled=events()["high"])


# Sends full bodies without their last byte. It runs as other users, so that the cap for each user
# leaves connections for the watching one.
HOLD = """
import os, socket, sys, time
os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[1]))
size, count = int(sys.argv[3]), int(sys.argv[4])
text = (b'{"model": {"repo": "a/b"}, "x": [' + b'1,' * (size // 2))[:size - 2] + b'1]'
head = b'POST /v1/fits HTTP/1.1\\r\\nHost: localhost\\r\\nContent-Type: application/json\\r\\nContent-Length: %d\\r\\n\\r\\n' % size
callers = []
for _ in range(count):
    caller = socket.socket(socket.AF_UNIX); caller.settimeout(60); caller.connect('/run/hf-mem-probe/api.sock')
    try:
        caller.sendall(head + text[:-1]); callers.append(caller)
    except OSError:
        pass
time.sleep(3)
print(len(callers), flush=True)
answered = 0
for caller in callers:
    try:
        caller.sendall(text[-1:]); answered += caller.recv(4096).startswith(b'HTTP/1.1 4')
    except OSError:
        pass
print(answered)
"""


def full_bodies():
    group = asking_group()
    users = [pwd.getpwnam(name).pw_uid for name in ("alice", "daemon", "games")]
    holders = [subprocess.Popen([sys.executable, "-c", HOLD, str(uid), str(group), str(BODY_CAP), "42"], stdout=subprocess.PIPE, text=True)
               for uid in users]
    counts = [holder.communicate(timeout=120)[0].split() for holder in holders]
    return {"bodies_of_4_mib": sum(int(words[0]) for words in counts), "refused": sum(int(words[-1]) for words in counts)}


# Runs as another user too: beyond its limit this user gets 503, and other users do not.
FLOOD = """
import socket, time
callers = []
for number in range(3000):
    caller = socket.socket(socket.AF_UNIX)
    caller.setblocking(False)
    try:
        caller.connect('/run/hf-mem-probe/api.sock')
        caller.send(b'GET /v1/gpus HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n')
    except OSError:
        pass
    callers.append(caller)
    if len(callers) == 100:
        time.sleep(0.01)
        for caller in callers:
            caller.close()
        callers.clear()
"""


def asking_group():
    return grp.getgrnam("hf-mem-probe").gr_gid


def many_connections():
    subprocess.run([sys.executable, "-c", FLOOD], user="alice", group=asking_group(), check=True)
    return {"connections": 3000}


def long_questions(body):
    body = json.loads(body)
    body["gpus"] = "64xH100-80GB"
    sent = json.dumps({"questions": [body] * 64}).encode()
    statuses = []

    def one():
        try:
            statuses.append(ask("POST", "/v1/fits", sent)[0])
        except OSError as error:
            statuses.append(type(error).__name__)

    threads = [threading.Thread(target=one) for _ in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"callers": 24, "kib_each": len(sent) >> 10, "answered": "/".join(f"{statuses.count(status)}x{status}" for status in set(statuses))}


def leases():
    return [lease["id"] for lease in json.loads(ask("GET", "/v1/leases")[1])["leases"]]


def back(before):
    """Returns the seconds until the daemon answers with its earlier leases."""
    began = time.monotonic()
    while time.monotonic() - began < 60:
        try:
            if leases() == before:
                return round(time.monotonic() - began, 1)
        except (OSError, ValueError, KeyError):
            pass
        time.sleep(0.1)
    return None


def overeat(held):
    """A process in the group exceeds MemoryMax=."""
    restarts = int(shown("NRestarts"))
    began = time.monotonic()
    eaten = inside("import sys\nheld = []\nfor n in range(1, 2000):\n    held.append(bytearray(b'x' * (1 << 20)))\n    print(n, flush=True)")
    elapsed = round(time.monotonic() - began, 1)
    after = back(held)
    log = subprocess.run(["journalctl", "-u", UNIT, "-o", "cat", "--no-pager"], capture_output=True, text=True).stdout
    lines = [line for line in log.splitlines() if "OOM" in line or "oom" in line]
    report("MemoryMax exceeded: killed, restarted with its leases", eaten.returncode == -9 and after is not None and int(shown("NRestarts")) == restarts + 1,
           eaten_mib=(eaten.stdout.split() or ["0"])[-1], killed_after_seconds=elapsed, back_after_seconds=after, restarts=shown("NRestarts"), journal=lines[-1:])


def tasks():
    code = "import threading, time\nn = 0\ntry:\n    while n < 500:\n        threading.Thread(target=time.sleep, args=(3,), daemon=True).start(); n += 1\nexcept RuntimeError:\n    pass\nprint(n)\nimport os, sys; sys.stdout.flush(); os._exit(0)"
    own = int(kernel("pids.current"))
    found = int(inside(code).stdout.strip() or 0)
    report("tasks stop at TasksMax", own + 1 + found == int(kernel("pids.max")), daemon=own, more=found, limit=kernel("pids.max"))


def devices():
    for path, major, minor in (("/dev/nvidia0", 195, 0), ("/dev/other", 10, 200)):
        os.mknod(path, 0o020666, os.makedev(major, minor))
    code = "import errno, os, sys\ntry:\n    os.open(sys.argv[1], os.O_RDWR); print('opened')\nexcept OSError as error:\n    print(errno.errorcode[error.errno])"
    without = inside(code, "/dev/nvidia0").stdout.strip()
    found = {path: inside(code, path).stdout.strip() for path in ("/dev/other", "/dev/vda", "/dev/mem", "/dev/null")}
    held = without == "EPERM" and all(found[path] == "EPERM" for path in ("/dev/other", "/dev/vda", "/dev/mem")) and found["/dev/null"] == "opened"
    report("devices", held, nvidia0_without_a_driver=without, **{path.removeprefix("/dev/"): what for path, what in found.items()})


def addresses(hub):
    code = ("import errno, socket, sys\ns = socket.socket(); s.settimeout(2)\n"
            "try:\n    s.connect((sys.argv[1], int(sys.argv[2]))); print('connected')\n"
            "except TimeoutError:\n    print('dropped')\nexcept OSError as error:\n    print(errno.errorcode[error.errno])")
    wanted = {"127.0.0.1": "connected", "10.9.9.9": "connected", "169.254.169.254": "dropped"}
    found = {address: inside(code, address, str(hub.server_port)).stdout.strip() for address in wanted}
    plain = subprocess.run([sys.executable, "-c", code, "169.254.169.254", str(hub.server_port)], capture_output=True, text=True).stdout.strip()
    many = inside("import errno, socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
                  "try:\n    s.sendto(b'x', ('224.0.0.251', 5353)); print('sent')\nexcept OSError as error:\n    print(errno.errorcode[error.errno])").stdout.strip()
    report("addresses", found == wanted and plain == "connected" and many != "sent", **found, metadata_service_outside_the_unit=plain, multicast=many)


def main():
    print(f"kernel {os.uname().release}, {os.cpu_count()} processors, {systemctl('--version').splitlines()[0]}")
    hub = install()
    in_force()
    models(250)
    body = question("/usr/bin/hf-mem-probe")
    loaded("3 000 connections", many_connections)
    loaded("bodies at the cap on all connections", full_bodies)
    loaded("64 questions on 64 devices, many callers", lambda: long_questions(body))
    time.sleep(3)
    settled = mib(kernel("memory.current"))
    print(f"     afterwards {settled} MiB, at rest; peak {mib(kernel('memory.peak'))}, MemoryPeak {shown('MemoryPeak') or 'not known to this systemd'}, {kernel('memory.events').split()}")
    lease = json.dumps({"question": json.loads(body), "ttl_seconds": 1800, "holder": {"name": "job-7"}}).encode()
    status, text = ask("POST", "/v1/leases", lease)
    if status != 200:
        report("a lease", False, status=status, text=text[:300])
    held = leases()
    tasks()
    devices()
    addresses(hub)
    overeat(held)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
