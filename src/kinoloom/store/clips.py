"""Which clips were made, and how exactly?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from decimal import Decimal
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from sqlalchemy import bindparam, delete, exc, func, select
from sqlalchemy.orm import Session

from kinoloom.store.database import Database
from kinoloom.store.ids import new_id
from kinoloom.store.money import plain_or_none
from kinoloom.store.tables import ClipAssetRow, ClipRow

# Columns that a record has under the same name and in the same form.
_SAME = (
    "id",
    "created_at",
    "plan_key",
    "task",
    "model",
    "backend",
    "seed",
    "width",
    "height",
    "frames",
    "fps",
    "format",
    "digest",
    "cost",
    "currency",
)
_JSON = ("request", "plan", "timings", "scores", "versions")
_VIDEO, _POSTER = "video", "poster"
_INPUT, _TAKE = "input:", "take:"
BOUNDARY = "boundary:"
"""Before the names of `boundary_name`, where what is derived from a clip is kept."""
_KEPT = (*_SAME, *_JSON, "path", "warnings", "takes", "attempts", "owner", "job_id")
# Built once, one query, and of the tables: it is asked often, and what makes an object of a row
# takes longer than finding it. A row for each asset of a clip, or one without.
_CLIPS, _ASSETS = ClipRow.__table__, ClipAssetRow.__table__
_OF_PLAN = (
    select(
        *(_CLIPS.c[name] for name in _KEPT),
        _ASSETS.c.role,
        _ASSETS.c.digest.label("asset_digest"),
    )
    .select_from(_CLIPS.outerjoin(_ASSETS))
    .where(_CLIPS.c.plan_key == bindparam("plan_key"))
    .order_by(_CLIPS.c.id.desc())
)


@dataclass(frozen=True, kw_only=True)
class ClipRecord:
    """Everything about one finished clip.

    `width` and `height` are in pixels, `frames` is their number, `fps` frames a second; `path` is
    the published file (or the folder of a PNG sequence). `request`, `plan`, `timings` (seconds by
    phase), `scores` (0 to 1) and `versions` (by package) are JSON objects. `inputs` has the digest
    of the asset for each field of the request that named a file, `poster` that of its picture.
    `takes` are the candidates that the clip was chosen from: seed, scores and the asset of each.
    `asset` is the digest of the video itself where the store has it, and then perhaps the only
    place: `path` is just a name then. `boundaries` are what a film goes on from, without loss: the
    digests of a picture of the last frame that it shows, or of a video of several, by the names of
    `boundary_name`. `owner` is the
    id of the key that asked for the clip and `job_id` the job that made it; either may be forgotten
    by now. `attempts` are what was tried elsewhere for it, in order, as JSON objects (backend,
    model, error, cost...), and `cost` what all of that was charged, in `currency`; None where
    nothing was paid or it is not known.
    """

    path: Path
    plan_key: str
    task: str
    model: str
    backend: str
    seed: int
    width: int
    height: int
    frames: int
    fps: float
    format: str
    request: Mapping[str, Any]
    plan: Mapping[str, Any]
    timings: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, Any] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    inputs: Mapping[str, str] = field(default_factory=dict)
    poster: str | None = None
    takes: Sequence[Mapping[str, Any]] = ()
    attempts: Sequence[Mapping[str, Any]] = ()
    cost: Decimal | None = None
    currency: str | None = None
    asset: str | None = None
    boundaries: Mapping[str, str] = field(default_factory=dict)
    digest: str | None = None
    owner: str | None = None
    job_id: str | None = None
    id: str = field(default_factory=new_id)
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def prompt(self) -> str:
        """The request's prompt; empty without one."""
        return str(self.request.get("prompt") or "")

    def boundary(self, shown: int, frames: int) -> tuple[int, str] | None:
        """What holds at least the last `frames` of the first `shown` frames, without loss.

        The fewest there are, and the digest; None where they were not kept.
        """
        kept = {}
        for name, digest in self.boundaries.items():
            of, _, count = name.partition(":")
            if of == str(shown) and int(count or 1) >= frames:
                kept[int(count or 1)] = digest
        return min(kept.items(), default=None)

    def as_dict(self) -> dict[str, Any]:
        """The record as JSON-ready data."""
        data = {item.name: getattr(self, item.name) for item in fields(self)}
        mappings = {name: dict(data[name]) for name in (*_JSON, "inputs")}
        return (
            data
            | mappings
            | {
                "boundaries": dict(self.boundaries),
                "path": str(self.path),
                "warnings": list(self.warnings),
                "takes": [dict(take) for take in self.takes],
                "attempts": [dict(attempt) for attempt in self.attempts],
                "cost": plain_or_none(self.cost),
                "created_at": self.created_at.astimezone(UTC).isoformat(),
            }
        )


