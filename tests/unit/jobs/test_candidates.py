from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kinoloom.jobs.clip import Made
from kinoloom.jobs.progress import Event
from kinoloom.media.reader import read_video
from kinoloom.media.settings import read_settings
from kinoloom.planner.plan import Plan
from kinoloom.remake import read_remake
from kinoloom.store.store import Store

pytestmark = pytest.mark.usefixtures("one_thread")

MakePlan = Callable[..., Plan]
Run = Callable[..., Made]


def test_the_best_of_several_takes_is_the_clip(
    run: Run, make_plan: MakePlan, store: Store, out: Path
) -> None:
    plan = make_plan(candidates=3)
    record = run(plan).record
    assert list(out.iterdir()) == [record.path]
    assert [take["seed"] for take in record.takes] == [7, 8, 9]
    overall = {take["seed"]: take["scores"]["overall"] for take in record.takes}
    assert record.scores["overall"] == max(overall.values()) == overall[record.seed]
    assert len(set(overall.values())) > 1
    assert store.clips.get(record.id) == record
    chosen = plan.with_seed(record.seed)
    assert record.plan_key == chosen.key
    assert Plan.model_validate(record.plan) == chosen
    settings = read_settings(record.path)
    assert settings is not None
    assert (settings["clip"], settings["plan"]["seed"]) == (record.id, record.seed)


def test_every_take_can_be_played_and_is_that_of_its_seed(
    run: Run, make_plan: MakePlan, store: Store
) -> None:
    takes = run(make_plan(candidates=2, format="gif")).record.takes
    assert len({take["asset"] for take in takes}) == 2
    for take in takes:
        file = store.assets.path(take["asset"])
        alone = run(make_plan(seed=take["seed"])).record
        assert np.array_equal(read_video(file)[0], read_video(alone.path)[0])
        assert alone.scores["overall"] == take["scores"]["overall"]
        settings = read_settings(file)
        assert settings is not None
        assert settings["plan"]["seed"] == take["seed"]


def test_each_take_teaches_the_next_estimate_and_says_which_it_is(
    run: Run, make_plan: MakePlan, store: Store
) -> None:
    events: list[Event] = []
    run(make_plan(candidates=2), events.append)
    assert len(store.measurements.recent("cpu x1", "tiny")) == 2
    assert {e.takes for e in events} == {2}
    assert [e.take for e in events if e.phase == "load"] == [1, 2]
    assert [e.take for e in events if e.phase == "decode"] == [1, 2]


def test_the_chosen_take_is_made_again_to_the_very_frame(
    run: Run, make_plan: MakePlan, store: Store
) -> None:
    record = run(make_plan(candidates=3)).record
    remake = read_remake(record.path, {}, store)
    assert (remake.request.seed, remake.request.candidates) == (record.seed, 1)
    values = remake.request.model_dump(exclude_unset=True)
    again = run(make_plan(**(values | {"cache": "bypass"})))
    assert again.record.plan_key == remake.key == record.plan_key
    assert again.record.takes == ()
    assert np.array_equal(read_video(again.record.path)[0], read_video(record.path)[0])
    assert run(make_plan(**values)).reused


def test_several_takes_are_rendered_whatever_was_made_before(run: Run, make_plan: MakePlan) -> None:
    run(make_plan(candidates=2))
    assert not run(make_plan(candidates=2)).reused


def test_stopped_in_a_later_take_nothing_is_left(
    run: Run, make_plan: MakePlan, store: Store, out: Path
) -> None:
    class Stop(Exception):
        pass

    def stop(event: Event) -> None:
        if (event.phase, event.take, event.step) == ("denoise", 2, 2):
            raise Stop

    with pytest.raises(Stop):
        run(make_plan(candidates=3), stop)
    assert not out.exists() or list(out.iterdir()) == []
    assert store.clips.list() == []
    assert store.measurements.recent("cpu x1", "tiny") == ()
