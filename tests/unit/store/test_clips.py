from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, text

from kinoloom.errors import InvalidMedia
from kinoloom.store import DATABASE_NAME, Store
from kinoloom.store.clips import ClipRecord, ClipTotals, boundary_name
from kinoloom.store.measurements import Measurement
from kinoloom.store.schema import MIGRATIONS

MEASUREMENT = Measurement(
    device="cpu",
    model="spark",
    revision="",
    width=192,
    height=128,
    frames=25,
    steps=12,
    guided=True,
    seconds_per_step=1.0,
    load_seconds=2.0,
    overhead_seconds=0.5,
)


def record(prompt: str = "a red ball", **values: Any) -> ClipRecord:
    given: dict[str, Any] = {
        "path": Path("outputs/ball.mp4"),
        "plan_key": "key",
        "task": "t2v",
        "model": "spark",
        "backend": "local",
        "seed": 2**63 - 1,
        "width": 192,
        "height": 128,
        "frames": 25,
        "fps": 12.0,
        "format": "mp4",
        "request": {"prompt": prompt},
        "plan": {"steps": 12, "why": ["äöü"]},
        "timings": {"denoise": 3.5},
        "scores": {"overall": 0.8},
        "versions": {"torch": "2.13.0"},
        "warnings": ("one", "two"),
    }
    return ClipRecord(**given | values)


def test_a_record_comes_back_as_it_was(store: Store) -> None:
    asset, poster = store.assets.put_bytes(b"a", "image"), store.assets.put_bytes(b"b", "image")
    kept = record(inputs={"image": asset.digest, "last_image": asset.digest}, poster=poster.digest)
    store.clips.add(kept)
    assert store.clips.get(kept.id) == kept


def test_takes_are_kept_with_their_files(store: Store) -> None:
    assets = [store.assets.put_bytes(bytes([i]), "take") for i in range(3)]
    takes = tuple(
        {"seed": 7 + i, "scores": {"overall": 0.1 * i}, "asset": asset.digest}
        for i, asset in enumerate(assets)
    )
    kept = record(takes=takes)
    store.clips.add(kept)
    assert store.clips.get(kept.id) == kept
    data = json.loads(json.dumps(kept.as_dict()))
    assert [take["seed"] for take in data["takes"]] == [7, 8, 9]
    missing = {"seed": 1, "scores": {}, "asset": "sha256:" + "0" * 64}
    with pytest.raises(ValueError, match="asset"):
        store.clips.add(record(takes=(missing,)))


def test_what_was_tried_and_what_it_cost(store: Store) -> None:
    tried = ({"backend": "google", "error": {"kind": "rate_limited"}}, {"backend": "runway"})
    kept = record(attempts=tried, cost=Decimal("0.60"), currency="USD")
    store.clips.add(kept)
    assert store.clips.get(kept.id) == kept
    data = json.loads(json.dumps(kept.as_dict()))
    assert (data["attempts"], data["cost"], data["currency"]) == (list(tried), "0.6", "USD")
    store.clips.add(unpaid := record())
    assert (unpaid.as_dict()["attempts"], unpaid.as_dict()["cost"]) == ([], None)
    assert store.clips.get(unpaid.id) == unpaid


def test_as_dict_is_json(store: Store) -> None:
    kept = record(created_at=datetime(2026, 11, 21, 13, tzinfo=timezone(timedelta(hours=1))))
    data = json.loads(json.dumps(kept.as_dict()))
    assert set(data) == {item.name for item in dataclasses.fields(ClipRecord)}
    assert data["path"] == "outputs/ball.mp4"
    assert data["created_at"] == "2026-11-21T12:00:00+00:00"
    assert data["warnings"] == ["one", "two"]


def test_times_come_back_in_utc(store: Store) -> None:
    moment = datetime(2026, 11, 21, 13, tzinfo=timezone(timedelta(hours=1)))
    kept = record(created_at=moment)
    store.clips.add(kept)
    found = store.clips.get(kept.id)
    assert found is not None
    assert found.created_at == moment
    assert found.created_at.tzinfo is UTC


