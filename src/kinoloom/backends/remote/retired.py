"""Is a model still offered?"""

from __future__ import annotations

import datetime

from kinoloom.backends.base import Readiness
from kinoloom.catalog.card import ModelCard


def retired(card: ModelCard, today: datetime.date | None = None) -> Readiness | None:
    """Why a model that is switched off is not ready, with its successor; None while it is offered.

    `today` is the date in UTC.
    """
    day = today or datetime.datetime.now(datetime.UTC).date()
    if card.retirement is None or day < card.retirement:
        return None
    hints = (f"Use its successor: {card.successor}",) if card.successor else ()
    return Readiness(False, (f"It was retired on {card.retirement.isoformat()}.",), hints)
