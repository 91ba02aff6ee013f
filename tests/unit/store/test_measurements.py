from __future__ import annotations

from typing import Any

import pytest

from kinoloom.store import Store
from kinoloom.store import measurements as module
from kinoloom.store.measurements import Measurement


def measurement(**values: Any) -> Measurement:
    given: dict[str, Any] = {
        "device": "cpu",
        "model": "spark",
        "revision": "1 float32",
        "width": 192,
        "height": 128,
        "frames": 25,
        "steps": 12,
        "guided": True,
        "seconds_per_step": 1.0,
        "load_seconds": 2.0,
        "overhead_seconds": 0.5,
    }
    return Measurement(**given | values)


def seconds(store: Store, model: str = "spark") -> list[float]:
    return [one.seconds_per_step for one in store.measurements.recent("cpu", model)]


@pytest.mark.parametrize("peak", [None, 3 << 40])
def test_a_measurement_comes_back_as_it_was(store: Store, peak: int | None) -> None:
    kept = measurement(peak_bytes=peak)
    store.measurements.add(kept)
    assert store.measurements.recent("cpu", "spark") == (kept,)


def test_nothing_known(store: Store) -> None:
    store.measurements.add(measurement(device="cuda"))
    store.measurements.add(measurement(model="other"))
    assert store.measurements.recent("cpu", "spark") == ()


def test_the_newest_come_first(store: Store) -> None:
    for number in range(3):
        store.measurements.add(measurement(seconds_per_step=float(number)))
    assert seconds(store) == [2.0, 1.0, 0.0]


def test_revisions_together_and_apart(store: Store) -> None:
    for revision in ("1", "2", "1"):
        store.measurements.add(measurement(revision=revision))
    found = store.measurements.recent("cpu", "spark")
    assert [one.revision for one in found] == ["1", "2", "1"]
    assert len(store.measurements.recent("cpu", "spark", revision="1")) == 2


def test_the_table_stays_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEEP_EACH", 3)
    monkeypatch.setattr(module, "KEEP_ALL", 5)
    for number in range(6):
        store.measurements.add(measurement(seconds_per_step=float(number)))
    assert seconds(store) == [5.0, 4.0, 3.0]
    for number in range(3):
        store.measurements.add(measurement(model="other", seconds_per_step=float(number)))
    assert seconds(store, "other") == [2.0, 1.0, 0.0]
    monkeypatch.undo()  # what is gone is gone from the table, not only from the answer
    assert seconds(store) == [5.0, 4.0]
