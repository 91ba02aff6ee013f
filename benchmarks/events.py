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
import statistics
import tempfile
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.effort import repeats
from benchmarks.machine import machine_line
from benchmarks.processes import memory, processor_seconds, served

TARGET = 0.25
CLIENTS = 200
JOBS = 8
EVENTS_A_SECOND = 40
SECONDS = repeats(20, 3)


@dataclass(frozen=True)
class Heard:
    """Seconds of every event at every client, the processor seconds that the server used for all
    that (`load` in cores, while events were written), and its memory in MiB; 0 where the system
    does not tell."""

    seconds: list[float]
    processor: float
    load: float
    memory: float


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        with served(home, "--no-worker") as server:
            heard = measure(home, server.url, server.pid)
    report(heard)


def measure(home: Path, url: str, pid: int) -> Heard:
    """Write events while the clients listen."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    listening = context.Process(target=listen, args=(url, there))
    listening.start()
    try:
        assert here.recv() == "ready"
        used, begin = processor_seconds(pid), time.perf_counter()
        written = write(home)
        load = (processor_seconds(pid) - used) / (time.perf_counter() - begin)
        here.send(max(written))
        told: list[tuple[int, float]] = here.recv()
        used = processor_seconds(pid) - used
    finally:
        listening.join(30)
        listening.kill()
    assert len(told) == CLIENTS * len(written), "an event did not arrive"
    seconds = [at - written[number] for number, at in told]
    return Heard(seconds, used, load, memory(pid)[0])


def write(home: Path) -> dict[int, float]:
    """Write events as workers do; when each was there, by its number."""
    from kinoloom.store.job_record import JobRecord
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


def report(heard: Heard) -> None:
    """Say how long it took."""
    cuts = statistics.quantiles(heard.seconds, n=100)
    p95, deliveries = cuts[94], len(heard.seconds)
    print(machine_line())
    print(f"{CLIENTS} clients, {EVENTS_A_SECOND} events a second, {deliveries} deliveries")
    print(f"{'from row to client':36s} {'p50 s':>8s} {'p95 s':>8s} {'p99 s':>8s} {'max s':>8s}")
    figures = (cuts[49], p95, cuts[98], max(heard.seconds))
    print(f"{'websocket':36s} " + " ".join(f"{figure:8.3f}" for figure in figures))
    if heard.memory:
        print(f"{'cores that the server used':36s} {heard.load:8.2f}")
        each = heard.processor / deliveries * 1e6
        print(f"{'its processor time a delivery, us':36s} {each:8.1f}")
        print(f"{'its memory, MiB':36s} {heard.memory:8.0f}")
    print(f"target p95 {TARGET} s: {p95:.3f} s, {'met' if p95 <= TARGET else 'MISSED'}")


if __name__ == "__main__":
    main()
