#!/usr/bin/env python3
"""Tests driver faults against a running daemon: what it reports for each, and how soon it recovers.

    tests/faults/devices.py BINARY libsimulated_nvml.so [WORD ...]

It uses the standard library only. Each fault has its own daemon, which loads the simulated library. With WORDs, the
script tests only the faults whose name contains one of them. It prints a table, and exits with 1 if a reason was wrong
or a recovery took longer than two seconds. `first right` is the time from the fault to the first right answer: readings
are one second apart, and an answer can be that old.
"""

import argparse
import copy
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODEL = "tests/fixtures/Qwen3-8B"
MIB, GIB = 1 << 20, 1 << 30
RECOVERY_S = 2.0
PATIENCE_S = 15.0

# nvmlReturn_t
NOT_SUPPORTED, NO_PERMISSION, DRIVER_NOT_LOADED = 3, 4, 9
UNINITIALIZED, GPU_IS_LOST, RESET_REQUIRED, VERSION_MISMATCH, NOT_READY, UNKNOWN = 1, 15, 16, 18, 27, 999


def h100(place=0, **more):
    gpu = {
        "uuid": f"GPU-00000000-0000-4000-8000-{place:012x}",
        "name": "NVIDIA H100 80GB HBM3",
        "pci_bus_id": f"00000000:{place + 1:02X}:00.0",
        "memory": {"total_bytes": 81_559 * MIB, "reserved_bytes": 479 * MIB, "used_bytes": 0},
        "compute_capability": [9, 0],
        "cores": 16_896,
        "mig": {"enabled": False, "pending": False, "slots": []},
        "fabric": {"state": 3, "status": 0},
        "remapped_rows": {"pending": False, "failure": False},
    }
    return gpu | more


def mig(*profiles):
    sizes = {"3g.40gb": 40_448, "2g.20gb": 20_096, "1g.10gb": 9_984}
    slots = [
        {
            "uuid": f"MIG-00000000-0000-4000-8000-{number:012x}",
            "name": f"NVIDIA H100 80GB HBM3 MIG {profile}",
            "gpu_instance": number,
            "compute_instance": 0,
            "memory": {"total_bytes": sizes[profile] * MIB, "reserved_bytes": 0, "used_bytes": 0},
            "multiprocessors": 60,
        }
        for number, profile in enumerate(profiles, 1)
    ]
    return {"enabled": True, "pending": True, "slots": slots}


def machine(*gpus, faults=None):
    return {"devices": list(gpus), "faults": faults or {}}


def all_calls(code):
    return machine(h100(), faults={"*": {"code": code}})


def call(symbol, **fault):
    return machine(h100(), faults={symbol: fault})


def own_calls(code, symbol="*"):
    return machine(h100(faults={symbol: {"code": code}}))


HEALTHY = machine(h100())
PAIR = machine(h100(0), h100(1))
COMPUTE = "nvmlDeviceGetComputeRunningProcesses_v3"
MEMORY, MEMORY_V2 = "nvmlDeviceGetMemoryInfo", "nvmlDeviceGetMemoryInfo_v2"
HOLDER = [{"pid": 4242, "used_bytes": GIB, "kinds": ["compute"]}]


class Fault:
    """A fault: how it begins and ends, and the expected report.

    `gpus` is a reason for each GPU, or one for all, or "usable". `fits` is the exit code and the reason of `fits`."""

    def __init__(self, name, gpus, fits, begin, before=HEALTHY, end=None, hidden=(), settings=""):
        self.name, self.gpus, self.fits, self.begin, self.before = name, gpus, fits, begin, before
        self.end, self.hidden, self.settings = end, hidden, settings


def no_device(reason):
    return (4, reason)


FITS = (0, "fits")

