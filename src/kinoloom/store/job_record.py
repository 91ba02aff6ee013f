"""What is known of one job, and what of it may change?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal, TypedDict
from urllib.parse import urlsplit

from kinoloom.store.ids import new_id
from kinoloom.store.money import plain
from kinoloom.store.tables import JobRow

JobState = Literal[
    "held", "queued", "running", "cancelling", "succeeded", "failed", "cancelled", "dead"
]
ACTIVE: tuple[JobState, ...] = ("held", "queued", "running", "cancelling")
FINISHED: tuple[JobState, ...] = ("succeeded", "failed", "cancelled", "dead")


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, kw_only=True)
class JobRecord:
    """Everything about one job.

    `queue` is what a worker must be able to do for it, `priority` 0 to 1000, the lower the sooner.
    `owner` is the id of the key that asked. `request`, `plan`, `error` and `progress` are JSON
    objects. `run` counts how often the job was given to somebody, `deaths` how many workers
    died with it; `worker` is the id of the one that has it. `request_key` tells equal requests,
    `idempotency_key` is the client's word for asking once. `remixed_from` is the job of the clip
    that this one is made after; `parent` and `film` are the job and the film that it is a part of.

    `cost` is what its remote calls were charged by now, and `currency` that of it; None where
    nothing was paid or it is not known. They are read from the books (`store.remote_calls`) and
    written nowhere else.
    """

    queue: str
    origin: str
    request: Mapping[str, Any]
    task: str
    model: str
    backend: str
    prompt: str = ""
    kind: str = "clip"
    state: JobState = "queued"
    priority: int = 0
    owner: str | None = None
    plan: Mapping[str, Any] | None = None
    plan_key: str | None = None
    request_key: str | None = None
    remixed_from: str | None = None
    run: int = 1
    deaths: int = 0
    worker: str | None = None
    id: str = field(default_factory=new_id)
    created_at: datetime = field(default_factory=_now)
    updated_at: datetime = field(default_factory=_now)
    started_at: datetime | None = None
    finished_at: datetime | None = None
    deadline_at: datetime | None = None
    clip_id: str | None = None
    reused: bool = False
    error: Mapping[str, Any] | None = None
    progress: Mapping[str, Any] | None = None
    cost: Decimal | None = None
    currency: str | None = None
    idempotency_key: str | None = None
    webhook: str | None = None
    parent: str | None = None
    film: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The record as JSON-ready data, without the secrets that a webhook's address may hold."""
        data = {item.name: getattr(self, item.name) for item in fields(self)}
        del data["request_key"]
        for name, value in data.items():
            if isinstance(value, datetime):
                data[name] = value.astimezone(UTC).isoformat()
            elif isinstance(value, Decimal):
                data[name] = plain(value)
            elif isinstance(value, Mapping):
                data[name] = dict(value)
        return data | {"webhook": self.webhook and _without_secrets(self.webhook)}


class JobChanges(TypedDict, total=False):
    """What may change in a job: columns by their names.

    `run_to` and `worker_to` are the new values of `run` and `worker`, which as arguments of `move`
    are conditions.
    """

    run_to: int
    worker_to: str | None
    queue: str
    priority: int
    request: Mapping[str, Any]
    plan: Mapping[str, Any] | None
    plan_key: str | None
    task: str
    model: str
    backend: str
    deaths: int
    started_at: datetime | None
    finished_at: datetime | None
    deadline_at: datetime | None
    clip_id: str | None
    reused: bool
    error: Mapping[str, Any] | None
    progress: Mapping[str, Any] | None


@dataclass(frozen=True)
class Artefact:
    """What a finished step left: the digest of an asset, if it made a file, and a JSON object."""

    digest: str | None
    data: Mapping[str, Any]


_BOOKED = ("cost", "currency")
# The columns of a job that a record has under the same name and in the same form.
COLUMNS = tuple(i.name for i in fields(JobRecord) if i.name not in ("owner", *_BOOKED))


def job_record(row: JobRow) -> JobRecord:
    """The record of a row."""
    same = {name: getattr(row, name) for name in (*COLUMNS, *_BOOKED)}
    return JobRecord(**same, owner=row.owner or None)


def _without_secrets(address: str) -> str:
    """An address as it may be shown: no user, no password and no query."""
    url = urlsplit(address)
    user, at, host = url.netloc.rpartition("@")
    return url._replace(
        netloc=f"***@{host}" if user or at else host,
        query="***" if url.query else "",
        fragment="",
    ).geturl()
