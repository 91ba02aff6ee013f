"""What goes when a clip is deleted?"""

from __future__ import annotations

from kinoloom.errors import Conflict
from kinoloom.store.clips import ClipRecord
from kinoloom.store.job_record import ACTIVE
from kinoloom.store.store import Store

_DERIVED = ("gif", "spritesheet")


def remove_clip(clip: ClipRecord, store: Store) -> bool:
    """Forget a clip and delete those of its files that nothing else needs; whether it was there.

    A file that a command wrote to a folder of its user stays. Raises Conflict while the clip's job
    is not finished.
    """
    job = store.jobs.get(clip.job_id) if clip.job_id is not None else None
    if job is not None and job.state in ACTIVE:
        raise Conflict(
            f"The clip {clip.id} cannot be deleted: its job is {job.state}.",
            hints=[f"Cancel the job {job.id} first."],
        )
    # Before the record goes, and with it what it refers to.
    files = {clip.asset, clip.poster, *clip.inputs.values()}
    files |= {str(take["asset"]) for take in clip.takes}
    files |= {store.clips.derived(clip.id, kind) for kind in _DERIVED}
    if store.clips.delete(clip.id) is None:
        return False
    for digest in files:
        if digest is not None:
            store.assets.discard(digest)
    return True
