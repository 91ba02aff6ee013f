"""Which weights does a plan run with?

Part of a plan's key: the same numbers with other weights are another clip.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from stat import S_ISREG

from kinoloom.catalog.source import Part, Source
from kinoloom.weights.cache import commit_of
from kinoloom.weights.places import Located

_WHOLE = 64 * 1024 * 1024
_SLICE = 1024 * 1024
_SLICES = 16


def weights_identity(source: Source, located: Located | None = None) -> dict[str, str]:
    """Which weights these are, by component (empty: the main ones).

    A repository counts by the commit that is on this disk, where one was `located`, a folder or
    file of the user's by its content. What is not there has no identity but its name; that it
    cannot be loaded is the backend's to say.
    """
    place = located.main if located is not None else None
    found = {"": _main(source, place)}
    for name, part in source.parts.items():
        found[name] = _part(part, located.parts.get(name) if located is not None else None)
    return found


def file_identity(file: Path) -> str:
    """A digest of a file; OSError when it cannot be read.

    Of one above 64 MB only sixteen evenly spread megabytes are read: training changes every weight,
    so they differ wherever two models do.
    """
    stat = file.stat()
    return "sha256:" + _content(str(file), stat.st_size, stat.st_mtime_ns)


def _main(source: Source, place: Path | None) -> str:
    if source.repo is not None:
        return f"{source.repo}@{_revision(source.revision, place)}"
    if source.service is not None:
        return f"service:{source.service}"
    own = source.file or source.folder
    return (
        _identity(own) if own is not None and own.exists() else f"missing:{source.package or own}"
    )


def _part(part: Part, place: Path | None) -> str:
    inside = f"{part.subfolder}/{part.file or ''}"
    if part.repo is not None:
        return f"{part.repo}@{_revision(part.revision, place)}/{inside}"
    own = Path(part.path or "") / part.subfolder / (part.file or "")
    return _identity(own) if own.exists() else f"missing:{own}"


def _revision(pinned: str | None, place: Path | None) -> str:
    return (commit_of(place) if place is not None else None) or pinned or "latest"


def _identity(place: Path) -> str:
    """The content of a file, or of every file in a folder but texts for readers (``*.md``)."""
    if place.is_file():
        return file_identity(place)
    digest = hashlib.sha256()
    root = str(place)
    for parts in sorted(_files(root, ())):
        name = "/".join(parts)
        try:
            stat = os.stat(f"{root}/{name}")  # noqa: PTH116 (each plan looks at every file)
            if S_ISREG(stat.st_mode) and not name.endswith(".md"):
                content = _content(f"{root}/{name}", stat.st_size, stat.st_mtime_ns)
                digest.update(f"{name}\n{content}\n".encode())
        except OSError:
            digest.update(f"{parts[-1]}\nunreadable\n".encode())
    return "sha256:" + digest.hexdigest()


def _files(folder: str, parts: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """What is in a folder and its folders, as the names on the way there."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                inside = (*parts, entry.name)
                if entry.is_dir(follow_symlinks=False):
                    yield from _files(entry.path, inside)
                else:
                    yield inside
    except OSError:
        return  # what cannot be listed cannot be loaded either, which the backend says


@lru_cache(maxsize=4096)
def _content(file: str, size: int, modified: int) -> str:
    """The digest's digits; size and time of change are there for the cache to notice changes."""
    with open(file, "rb") as stream:  # noqa: PTH123
        if size <= _WHOLE:
            return hashlib.file_digest(stream, "sha256").hexdigest()
        digest = hashlib.sha256(f"{size}".encode())
        for i in range(_SLICES):
            stream.seek((size - _SLICE) * i // (_SLICES - 1))
            digest.update(stream.read(_SLICE))
        return digest.hexdigest()
