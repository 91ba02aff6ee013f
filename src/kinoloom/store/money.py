"""How is money kept: exactly, to a millionth of a currency's unit?

Databases add up whole numbers exactly everywhere, so money is counted there in millionths.
"""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal

_DIGITS = 6


def millionths(amount: Decimal) -> int:
    """An amount as a whole number of millionths. Raises ValueError when it is none exactly."""
    scaled = amount.scaleb(_DIGITS)
    whole = int(scaled)
    if whole != scaled:
        raise ValueError(f"{amount} is finer than a millionth")
    return whole


def of_millionths(count: int) -> Decimal:
    """The amount of a number of millionths."""
    return Decimal(count).scaleb(-_DIGITS)


def rounded_up(amount: Decimal) -> Decimal:
    """The amount, or the next millionth above it: books never say less than what was paid."""
    return amount.quantize(Decimal(1).scaleb(-_DIGITS), rounding=ROUND_CEILING)


def plain(amount: Decimal) -> str:
    """An amount as JSON has it, such as ``0.6``: every digit that counts, and no exponent."""
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def plain_or_none(amount: Decimal | None) -> str | None:
    """An amount as JSON has it, null where it is not known."""
    return None if amount is None else plain(amount)
