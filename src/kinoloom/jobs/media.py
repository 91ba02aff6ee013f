"""How do the given pictures and videos become what a backend is handed?"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kinoloom.backends.base import Frame, Frames, Inputs, Keyframe
from kinoloom.errors import InvalidMedia
from kinoloom.media.images import fit, load_image, save_png
from kinoloom.media.reader import read_frames
from kinoloom.planner.inputs import VideoInput
from kinoloom.planner.plan import Plan
from kinoloom.store.store import Store

_WHITE = 128
"""Grey level from which on a mask's pixel counts as white."""


def read_inputs(plan: Plan) -> Inputs:
    """The plan's pictures at its size: covered and cut at the centre; references as they are.

    Raises InvalidMedia.
    """
    found = plan.inputs
    size = plan.width, plan.height
    return Inputs(
        image=fit(load_image(found.image.path), *size) if found.image else None,
        last_image=fit(load_image(found.last_image.path), *size) if found.last_image else None,
        video=_video(plan),
        mask=_mask(plan),
        references=tuple(load_image(r.path) for r in found.references),
        keyframes=tuple(
            Keyframe(k.index, fit(load_image(k.image.path), *size)) for k in found.keyframes
        ),
    )


def fitted_inputs(plan: Plan, folder: Path) -> dict[str, Path]:
    """The plan's pictures as PNG files in `folder`, for a backend elsewhere, by their names.

    They have the plan's size, but for references, which are as they are. Raises InvalidMedia and
    OutputFailed.
    """
    found, size = plan.inputs, (plan.width, plan.height)
    if found.video is not None:
        raise InvalidMedia(
            f"A video cannot be sent to {plan.backend}.",
            hints=["Take a model that runs on this machine, or start from a picture."],
        )
    files = {}
    for name, media in found.files.items():
        picture = load_image(media.path)
        files[name] = folder / f"input-{name}.png"
        save_png(files[name], picture if name.startswith("references") else fit(picture, *size))
    return files


def with_inputs(plan: Plan, paths: Mapping[str, Path]) -> Plan:
    """The plan with its given files at other paths, by the names of `planner.inputs.Inputs.files`.

    Names that the plan has not are an error of the caller.
    """
    data = plan.inputs.model_dump()
    for name, path in paths.items():
        field, _, place = name.partition(".")
        if field == "references":
            data[field][int(place)]["path"] = path
        elif field == "keyframes":
            [found] = [k for k in data[field] if k["index"] == int(place)]
            found["image"]["path"] = path
        else:
            data[field]["path"] = path
    return plan.model_copy(update={"inputs": type(plan.inputs).model_validate(data)})


def keep_inputs(plan: Plan, store: Store) -> dict[str, str]:
    """Put the given files into the store, so that the clip can be made again when they are gone.

    Gives their digests by name. A folder of frames stays where it is.
    """
    return {
        name: store.assets.put_file(media.path, "input").digest
        for name, media in plan.inputs.files.items()
        if media.path.is_file()
    }


def _video(plan: Plan) -> Frames | None:
    """The last frames of the video that is continued, or the first ones of the inpainted."""
    found = plan.inputs.video
    if found is None:
        return None
    frames = read_frames(found.path)
    if plan.task == "inpaint":
        taken: list[Frame] = list(islice(frames, plan.frames))
    else:
        taken = list(deque(frames, maxlen=plan.context_frames))
    return np.stack([fit(frame, plan.width, plan.height) for frame in taken])


def _mask(plan: Plan) -> NDArray[np.uint8] | None:
    """A mask for each frame: [T, H, W], 255 where the video is made anew, else 0."""
    found = plan.inputs.mask
    if found is None:
        return None
    if isinstance(found, VideoInput):
        pictures = islice(read_frames(found.path), plan.frames)
        return np.stack([_binary(frame, plan) for frame in pictures])
    return np.repeat(_binary(load_image(found.path), plan)[None], plan.frames, axis=0)


def _binary(picture: Frame, plan: Plan) -> NDArray[np.uint8]:
    grey = fit(picture, plan.width, plan.height).mean(axis=2)
    return np.where(grey >= _WHITE, 255, 0).astype(np.uint8)
