"""Was this very clip made before?

Two plans with one key give the same frames, so a clip that is still there is the answer. A file
outside the store must still be the one that was published: a user may have written something else
to its place.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from kinoloom.errors import InvalidMedia
from kinoloom.jobs.naming import output_path
from kinoloom.media.output import disk_errors, whole_file
from kinoloom.planner.inputs import file_digest
from kinoloom.planner.plan import Plan
from kinoloom.store.clips import ClipRecord
from kinoloom.store.store import Store


def find_again(plan: Plan, store: Store, *, keep: bool = False) -> ClipRecord | None:
    """The record of a finished clip of the same plan that is still there.

    With an output of the user's own, the file is copied there; a clip that only the store has needs
    one. With `keep` only a clip that the store has counts, wherever else it is. None when there is
    no such clip, when it has another format, or when the plan makes several candidates. Raises
    OutputFailed.
    """
    request = plan.request
    if request.cache == "bypass" or plan.candidates > 1 or request.format == "png":
        return None
    for record in store.clips.by_plan_key(plan.key):
        if record.format != request.format:
            continue
        if keep:
            if record.asset is not None and _kept(record, store) is not None:
                return record
            continue
        target = request.output
        if target is not None and target.is_dir():
            there = target.absolute() / record.path.name
            if _is(there, record):
                return replace(record, path=there)
        elif target is None and _is(record.path, record):
            return record
        elif target is not None and _is(target.absolute(), record):
            return replace(record, path=target.absolute())
        source = record.path if _is(record.path, record) else _kept(record, store)
        if source is None or target is None:
            continue
        place = output_path(plan, target) if target.is_dir() else target
        with whole_file(place) as part, disk_errors(place):
            shutil.copyfile(source, part)
        return replace(record, path=place.absolute())
    return None


def _is(place: Path, record: ClipRecord) -> bool:
    """Whether the file at a place is the record's clip."""
    try:
        return place.is_absolute() and place.is_file() and file_digest(place) == record.digest
    except (InvalidMedia, OSError):
        return False


def _kept(record: ClipRecord, store: Store) -> Path | None:
    """Where the store has the clip on this machine, if it has it."""
    try:
        return store.assets.path(record.asset) if record.asset is not None else None
    except InvalidMedia:
        return None