def boundary_name(shown: int, frames: int) -> str:
    """The name of the last `frames` of a clip's first `shown`: ``25``, or ``25:9`` of several."""
    return f"{shown}:{frames}" if frames > 1 else str(shown)


@dataclass(frozen=True)
class ClipTotals:
    """What the clips of one task and backend add up to.

    `clips`, `frames` and `steps` are numbers, `seconds` the time that making them took, and `fps`
    the sum of their frame rates, so that averages over any of these can be had.
    """

    task: str
    backend: str
    clips: int
    frames: int
    steps: int
    seconds: float
    fps: float


class Clips:
    """The records of a store's clips."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, record: ClipRecord) -> None:
        """Keep a record.

        Raises ValueError when its id is taken or it names an asset that the store does not have,
        which are mistakes of the caller.
        """
        with self._database.writing() as session:
            insert_clip(session, record)

    def get(self, clip_id: str) -> ClipRecord | None:
        """The record with that id."""
        with self._database.reading() as session:
            row = session.get(ClipRow, clip_id)
            return None if row is None else _record(row)

    def list(
        self,
        limit: int = 50,
        before: str | None = None,
        search: str = "",
        *,
        model: str | None = None,
        backend: str | None = None,
        task: str | None = None,
        format: str | None = None,  # noqa: A002 - the word users know
        owner: str | None = None,
    ) -> list[ClipRecord]:
        """The newest records that have all of what is given, at most `limit`, newest first.

        `before` is the id of the last record of the page before. `search` keeps those whose prompt
        has every one of its words (or parts of words), in any case and order.
        """
        equal = {
            ClipRow.model: model,
            ClipRow.backend: backend,
            ClipRow.task: task,
            ClipRow.format: format,
            ClipRow.owner: owner,
        }
        query = select(ClipRow).order_by(ClipRow.id.desc()).limit(max(0, limit))
        query = query.where(
            *(column == value for column, value in equal.items() if value is not None)
        )
        if before is not None:
            query = query.where(ClipRow.id < before)
        for word in search.casefold().split():
            query = query.where(ClipRow.search.contains(word, autoescape=True))
        with self._database.reading() as session:
            return [_record(row) for row in session.scalars(query)]

    def by_plan_key(self, plan_key: str) -> Sequence[ClipRecord]:
        """The records of every clip that was made from the same plan, newest first."""
        rows = self._database.one(_OF_PLAN, {"plan_key": plan_key})
        return [
            _made(of_clip[0], {row["role"]: row["asset_digest"] for row in of_clip if row["role"]})
            for of_clip in (list(group) for _, group in groupby(rows, itemgetter("id")))
        ]

    def delete(self, clip_id: str) -> ClipRecord | None:
        """Forget a record, not its file and not its assets; the record, None without one."""
        with self._database.writing() as session:
            row = session.get(ClipRow, clip_id)
            if row is None:
                return None
            record = _record(row)
            gone = session.scalar(
                delete(ClipRow).where(ClipRow.id == clip_id).returning(ClipRow.id)
            )
            return None if gone is None else record

    def derived(self, clip_id: str, kind: str) -> str | None:
        """The digest of something that was made from a clip, such as a preview, if it was."""
        query = select(ClipAssetRow.digest).where(
            ClipAssetRow.clip_id == clip_id, ClipAssetRow.role == kind
        )
        with self._database.reading() as session:
            return session.scalar(query)

    def keep_derived(self, clip_id: str, kind: str, digest: str) -> None:
        """Keep what was made from a clip, as long as the clip; nothing when that is gone."""
        there = select(ClipRow.id).where(ClipRow.id == clip_id)
        there = there.with_for_update(read=True, key_share=True)  # it stays until the end
        kept = self._database.insert(ClipAssetRow)
        kept = kept.values(clip_id=clip_id, role=kind, digest=digest).on_conflict_do_nothing()
        with self._database.writing() as session:
            if session.scalar(there) is not None:
                session.execute(kept)

    def totals(self) -> Sequence[ClipTotals]:
        """What the clips add up to, for each task and backend."""
        query = select(
            ClipRow.task,
            ClipRow.backend,
            func.count(),
            func.sum(ClipRow.frames),
            func.sum(ClipRow.steps),
            func.sum(ClipRow.seconds),
            func.sum(ClipRow.fps),
        ).group_by(ClipRow.task, ClipRow.backend)
        with self._database.reading() as session:
            rows = session.execute(query.order_by(ClipRow.task, ClipRow.backend))
            return [ClipTotals(*row) for row in rows]


def insert_clip(session: Session, record: ClipRecord) -> None:
    """Keep a record in a transaction of the caller's; raises as `Clips.add` does."""
    roles = {f"{_INPUT}{name}": digest for name, digest in record.inputs.items()}
    roles |= {f"{_TAKE}{take['seed']}": take["asset"] for take in record.takes}
    roles |= {f"{BOUNDARY}{shown}": digest for shown, digest in record.boundaries.items()}
    for role, digest in ((_POSTER, record.poster), (_VIDEO, record.asset)):
        if digest is not None:
            roles[role] = digest
    row = ClipRow(
        **{name: getattr(record, name) for name in _SAME},
        **{name: dict(getattr(record, name)) for name in _JSON},
        path=str(record.path),
        warnings=list(record.warnings),
        takes=[dict(take) for take in record.takes],
        attempts=[dict(attempt) for attempt in record.attempts],
        search=record.prompt.casefold(),
        owner=record.owner or "",
        job_id=record.job_id or "",
        steps=record.plan.get("steps") or 0,
        seconds=record.timings.get("total") or 0.0,
        assets=[ClipAssetRow(role=role, digest=digest) for role, digest in roles.items()],
    )
    session.add(row)
    try:
        session.flush()
    except exc.IntegrityError as error:
        raise ValueError(
            f"clip {record.id}: the id is taken, or an asset of it is not in the store "
            f"({error.orig})"
        ) from error


def _record(row: ClipRow) -> ClipRecord:
    kept = {name: getattr(row, name) for name in _KEPT}
    return _made(kept, {asset.role: asset.digest for asset in row.assets})


def _made(kept: Mapping[str, Any], roles: Mapping[str, str]) -> ClipRecord:
    """The record of a row's values, and of the digests of its assets by their roles."""
    return ClipRecord(
        **{name: kept[name] for name in (*_SAME, *_JSON)},
        path=Path(kept["path"]),
        warnings=tuple(kept["warnings"]),
        takes=tuple(kept["takes"]),
        attempts=tuple(kept["attempts"] or ()),
        inputs=_named(roles, _INPUT),
        boundaries=_named(roles, BOUNDARY),
        poster=roles.get(_POSTER),
        asset=roles.get(_VIDEO),
        owner=kept["owner"] or None,
        job_id=kept["job_id"] or None,
    )


def _named(roles: Mapping[str, str], prefix: str) -> dict[str, str]:
    """The digests of the assets whose roles begin so, by the rest of the role."""
    return {
        role.removeprefix(prefix): digest
        for role, digest in roles.items()
        if role.startswith(prefix)
    }
