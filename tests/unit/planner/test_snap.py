from __future__ import annotations

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from kinoloom.catalog.card import FpsRule, FrameRule, GuidanceRule, SizeRule
from kinoloom.planner.snap import (
    context_for,
    cut_away,
    frames_for,
    size_by_shape,
    size_distance,
    smallest_frames,
    snap_fps,
    snap_frames,
    snap_guidance,
    snap_size,
)

lenient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

SPARK_FRAMES = FrameRule(multiple=8, offset=1, minimum=1, maximum=49, default=25)


@st.composite
def frame_rules(draw: st.DrawFn) -> FrameRule:
    multiple, offset = draw(st.integers(1, 16)), draw(st.integers(0, 5))
    first = draw(st.integers(1 if offset == 0 else 0, 3))
    counts = sorted(draw(st.lists(st.integers(first, first + 20), min_size=3, max_size=3)))
    low, default, high = (multiple * n + offset for n in counts)
    return FrameRule(multiple=multiple, offset=offset, minimum=low, maximum=high, default=default)


@st.composite
def size_rules(draw: st.DrawFn) -> SizeRule:
    multiple = draw(st.sampled_from([8, 16, 32]))
    low = draw(st.integers(2, 4))
    high = low + draw(st.integers(0, 12))
    sides = st.integers(low, high).map(lambda n: n * multiple)
    native = draw(st.lists(st.tuples(sides, sides), min_size=1, max_size=5))
    # Bounds off the grid are allowed in a card; the grid lies within them.
    return SizeRule(
        multiple_of=multiple,
        minimum=max(16, low * multiple - draw(st.integers(0, multiple - 1))),
        maximum=high * multiple + draw(st.integers(0, multiple - 1)),
        native=native,
        default=native[0],
        only_native=draw(st.booleans()),
    )


def all_sizes(rule: SizeRule) -> list[tuple[int, int]]:
    sides = range(rule.multiple_of, rule.maximum + 1, rule.multiple_of)
    return [(w, h) for w in sides for h in sides if rule.allows((w, h))]


wanted_sizes = st.tuples(st.integers(16, 2000), st.integers(16, 2000))


@lenient
@given(wanted_sizes, size_rules())
def test_a_size_is_allowed_and_none_is_nearer(asked: tuple[int, int], rule: SizeRule) -> None:
    size = snap_size(asked, rule)
    assert rule.allows(size)
    nearest = min(size_distance(s, asked) for s in all_sizes(rule))
    assert size_distance(size, asked) == pytest.approx(nearest, abs=1e-9)


@lenient
@given(wanted_sizes, size_rules())
def test_snapping_a_size_twice_changes_nothing(asked: tuple[int, int], rule: SizeRule) -> None:
    size = snap_size(asked, rule)
    assert snap_size(size, rule) == size


@lenient
@given(size_rules(), st.data())
def test_an_allowed_size_stays(rule: SizeRule, data: st.DataObject) -> None:
    size = data.draw(st.sampled_from(all_sizes(rule)))
    assert snap_size(size, rule) == size


@lenient
@given(wanted_sizes, size_rules())
def test_a_turned_wish_gets_a_turned_size(asked: tuple[int, int], rule: SizeRule) -> None:
    assume(not rule.only_native)
    width, height = snap_size(asked, rule)
    turned = snap_size((asked[1], asked[0]), rule)
    assert size_distance(turned, (asked[1], asked[0])) == pytest.approx(
        size_distance((width, height), asked), abs=1e-9
    )


def test_the_shape_counts_more_than_the_sides() -> None:
    rule = SizeRule(
        multiple_of=16,
        minimum=256,
        maximum=1280,
        native=[(1280, 720), (720, 1280), (960, 960)],
        default=(1280, 720),
        only_native=True,
    )
    assert snap_size((320, 180), rule) == (1280, 720)
    assert snap_size((900, 1600), rule) == (720, 1280)
    assert snap_size((500, 480), rule) == (960, 960)
    free = rule.model_copy(update={"only_native": False})
    assert snap_size((1920, 1080), free) == (1280, 720)
    assert snap_size((1000, 1000), free) == (1008, 1008)


