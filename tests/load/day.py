#!/usr/bin/env python3
"""A day of a busy host, compressed into a shorter time, and the daemon's memory at every hour of it.

    tests/load/day.py BINARY libsimulated_nvml.so [--seconds 1500]

The day has 86 400 readings of the driver and 86 400 questions: known models, new models of the Hub, bodies with a model in
them, and mistakes. It has a lease a minute (released, expired, or left by a holder that dies), and metrics and health requests
at a monitor's rate. Each hour has a reload, an outage of the Hub, a driver fault and a watch stream. Branches are revalidated
as often as in a real day. Standard library only; everything is this script's own. Exits with 1 if an answer is not one of the
expected ones, or if the last hours hold more memory than the first ones.
"""

import argparse
import collections
import json
import os
import random
import subprocess
import sys
import threading
import time
from http.server import ThreadingHTTPServer
from pathlib import Path

from load import Daemon, Driver, question, request
from speed import Hub

HOURS, DAY_S = 24, 86_400
MODELS = 600  # more than the memory cache holds
QUESTIONS, LEASES, SCRAPES, CHECKS = DAY_S, 1440, 5760, 8640
ALLOWED_KIB = 2048


class Outages(Hub):
    """A Hub with outages."""

    away = False

    def do_GET(self):
        if self.away:
            return self.give(b"{}", 503)
        return super().do_GET()


class Quiet(ThreadingHTTPServer):
    """Ignores clients that disconnect, as they do after a timeout."""

    def handle_error(self, *_):
        pass


class Worker(threading.Thread):
    """Runs `count` pieces of work, spread evenly over the day, and records their results."""

    def __init__(self, day, name, count, work):
        super().__init__(name=name, daemon=True)
        self.day, self.count, self.work, self.done = day, count, work, 0
        self.outcomes = collections.Counter()
        self.error = None

    def run(self):
        for number in range(self.count):
            pause = self.day.began + self.day.seconds * number / self.count - time.monotonic()
            if pause > 0:
                time.sleep(pause)
            if time.monotonic() > self.day.began + self.day.seconds:
                return
            try:
                self.outcomes[self.work(number)] += 1
            except Exception as error:  # counted, and checked at the end
                self.error = repr(error)
                self.outcomes["error"] += 1
            self.done += 1