FAULTS = [
    Fault("GPU lost", "gpu_lost", no_device("gpu_lost"), own_calls(GPU_IS_LOST)),
    Fault("GPU lost, met as 'unknown handle'", "gpu_lost", no_device("gpu_lost"),
          own_calls(UNKNOWN, "nvmlDeviceGetHandleByIndex_v2")),
    Fault("one GPU of two lost", "usable gpu_lost", FITS,
          machine(h100(0), h100(1, faults={"*": {"code": GPU_IS_LOST}})), before=PAIR),
    Fault("reset required", "reset_required", no_device("reset_required"), own_calls(RESET_REQUIRED)),
    Fault("driver asks for a reset", "reset_required", no_device("reset_required"), machine(h100(recovery_action=1))),
    Fault("XID 119, driver without a verdict", "reset_required+xid", no_device("reset_required"), "xid 119",
          end="release"),
    Fault("XID 48", "usable+xid", FITS, "xid 48", end="release"),
    Fault("XID 31, an application's", "usable", FITS, "xid 31"),
    Fault("driver version mismatch", "driver_version_mismatch", no_device("driver_version_mismatch"),
          all_calls(VERSION_MISMATCH)),
    Fault("driver unloaded", "nvml_unavailable", no_device("nvml_unavailable"), all_calls(DRIVER_NOT_LOADED)),
    Fault("library not initialized", "nvml_unavailable", no_device("nvml_unavailable"), all_calls(UNINITIALIZED)),
    Fault("unknown error everywhere", "nvml_unavailable", no_device("nvml_unavailable"), all_calls(UNKNOWN)),
    Fault("library missing, then installed", "nvml_unavailable", no_device("nvml_unavailable"), "library missing"),
    Fault("library replaced under the daemon", "usable", FITS, "library replaced"),
    Fault("hang in one call", "stale usable", (0, "fits"), call(MEMORY_V2, hang=True)),
    Fault("hang in one call, for long", "nvml_overdue", no_device("nvml_overdue"), call(MEMORY_V2, hang=True),
          settings='sample_interval = "100ms"\nmax_age = "100ms"\n'),
    Fault("hang in nvmlInit", "nvml_overdue", no_device("nvml_overdue"), "hung init"),
    Fault("every call takes 20 ms", "usable", FITS, call("*", slow_ms=20)),
    Fault("NO_PERMISSION on the GPU", "no_permission", no_device("no_permission"), own_calls(NO_PERMISSION)),
    Fault("NO_PERMISSION at init", "no_permission", no_device("no_permission"), all_calls(NO_PERMISSION)),
    Fault("NOT_READY", "not_ready", no_device("not_ready"), own_calls(NOT_READY)),
    Fault("NOT_SUPPORTED memory, discrete card", "memory_unreadable", no_device("memory_unreadable"),
          machine(h100(faults={MEMORY: {"code": NOT_SUPPORTED}, MEMORY_V2: {"code": NOT_SUPPORTED}}))),
    Fault("memory v2 broken, v1 works", "usable", FITS, machine(h100(faults={MEMORY_V2: {"code": UNKNOWN}}))),
    Fault("all devices gone", "gpu_lost", no_device("gpu_lost"), machine()),
    Fault("device removed", "usable", FITS, machine(h100(0)), before=PAIR),
    Fault("device added", "usable usable", FITS, PAIR),
    Fault("MIG switched on, no instance", "mig_without_instances", no_device("mig_without_instances"),
          machine(h100(mig=mig()))),
    Fault("MIG reconfigured 3g+2g to 1g+1g+1g", "mig_parent usable usable usable", (1, "insufficient_memory"),
          machine(h100(mig=mig("1g.10gb", "1g.10gb", "1g.10gb"))), before=machine(h100(mig=mig("3g.40gb", "2g.20gb")))),
    Fault("process list INSUFFICIENT_SIZE", "usable", FITS, machine(h100(process_burst=True))),
    Fault("  the same with exclusive mode", "exclusive_process", no_device("exclusive_process"),
          machine(h100(compute_mode=3, process_burst=True)),
          before=machine(h100(compute_mode=3))),
    Fault("exclusive mode, held", "exclusive_process", no_device("exclusive_process"),
          machine(h100(compute_mode=3, processes=HOLDER)), before=machine(h100(compute_mode=3))),
    Fault("compute mode prohibited", "prohibited", no_device("prohibited"), machine(h100(compute_mode=2))),
    Fault("missing symbols", "usable", FITS, HEALTHY,
          hidden=("nvmlDeviceGetFieldValues", "nvmlDeviceGetGpuFabricInfo", "nvmlDeviceGetMigMode", COMPUTE,
                  "nvmlEventSetFree", "nvmlDeviceGetNvLinkState")),
    Fault("v1-only driver", "usable", FITS, HEALTHY, hidden=(MEMORY_V2,)),
    Fault("fabric not ready", "fabric_not_ready", no_device("fabric_not_ready"),
          machine(h100(fabric={"state": 1, "status": 0}))),
    Fault("drain", "drain", no_device("drain"), machine(h100(drained=True))),
    Fault("row remap failure", "row_remap_failure", no_device("row_remap_failure"),
          machine(h100(remapped_rows={"pending": False, "failure": True}))),
    Fault("row remap pending", "usable+row_remap_pending", FITS,
          machine(h100(remapped_rows={"pending": True, "failure": False}))),
    Fault("the only GPU falls asleep", "asleep", no_device("asleep"), "asleep"),
    Fault("driver released", "nvml_released", (75, "nvml_released"), "release", end="window over"),
    Fault("the wait for events hangs", "usable", FITS, call("nvmlEventSetWait_v2", hang=True)),
]


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=60)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Host:
    """A daemon with its own simulated driver and host."""

    def __init__(self, binary, library, fault):
        self.binary, self.fault = binary, fault
        self.folder = Path(tempfile.mkdtemp(prefix="device-faults-"))
        self.library = self.folder / "libnvidia-ml.so.1"
        self.hidden = self.folder / "not-installed.so"
        image = Path(library).read_bytes()
        for symbol in fault.hidden:
            name = b"\0" + symbol.encode() + b"\0"
            assert name in image, symbol
            image = image.replace(name, b"\0X" + name[2:])
        self.library.write_bytes(image)
        self.root = self.folder / "host"
        self.write("proc/meminfo", "MemTotal: 134217728 kB\nMemFree: 3040870 kB\nMemAvailable: 125829120 kB\n")
        self.write("etc/passwd", "root:x:0:0:root:/root:/bin/bash\n")
        self.write("proc/driver/nvidia/version", "NVRM version: 590.44.01\n")
        self.socket = self.folder / "api.sock"
        for name in ("state", "cache"):
            (self.folder / name).mkdir()
        config = self.folder / "config.toml"
        config.write_text(
            f'[socket]\npath = "{self.socket}"\ngroup = "{os.getgid()}"\n[hub]\nendpoint = "http://127.0.0.1:9"\n'
            f'cache_directory = "{self.folder}/cache"\n[leases]\nstate_directory = "{self.folder}/state"\n'
            f'[devices]\nread_deadline = "1s"\n{fault.settings}'
        )
        self.set(fault.before if fault.begin != "hung init" else call("nvmlInit_v2", hang=True))
        if fault.begin == "library missing":
            self.library.rename(self.hidden)
        self.environment = {
            "PATH": os.environ["PATH"], "HF_MEM_PROBE_NVML": str(self.library), "HF_MEM_PROBE_SOCKET": str(self.socket),
            "HF_MEM_PROBE_HOST_ROOT": str(self.root), "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "1",
        }
        self.process = self.start(config)

    def write(self, path, text):
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def start(self, config):
        notify = self.folder / "notify"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
            notices.bind(str(notify))
            notices.settimeout(60)
            process = subprocess.Popen(
                [self.binary, "daemon", "--config", str(config)], stderr=open(self.folder / "log", "wb"),
                env=self.environment | {"NOTIFY_SOCKET": str(notify)}, cwd=ROOT,
            )
            while not notices.recv(4096).startswith(b"READY=1"):
                pass
        return process

    def set(self, scenario):
        fresh = self.folder / "scenario.new"
        fresh.write_text(json.dumps(scenario))
        fresh.rename(self.folder / "scenario.json")

    def ask(self, method, path, body=None):
        connection = UnixConnection(self.socket)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    def gpus(self):
        """The answer of /v1/gpus in the words of FAULTS."""
        answer = self.ask("GET", "/v1/gpus")
        if "devices" not in answer:
            return answer["reason"]
        words = ["stale"] if answer["stale"] else []
        for device in answer["devices"]:
            word = device["unusable"]["reason"] if device["unusable"] else "usable"
            words.append("+".join([word] + sorted({it["reason"] for it in device.get("warnings", [])})))
        return " ".join(words)

    def fits(self):
        done = subprocess.run(
            [self.binary, "fits", MODEL, "--json"], capture_output=True, text=True, env=self.environment, cwd=ROOT,
        )
        return done.returncode, json.loads(done.stdout)["reason"]

    def until(self, expected):
        """The seconds until /v1/gpus answers `expected`, or None."""
        began = time.monotonic()
        while time.monotonic() - began < PATIENCE_S:
            if (said := self.gpus()) == expected:
                return time.monotonic() - began, said
            time.sleep(0.02)
        return None, said

    def begin(self):
        begin = self.fault.begin
        if isinstance(begin, dict):
            self.set(begin)
        elif begin.startswith("xid"):
            # An event from before the registration is lost. By now the registration is done.
            scenario = copy.deepcopy(self.fault.before)
            scenario["devices"][0]["events"] = [{"xid": int(begin.split()[1])}]
            self.set(scenario)
        elif begin == "library replaced":
            fresh = self.folder / "fresh.so"
            fresh.write_bytes(self.library.read_bytes())
            fresh.rename(self.library)
            self.write("proc/driver/nvidia/version", "NVRM version: 610.10\n")
        elif begin == "asleep":
            bus = "0000:01:00.0"
            self.write(f"proc/driver/nvidia/gpus/{bus}/information", "Model: \t NVIDIA H100 80GB HBM3\n")
            self.status = f"sys/bus/pci/devices/{bus}/power/runtime_status"
            self.write(self.status, "suspended\n")
        elif begin == "release":
            self.ask("POST", "/v1/nvml/release", json.dumps({"seconds": 3}))

    def end(self):
        """Ends the fault and returns the time of its end in monotonic seconds."""
        begin, end = self.fault.begin, self.fault.end
        if end == "release":
            self.ask("POST", "/v1/nvml/release", json.dumps({"seconds": 1}))
            return time.monotonic() + 1
        if end == "window over":
            return self.began + 3
        if begin == "library missing":
            self.hidden.rename(self.library)
        elif begin == "asleep":
            self.write(self.status, "active\n")
        else:
            self.set(self.fault.before)
        return time.monotonic()

    def close(self):
        self.set(self.fault.before)
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder)