def test_a_time_without_a_zone_is_refused(store: Store) -> None:
    with pytest.raises(Exception, match="time zone"):
        store.clips.add(record(created_at=datetime(2026, 11, 21)))
    assert store.clips.list() == []


def test_an_unknown_clip(store: Store) -> None:
    assert store.clips.get("nothing") is None
    assert store.clips.delete("nothing") is None


def test_pages_are_newest_first(store: Store) -> None:
    kept = [record(str(number)) for number in range(7)]
    for one in (kept[3], *kept[:3], *kept[4:]):
        store.clips.add(one)
    pages: list[list[str]] = []
    before: str | None = None
    while page := store.clips.list(limit=3, before=before):
        pages.append([found.prompt for found in page])
        before = page[-1].id
    assert pages == [["6", "5", "4"], ["3", "2", "1"], ["0"]]
    assert store.clips.list(limit=0) == []


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("", {"A Red Ball rolls", "ЗИМА in Äpfel", "100% blue_sky"}),
        ("ball red", {"A Red Ball rolls"}),
        ("ROLL", {"A Red Ball rolls"}),
        ("зима", {"ЗИМА in Äpfel"}),
        ("äPFEL", {"ЗИМА in Äpfel"}),
        ("%", {"100% blue_sky"}),
        ("e_s", {"100% blue_sky"}),
        ("d_b", set()),
        ("red sky", set()),
        ("' OR 1=1 --", set()),
    ],
)
def test_search(store: Store, search: str, found: set[str]) -> None:
    for prompt in ("A Red Ball rolls", "ЗИМА in Äpfel", "100% blue_sky"):
        store.clips.add(record(prompt))
    assert {one.prompt for one in store.clips.list(search=search)} == found


def test_lists_are_filtered(store: Store) -> None:
    common = record("common")
    others = {
        "model": record("model", model="wan"),
        "backend": record("backend", backend="api"),
        "task": record("task", task="i2v"),
        "format": record("format", format="webm"),
        "owner": record("owner", owner="key"),
    }
    for one in (common, *others.values()):
        store.clips.add(one)
    for name, one in others.items():
        assert store.clips.list(**{name: getattr(one, name)}) == [one]
    assert len(store.clips.list(model="spark")) == 5
    assert store.clips.list(model="wan", task="i2v") == []
    assert store.clips.list(model="\0", before="\udc80") == []


def test_who_asked_and_where_the_video_is(store: Store) -> None:
    video = store.assets.put_bytes(b"video", "video").digest
    kept = record(asset=video, owner="key", job_id="job", path=Path("id.mp4"))
    store.clips.add(kept)
    found = store.clips.get(kept.id)
    assert found == kept
    assert store.clips.by_plan_key("key") == [kept]


def test_totals(store: Store) -> None:
    assert store.clips.totals() == []
    for values in (
        {"timings": {"total": 2.5}, "plan": {"steps": 8}, "fps": 24.0},
        {"timings": {"total": 1.5}, "plan": {"steps": 4}, "frames": 5},
        {"backend": "api", "plan": {}},
    ):
        store.clips.add(record(**values))
    assert store.clips.totals() == [
        ClipTotals("t2v", "api", clips=1, frames=25, steps=0, seconds=0.0, fps=12.0),
        ClipTotals("t2v", "local", clips=2, frames=30, steps=12, seconds=4.0, fps=36.0),
    ]


def test_a_clip_is_recorded_with_all_that_belongs_to_it(store: Store) -> None:
    kept = record()
    store.record_clip(kept, [MEASUREMENT, MEASUREMENT], {"b": 2, "a": 1})
    assert store.clips.get(kept.id) == kept
    assert len(store.measurements.recent("cpu", "spark")) == 2
    assert store.statistics.totals() == {"a": 1, "b": 2}
    with pytest.raises(ValueError, match="id is taken"):
        store.record_clip(kept, [MEASUREMENT], {"a": 1})
    assert len(store.measurements.recent("cpu", "spark")) == 2
    assert store.statistics.totals() == {"a": 1, "b": 2}


