"""How soon is a clip that was asked for in its queue, at 50 requests a second?

`POST /api/clips` of a real `kinoloom serve` whose jobs nobody runs. Each request has words of its
own: it is checked, planned, and becomes a row. The moments at which requests are sent are fixed
before, and each one's time counts from its moment on, whether it could be sent then or not: a
server that stands still for a second makes fifty requests slow, not one. Whoever sends shares the
cores with the server.

Target: p99 of 0.5 seconds ("API response under 500 ms").
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx

from benchmarks.effort import repeats
from benchmarks.machine import machine_line
from benchmarks.processes import LIMIT, Server, processor_seconds, served

TARGET = 0.5
RATE = 50
SECONDS = repeats(20, 3)
WARM_UP = 25
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink")

Send = Callable[[int], Awaitable[None]]


async def open_loop(send: Send, rate: float, count: int) -> list[float]:
    """Call `send` with 0, 1, ... at a fixed rate, however many have not ended yet; the seconds from
    the moment when each was due until it was done."""
    loop = asyncio.get_running_loop()
    begin = loop.time()

    async def one(number: int) -> float:
        due = begin + number / rate
        await asyncio.sleep(due - loop.time())
        await send(number)
        return loop.time() - due

    return list(await asyncio.gather(*(one(number) for number in range(count))))


async def submit(url: str) -> list[float]:
    """The seconds of every request."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=LIMIT) as client:

        async def send(number: int) -> None:
            prompt = f"a {COLOURS[number % len(COLOURS)]} ball rolling, number {number}"
            answer = await client.post("/api/clips", json={"prompt": prompt})
            if answer.status_code != 202:
                raise RuntimeError(f"not queued: {answer.status_code} {answer.text}")

        for number in range(WARM_UP):
            await send(number)
        return await open_loop(send, RATE, RATE * SECONDS)


def measure(server: Server) -> tuple[list[float], float, float]:
    """The seconds of every request, the processor seconds of the server for each, and the cores
    that it used meanwhile."""
    used, begin = processor_seconds(server.pid), time.perf_counter()
    taken = asyncio.run(submit(server.url))
    used, wall = processor_seconds(server.pid) - used, time.perf_counter() - begin
    totals = httpx.get(f"{server.url}/api/queues", timeout=LIMIT).json()["totals"]
    waiting = totals["waiting"]
    if waiting != len(taken) + WARM_UP:
        sys.exit(f"{waiting} jobs wait, not {len(taken) + WARM_UP}.")
    return taken, used / waiting, used / wall


def main() -> None:
    """Print the table."""
    with (
        tempfile.TemporaryDirectory() as folder,
        served(Path(folder) / "home", "--no-worker") as server,
    ):
        taken, processor, cores = measure(server)
    cuts = statistics.quantiles(taken, n=100)
    print(machine_line())
    print(f"{RATE} requests a second for {SECONDS} s, on SQLite")
    print(f"{'from due to answered':36s} {'p50 s':>8s} {'p95 s':>8s} {'p99 s':>8s} {'max s':>8s}")
    figures = (cuts[49], cuts[94], cuts[98], max(taken))
    print(f"{'POST /api/clips':36s} " + " ".join(f"{figure:8.3f}" for figure in figures))
    if processor:
        print(f"{'processor time a request, ms':36s} {processor * 1000:8.1f}")
        print(f"{'cores that the server used':36s} {cores:8.2f}")
    verdict = "met" if cuts[98] <= TARGET else "MISSED"
    print(f"target p99 {TARGET} s, API response under 500 ms: {cuts[98]:.3f} s, {verdict}")


if __name__ == "__main__":
    main()