def check(binary, library, fault):
    """Returns a row of the table, and whether it is as expected."""
    host = Host(binary, library, fault)
    healthy = " ".join(host_words(fault.before))
    try:
        from_the_start = fault.begin in ("library missing", "hung init") or fault.hidden
        if not from_the_start:
            assert host.until(healthy)[0] is not None, f"{fault.name}: not healthy before: {host.gpus()}"
        if str(fault.begin).startswith("xid"):
            time.sleep(0.5)
        host.began = time.monotonic()
        host.begin()
        first, said = host.until(fault.gpus)
        code, reason = host.fits()
        time.sleep(0 if fault.end == "window over" else 1.5)
        is_harmless = fault.gpus == healthy
        if is_harmless:
            # There is no recovery to wait for. The answer must still be the same.
            took, good = None, host.gpus() == healthy
        else:
            ended = host.end()
            time.sleep(max(0.0, ended - time.monotonic()))
            seen, _ = host.until(healthy)
            took = None if seen is None else time.monotonic() - ended
            good = took is not None and took <= RECOVERY_S and host.fits()[1] == "fits"
        right = first is not None and (code, reason) == fault.fits and good
        seconds = "-" if is_harmless else "never" if took is None else f"{took:.2f} s"
        at = "never" if first is None else f"{first:.2f} s"
        row = [fault.name, said, f"{reason}, exit {code}", at, seconds]
        return row, right
    finally:
        host.close()


def host_words(scenario):
    for gpu in scenario["devices"]:
        enabled = gpu["mig"]["enabled"]
        yield "mig_parent" if enabled else "usable"
        yield from ("usable" for _ in (gpu["mig"]["slots"] if enabled else []))


def table_line(cells, widths):
    return "| " + " | ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths)) + " |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("library")
    parser.add_argument("words", nargs="*")
    arguments = parser.parse_args()
    binary = str(Path(arguments.binary).resolve())
    chosen = [it for it in FAULTS if not arguments.words or any(word in it.name for word in arguments.words)]
    heads = ["fault", "/v1/gpus", "fits", "first right", "recovered in"]
    widths = [37, 31, 34, 11, 12]
    print(table_line(heads, widths))
    print("|" + "|".join("-" * (width + 2) for width in widths) + "|", flush=True)
    wrong = []
    for fault in chosen:
        row, right = check(binary, arguments.library, fault)
        print(table_line(row, widths) + ("" if right else "  <- WRONG"), flush=True)
        if not right:
            wrong.append(fault.name)
    if wrong:
        sys.exit(f"{len(wrong)} of {len(chosen)} are wrong: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
