from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinoloom.store.money import millionths, of_millionths, plain, plain_or_none, rounded_up

amounts = st.decimals(0, 10**9, places=6)


@given(amounts)
def test_millionths_are_exact(amount: Decimal) -> None:
    assert of_millionths(millionths(amount)) == amount
    assert Decimal(plain(amount)) == amount
    assert rounded_up(amount) == amount


@pytest.mark.parametrize("fine", ["0.0000001", "1.1234567"])
def test_what_is_finer_is_refused_or_rounded_up(fine: str) -> None:
    with pytest.raises(ValueError, match="finer than a millionth"):
        millionths(Decimal(fine))
    rounded = rounded_up(Decimal(fine))
    assert Decimal(0) < rounded - Decimal(fine) < Decimal("0.000001")


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        ("0", "0"),
        ("0.000000", "0"),
        ("0.60", "0.6"),
        ("100", "100"),
        ("1E+2", "100"),
        ("1E-6", "0.000001"),
        ("12345678.100000", "12345678.1"),
    ],
)
def test_amounts_as_json_has_them(amount: str, text: str) -> None:
    assert plain(Decimal(amount)) == plain_or_none(Decimal(amount)) == text
    assert plain_or_none(None) is None
