from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.loader import Catalog
from kinoloom.planner.estimate import Estimate, Measurement, estimate

CARD = (
    Catalog.load()
    .get("spark")
    .model_copy(
        update={
            "timing": Catalog.load()
            .get("spark")
            .timing.model_copy(  # type: ignore[union-attr]
                update={"seconds_per_step": 0.5, "at": (256, 160, 25), "overhead": 2.0}
            )
        }
    )
)
BASE = Measurement(
    model="spark",
    device="cpu",
    width=256,
    height=160,
    frames=25,
    guidance=3.0,
    seconds_per_step=0.2,
    overhead=1.0,
)


def ask(measurements: Any = None, card: ModelCard = CARD, **changes: Any) -> Estimate:
    values: dict[str, Any] = {
        "device": "cpu",
        "size": (256, 160),
        "frames": 25,
        "steps": 20,
        "guidance": 3.0,
    }
    return estimate(card, measurements=measurements, **(values | changes))


def seconds(measurements: Any = None, **changes: Any) -> float:
    result = ask(measurements, **changes)
    assert result.seconds is not None
    assert result.low is not None
    assert result.high is not None
    assert 0 < result.low < result.seconds < result.high
    return result.seconds


def test_without_measurements_the_card_says() -> None:
    assert ask().source == "card"
    assert "2026" in ask().basis
    assert seconds() == pytest.approx(20 * 0.5 + 2)
    assert seconds(steps=40) == pytest.approx(40 * 0.5 + 2)
    assert seconds(frames=50) == pytest.approx(2 * (20 * 0.5 + 2))
    assert seconds(guidance=1.0) == pytest.approx(20 * 0.25 + 2), "one pass instead of two"


def test_a_card_without_timing_knows_nothing() -> None:
    result = ask(card=CARD.model_copy(update={"timing": None}))
    assert (result.seconds, result.low, result.high) == (None, None, None)
    assert result.source == "unknown"


def test_the_same_size_is_measured() -> None:
    result = ask([BASE])
    assert result.source == "measured"
    assert seconds([BASE]) == pytest.approx(20 * 0.2 + 1)
    assert seconds([BASE], steps=10) == pytest.approx(10 * 0.2 + 1)


def test_a_slow_render_does_not_spoil_the_measured_ones() -> None:
    slow = replace(BASE, seconds_per_step=5.0)
    result = ask([BASE, BASE, slow])
    assert result.seconds == pytest.approx(20 * 0.2 + 1)
    assert result.high == pytest.approx(20 * 5.0 + 1), "but the bounds know of it"
    assert "3 renders" in result.basis


def test_between_two_sizes_a_power_law_is_met_exactly() -> None:
    # Attention grows with the square of the work: 0.1 s at 9 frames, 0.1 * (49/9)^2 at 49.
    small = replace(BASE, frames=9, seconds_per_step=0.1, overhead=0.9)
    large = replace(BASE, frames=49, seconds_per_step=0.1 * (49 / 9) ** 2, overhead=4.9)
    result = ask([small, large])
    assert result.source == "interpolated"
    assert result.seconds == pytest.approx(20 * 0.1 * (25 / 9) ** 2 + 2.5)


def test_an_overhead_of_nothing_can_be_interpolated() -> None:
    small = replace(BASE, frames=1, overhead=0.0)
    large = replace(BASE, frames=49, overhead=4.0)
    assert 20 * 0.2 < seconds([small, large]) < 20 * 0.2 + 4


@pytest.mark.parametrize(("frames", "ratio"), [(49, 49 / 25), (9, 9 / 25)])
def test_beyond_what_was_measured_it_grows_with_the_work(frames: int, ratio: float) -> None:
    assert ask([BASE], frames=frames).source == "interpolated"
    assert seconds([BASE], frames=frames) == pytest.approx(ratio * (20 * 0.2 + 1))


def test_farther_is_less_certain() -> None:
    near = ask([replace(BASE, frames=17), replace(BASE, frames=33)])
    far = ask([replace(BASE, frames=17)])
    exact = ask([BASE])

    def width(e: Estimate) -> float:
        assert e.high is not None
        assert e.low is not None
        return e.high / e.low

    assert width(exact) < width(near) < width(far) < width(ask())


def test_guidance_measured_the_other_way_counts_twice_or_half() -> None:
    unguided = ask([BASE], guidance=1.0)
    assert unguided.source == "interpolated"
    assert unguided.seconds == pytest.approx(20 * 0.1 + 1)
    assert seconds([replace(BASE, guidance=1.0)]) == pytest.approx(20 * 0.4 + 1)


@pytest.mark.parametrize(
    "other",
    [
        replace(BASE, model="another"),
        replace(BASE, device="cuda"),
        replace(BASE, seconds_per_step=0.0),
        replace(BASE, seconds_per_step=float("nan")),
        replace(BASE, overhead=-1.0),
        replace(BASE, frames=0),
        replace(BASE, placement="model_offload"),
        replace(BASE, acceleration="fast"),
    ],
)
def test_what_was_measured_elsewhere_or_wrongly_does_not_count(other: Measurement) -> None:
    assert ask([other]) == ask()


def test_guidance_that_was_taught_takes_no_second_pass() -> None:
    rule = CARD.guidance.model_copy(update={"embedded": True})
    card = CARD.model_copy(update={"guidance": rule})
    assert seconds(card=card) == pytest.approx(seconds(card=card, guidance=1.0))
    unguided = [replace(BASE, guidance=1.0)]
    assert seconds([BASE], card=card) == pytest.approx(seconds(unguided, card=card))


def test_measurements_may_be_asked_for() -> None:
    asked = []

    def store(model: str, device: str) -> list[Measurement]:
        asked.append((model, device))
        return [BASE]

    assert ask(store) == ask([BASE])
    assert asked == [("spark", "cpu")]


def test_only_the_same_placement_and_acceleration_tell() -> None:
    offloaded = replace(BASE, placement="group_offload", seconds_per_step=0.9)
    fast = replace(BASE, acceleration="fast", seconds_per_step=0.05)
    known = [BASE, offloaded, fast]
    assert seconds(known) == pytest.approx(20 * 0.2 + 1)
    assert seconds(known, placement="group_offload") == pytest.approx(20 * 0.9 + 1)
    assert seconds(known, acceleration="fast") == pytest.approx(20 * 0.05 + 1)
    assert ask(known, placement="group_offload", acceleration="fast").source == "card"


def test_tiles_change_no_step() -> None:
    assert ask([replace(BASE, tiling=True)]) == ask([BASE])