def test_clips_of_before_get_what_they_are_added_up_by(tmp_path: Path) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    engine = create_engine(f"sqlite:///{tmp_path / DATABASE_NAME}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0005")
        connection.execute(
            text(
                "INSERT INTO clips VALUES ('1', '2026-11-21 10:00:00', 'a.mp4', 'key', 't2v',"
                " 'spark', 'local', 7, 192, 128, 25, 12.0, 'mp4', 'a', '{\"prompt\": \"A\"}',"
                " '{\"steps\": 9}', '{\"total\": 3.5}', '{}', '{}', '[]', '[]')"
            )
        )
    engine.dispose()
    with Store.open(tmp_path) as store:
        (totals,) = store.clips.totals()
        assert (totals.clips, totals.steps, totals.seconds) == (1, 9, 3.5)
        (found,) = store.clips.list()
        assert (found.owner, found.job_id, found.asset, found.prompt) == (None, None, None, "A")


def test_search_and_pages_together(store: Store) -> None:
    for number in range(4):
        store.clips.add(record(f"{'red' if number % 2 else 'blue'} {number}"))
    first = store.clips.list(limit=1, search="red")
    assert [one.prompt for one in first] == ["red 3"]
    assert [one.prompt for one in store.clips.list(before=first[0].id, search="red")] == ["red 1"]


def test_by_plan_key(store: Store) -> None:
    for key in ("a", "b", "a"):
        store.clips.add(record(plan_key=key, path=Path(f"{len(store.clips.list())}.mp4")))
    assert [one.path.name for one in store.clips.by_plan_key("a")] == ["2.mp4", "0.mp4"]
    assert store.clips.by_plan_key("c") == []


def test_delete_forgets_the_record_and_keeps_the_assets(store: Store) -> None:
    poster = store.assets.put_bytes(b"poster", "image").digest
    kept, other = record(poster=poster), record(poster=poster)
    store.clips.add(kept)
    store.clips.add(other)
    assert store.clips.delete(kept.id) == kept
    assert store.clips.get(kept.id) is None
    assert store.clips.get(other.id) == other
    store.assets.verify(poster)
    store.clips.add(kept)  # nothing of it was left in the way


def test_an_asset_that_is_not_there(store: Store) -> None:
    with pytest.raises(ValueError, match="asset"):
        store.clips.add(record(poster="sha256:" + "0" * 64))
    assert store.clips.list() == []
    with pytest.raises(InvalidMedia):
        store.assets.get("sha256:" + "0" * 64)


def test_an_id_twice(store: Store) -> None:
    kept = record()
    store.clips.add(kept)
    with pytest.raises(ValueError, match="id is taken"):
        store.clips.add(dataclasses.replace(record("other"), id=kept.id))


@pytest.mark.parametrize("odd", ["\udc80 byte", "\0 zero", "👩‍🎨 " * 3000])
def test_odd_prompts_and_paths(store: Store, odd: str) -> None:
    kept = record(odd, path=Path(f"outputs/{odd}.mp4"))
    store.clips.add(kept)
    found = store.clips.get(kept.id)
    assert found is not None
    assert found.prompt == odd


def test_without_a_prompt(store: Store) -> None:
    kept = record(request={"prompt": None})
    store.clips.add(kept)
    assert [one.prompt for one in store.clips.list()] == [""]


def test_no_change_to_a_record_without_replace() -> None:
    change: Callable[[], None] = lambda: setattr(record(), "seed", 1)  # noqa: E731
    with pytest.raises(dataclasses.FrozenInstanceError):
        change()


def test_what_a_film_goes_on_from_is_found_by_how_much_of_it_is_wanted() -> None:
    kept = {boundary_name(25, 1): "one", boundary_name(25, 9): "nine", boundary_name(17, 17): "all"}
    assert kept.keys() == {"25", "25:9", "17:17"}
    clip = record(boundaries=kept)
    assert clip.boundary(25, 1) == (1, "one")
    assert clip.boundary(25, 5) == clip.boundary(25, 9) == (9, "nine")
    assert clip.boundary(17, 1) == (17, "all")
    assert clip.boundary(25, 10) is None
    assert clip.boundary(2, 1) is None
