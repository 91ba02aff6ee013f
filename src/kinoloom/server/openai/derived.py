"""What is asked for when a new video is made after one that is there?

A remix is the source's plan with other words: the same model, numbers, inputs and seed, so that it
begins from the same noise. An extension goes on from the source's last frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kinoloom.catalog.loader import Catalog
from kinoloom.config import Settings
from kinoloom.errors import InvalidRequest
from kinoloom.jobs.service import JobService
from kinoloom.request import Task
from kinoloom.server.clip_request import ClipRequest
from kinoloom.server.openai.asking import in_their_words, read_request
from kinoloom.server.openai.media import Source, asset
from kinoloom.store.clips import ClipRecord
from kinoloom.store.store import Store

_PLANNED = ("model", "negative", "frames", "fps", "steps", "guidance", "preset")
_ASKED = ("loras", "acceleration", "tier", "format")
# A number of the plan gives way to the wish that it would contradict.
_REPLACES = {"duration": "frames", "tier": "steps", "preset": "steps"}


def remix_of(clip: ClipRecord, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a request for a clip as this one was made, with what is `asked` changed."""
    fields = {name: clip.plan[name] for name in _PLANNED if clip.plan.get(name) not in (None, "")}
    fields |= {name: clip.request[name] for name in _ASKED if clip.request.get(name)}
    fields |= {"size": [clip.width, clip.height], "seed": clip.seed} | _inputs(clip)
    for new, old in _REPLACES.items():
        if new in asked:
            fields.pop(old, None)
    return fields | dict(asked)


def extension_of(
    source: Source,
    asked: Mapping[str, Any],
    service: JobService,
    store: Store,
    settings: Settings,
) -> ClipRequest:
    """The request that goes on from a video.

    `asked` has the seconds of the new part, while a clip's frames count those of the source that it
    begins with; only a plan knows how many these are. Raises KinoloomError.
    """
    fields = _like(source, "extend", settings) | dict(asked) | {"video": source.video}
    found = read_request(fields, store, settings)
    if found.request.duration is None:
        return found
    try:
        plan = service.plan(found.request.model_copy(update={"duration": None}))
    except InvalidRequest as error:
        raise in_their_words(error) from error
    new = max(1, round(found.request.duration * plan.fps))
    del fields["duration"]
    return read_request(fields | {"frames": plan.context_frames + new}, store, settings)


def edit_of(
    source: Source, mask: Any, asked: Mapping[str, Any], settings: Settings
) -> dict[str, Any]:
    """The fields of a request that makes a video anew where the mask is white."""
    media = {"video": source.video, "mask": mask}
    return _like(source, "inpaint", settings) | dict(asked) | media


def _like(source: Source, task: Task, settings: Settings) -> dict[str, Any]:
    """Size and rate of a source that was made here, and its model if that can do the task."""
    clip = source.clip
    if clip is None:
        return {}
    fields: dict[str, Any] = {"size": [clip.width, clip.height], "fps": clip.fps}
    if clip.model in {card.id for card in Catalog.load(settings.models).doing(task)}:
        fields["model"] = clip.model
    return fields


def _inputs(clip: ClipRecord) -> dict[str, Any]:
    """The pictures and videos that a clip was made from."""
    found: dict[str, Any] = {}
    # Named as the planner names them: image, references.0, keyframes.24
    for name in sorted(clip.inputs, key=lambda name: (len(name), name)):
        media = asset(clip.inputs[name])
        field, _, number = name.partition(".")
        if field == "references":
            found.setdefault(field, []).append(media)
        elif field == "keyframes":
            found.setdefault(field, []).append([int(number), media])
        else:
            found[field] = media
    return found