class Day:
    def __init__(self, binary, driver, seconds):
        self.seconds = seconds
        self.hub = Quiet(("127.0.0.1", 0), Outages)
        threading.Thread(target=self.hub.serve_forever, daemon=True).start()
        self.driver = Driver(driver)
        interval = max(10, int(seconds / DAY_S * 1000))
        branch_age = max(10, int(300 * seconds / DAY_S * 1000))
        settings = f'[devices]\nsample_interval = "{interval}ms"\nmax_age = "1s"\nread_deadline = "1s"\n'
        self.daemon = Daemon(binary, gpus=None, settings=settings, hub=f"http://127.0.0.1:{self.hub.server_port}",
                             environment={"MALLOC_ARENA_MAX": "1"},  # as in the unit
                             arguments=["--nvml", str(self.driver.folder / "libnvidia-ml.so.1")])
        config = self.daemon.config.read_text().replace("[hub]\n", f'[hub]\nbranch_age = "{branch_age}ms"\ncache_size = "4MiB"\n')
        self.daemon.config.write_text(config)
        self.daemon.process.kill()
        self.daemon.process.wait()
        self.daemon.start()
        self.sent = question(binary)
        self.random = random.Random(7)
        self.local = threading.local()

    def ask(self, method, path, body=b""):
        """Sends a request on this thread's connection, which is replaced now and then."""
        caller = getattr(self.local, "caller", None)
        if caller is None or self.local.used >= 50:
            if caller is not None:
                caller.close()
            caller = self.local.caller = self.daemon.connect(timeout=30)
            self.local.used = 0
        self.local.used += 1
        try:
            return self.daemon.ask(method, path, body, caller)
        except Exception:
            caller.close()
            self.local.caller = None
            raise

    def question(self, number):
        kind = self.random.random()
        if kind < 0.001:
            return f"{self.ask('POST', '/v1/fits', b'{')[0]} mistaken"
        if kind < 0.05:
            path = "/v1/estimates" if number % 2 else "/v1/fits"
            return f"{self.ask('POST', path, self.sent)[0]} sent"
        # Mostly the same few models, sometimes any of them.
        name = self.random.randrange(10) if kind < 0.97 else self.random.randrange(MODELS)
        asked = {"model": {"repo": f"owner/model-{name}"}, "workload": {"context": 1024 * (1 + number % 8)}}
        status, text = self.ask("POST", "/v1/fits", json.dumps(asked).encode())
        told = json.loads(text)
        return f"{status} {told.get('verdict') or told.get('reason')}"

    def lease(self, number):
        asked = {"question": {"model": {"repo": f"owner/model-{number % 10}"}}, "ttl_seconds": 2, "holder": {"name": f"job {number}"}}
        holder = None
        if number % 3 == 1:
            holder = subprocess.Popen(["sleep", "1000"])
            asked["holder"] = {"pid": holder.pid}
        try:
            status, text = self.ask("POST", "/v1/leases", json.dumps(asked).encode())
            told = json.loads(text)
            lease = told.get("lease")
            if lease and number % 3 == 0:
                renewed = self.ask("POST", f"/v1/leases/{lease['id']}/renew", b'{"ttl_seconds": 3}')[0]
                released = self.ask("DELETE", f"/v1/leases/{lease['id']}")[0]
                return f"granted, renewed {renewed}, released {released}"
            if lease:
                return "granted, holder died" if holder else "granted, left to run out"
            return f"{status} {told.get('reason')}"
        finally:
            if holder:
                holder.kill()
                holder.wait()

    def hour(self, number):
        """Runs the hourly events one after the other. Each takes about a minute of the compressed day."""
        minute = self.seconds / HOURS / 60
        Outages.away = True
        time.sleep(4 * minute)
        Outages.away = False
        faults = [
            dict(lost=(2,)),
            {"nvmlInit_v2": {"code": 9}, "nvmlDeviceGetCount_v2": {"code": 9}},
            {"nvmlDeviceGetMemoryInfo_v2": {"slow_ms": 5}},
            {"*": {"code": 999}},
        ]
        self.driver.play(**faults[number % len(faults)])
        time.sleep(4 * minute)
        self.driver.play()
        self.daemon.process.send_signal(1)
        watcher = self.daemon.connect()
        watcher.sendall(request("GET", "/v1/gpus/watch"))
        time.sleep(4 * minute)
        watcher.close()
        return "done"

    def run(self):
        for name in range(MODELS):
            self.ask("POST", "/v1/fits", json.dumps({"model": {"repo": f"owner/model-{name}"}}).encode())
            self.ask("POST", "/v1/fits", self.sent)
        self.began = time.monotonic()
        workers = [
            *(Worker(self, "questions", QUESTIONS // 4, self.question) for _ in range(4)),
            Worker(self, "leases", LEASES, self.lease),
            Worker(self, "scrapes", SCRAPES, lambda _: f"{self.ask('GET', '/metrics')[0]}"),
            Worker(self, "health", CHECKS, lambda _: f"{self.ask('GET', '/v1/health')[0]}"),
            Worker(self, "hours", HOURS, self.hour),
        ]
        for worker in workers:
            worker.start()
        held = []
        print("hour  resident KiB  descriptors  threads  state KiB  cache KiB  questions", flush=True)
        for hour in range(HOURS + 1):
            time.sleep(max(0, self.began + self.seconds * hour / HOURS - time.monotonic()))
            rss, descriptors, threads = self.daemon.figures()
            sizes = [sum(file.stat().st_size for file in (self.daemon.folder / name).rglob("*") if file.is_file()) >> 10
                     for name in ("state", "cache")]
            done = sum(worker.done for worker in workers if worker.name == "questions")
            held.append(rss)
            print(f"{hour:4}  {rss:12}  {descriptors:11}  {threads:7}  {sizes[0]:9}  {sizes[1]:9}  {done:9}", flush=True)
        for worker in workers:
            worker.join(30)
        outcomes = collections.defaultdict(collections.Counter)
        for worker in workers:
            outcomes[worker.name].update(worker.outcomes)
        return held, outcomes, [worker.error for worker in workers if worker.error]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("driver")
    parser.add_argument("--seconds", type=float, default=1500)
    options = parser.parse_args()
    day = Day(os.path.abspath(options.binary), options.driver, options.seconds)
    started_with = day.daemon.figures()
    held, outcomes, errors = day.run()
    counted = {
        line.split(" ")[0].removeprefix("hf_mem_probe_"): float(line.rsplit(" ", 1)[1])
        for line in day.daemon.ask("GET", "/metrics")[1].decode().splitlines()
        if line.startswith(("hf_mem_probe_latency_seconds_count", "hf_mem_probe_hub_requests_total", "hf_mem_probe_nvml_errors_total"))
    }
    left = json.loads(day.daemon.ask("GET", "/v1/leases")[1])["leases"]
    # Callers have disconnected, leases have expired, and connections to the Hub are closed: the rest is the daemon's own.
    day.local.caller.close()
    day.daemon.settled_descriptors(started_with[1], seconds=120)
    ended_with = day.daemon.figures()
    for name, kinds in outcomes.items():
        print(f"{name}: " + ", ".join(f"{kind}: {count}" for kind, count in kinds.most_common()))
    for name, value in counted.items():
        print(f"{name} {value:.0f}")
    early, late = max(held[1:5]), min(held[-4:])
    print(f"start / end: resident {started_with[0]} / {ended_with[0]} KiB, descriptors {started_with[1]} / {ended_with[1]}, "
          f"threads {started_with[2]} / {ended_with[2]}; resident in the first and the last four hours: {early} and {late} KiB; "
          f"leases left {len(left)}; stopped with {day.daemon.end()}")
    day.driver.end()
    wrong = [kind for kinds in outcomes.values() for kind in kinds if kind.startswith(("error", "500"))]
    grown = late > early + ALLOWED_KIB or ended_with[1] > started_with[1] + 2 or ended_with[2] > started_with[2] + 2
    if wrong or grown or errors:
        print(f"FAIL: {wrong} {errors} grown: {grown}")
    return 1 if wrong or grown or errors else 0


if __name__ == "__main__":
    sys.exit(main())
