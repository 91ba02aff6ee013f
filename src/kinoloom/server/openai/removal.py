"""What goes when a client deletes a video?

The job, and with it its clip, unless another video is the same clip: an equal plan is made once and
given to all who ask for it. A video that is still made is stopped first.
"""

from __future__ import annotations

import time

from kinoloom.errors import Conflict
from kinoloom.jobs.service import JobService
from kinoloom.server.clip_removal import remove_clip
from kinoloom.store.job_record import ACTIVE, FINISHED, JobRecord
from kinoloom.store.store import Store

_PATIENCE = 5.0
"""Seconds to wait for a worker to let go: it does so at its next step."""
_LOOK_AGAIN = 0.1


def remove(job: JobRecord, service: JobService, store: Store) -> bool:
    """Delete a finished job, or cancel it and delete it once it has stopped; whether it is gone.

    It is not yet when its step takes longer than a client should wait; it stops all the same.
    """
    if job.state in ACTIVE:
        try:
            job = service.cancel(job.id)
        except Conflict:  # it ended at this very moment
            job = service.get(job.id)
    deadline = time.monotonic() + _PATIENCE
    while job.state not in FINISHED and time.monotonic() < deadline:
        time.sleep(_LOOK_AGAIN)
        job = service.get(job.id)
    if not store.jobs.delete(job.id):
        return False
    if job.clip_id is not None and not store.jobs.with_clip(job.clip_id):
        clip = store.clips.get(job.clip_id)
        # Another's clip stays, and so does one that lies in a folder of the user's.
        if clip is not None and clip.owner == job.owner and clip.asset is not None:
            remove_clip(clip, store)
    return True
