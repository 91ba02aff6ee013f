"""Which queue does a job wait in?

A queue's name is what its workers can do: `cpu` and `gpu` render on their machine, with whichever
backend that does so, `api` waits for services. A worker may serve a queue of any other name too,
such as `gpu-24gb`; a job then goes where the least memory suffices. Every worker serves `film`.
"""

from __future__ import annotations

from collections.abc import Iterable

from kinoloom.planner.plan import Plan
from kinoloom.store.workers import WorkerRecord

API = "api"
"""The queue of what other services do."""
FILM = "film"
"""The queue of films: they wait for the clips that they are made of. Also what such jobs are."""
OWN = "cli-"
"""Begins the queues of commands that render in their own process; no worker serves them."""


def queue_of_device(device: str) -> str:
    """The queue of a device of this machine by its name in plans, such as ``cuda:0 NVIDIA ...``."""
    return "cpu" if device.startswith("cpu") else "gpu"


def queue_for(plan: Plan, workers: Iterable[WorkerRecord]) -> str:
    """The queue for a plan: where a worker's memory suffices, and no more of it than is needed."""
    if plan.remote:
        return API
    usual = queue_of_device(plan.device)
    peak = plan.memory.predicted_peak if plan.memory is not None else None
    if peak is None:
        return usual
    fitting = [
        (queue.memory_bytes, queue.name)
        for worker in workers
        for queue in worker.queues
        if queue.memory_bytes is not None
        and queue.memory_bytes >= peak
        and queue.device is not None
        and queue_of_device(queue.device) == usual
    ]
    return min(fitting)[1] if fitting else usual
