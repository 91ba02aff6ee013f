"""What does a server use while nothing happens: processor time and memory, process by process?

`kinoloom serve` with its worker and the worker's child, which holds torch, before the first clip
and after one, when the model stays loaded. The worker looks into its queues three times a second.
RSS is all that a process has in main memory; PSS counts what several share in parts.

Target: at most 0.05 of a core for all of them together.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import httpx

from benchmarks.effort import repeats
from benchmarks.machine import machine_line
from benchmarks.processes import (
    LIMIT,
    Server,
    children,
    memory,
    processor_seconds,
    served,
    until,
)
from kinoloom.store.job_record import FINISHED

TARGET = 0.05
SECONDS = repeats(30, 5)
_CALM = 0.1
"""Cores; below that a process has come to rest."""
_LOOK = 3.0


def family(server: Server) -> dict[str, int]:
    """The server's processes by what they are."""
    found = {"server": server.pid}
    for worker in children(server.pid):
        found["worker"] = worker
        found |= {f"child {n}": pid for n, pid in enumerate(children(worker), 1)}
    if len(found) == 3:
        found["child, which renders"] = found.pop("child 1")
    return found


def cores(pids: dict[str, int], seconds: float) -> dict[str, float]:
    """The cores that each process uses on average in so many seconds from now."""
    begin = {name: processor_seconds(pid) for name, pid in pids.items()}
    time.sleep(seconds)
    return {name: (processor_seconds(pid) - begin[name]) / seconds for name, pid in pids.items()}


def at_rest(server: Server) -> dict[str, int]:
    """Wait until nothing starts or ends any more; the processes that there are."""
    until(lambda: sum(cores(family(server), _LOOK).values()) < _CALM, "all is calm")
    return family(server)


def make_clip(server: Server) -> None:
    """Have a clip made."""
    answer = httpx.post(f"{server.url}/api/clips", json={"prompt": "a red ball"}, timeout=LIMIT)
    job = answer.raise_for_status().json()["links"]["self"]

    def state() -> str:
        return str(httpx.get(server.url + job, timeout=LIMIT).json()["state"])

    until(lambda: state() in FINISHED, "the clip is made")
    if state() != "succeeded":
        sys.exit("The clip was not made.")


def table(title: str, used: dict[str, float], held: dict[str, tuple[float, float]]) -> float:
    """Print what each process uses, and all together; the cores of all."""
    print(f"{title:28s} {'cores':>8s} {'RSS MiB':>9s} {'PSS MiB':>9s}")
    for name, share in used.items():
        print(f"{name:28s} {share:8.4f} {held[name][0]:9.0f} {held[name][1]:9.0f}")
    whole = sum(used.values())
    print(f"{'all':28s} {whole:8.4f} {'':9s} {sum(pss for _, pss in held.values()):9.0f}")
    return whole


def main() -> None:
    """Print the tables."""
    if not Path("/proc/self/smaps_rollup").exists():
        print("Only Linux tells what a process uses.")
        return
    print(machine_line())
    print(f"over {SECONDS} s")
    with tempfile.TemporaryDirectory() as folder, served(Path(folder) / "home") as server:
        until(server.is_ready, "the worker takes jobs")
        most = 0.0
        for title in ("before the first clip", "after a clip"):
            pids = at_rest(server)
            used = cores(pids, SECONDS)
            most = max(most, table(title, used, {name: memory(pid) for name, pid in pids.items()}))
            if title.startswith("before"):
                make_clip(server)
    print(f"target {TARGET} cores: {most:.4f}, {'met' if most <= TARGET else 'MISSED'}")


if __name__ == "__main__":
    main()
