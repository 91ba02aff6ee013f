from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinoloom.errors import InvalidRequest
from kinoloom.media.rates import exact_rate


@pytest.mark.parametrize(
    ("fps", "rate"),
    [
        (24, Fraction(24)),
        (12.5, Fraction(25, 2)),
        (23.976, Fraction(24000, 1001)),
        (23.98, Fraction(1199, 50)),
        (29.97, Fraction(30000, 1001)),
        (59.94, Fraction(60000, 1001)),
        (29.9, Fraction(299, 10)),
        (0.5, Fraction(1, 2)),
        (Fraction(30000, 1001), Fraction(30000, 1001)),
    ],
)
def test_known_rates(fps: float, rate: Fraction) -> None:
    assert exact_rate(fps) == rate


@given(st.floats(0.01, 1000))
def test_never_far_off_and_stable(fps: float) -> None:
    rate = exact_rate(fps)
    assert abs(float(rate) - fps) <= 0.001
    assert exact_rate(rate) == rate


@pytest.mark.parametrize("fps", [0, -1, 1001, float("nan"), float("inf")])
def test_impossible_rates_are_named(fps: float) -> None:
    with pytest.raises(InvalidRequest) as caught:
        exact_rate(fps)
    assert caught.value.problems[0].field == "fps"
