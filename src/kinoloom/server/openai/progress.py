"""How much of a video is done, in percent?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Where each phase of a take begins and ends, in parts of it. Shares of the time as renders of most
# models take it; within a phase the steps count.
_PHASES = {
    "load": (0.0, 0.04),
    "encode": (0.04, 0.06),
    "denoise": (0.06, 0.90),
    "decode": (0.90, 0.95),
    "queued": (0.0, 0.0),
    "render": (0.0, 0.92),
    "fetch": (0.92, 0.95),
    "score": (0.95, 0.96),
    "write": (0.96, 1.0),
}
_UNFINISHED = 99
"""The most that a job has done before it is finished."""


def percent(progress: Mapping[str, Any]) -> int:
    """The percentage that a job's progress comes to: 0 to 99, since 100 is a finished clip.

    `progress` is as `jobs.progress.Event.as_dict` gives it: the phase, the step of its steps, and
    which of the takes it is. A phase that is not known counts as not begun.
    """
    begin, end = _PHASES.get(str(progress.get("phase")), (0.0, 0.0))
    steps = progress.get("steps") or 0
    within = min(1.0, (progress.get("step") or 0) / steps) if steps else 0.0
    takes = max(1, progress.get("takes") or 1)
    finished = min(max(1, progress.get("take") or 1), takes) - 1
    done = (finished + begin + (end - begin) * within) / takes
    return min(_UNFINISHED, int(done * 100))
