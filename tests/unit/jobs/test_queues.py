from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from kinoloom.jobs.queues import queue_for, queue_of_device
from kinoloom.store.workers import WorkerQueue, WorkerRecord

GB = 1 << 30


def plan(device: str = "cuda:0 X", peak: int | None = 10 * GB, remote: bool = False) -> Any:
    memory = None if peak is None else SimpleNamespace(predicted_peak=peak)
    return SimpleNamespace(device=device, remote=remote, memory=memory)


def workers(*queues: WorkerQueue) -> list[WorkerRecord]:
    now = datetime.now(UTC)
    return [
        WorkerRecord(
            id=f"w{n}", host="h", pid=1, queues=(q,), machine={}, version="1", started_at=now
        )
        for n, q in enumerate(queues)
    ]


SMALL = WorkerQueue("gpu-8gb", "cuda:0", 8 * GB)
MIDDLE = WorkerQueue("gpu-24gb", "cuda:0", 24 * GB)
LARGE = WorkerQueue("gpu-80gb", "cuda:0", 80 * GB)


@pytest.mark.parametrize(
    ("given", "there", "queue"),
    [
        (plan(), [SMALL, LARGE, MIDDLE], "gpu-24gb"),
        (plan(peak=2 * GB), [LARGE, SMALL, MIDDLE], "gpu-8gb"),
        (plan(peak=24 * GB), [MIDDLE], "gpu-24gb"),
        # Nobody's memory suffices: it waits for somebody of the usual kind.
        (plan(peak=90 * GB), [SMALL, LARGE], "gpu"),
        (plan(), [], "gpu"),
        (plan(peak=None), [SMALL], "gpu"),
        # A processor is no GPU, however much memory it has.
        (plan(), [WorkerQueue("cpu", "cpu", 512 * GB)], "gpu"),
        (plan(device="cpu x8"), [LARGE, WorkerQueue("big-cpu", "cpu x8", 64 * GB)], "big-cpu"),
        (plan(device="cpu x8"), [LARGE], "cpu"),
        (plan(), [WorkerQueue("api")], "gpu"),
        (plan(remote=True), [LARGE], "api"),
    ],
)
def test_a_job_goes_where_the_least_memory_suffices(
    given: Any, there: list[WorkerQueue], queue: str
) -> None:
    assert queue_for(given, workers(*there)) == queue


def test_a_device_by_its_name() -> None:
    assert queue_of_device("cpu x4") == "cpu"
    assert queue_of_device("cuda:1 NVIDIA H200") == queue_of_device("mps") == "gpu"
