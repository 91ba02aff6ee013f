"""How often did things happen here, over all processes and starts?"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from kinoloom.store.cache.bytes import HITS, MISSES
from kinoloom.store.database import Database
from kinoloom.store.tables import CounterRow

REUSED = "clips.reused"
"""The counter of clips that were there already, when they were asked for again."""


# Both databases know it in these words. As text, for every clip that is found again is counted, and
# building the statement takes longer than its execution.
_COUNT = text(
    "INSERT INTO counters (name, value) VALUES (:name, :n)"
    " ON CONFLICT (name) DO UPDATE SET value = counters.value + excluded.value"
)


class Statistics:
    """The counters of a store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, name: str, n: int = 1) -> None:
        """Count `n` more of `name`."""
        self._database.one(_COUNT, {"name": name, "n": n})

    def totals(self) -> dict[str, int]:
        """Every counter by its name."""
        with self._database.reading() as session:
            return {row.name: row.value for row in session.scalars(select(CounterRow))}


def add_counters(session: Session, counters: Mapping[str, int]) -> None:
    """Count more of several things in a transaction of the caller's."""
    for name, n in sorted(counters.items()):  # always in one order, so that no two wait in a circle
        session.execute(_COUNT, {"name": name, "n": n})


def hit_rate(totals: Mapping[str, int]) -> float | None:
    """The share of embeddings that were in the cache, 0..1; None when none was asked for."""
    hits, misses = totals.get(HITS, 0), totals.get(MISSES, 0)
    return hits / (hits + misses) if hits + misses else None
