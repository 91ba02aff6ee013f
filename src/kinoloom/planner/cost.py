"""What will a clip cost, and who says so?"""

from __future__ import annotations

import datetime
from decimal import Decimal

from pydantic import BaseModel, ConfigDict, Field

from kinoloom.catalog.card import ModelCard


class Cost(BaseModel):
    """Money for a clip: `amount` in `currency`; None where the price is not known, never free.

    `basis` says in words what it was computed from; `source` and `date` who said so and when;
    `verified` is whether that was the service itself.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    amount: Decimal | None = Field(default=None, ge=0)
    currency: str = "USD"
    basis: str
    source: str = ""
    date: datetime.date | None = None
    verified: bool = True

    @property
    def free(self) -> bool:
        """Whether it is known to cost nothing."""
        return self.amount is not None and self.amount == 0

    def __str__(self) -> str:
        if self.amount is None:
            return "unknown"
        return "free" if self.free else shown(self.amount, self.currency)


FREE = Cost(amount=Decimal(0), basis="made on this machine")


def cost_of(
    card: ModelCard, *, size: tuple[int, int], frames: int, fps: float, audio: bool, takes: int = 1
) -> Cost:
    """What `takes` clips of a size (pixels) and a length cost, with sound or without."""
    if card.remote is None:
        return FREE
    if card.price == "free":
        return Cost(amount=Decimal(0), basis=f"{card.title}: nothing is paid, as its card says")
    if card.price is None:
        return Cost(basis=f"the price of {card.title} is not known")
    seconds = frames / fps
    one = card.price.of_clip(size, seconds, audio)
    told = {
        "currency": card.price.currency,
        "source": card.price.source,
        "date": card.price.date,
        "verified": card.price.verified,
    }
    if one is None:
        return Cost(basis=f"{card.title} has no known price for {size[0]}x{size[1]}", **told)
    each = shown(one, card.price.currency)
    basis = f"{each} for {seconds:g} s" if takes == 1 else f"{takes} takes of {each}"
    return Cost(amount=one * takes, basis=basis, **told)


def shown(amount: Decimal, currency: str) -> str:
    """An amount of money for people, such as ``0.60 USD``: never rounded down to nothing."""
    cents = amount.quantize(Decimal("0.01"))
    exact = cents if cents == amount else amount.normalize()
    return f"{exact:f} {currency}"
