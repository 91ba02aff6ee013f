"""Which tables and columns does the database have?

A change here needs a migration in ``migrations/versions``; the tests compare the two.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Double,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    UniqueConstraint,
    func,
    select,
    text,
)
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    column_property,
    mapped_column,
    relationship,
)

from kinoloom.store.column_types import AnyText, Counting, Money, UtcDateTime, Word

# Names that every database agrees on, so that a later migration can name what it changes.
NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    """The base of all tables."""

    metadata = MetaData(naming_convention=NAMES)


class AssetRow(Base):
    """A file kept by its content."""

    __tablename__ = "assets"

    digest: Mapped[str] = mapped_column(Word(71), primary_key=True)
    kind: Mapped[str] = mapped_column(Word(40))
    size: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class ClipAssetRow(Base):
    """An asset that a clip was made from, or that shows it."""

    __tablename__ = "clip_assets"

    clip_id: Mapped[str] = mapped_column(
        ForeignKey("clips.id", ondelete="CASCADE"), primary_key=True
    )
    # "video" for the clip itself, "poster", "input:" and the request's field ("input:image", ...),
    # "take:" and a seed, or "boundary:" and the name of frames that a film goes on from.
    role: Mapped[str] = mapped_column(Word(80), primary_key=True)
    digest: Mapped[str] = mapped_column(ForeignKey("assets.digest"), index=True)


class ClipRow(Base):
    """A finished clip.

    The id orders by time, so an index on a column and the id gives the newest clips of a value
    without looking at the others; the last index holds all that `Clips.totals` adds up.
    """

    __tablename__ = "clips"
    __table_args__ = (
        *(Index(None, name, "id") for name in ("model", "backend", "task", "format", "owner")),
        Index("ix_clips_totals", "task", "backend", "frames", "fps", "steps", "seconds"),
    )

    id: Mapped[str] = mapped_column(Word(36), primary_key=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    path: Mapped[str] = mapped_column(AnyText)
    plan_key: Mapped[str] = mapped_column(Word(100), index=True)
    task: Mapped[str] = mapped_column(Word(20))
    model: Mapped[str] = mapped_column(Word(200))
    backend: Mapped[str] = mapped_column(Word(40))
    seed: Mapped[int] = mapped_column(BigInteger)
    width: Mapped[int]
    height: Mapped[int]
    frames: Mapped[int]
    fps: Mapped[float] = mapped_column(Double)
    format: Mapped[str] = mapped_column(Word(20))
    # The prompt with case folded: SQLite's LIKE folds ASCII only.
    search: Mapped[str] = mapped_column(AnyText)
    request: Mapped[dict[str, Any]] = mapped_column(JSON)
    plan: Mapped[dict[str, Any]] = mapped_column(JSON)
    timings: Mapped[dict[str, Any]] = mapped_column(JSON)
    scores: Mapped[dict[str, Any]] = mapped_column(JSON)
    versions: Mapped[dict[str, Any]] = mapped_column(JSON)
    warnings: Mapped[list[str]] = mapped_column(JSON)
    takes: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    # What was tried for it, in order, and what all of that cost; clips made before that was kept
    # have nothing.
    attempts: Mapped[list[dict[str, Any]] | None] = mapped_column(JSON(none_as_null=True))
    cost: Mapped[Decimal | None] = mapped_column(Money)
    currency: Mapped[str | None] = mapped_column(Word(3))
    # The id of the key that asked for it, and of the job that made it; empty without one. Both may
    # be gone while the clip stays.
    owner: Mapped[str] = mapped_column(Word(36))
    job_id: Mapped[str] = mapped_column(Word(36))
    # Of the published file, whether the store keeps it or not.
    digest: Mapped[str | None] = mapped_column(Word(71))
    # Of the plan and of the timings, for adding up.
    steps: Mapped[int]
    seconds: Mapped[float] = mapped_column(Double)

    assets: Mapped[list[ClipAssetRow]] = relationship(
        lazy="selectin", passive_deletes=True, cascade="all, delete-orphan"
    )


class AcceptedLicenceRow(Base):
    """A licence that the user accepted for a model."""

    __tablename__ = "accepted_licences"

    model: Mapped[str] = mapped_column(Word(200), primary_key=True)
    licence: Mapped[str] = mapped_column(Word(1000), primary_key=True)
    accepted_at: Mapped[datetime] = mapped_column(UtcDateTime)


class PinnedRevisionRow(Base):
    """The commit of a repository that was downloaded and is used from then on."""

    __tablename__ = "pinned_revisions"

    repo: Mapped[str] = mapped_column(Word(200), primary_key=True)
    revision: Mapped[str] = mapped_column(Word(64))
    pinned_at: Mapped[datetime] = mapped_column(UtcDateTime)


class MeasurementRow(Base):
    """What one render took on this machine."""

    __tablename__ = "measurements"
    __table_args__ = (Index(None, "device", "model", "revision"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    device: Mapped[str] = mapped_column(Word(200))
    model: Mapped[str] = mapped_column(Word(200))
    revision: Mapped[str] = mapped_column(Word(200))
    width: Mapped[int]
    height: Mapped[int]
    frames: Mapped[int]
    steps: Mapped[int]
    guided: Mapped[bool]
    seconds_per_step: Mapped[float] = mapped_column(Double)
    load_seconds: Mapped[float] = mapped_column(Double)
    overhead_seconds: Mapped[float] = mapped_column(Double)
    peak_bytes: Mapped[int | None] = mapped_column(BigInteger)
    placement: Mapped[str] = mapped_column(Word(20))
    tiling: Mapped[bool]
    acceleration: Mapped[str] = mapped_column(Word(20))


class CounterRow(Base):
    """How often something happened, over all processes and starts."""

    __tablename__ = "counters"

    name: Mapped[str] = mapped_column(Word(80), primary_key=True)
    value: Mapped[int] = mapped_column(BigInteger)


class RemoteCallRow(Base):
    """A call that makes a service work for us, and what is paid for it.

    These are the books: they outlive their job, which is why nothing refers to it here.
    `store.remote_calls.RemoteCall` explains the columns.
    """

    __tablename__ = "remote_calls"
    __table_args__ = (
        # The order also serves what is asked of one job.
        UniqueConstraint("job_id", "take", "attempt"),
        Index(None, "state", "id"),
        Index(None, "backend", "id"),
        # Of a budget's reach, with all that is added up in it.
        *(
            Index(f"ix_remote_calls_{name}_sums", name, "currency", "state", "charged", "reserved")
            for name in ("created_at", "owner", "film")
        ),
        Index(None, "backend", "model", "state", "finished_at"),
        Index("ix_remote_calls_reservation_sums", "reservation", "state", "charged", "reserved"),
    )

    id: Mapped[str] = mapped_column(Word(36), primary_key=True)
    job_id: Mapped[str] = mapped_column(Word(36))
    take: Mapped[int]
    attempt: Mapped[int]
    backend: Mapped[str] = mapped_column(Word(40))
    model: Mapped[str] = mapped_column(Word(200))
    state: Mapped[str] = mapped_column(Word(20))
    remote_id: Mapped[str | None] = mapped_column(AnyText)
    endpoint: Mapped[str] = mapped_column(AnyText)
    data: Mapped[dict[str, Any]] = mapped_column(JSON)
    reserved: Mapped[Decimal | None] = mapped_column(Money)
    charged: Mapped[Decimal | None] = mapped_column(Money)
    currency: Mapped[str] = mapped_column(Word(3))
    # Empty for nobody, and for no film.
    owner: Mapped[str] = mapped_column(Word(36))
    film: Mapped[str] = mapped_column(Word(36))
    # The film's job out of whose reservation it is paid, if there is one.
    reservation: Mapped[str | None] = mapped_column(Word(36))
    error: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    sent_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    accepted_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    nudged_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class JobRow(Base):
    """What was asked for, and how far it is. `store.jobs.JobRecord` explains the columns."""

    __tablename__ = "jobs"
    __table_args__ = (
        *(Index(None, name, "id") for name in ("state", "model", "backend", "task", "owner")),
        Index(None, "queue", "state"),
        Index(None, "worker", "state"),
        Index(None, "owner", "idempotency_key", unique=True),
    )

    id: Mapped[str] = mapped_column(Word(36), primary_key=True)
    kind: Mapped[str] = mapped_column(Word(20))
    state: Mapped[str] = mapped_column(Word(20))
    queue: Mapped[str] = mapped_column(Word(80))
    priority: Mapped[int]
    origin: Mapped[str] = mapped_column(Word(20))
    # Empty for nobody: in an index, NULLs would differ from each other.
    owner: Mapped[str] = mapped_column(Word(36))
    request: Mapped[dict[str, Any]] = mapped_column(JSON)
    plan: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    plan_key: Mapped[str | None] = mapped_column(Word(100))
    request_key: Mapped[str | None] = mapped_column(Word(100), index=True)
    remixed_from: Mapped[str | None] = mapped_column(Word(36))
    task: Mapped[str] = mapped_column(Word(20))
    model: Mapped[str] = mapped_column(Word(200))
    backend: Mapped[str] = mapped_column(Word(40))
    prompt: Mapped[str] = mapped_column(AnyText)
    # The prompt with case folded, as in clips.
    search: Mapped[str] = mapped_column(AnyText)
    run: Mapped[int]
    # The newest run that was handed to the engine.
    handed: Mapped[int]
    deaths: Mapped[int]
    worker: Mapped[str | None] = mapped_column(Word(80))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime, index=True)
    deadline_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    clip_id: Mapped[str | None] = mapped_column(Word(36), index=True)
    reused: Mapped[bool]
    error: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    progress: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    idempotency_key: Mapped[str | None] = mapped_column(Word(255))
    webhook: Mapped[str | None] = mapped_column(AnyText)
    # The job and the film that it is a part of. Both may be gone while this one stays.
    parent: Mapped[str | None] = mapped_column(Word(36), index=True)
    film: Mapped[str | None] = mapped_column(Word(36), index=True)

    # What its remote calls were charged, read along with the row: the books are the one place that
    # says so. A job is paid in one currency.
    cost: Mapped[Decimal | None] = column_property(
        select(func.sum(RemoteCallRow.charged))
        .where(RemoteCallRow.job_id == id)  # noqa: A003 - the column above
        .correlate_except(RemoteCallRow)
        .scalar_subquery()
    )
    currency: Mapped[str | None] = column_property(
        select(func.max(RemoteCallRow.currency))
        .where(RemoteCallRow.job_id == id, RemoteCallRow.charged > Decimal(0))  # noqa: A003
        .correlate_except(RemoteCallRow)
        .scalar_subquery()
    )


class JobEventRow(Base):
    """Something that happened to a job. A number is never given twice."""

    __tablename__ = "job_events"
    __table_args__ = (Index(None, "job_id", "number"), {"sqlite_autoincrement": True})

    number: Mapped[int] = mapped_column(Counting, primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    type: Mapped[str] = mapped_column(Word(20))
    data: Mapped[dict[str, Any]] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class JobPreviewRow(Base):
    """The newest picture of a job that runs."""

    __tablename__ = "job_previews"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int]
    jpeg: Mapped[bytes] = mapped_column(LargeBinary)


class JobArtefactRow(Base):
    """What a finished step of a job left for the next ones."""

    __tablename__ = "job_artefacts"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(Word(80), primary_key=True)
    digest: Mapped[str | None] = mapped_column(ForeignKey("assets.digest"), index=True)
    data: Mapped[dict[str, Any]] = mapped_column(JSON)


class FilmRow(Base):
    """A storyboard and what became of it. `store.films.FilmRecord` explains the columns."""

    __tablename__ = "films"
    __table_args__ = (Index(None, "owner", "id"),)

    id: Mapped[str] = mapped_column(Word(36), primary_key=True)
    title: Mapped[str] = mapped_column(AnyText)
    mode: Mapped[str] = mapped_column(Word(20))
    storyboard: Mapped[dict[str, Any]] = mapped_column(JSON)
    # Empty for nobody.
    owner: Mapped[str] = mapped_column(Word(36))
    budget: Mapped[Decimal | None] = mapped_column(Money)
    keyframes: Mapped[dict[str, str]] = mapped_column(JSON)
    clip_id: Mapped[str | None] = mapped_column(Word(36))
    job_id: Mapped[str | None] = mapped_column(Word(36))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class FilmReservationRow(Base):
    """What is set aside for a film, for as long as its job has not ended.

    The calls made out of it name that job; they are what is used of it.
    """

    __tablename__ = "film_reservations"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    film: Mapped[str] = mapped_column(Word(36))
    # Empty for nobody.
    owner: Mapped[str] = mapped_column(Word(36))
    amount: Mapped[Decimal] = mapped_column(Money)
    currency: Mapped[str] = mapped_column(Word(3))


class FilmAssetRow(Base):
    """An asset that a film's storyboard names."""

    __tablename__ = "film_assets"

    film_id: Mapped[str] = mapped_column(
        ForeignKey("films.id", ondelete="CASCADE"), primary_key=True
    )
    digest: Mapped[str] = mapped_column(ForeignKey("assets.digest"), primary_key=True, index=True)


