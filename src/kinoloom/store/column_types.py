"""How are times, text, money and running numbers written, whichever database it is?"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import BigInteger, DateTime, Dialect, Integer, String, Text, TypeDecorator

from kinoloom.store.money import millionths, of_millionths


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC, also in databases that do not know time zones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """The moment in UTC; a time without a zone is refused, since nobody knows when it is."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time needs a time zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """The moment in UTC; PostgreSQL gives it in the zone of the session."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Word(TypeDecorator[str]):
    """Short text of a bounded length, in a form that every database takes.

    It may be looked for with anything that a client sends: what is no Unicode becomes \\udcNN, and
    the character 0, which PostgreSQL refuses, \\x00.
    """

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Text that the database takes."""
        return None if value is None else _storable(value)


class AnyText(TypeDecorator[str]):
    """Text of any length that may hold what is no Unicode (a file name in another encoding)."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Text that the database takes, changed as a `Word` is."""
        return None if value is None else _storable(value)


class Money(TypeDecorator[Decimal]):
    """An amount of some currency, exact to a millionth; sums of it are exact too."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> int | None:
        """The amount in millionths; what is finer is refused."""
        return None if value is None else millionths(value)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> Decimal | None:
        """The amount; PostgreSQL gives a sum of whole numbers as a decimal one."""
        return None if value is None else of_millionths(int(value))


def _storable(value: str) -> str:
    return value.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")


# SQLite counts up by itself only what it calls an INTEGER.
Counting = BigInteger().with_variant(Integer, "sqlite")
