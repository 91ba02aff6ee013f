from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from kinoloom.catalog.remote import Price, Remote

RATES = [
    {"amount": "0.20", "per": "second", "audio": False, "up_to": 1080},
    {"amount": "0.40", "per": "second", "audio": True, "up_to": 1080},
    {"amount": "1.5", "per": "clip", "audio": True},
]


def price(rates: list[dict[str, Any]]) -> Price:
    return Price.model_validate(
        {"rates": rates, "source": "https://example.org", "date": "2026-11-01"}
    )


@pytest.mark.parametrize(
    ("size", "audio", "cost"),
    [
        ((1920, 1080), False, "1.60"),
        ((1080, 1920), True, "3.20"),
        ((3840, 2160), True, "1.5"),
        ((3840, 2160), False, None),
    ],
)
def test_the_first_rate_that_holds_is_the_one(
    size: tuple[int, int], audio: bool, cost: str | None
) -> None:
    found = price(RATES).of_clip(size, 8.0, audio)
    assert found == (None if cost is None else Decimal(cost))


def test_money_is_exact_and_rounded_up_at_the_end() -> None:
    third = price([{"amount": "0.1", "per": "second"}])
    assert third.of_clip((64, 64), 0.1 + 0.2, False) == Decimal("0.030001")
    assert third.of_clip((64, 64), 3.0, False) == Decimal("0.3")


@pytest.mark.parametrize(
    "rate", [{"amount": "-1", "per": "clip"}, {"amount": "1", "per": "frame"}, {"per": "clip"}]
)
def test_a_rate_that_is_none_is_refused(rate: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        price([rate])
    with pytest.raises(ValidationError):
        price([])


def test_a_role_without_a_file_is_refused() -> None:
    with pytest.raises(ValidationError, match="at least one name"):
        Remote(files={"vae": []})
