"""How soon do 200 websocket clients hear of an event after its row is written?

A server process with its store on SQLite; this process writes the rows, as workers do, and another
one holds the clients. Eight jobs report 40 times a second together for some seconds: five events a
second of each job. What is told is the time from the moment when a row's transaction was done to
the moment when a client has read the message. The rows are looked at every 0.1 seconds, and a
client gets a batch at most every 0.1 seconds, so about 0.05 seconds are meant to be there. The
clients share the cores with the server.

Target: p95 of 0.25 seconds.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.effort import repeats
from benchmarks.machine import machine_line

TARGET = 0.25
CLIENTS = 200
JOBS = 8
EVENTS_A_SECOND = 40
SECONDS = repeats(20, 3)

# The server as `kinoloom serve` runs it, without a worker: nothing is rendered here.
SERVER = """
import sys
from kinoloom.config import Settings
from kinoloom.server.serve import serve
serve(Settings(home=sys.argv[1]), port=0, on_ready=lambda url: print(url, flush=True))
"""


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as home:
        command = [sys.executable, "-c", SERVER, home]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None  # it was asked for
            try:
                url = server.stdout.readline().strip()
                heard, took, memory = measure(Path(home), url, server.pid)
            finally:
                server.terminate()
    report(heard, took, memory)


def measure(home: Path, url: str, pid: int) -> tuple[list[float], float, float]:
    """Seconds of every event at every client, how many cores the server used, and its memory in
    MiB; 0 where the system does not tell."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    listening = context.Process(target=listen, args=(url, there))
    listening.start()
    try:
        assert here.recv() == "ready"
        used, begin = _processor(pid), time.perf_counter()
        written = write(home)
        load = (_processor(pid) - used) / (time.perf_counter() - begin)
        here.send(max(written))
        told: list[tuple[int, float]] = here.recv()
    finally:
        listening.join(30)
        listening.kill()
    assert len(told) == CLIENTS * len(written), "an event did not arrive"
    return [at - written[number] for number, at in told], load, _memory(pid)


def write(home: Path) -> dict[int, float]:
    """Write events as workers do; when each was there, by its number."""
    from kinoloom.store.jobs import JobRecord
    from kinoloom.store.store import Store

    what = {"task": "t2v", "model": "spark", "backend": "local", "request": {}}
    written = {}
    with Store.open(home) as store:
        jobs = [JobRecord(queue="cpu", origin="api", **what) for _ in range(JOBS)]
        for job in jobs:
            store.jobs.add(job)
        time.sleep(0.5)  # the events of the jobs' creation are out of the way
        begin = time.perf_counter()
        for n in range(EVENTS_A_SECOND * SECONDS):
            time.sleep(max(0.0, begin + n / EVENTS_A_SECOND - time.perf_counter()))
            step = {"phase": "denoise", "step": n // JOBS, "steps": 100, "elapsed": 1.0, "eta": 9.0}
            number = store.events.add(jobs[n % JOBS].id, "log", step)
            written[number] = time.time()
    return written


def listen(url: str, parent: Connection) -> None:
    """Hold the clients until all of them have heard of the last event."""
    asyncio.run(_listen(url.replace("http", "ws", 1) + "/api/events", parent))


async def _listen(address: str, parent: Connection) -> None:
    from websockets.asyncio.client import connect

    told: list[tuple[int, float]] = []
    last = asyncio.get_running_loop().create_future()

    async def client(greeted: asyncio.Semaphore) -> None:
        async with connect(address, open_timeout=60, compression=None) as websocket:
            await websocket.recv()
            greeted.release()
            reached = 0
            while not last.done() or reached < last.result():
                try:
                    async with asyncio.timeout(1.0):
                        said = await websocket.recv()
                except TimeoutError:
                    continue  # the last one may have been known too late
                now = time.time()
                message = json.loads(said)
                reached = message["last"]
                logs = (e["number"] for e in message.get("events", ()) if e["type"] == "log")
                told.extend((number, now) for number in logs)

    def wait_for_last() -> None:
        number = parent.recv()
        loop.call_soon_threadsafe(last.set_result, number)

    loop = asyncio.get_running_loop()
    greeted = asyncio.Semaphore(0)
    async with asyncio.TaskGroup() as tasks:
        for _ in range(CLIENTS):
            tasks.create_task(client(greeted))
        for _ in range(CLIENTS):
            await greeted.acquire()
        parent.send("ready")
        threading.Thread(target=wait_for_last, daemon=True).start()
    parent.send(told)


def report(heard: list[float], load: float, memory: float) -> None:
    """Say how long it took."""
    cuts = statistics.quantiles(heard, n=100)
    p95 = cuts[94]
    print(machine_line())
    print(f"{CLIENTS} clients, {EVENTS_A_SECOND} events a second, {len(heard)} deliveries")
    print(f"{'from row to client':28s} {'p50 s':>8s} {'p95 s':>8s} {'p99 s':>8s} {'max s':>8s}")
    figures = (cuts[49], p95, cuts[98], max(heard))
    print(f"{'websocket':28s} " + " ".join(f"{figure:8.3f}" for figure in figures))
    if memory:
        print(f"{'cores that the server used':28s} {load:8.2f}")
        print(f"{'memory of the server, MiB':28s} {memory:8.0f}")
    print(f"target p95 {TARGET} s: {p95:.3f} s, {'met' if p95 <= TARGET else 'MISSED'}")


def _processor(pid: int) -> float:
    """The processor seconds that a process used so far."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory(pid: int) -> float:
    """The MiB that a process has in memory."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024**2


if __name__ == "__main__":
    main()
