"""Which picture or video does a request in OpenAI's words start from?

A picture comes as a file, as a data URL or, where the settings allow it, as an address; a video as
a file or as the id of one that was made here. Files are kept in the store, and named by their
digest from then on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kinoloom import request_checks as check
from kinoloom.config import Settings
from kinoloom.errors import InvalidRequest, NotFound, Problem
from kinoloom.jobs.service import JobService
from kinoloom.server.openai.body import Body
from kinoloom.server.openai.shapes import STATUS, job_id
from kinoloom.server.uploads import Kind, receive
from kinoloom.store.clips import ClipRecord
from kinoloom.store.job_record import JobRecord
from kinoloom.store.store import Store

REFERENCE, VIDEO, MASK = "input_reference", "video", "mask"

Media = str | dict[str, str]
"""A file as `clip_request` takes it: of the store by its digest, as a data URL, or an address."""

_PICTURE = 'a picture: a file, or {"image_url": ...} with a data URL or an address'
_VIDEO = 'a video: a file, or {"id": "video_..."} with the id of one'
_MASK = "a picture, or a video of them, that is white where the video is to be made anew"


@dataclass(frozen=True)
class Source:
    """A video to go on from, and its clip if it was made here."""

    video: Media
    clip: ClipRecord | None = None


def asset(digest: str) -> Media:
    """A file of the store."""
    return {"asset": digest}


def picture_of(body: Body, store: Store, settings: Settings) -> Media | None:
    """The picture that a video is to begin with, if one is given.

    Raises InvalidRequest for what is none, and as `uploads.receive`.
    """
    if (kept := _kept(body, REFERENCE, "image", store, settings)) is not None:
        return kept
    given = body.values.get(REFERENCE)
    if given is None:
        return None
    url = given.get("image_url") if isinstance(given, Mapping) else None
    if isinstance(url, str):
        return url
    hints = []
    if isinstance(given, Mapping) and "file_id" in given:
        hints = ["This server has no files with ids: send the picture itself."]
    raise InvalidRequest([Problem(REFERENCE, check.shown(given), _PICTURE)], hints=hints)


def source_of(
    body: Body, store: Store, settings: Settings, service: JobService, owner: str | None
) -> Source:
    """The video that a request goes on from.

    Raises InvalidRequest for what is none, NotFound for a video that is not there or not ready, and
    as `uploads.receive`.
    """
    if (kept := _kept(body, VIDEO, "video", store, settings)) is not None:
        return Source(kept)
    given = body.values.get(VIDEO)
    name = given.get("id") if isinstance(given, Mapping) else None
    if not isinstance(name, str):
        raise InvalidRequest([Problem(VIDEO, check.shown(given), _VIDEO)])
    clip = finished_clip(find(name, service, owner), store)
    # A clip of the command line lies in a folder of the user's.
    digest = clip.asset or store.assets.put_file(clip.path, "video").digest
    return Source(asset(digest), clip)


def mask_of(body: Body, store: Store, settings: Settings) -> Media:
    """Where a video is to be made anew. Raises InvalidRequest when nothing says so."""
    if (kept := _kept(body, MASK, "any", store, settings)) is not None:
        return kept
    raise InvalidRequest(
        [Problem(MASK, check.shown(body.values.get(MASK)), _MASK)],
        message="A video is edited here only where a mask says so.",
        hints=["To make it again after other words: POST /v1/videos/{id}/remix."],
    )


def find(video: str, service: JobService, owner: str | None) -> JobRecord:
    """The job of a video that this caller may see. Raises NotFound."""
    try:
        if (known := job_id(video)) is not None:
            return service.get(known, owner=owner)
    except NotFound:
        pass
    raise NotFound(
        f"There is no video {check.shown(video)!r}.",
        cause="It was deleted, or it never was.",
        hints=["GET /v1/videos lists those there are."],
    )


def finished_clip(job: JobRecord, store: Store) -> ClipRecord:
    """The clip that a job made. Raises NotFound while there is none, or when it was deleted."""
    if job.clip_id is None or job.state != "succeeded":
        raise NotFound(
            "This video is not there.",
            cause=f"Its status is {STATUS[job.state]}.",
            hints=["Ask for the video until its status is completed."],
        )
    clip = store.clips.get(job.clip_id)
    if clip is None:
        raise NotFound("The content of this video is not there any more.", cause="It was deleted.")
    return clip


def _kept(body: Body, name: str, kind: Kind, store: Store, settings: Settings) -> Media | None:
    file = body.files.get(name)
    if file is None:
        return None
    return asset(receive(file, name, kind, store=store, settings=settings).digest)
