"""How long did renders like this one take on this machine?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sqlalchemy import bindparam, delete, select
from sqlalchemy.orm import Session

from kinoloom.store.database import Database
from kinoloom.store.tables import MeasurementRow

# So that the table never grows without bound: for one device, model and revision, and in all.
KEEP_EACH = 200
KEEP_ALL = 5_000

_COLUMNS = (
    "device",
    "model",
    "revision",
    "width",
    "height",
    "frames",
    "steps",
    "guided",
    "seconds_per_step",
    "load_seconds",
    "overhead_seconds",
    "peak_bytes",
    "placement",
    "tiling",
    "acceleration",
    "created_at",
)
# Built once, and of the table: every plan asks, and building a query takes longer than its
# execution, as does all that stands between a row and an object.
_TABLE = MeasurementRow.__table__.c
_RECENT = (
    select(*(_TABLE[name] for name in _COLUMNS))
    .where(_TABLE.device == bindparam("device"), _TABLE.model == bindparam("model"))
    .order_by(_TABLE.id.desc())
    .limit(KEEP_EACH)
)
_RECENT_OF_REVISION = _RECENT.where(_TABLE.revision == bindparam("revision"))


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What one render took.

    `device` names the hardware, `revision` the weights and their number format, `placement` where
    they were during the render, `tiling` whether it was decoded in tiles, `acceleration` what made
    it faster: renders that differ in these say nothing about each other. `width` and `height` are
    in pixels.
    `guided` is whether each step ran the model twice. Times are in seconds, `overhead_seconds`
    being everything but loading and the steps; `peak_bytes` is the most memory in use, where it
    is known.
    """

    device: str
    model: str
    revision: str
    width: int
    height: int
    frames: int
    steps: int
    guided: bool
    seconds_per_step: float
    load_seconds: float
    overhead_seconds: float
    peak_bytes: int | None = None
    placement: str = "resident"
    tiling: bool = False
    acceleration: str = "lossless"
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))


class Measurements:
    """The measurements of a store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, measurement: Measurement) -> None:
        """Keep a measurement, and drop the oldest ones beyond the limits."""
        with self._database.writing() as session:
            insert_measurement(session, measurement)

    def recent(
        self, device: str, model: str, *, revision: str | None = None
    ) -> Sequence[Measurement]:
        """The newest renders on this device with this model (and revision), newest first."""
        query = _RECENT if revision is None else _RECENT_OF_REVISION
        values = {"device": device, "model": model, "revision": revision}
        return tuple(Measurement(**row) for row in self._database.one(query, values))


def insert_measurement(session: Session, measurement: Measurement) -> None:
    """Keep a measurement in a transaction of the caller's; see `Measurements.add`."""
    row = MeasurementRow(**{name: getattr(measurement, name) for name in _COLUMNS})
    alike = (
        MeasurementRow.device == measurement.device,
        MeasurementRow.model == measurement.model,
        MeasurementRow.revision == measurement.revision,
    )
    newest_first = select(MeasurementRow.id).order_by(MeasurementRow.id.desc()).limit(1)
    session.add(row)
    session.flush()
    for conditions, count in ((alike, KEEP_EACH), ((), KEEP_ALL)):
        # The first one too many, and with it all older ones.
        excess = newest_first.where(*conditions).offset(count).scalar_subquery()
        session.execute(
            delete(MeasurementRow).where(*conditions, MeasurementRow.id <= excess),
            execution_options={"synchronize_session": False},
        )
