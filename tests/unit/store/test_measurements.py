from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, text

from kinoloom.store import DATABASE_NAME, Store
from kinoloom.store import measurements as module
from kinoloom.store.measurements import Measurement
from kinoloom.store.schema import MIGRATIONS


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


def test_how_it_was_rendered_comes_back(store: Store) -> None:
    kept = measurement(placement="group_offload", tiling=True, acceleration="fast")
    store.measurements.add(kept)
    assert store.measurements.recent("cpu", "spark") == (kept,)


def test_what_was_measured_before_says_how_every_render_was_then(tmp_path: Path) -> None:
    file = tmp_path / DATABASE_NAME
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    engine = create_engine(f"sqlite:///{file}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
        connection.execute(
            text(
                "INSERT INTO measurements VALUES (7, '2026-11-21 10:00:00', 'cpu', 'spark', '',"
                " 256, 160, 25, 20, 1, 0.25, 1.0, 0.5, NULL)"
            )
        )
    engine.dispose()
    with Store.open(tmp_path) as store:
        (found,) = store.measurements.recent("cpu", "spark")
        assert (found.placement, found.tiling, found.acceleration) == (
            "resident",
            False,
            "lossless",
        )
        assert (found.seconds_per_step, found.frames, found.peak_bytes) == (0.25, 25, None)
        store.measurements.add(measurement(placement="sequential"))
        assert len(store.measurements.recent("cpu", "spark")) == 2


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
