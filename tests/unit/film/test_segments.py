"""Tests of kinoloom.film.segments: exactly the frames of a shot, in as few clips as can be."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kinoloom.catalog.card import FrameRule
from kinoloom.errors import InvalidRequest
from kinoloom.film.segments import Segment, segments_of


def rule(multiple: int, offset: int, minimum: int, maximum: int) -> FrameRule:
    return FrameRule(
        multiple=multiple, offset=offset, minimum=minimum, maximum=maximum, default=minimum
    )


WAN = rule(4, 1, 5, 81)

rules = st.builds(
    lambda multiple, offset, low, more: rule(
        multiple,
        offset,
        offset + multiple * max(low, 0 if offset else 1),
        offset + multiple * (max(low, 0 if offset else 1) + more),
    ),
    st.integers(1, 16),
    st.integers(0, 16),
    st.integers(0, 12),
    st.integers(0, 20),
)


def test_one_clip_of_the_very_length() -> None:
    assert segments_of(49, WAN) == (Segment(49),)


def test_what_is_too_much_goes_from_the_end() -> None:
    assert segments_of(48, WAN) == (Segment(49, trim=1),)


def test_shorter_than_the_model_makes() -> None:
    assert segments_of(2, WAN) == (Segment(5, trim=3),)


def test_frames_that_the_shot_before_has_already() -> None:
    assert segments_of(48, WAN, lead=1) == (Segment(49, skip=1),)


def test_a_longer_shot_fills_its_first_segments() -> None:
    assert segments_of(200, WAN) == (Segment(81), Segment(81, skip=1), Segment(41, skip=1, trim=1))
    longer = segments_of(210, WAN)
    assert longer[:2] == segments_of(200, WAN)[:2]


def test_several_frames_in_common() -> None:
    # 72 frames, 72 and 6, of which the last needs 15 and is asked for 17.
    assert segments_of(150, WAN, shared=9, lead=9) == (
        Segment(81, skip=9),
        Segment(81, skip=9),
        Segment(17, skip=9, trim=2),
    )


def test_a_fixed_end_drops_evenly_from_the_middle() -> None:
    assert segments_of(22, WAN, fixed_end=True) == (Segment(25, drop=(4, 12, 20)),)
    (segment,) = segments_of(4, WAN, lead=1, fixed_end=True)
    assert segment == Segment(5, skip=1)
    assert segments_of(1, WAN, fixed_end=True)[0].taken == (4,)
    assert segments_of(2, WAN, fixed_end=True)[0].taken == (0, 4)
    assert segments_of(2, WAN, lead=1, fixed_end=True)[0].taken == (2, 4)


@pytest.mark.parametrize(("shared", "lead"), [(81, 0), (0, 81), (200, 1)])
def test_a_model_that_makes_no_more_than_is_shared(shared: int, lead: int) -> None:
    with pytest.raises(InvalidRequest):
        segments_of(100, WAN, shared=shared, lead=lead)


def test_the_last_join_shares_no_more_than_the_others() -> None:
    # Two clips of twelve would show too few, and of three the last could show none.
    fixed = rule(8, 4, 12, 12)
    with pytest.raises(ValueError, match="shares 11 frames, the others only 2"):
        segments_of(3, fixed, shared=2, lead=11, closing=11)


shares = st.integers(0, 12)
joins = shares.flatmap(
    lambda shared: st.tuples(st.just(shared), st.integers(0, shared) | st.none())
)


@given(st.integers(1, 3000), rules, joins, shares, st.booleans())
def test_exact_allowed_fewest_and_least(
    frames: int, rule: FrameRule, join: tuple[int, int | None], lead: int, fixed: bool
) -> None:
    shared, closing = join
    assume(max(shared, lead) < rule.maximum)
    found = segments_of(frames, rule, shared=shared, lead=lead, closing=closing, fixed_end=fixed)
    closing = shared if closing is None else closing
    count, asked = len(found), sum(segment.asked for segment in found)
    # Exactly the frames of the shot.
    assert sum(segment.frames for segment in found) == frames
    assert all(segment.frames == len(segment.taken) >= 1 for segment in found)
    # Only what the model makes.
    assert all(rule.allows(segment.asked) for segment in found)
    # Each join has what it shares, on both of its sides.
    shares = [shared] * (count - 2) + [closing] * (count > 1)
    assert [segment.skip for segment in found] == [lead, *shares]
    for share, (before, after) in zip(shares, itertools.pairwise(found), strict=True):
        assert before.asked > share
        assert after.asked > share
    # Only the last leaves out more.
    assert all(not segment.trim and not segment.drop for segment in found[:-1])
    # One segment less cannot hold the shot.
    fewer = [shared] * (count - 3) + [closing] * (count > 2)
    assert count == 1 or (count - 1) * rule.maximum - sum(fewer) - lead < frames
    # One step less of the model's rule cannot either.
    excess = asked - lead - sum(shares) - frames
    assert excess >= 0
    shortest = asked == count * rule.minimum or found[0].asked - rule.multiple <= lead
    assert excess < rule.multiple or shortest


@given(st.integers(2, 500), rules, st.integers(0, 6))
def test_a_fixed_end_is_shown_and_the_rest_is_even(frames: int, rule: FrameRule, lead: int) -> None:
    assume(lead < rule.maximum and rule.maximum > 1)
    *_, last = segments_of(frames, rule, lead=lead, fixed_end=True)
    assert last.taken[-1] == last.asked - 1
    # As the film sees it: from the frame before, which it has already, on.
    seen = (last.skip - 1, *last.taken) if last.skip else last.taken
    steps = [b - a for a, b in itertools.pairwise(seen)]
    assert not steps or max(steps) - min(steps) <= 1
    assert last.skip or len(last.taken) == 1 or last.taken[0] == 0
    assert not steps or max(steps) <= math.ceil((last.asked - 1) / len(steps))


@given(st.integers(1, 400), rules)
def test_an_open_end_shows_all_from_the_start(frames: int, rule: FrameRule) -> None:
    assume(rule.maximum > 1)
    *_, last = segments_of(frames, rule)
    assert last.taken == tuple(range(last.skip, last.skip + last.frames))