class FilmTakeRow(Base):
    """One attempt at a shot of a film. `store.films.FilmTake` explains the columns."""

    __tablename__ = "film_takes"

    film_id: Mapped[str] = mapped_column(
        ForeignKey("films.id", ondelete="CASCADE"), primary_key=True
    )
    shot: Mapped[str] = mapped_column(Word(200), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    spec: Mapped[str] = mapped_column(Word(64))
    seed: Mapped[int] = mapped_column(BigInteger)
    prompt: Mapped[str] = mapped_column(AnyText)
    reason: Mapped[str] = mapped_column(Word(20))
    upstream: Mapped[str] = mapped_column(Word(71))
    segments: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    scores: Mapped[dict[str, Any]] = mapped_column(JSON)
    seam: Mapped[float | None] = mapped_column(Double)
    cost: Mapped[Decimal | None] = mapped_column(Money)
    currency: Mapped[str | None] = mapped_column(Word(3))
    chosen: Mapped[bool]
    pinned: Mapped[bool]
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class WorkerRow(Base):
    """A process that runs jobs, and when it was last seen."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(Word(80), primary_key=True)
    host: Mapped[str] = mapped_column(Word(255))
    pid: Mapped[int]
    queues: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    machine: Mapped[dict[str, Any]] = mapped_column(JSON)
    version: Mapped[str] = mapped_column(Word(80))
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    beat_at: Mapped[datetime] = mapped_column(UtcDateTime)


_LIVE = text("revoked_at IS NULL")


class ApiKeyRow(Base):
    """A key of the server: never its secret, only the secret's hash. A revoked name is free."""

    __tablename__ = "api_keys"
    __table_args__ = (Index(None, "name", unique=True, sqlite_where=_LIVE, postgresql_where=_LIVE),)

    id: Mapped[str] = mapped_column(Word(36), primary_key=True)
    name: Mapped[str] = mapped_column(Word(100))
    scopes: Mapped[list[str]] = mapped_column(JSON)
    # In the currency of the settings' budgets.
    budget: Mapped[Decimal | None] = mapped_column(Money)
    prefix: Mapped[str] = mapped_column(Word(20))
    hash: Mapped[str] = mapped_column(Word(64), unique=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    last_used_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
