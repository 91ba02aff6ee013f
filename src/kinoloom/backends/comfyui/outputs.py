"""Which of the files that a workflow made is the video?

Nodes tell their files under keys of their own liking: ``images`` with ``animated`` (SaveVideo,
SaveWEBM), ``gifs`` (VHS_VideoCombine), ``videos``, ``files``. So every list is looked through, and
a file is known by the end of its name, or by the type that the node gives. What is saved counts
before what is a temporary preview, a video before an animation, and of several alike the last one,
which is the end of the user's chain.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from kinoloom.errors import InvalidMedia

VIDEOS = (".mp4", ".webm", ".mov", ".mkv", ".m4v")
"""Ends of the names of video files."""
_ANIMATIONS = (".gif", ".webp", ".apng")
_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".exr")
_MOST_FILES = 10_000
_LONGEST = 1000


@dataclass(frozen=True)
class Output:
    """A file on a server: its name, folder and kind of folder (``output``, ``temp``, ``input``)."""

    node: str
    filename: str
    subfolder: str = ""
    type: str = "output"
    animated: bool = False
    mime: str = ""

    @property
    def suffix(self) -> str:
        """The end of its name, with the dot, in lower case."""
        return PurePosixPath(self.filename).suffix.lower()

    @property
    def rank(self) -> int:
        """How much of a video it is: 2 a video, 1 an animation, 0 none."""
        if self.suffix in VIDEOS or self.mime.startswith("video/"):
            return 2
        moving = self.suffix == ".gif" or self.animated or self.mime in ("image/gif", "image/webp")
        return 1 if moving and self.suffix in (*_ANIMATIONS, ".png") else 0


def files(outputs: Mapping[str, Any]) -> Iterator[Output]:
    """Every file that a history entry's ``outputs`` name, in their order."""
    for node, shown in list(outputs.items())[:_MOST_FILES]:
        if not isinstance(shown, Mapping):
            continue
        animated = shown.get("animated")
        moving = animated is True or (
            isinstance(animated, list) and any(x is True for x in animated)
        )
        for entries in shown.values():
            for entry in entries[:_MOST_FILES] if isinstance(entries, list) else ():
                found = _file(str(node), entry, moving)
                if found is not None:
                    yield found


def video(outputs: Mapping[str, Any], node: str | None = None) -> tuple[Output, int]:
    """The file that is the video, and how many there were of its sort; of `node` alone if given.

    Raises InvalidMedia when there is none, saying what there is in its place.
    """
    found = [file for file in files(outputs) if node in (None, file.node)]
    moving = [file for file in found if file.rank]
    if not moving:
        raise _none(found)
    best = max((file.type == "output", file.rank) for file in moving)
    alike = [file for file in moving if (file.type == "output", file.rank) == best]
    return alike[-1], len(alike)


def _file(node: str, entry: object, animated: bool) -> Output | None:
    if not isinstance(entry, Mapping):
        return None
    name, folder, kind = entry.get("filename"), entry.get("subfolder", ""), entry.get("type")
    if not isinstance(name, str) or not 0 < len(name) <= _LONGEST:
        return None
    if not isinstance(folder, str) or len(folder) > _LONGEST:
        return None
    mime = entry.get("format")
    return Output(
        node=node,
        filename=name,
        subfolder=folder,
        type=kind if isinstance(kind, str) and kind in ("output", "temp", "input") else "output",
        animated=animated,
        mime=mime.lower() if isinstance(mime, str) and len(mime) < 100 else "",
    )


def _none(found: list[Output]) -> InvalidMedia:
    pictures = [file for file in found if file.suffix in _PICTURES]
    if pictures:
        return InvalidMedia(
            "The workflow saves single pictures and no video.",
            cause=f"It made {len(pictures)}, the first one {pictures[0].filename}.",
            hints=[
                "End it with CreateVideo and SaveVideo, or with VHS_VideoCombine.",
                "Without them a workflow's pictures are not joined here.",
            ],
        )
    named = ", ".join(file.filename for file in found[:5])
    return InvalidMedia(
        "The workflow ended without a video.",
        cause=f"It made only: {named}." if named else "It names no file that it made.",
        hints=["End it with CreateVideo and SaveVideo, or with VHS_VideoCombine."],
    )
