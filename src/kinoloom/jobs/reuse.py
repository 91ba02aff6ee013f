"""Was this very clip made before?

Two plans with one key give the same frames, so a clip that is still there is the answer. The file
must say itself that it is that clip: a user may have written something else to its place.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from kinoloom.errors import InvalidMedia
from kinoloom.jobs.naming import output_path
from kinoloom.media.output import disk_errors, whole_file
from kinoloom.media.settings import read_settings
from kinoloom.planner.plan import Plan
from kinoloom.store.clips import ClipRecord
from kinoloom.store.store import Store


def find_again(plan: Plan, store: Store) -> ClipRecord | None:
    """The record of a finished clip of the same plan whose file is still there.

    With an output of the user's own, the file is copied there. None when there is no such clip,
    when it has another format, or when the plan makes several candidates. Raises OutputFailed.
    """
    request = plan.request
    if request.cache == "bypass" or plan.candidates > 1 or request.format == "png":
        return None
    for record in store.clips.by_plan_key(plan.key):
        if record.format != request.format or not _is(record.path, record):
            continue
        target = request.output
        if target is None or target.absolute() == record.path:
            return record
        if target.is_dir():
            there = target.absolute() / record.path.name
            if _is(there, record):
                return replace(record, path=there)
            target = output_path(plan, target)
        with whole_file(target) as part, disk_errors(target):
            shutil.copyfile(record.path, part)
        return replace(record, path=target.absolute())
    return None


def _is(place: Path, record: ClipRecord) -> bool:
    """Whether the file at a place is the record's clip."""
    try:
        settings = read_settings(place)
    except (InvalidMedia, OSError):
        return False
    return settings is not None and settings.get("clip") == record.id
