"""What are the picture and video that a request starts from: how large, how long, which content?

They are read here, before anything is spent, so that a missing or broken file is an error of the
plan; their digests make them part of the plan's key.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from kinoloom.errors import InvalidMedia
from kinoloom.request import VideoRequest


class ImageInput(BaseModel):
    """A picture: its size in pixels as it is seen (after rotation), and its file's digest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path
    width: int
    height: int
    digest: str


class VideoInput(BaseModel):
    """A video: its size in pixels, its frames, their rate, and its file's digest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path
    width: int
    height: int
    frames: int
    fps: float
    digest: str


class KeyframeInput(BaseModel):
    """A picture and the frame, counted from 0, at which the clip shows it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: int
    image: ImageInput


class Inputs(BaseModel):
    """The media of a request as they were found; a mask is one picture, or a video of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: ImageInput | None = None
    last_image: ImageInput | None = None
    video: VideoInput | None = None
    mask: ImageInput | VideoInput | None = None
    references: tuple[ImageInput, ...] = ()
    keyframes: tuple[KeyframeInput, ...] = ()

    @property
    def shape(self) -> tuple[int, int] | None:
        """Width and height of what the clip begins with, if anything."""
        first = self.image or self.video
        if first is None and self.keyframes:
            first = self.keyframes[0].image
        return None if first is None else (first.width, first.height)

    @property
    def files(self) -> dict[str, ImageInput | VideoInput]:
        """Everything that was given, by name: ``image``, ``references.0``, ``keyframes.24``, ..."""
        named = {n: getattr(self, n) for n in ("image", "last_image", "video", "mask")}
        found = {name: media for name, media in named.items() if media is not None}
        found |= {f"references.{i}": media for i, media in enumerate(self.references)}
        return found | {f"keyframes.{k.index}": k.image for k in self.keyframes}


def probe_inputs(request: VideoRequest) -> Inputs:
    """Read what the request names.

    Raises InvalidMedia for a file that is missing, broken, too large or no such media.
    """
    return Inputs(
        image=_image(request.image) if request.image is not None else None,
        last_image=_image(request.last_image) if request.last_image is not None else None,
        video=_video(request.video) if request.video is not None else None,
        mask=_mask(request.mask) if request.mask is not None else None,
        references=tuple(_image(path) for path in request.references),
        keyframes=tuple(
            KeyframeInput(index=index, image=_image(path)) for index, path in request.keyframes
        ),
    )


def file_digest(path: Path) -> str:
    """The content of a file, or of every file in a folder with its name, as "sha256:<hex>".

    Raises InvalidMedia when it cannot be read.
    """
    try:
        if not path.is_dir():
            return "sha256:" + _sha256(path)
        lines = [
            f"{_sha256(file)}  {file.relative_to(path).as_posix()}\n"
            for file in sorted(path.rglob("*"))
            if file.is_file()
        ]
    except OSError as error:
        raise InvalidMedia(
            f"{path} cannot be read.",
            cause=str(error.strerror or error),
            hints=("Check that the file is there and may be read.",),
        ) from error
    return "sha256:" + hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _image(path: Path) -> ImageInput:
    # The media package loads OpenCV and FFmpeg; a plan from words alone does without them.
    from kinoloom.media.images import load_image

    height, width = load_image(path).shape[:2]
    return ImageInput(path=path, width=width, height=height, digest=file_digest(path))


def _mask(path: Path) -> ImageInput | VideoInput:
    """A mask for all frames, or one with a picture for each of them."""
    try:
        return _image(path)
    except InvalidMedia:
        if path.is_file() or path.is_dir():
            return _video(path)
        raise


def _video(path: Path) -> VideoInput:
    from kinoloom.media.reader import probe

    info = probe(path)
    return VideoInput(
        path=path,
        width=info.width,
        height=info.height,
        frames=info.frames,
        fps=info.fps,
        digest=file_digest(path),
    )
