from __future__ import annotations

import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from kinoloom.store.ids import new_id


def test_an_id_is_a_uuid_of_version_7() -> None:
    before = time.time_ns() // 1_000_000
    value = uuid.UUID(new_id())
    assert (value.version, value.variant) == (7, uuid.RFC_4122)
    assert 0 <= (value.int >> 80) - before < 60_000


def test_ids_sort_by_time() -> None:
    ids = [new_id() for _ in range(10_000)]
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)


def test_ids_sort_when_the_clock_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    first = new_id()
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    assert new_id() > first


def test_threads_never_share_an_id() -> None:
    start = threading.Barrier(4)

    def several() -> list[str]:
        start.wait(30)
        return [new_id() for _ in range(1000)]

    with ThreadPoolExecutor(4) as pool:
        found = [one for job in [pool.submit(several) for _ in range(4)] for one in job.result()]
    # The time and counter alone differ, not only the random part.
    assert len({one[:18] for one in found}) == 4000