def test_a_picture_picks_the_native_size_of_its_shape() -> None:
    rule = SizeRule(
        multiple_of=16,
        minimum=256,
        maximum=1280,
        native=[(832, 480), (480, 832), (1280, 720), (720, 1280)],
        default=(832, 480),
    )
    assert size_by_shape((4000, 3000), rule) == (832, 480)
    assert size_by_shape((1080, 1920), rule) == (720, 1280)
    assert size_by_shape((1920, 1080), rule) == (1280, 720)


def test_of_one_shape_a_picture_picks_the_default() -> None:
    sizes = [(640, 320), (1280, 640)]
    for default in sizes:
        rule = SizeRule(multiple_of=16, minimum=256, maximum=1280, native=sizes, default=default)
        assert size_by_shape((2000, 1000), rule) == default


@lenient
@given(st.integers(1, 100_000), frame_rules(), st.data())
def test_a_frame_count_is_allowed_and_none_is_nearer(
    asked: int, rule: FrameRule, data: st.DataObject
) -> None:
    at_least = data.draw(st.integers(1, rule.maximum))
    frames = snap_frames(asked, rule, at_least)
    allowed = [n for n in range(rule.maximum + 1) if rule.allows(n) and n >= at_least]
    assert frames in allowed
    distance = min(abs(n - asked) for n in allowed)
    # Of two equally near ones the longer.
    assert frames == max(n for n in allowed if abs(n - asked) == distance)
    assert snap_frames(frames, rule, at_least) == frames
    assert smallest_frames(rule, at_least) == allowed[0]


def test_frames_of_spark() -> None:
    wishes = {1: 1, 4: 1, 5: 9, 16: 17, 21: 25, 24: 25, 25: 25, 48: 49, 49: 49, 100_000: 49}
    assert {n: snap_frames(n, SPARK_FRAMES) for n in wishes} == wishes
    assert snap_frames(1, SPARK_FRAMES, at_least=2) == 9


def test_more_frames_than_the_model_makes_is_an_error() -> None:
    with pytest.raises(ValueError, match="at most 49"):
        smallest_frames(SPARK_FRAMES, 50)


@lenient
@given(st.integers(1, 200), frame_rules(), st.data())
def test_context_is_the_most_that_is_there(
    available: int, rule: FrameRule, data: st.DataObject
) -> None:
    wanted = data.draw(st.sampled_from([n for n in range(rule.maximum + 1) if rule.allows(n)]))
    fitting = [n for n in range(rule.maximum + 1) if rule.allows(n) and n <= min(available, wanted)]
    if fitting:
        assert context_for(available, wanted, rule) == fitting[-1]
    else:
        with pytest.raises(ValueError, match="at least"):
            context_for(available, wanted, rule)


def test_frames_for_a_duration() -> None:
    assert frames_for(2, 12) == 24
    assert frames_for(0.01, 12) == 1
    assert frames_for(1.5, 29.97) == 45


@given(st.floats(1, 120))
def test_fps_stays_within_the_rule(asked: float) -> None:
    rule = FpsRule(default=16, minimum=8, maximum=30)
    fps = snap_fps(asked, rule)
    assert 8 <= fps <= 30
    assert fps == asked or fps in (8, 30)


@given(st.floats(0, 50))
def test_guidance_stays_within_the_rule(asked: float) -> None:
    rule = GuidanceRule(default=3, minimum=1, maximum=8)
    guidance = snap_guidance(asked, rule)
    assert 1 <= guidance <= 8
    assert guidance == asked or guidance in (1, 8)


def test_what_a_cover_cuts_away() -> None:
    assert cut_away((512, 320), (256, 160)) == pytest.approx(0)
    assert cut_away((320, 160), (160, 160)) == pytest.approx(0.5)
    assert cut_away((160, 320), (160, 160)) == pytest.approx(0.5)
