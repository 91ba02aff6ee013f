"""Is whatever may be asked for either a request or a list of its mistakes, and nothing else?"""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from kinoloom import request_checks as check
from kinoloom.errors import InvalidRequest
from kinoloom.request import VideoRequest

# Building hypothesis' table of characters takes a second where there is no cache of it.
lenient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

FIELDS = tuple(VideoRequest.model_fields)
SEVERAL = ("references", "keyframes", "loras")
BESIDE = {
    "prompt": {"image": "a.png"},
    "last_image": {"image": "a.png"},
    "mask": {"video": "a.mp4"},
}
"""What some fields need beside them to be right; a prompt may be empty only then."""

TEXTS = st.one_of(
    st.text(),
    st.text(min_size=1990, max_size=2010),
    st.sampled_from(
        (
            *("", " ", ".", "a\0b", "\ud800", "\x1b[31m", "\u202e", "\x85"),
            *("é" * 2001, "🎬" * 2000, "a" * 5000),
            *("512x320", "512 x -3", "720P", "99999999999x1", "NaN", "inf", "1e999", "1_0", "³"),
            *("preview", "Premium", "auto", "mp4", "use", "fast"),
            *("24=end.png", "=a.png", "x=", "look:0.8", "look:1e400", ":", "a:b:c:-3", "../a:nan"),
            *("sha256:" + "0" * 64, "data:,", "https://x/y.png", "/etc/passwd"),
        )
    ),
)
NUMBERS = st.one_of(
    st.integers(),
    st.floats(),
    st.integers(-3, 300),
    st.sampled_from([0, -0.0, 1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 10**400, -(10**400)]),
    st.sampled_from([math.nan, math.inf, -math.inf, 1e308, 5e-324, 15.999, 8192.5]),
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)


def _deep(depth: int) -> Any:
    value: Any = []
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


VALUES = st.one_of(
    SCALARS,
    st.tuples(NUMBERS, NUMBERS).map(list),
    st.recursive(
        SCALARS,
        lambda inner: st.one_of(
            st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=3)
        ),
        max_leaves=8,
    ),
    st.lists(st.tuples(st.integers(-2, 30), TEXTS).map(list), max_size=40),
    st.dictionaries(st.sampled_from(["name", "weight", "asset"]), SCALARS),
    st.integers(1, 400).map(_deep),
)
REQUESTS = st.one_of(
    st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=8),
    st.dictionaries(st.one_of(st.sampled_from(FIELDS), TEXTS), VALUES, max_size=5),
)


def read(values: dict[str, Any]) -> VideoRequest | InvalidRequest:
    """The request or its mistakes; another exception fails the test."""
    try:
        return VideoRequest.checked(**values)
    except InvalidRequest as error:
        return error


@settings(lenient, max_examples=200)
@given(REQUESTS)
@example({"prompt": "a", "size": [math.nan, 10**400]})
@example({"prompt": "a", "keyframes": {"0": "a.png", "00": "b.png"}})
@example({"prompt": "a", "references": "a.png", "loras": {"name": "x", "weight": "1"}})
@example({"prompt": _deep(900), "a" * 10_000: _deep(900)})
def test_it_is_a_request_or_a_list_of_its_mistakes(values: dict[str, Any]) -> None:
    found = read(values)
    if isinstance(found, VideoRequest):
        data = found.model_dump(mode="json")
        assert VideoRequest.checked(**data) == found
        # As it lies in a database, and comes back from it.
        text = json.dumps(data, allow_nan=False)
        text.encode()
        assert VideoRequest.model_validate_json(text) == found
        return
    assert found.problems
    # It can be shown, sent and written down, whatever was in it.
    json.dumps(found.as_dict(), allow_nan=False, ensure_ascii=False).encode()
    str(found.cause).encode()
    assert all(problem.allowed and len(str(problem)) < 1000 for problem in found.problems)


@lenient
@given(st.data())
def test_every_wrong_field_is_named_and_no_other(data: st.DataObject) -> None:
    values = data.draw(st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=8))
    values.setdefault("prompt", "a red ball")
    wrong = {name for name in values if isinstance(alone(name, values[name]), InvalidRequest)}
    found = read(values)
    named = set() if isinstance(found, VideoRequest) else {p.field for p in found.problems}
    assert wrong <= named
    # What is right in itself may still not go with another field.
    assert named - wrong <= {"prompt", "duration", "image", "last_image", "mask"}


@lenient
@given(st.sampled_from(FIELDS), VALUES)
def test_the_nearest_value_is_valid(name: str, value: Any) -> None:
    found = alone(name, value)
    assume(isinstance(found, InvalidRequest))
    assert isinstance(found, InvalidRequest)
    for problem in found.problems:
        assert problem.field == name
        if problem.nearest is not None and name not in SEVERAL:
            assert isinstance(alone(name, problem.nearest), VideoRequest), problem


@pytest.mark.parametrize("name", ["frames", "steps", "seed", "candidates"])
@given(value=st.integers())
def test_whole_numbers_are_kept_exactly(name: str, value: int) -> None:
    found = alone(name, value)
    if isinstance(found, VideoRequest):
        assert getattr(found, name) == value
    else:
        bounds = (found.problems[0].nearest, value)
        assert abs(bounds[0]) <= check.MAX_SEED
        assert value < 1 or value > bounds[0]


@lenient
@given(width=st.integers(), height=st.integers(), mark=st.sampled_from("xX×*, "))
def test_a_size_is_the_same_as_text_and_as_a_pair(width: int, height: int, mark: str) -> None:
    pair, text = alone("size", [width, height]), alone("size", f"{width}{mark}{height}")
    if isinstance(pair, VideoRequest):
        assert isinstance(text, VideoRequest)
        assert pair.size == text.size == (width, height)
    else:
        assert isinstance(text, InvalidRequest)


def alone(name: str, value: Any) -> VideoRequest | InvalidRequest:
    """What becomes of a field when all that it needs is there, and nothing else."""
    return read({"prompt": "a red ball"} | BESIDE.get(name, {}) | {name: value})
