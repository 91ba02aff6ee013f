"""Which tables and columns does the database have?

A change here needs a migration in ``migrations/versions``; the tests compare the two.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Index,
    MetaData,
    String,
    Text,
    TypeDecorator,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

# Names that every database agrees on, so that a later migration can name what it changes.
NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


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
        """The moment with its zone."""
        return value.replace(tzinfo=UTC) if value and value.tzinfo is None else value


class AnyText(TypeDecorator[str]):
    """Text that may hold what is no Unicode (a file name in another encoding), as \\udcNN."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Text that the database takes."""
        if value is None:
            return None
        return value.encode("utf-8", "backslashreplace").decode("utf-8")


class Base(DeclarativeBase):
    """The base of all tables."""

    metadata = MetaData(naming_convention=NAMES)


class AssetRow(Base):
    """A file kept by its content."""

    __tablename__ = "assets"

    digest: Mapped[str] = mapped_column(String(71), primary_key=True)
    kind: Mapped[str] = mapped_column(String(40))
    size: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class ClipAssetRow(Base):
    """An asset that a clip was made from, or its poster."""

    __tablename__ = "clip_assets"

    clip_id: Mapped[str] = mapped_column(
        ForeignKey("clips.id", ondelete="CASCADE"), primary_key=True
    )
    # "poster", or "input:" and the request's field: "input:image", "input:last_image", ...
    role: Mapped[str] = mapped_column(String(80), primary_key=True)
    digest: Mapped[str] = mapped_column(ForeignKey("assets.digest"), index=True)


class ClipRow(Base):
    """A finished clip."""

    __tablename__ = "clips"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    path: Mapped[str] = mapped_column(AnyText)
    plan_key: Mapped[str] = mapped_column(String(100), index=True)
    task: Mapped[str] = mapped_column(String(20))
    model: Mapped[str] = mapped_column(String(200))
    backend: Mapped[str] = mapped_column(String(40))
    seed: Mapped[int] = mapped_column(BigInteger)
    width: Mapped[int]
    height: Mapped[int]
    frames: Mapped[int]
    fps: Mapped[float] = mapped_column(Double)
    format: Mapped[str] = mapped_column(String(20))
    # The prompt with case folded: SQLite's LIKE folds ASCII only.
    search: Mapped[str] = mapped_column(AnyText)
    request: Mapped[dict[str, Any]] = mapped_column(JSON)
    plan: Mapped[dict[str, Any]] = mapped_column(JSON)
    timings: Mapped[dict[str, Any]] = mapped_column(JSON)
    scores: Mapped[dict[str, Any]] = mapped_column(JSON)
    versions: Mapped[dict[str, Any]] = mapped_column(JSON)
    warnings: Mapped[list[str]] = mapped_column(JSON)
    takes: Mapped[list[dict[str, Any]]] = mapped_column(JSON)

    assets: Mapped[list[ClipAssetRow]] = relationship(
        lazy="selectin", passive_deletes=True, cascade="all, delete-orphan"
    )


class AcceptedLicenceRow(Base):
    """A licence that the user accepted for a model."""

    __tablename__ = "accepted_licences"

    model: Mapped[str] = mapped_column(String(200), primary_key=True)
    licence: Mapped[str] = mapped_column(String(1000), primary_key=True)
    accepted_at: Mapped[datetime] = mapped_column(UtcDateTime)


class PinnedRevisionRow(Base):
    """The commit of a repository that was downloaded and is used from then on."""

    __tablename__ = "pinned_revisions"

    repo: Mapped[str] = mapped_column(String(200), primary_key=True)
    revision: Mapped[str] = mapped_column(String(64))
    pinned_at: Mapped[datetime] = mapped_column(UtcDateTime)


class MeasurementRow(Base):
    """What one render took on this machine."""

    __tablename__ = "measurements"
    __table_args__ = (Index(None, "device", "model", "revision"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    device: Mapped[str] = mapped_column(String(200))
    model: Mapped[str] = mapped_column(String(200))
    revision: Mapped[str] = mapped_column(String(200))
    width: Mapped[int]
    height: Mapped[int]
    frames: Mapped[int]
    steps: Mapped[int]
    guided: Mapped[bool]
    seconds_per_step: Mapped[float] = mapped_column(Double)
    load_seconds: Mapped[float] = mapped_column(Double)
    overhead_seconds: Mapped[float] = mapped_column(Double)
    peak_bytes: Mapped[int | None] = mapped_column(BigInteger)
    placement: Mapped[str] = mapped_column(String(20))
    tiling: Mapped[bool]
    acceleration: Mapped[str] = mapped_column(String(20))


class CounterRow(Base):
    """How often something happened, over all processes and starts."""

    __tablename__ = "counters"

    name: Mapped[str] = mapped_column(String(80), primary_key=True)
    value: Mapped[int] = mapped_column(BigInteger)
