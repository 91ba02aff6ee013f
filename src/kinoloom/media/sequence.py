"""How are frames kept on disk without loss, and how do we know that they are still the same?

A sequence is a folder: `frame_000001.png` and so on, and `kinoloom.json`, the manifest with the
frame rate, the settings and each file's SHA-256. A folder of PNGs from another program, without a
manifest, can be read too, in the order of the numbers in the names.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kinoloom.errors import InvalidMedia
from kinoloom.media.frames import Frame, checked_frames
from kinoloom.media.images import load_image, write_png
from kinoloom.media.localfile import check_file
from kinoloom.media.output import check_folder, disk_errors, sync, whole_folder
from kinoloom.media.rates import exact_rate
from kinoloom.media.settings_tag import SCHEMA, decode_settings, encode_settings

MANIFEST = "kinoloom.json"
FALLBACK_FPS = 24.0
"""Frames a second of a folder that has no manifest; cinema's rate."""

MAX_MANIFEST_BYTES = 64_000_000
_FRAME_NAME = re.compile(r"frame_\d{6,9}\.png")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class SequenceInfo:
    """A sequence's frame files in order, their SHA-256 (None where unknown), fps and settings."""

    files: tuple[Path, ...]
    digests: tuple[str | None, ...]
    fps: float
    settings: dict[str, Any] | None


def save_sequence(
    folder: str | Path,
    frames: Iterable[Frame] | Frame,
    fps: float,
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Write uint8 RGB frames [H, W, 3] as a folder of PNGs, without loss, whole or not at all.

    An existing folder is replaced only if it is empty or holds nothing but such a sequence.
    Raises OutputFailed (disk, permission, a folder in the way), InvalidMedia (no frames, unequal),
    InvalidRequest (fps).
    """
    rate = float(exact_rate(fps))
    write_sequence(Path(folder), checked_frames(frames), rate, encode_settings(settings))


def load_sequence(folder: str | Path) -> tuple[Frame, float, dict[str, Any] | None]:
    """The frames [T, H, W, 3], the fps and the settings of a saved sequence.

    Raises InvalidMedia when anything is missing, changed since it was written, or unequal in size.
    """
    info = read_sequence_info(folder)
    return np.stack(list(sequence_frames(info))), info.fps, info.settings


def check_sequence_place(folder: str | Path, needed_bytes: int = 0) -> None:
    """Find out before the work whether a sequence can be written to `folder`; see `check_folder`.

    Raises OutputFailed, also when other files are in it.
    """
    check_folder(folder, _is_only_a_sequence, needed_bytes)


def write_sequence(
    folder: Path,
    frames: Iterator[Frame],
    fps: float,
    comment: str,
    on_frame: Callable[[int], None] | None = None,
) -> None:
    """As `save_sequence`, for checked frames and settings that are JSON text already ("": none)."""
    with whole_folder(folder, _is_only_a_sequence) as part:
        entries = []
        for count, frame in enumerate(frames, start=1):
            name = f"frame_{count:06d}.png"
            with disk_errors(folder):
                write_png(part / name, frame, comment)
                sync(part / name)
                entries.append({"file": name, "sha256": _sha256(part / name)})
            if on_frame is not None:
                on_frame(count)
        manifest = {
            "kinoloom": SCHEMA,
            "fps": fps,
            "frames": entries,
            "settings": json.loads(comment) if comment else None,
        }
        with disk_errors(folder):
            (part / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="ascii")
            sync(part / MANIFEST)


def read_sequence_info(folder: str | Path) -> SequenceInfo:
    """What a folder says about its frames; nothing is decoded yet.

    Raises InvalidMedia when it holds no PNG, or when its manifest is damaged or names files that
    are not there.
    """
    root = Path(folder)
    if (root / MANIFEST).exists():
        return _read_manifest(root)
    try:
        files = [p for p in root.iterdir() if p.suffix.lower() == ".png" and p.is_file()]
    except OSError as error:
        raise InvalidMedia(
            f"The folder {folder} cannot be read.",
            cause=error.strerror or str(error),
            hints=("Check the path and the folder's permissions.",),
        ) from error
    if not files:
        raise InvalidMedia(
            f"The folder {folder} holds no frames.",
            cause="There is no PNG file in it.",
            hints=("Name a video file, or a folder of PNG frames.",),
        )
    files.sort(key=_by_numbers)
    return SequenceInfo(tuple(files), (None,) * len(files), FALLBACK_FPS, None)


def sequence_frames(info: SequenceInfo) -> Iterator[Frame]:
    """The frames [H, W, 3] in order, each checked against its SHA-256 where one is known.

    Raises InvalidMedia at the first that is missing, changed, damaged or of another size.
    """
    return checked_frames(
        _load(path, digest) for path, digest in zip(info.files, info.digests, strict=True)
    )


def _load(path: Path, digest: str | None) -> Frame:
    check_file(path, "frame")
    if digest is not None and _sha256(path) != digest:
        raise InvalidMedia(
            f"The frame {path} was changed or damaged.",
            cause="Its SHA-256 is not the one in the manifest.",
            hints=("Make the sequence again.", f"Delete {MANIFEST} to use the frames as they are."),
        )
    return load_image(path)


def _read_manifest(root: Path) -> SequenceInfo:
    path = check_file(root / MANIFEST, "manifest", MAX_MANIFEST_BYTES)
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        fps = float(exact_rate(manifest["fps"]))
        names = [str(entry["file"]) for entry in manifest["frames"]]
        digests = [str(entry["sha256"]) for entry in manifest["frames"]]
        settings = manifest.get("settings")
    except InvalidMedia:
        raise
    except Exception as error:
        # Any shape of JSON may stand there; whatever goes wrong in taking it apart means the same.
        raise _damaged(root, f"It is not a manifest ({type(error).__name__}).") from error
    if not names:
        raise _damaged(root, "It lists no frames.")
    for name, digest in zip(names, digests, strict=True):
        # Only plain frame names: a manifest must not lead us out of its folder.
        if not _FRAME_NAME.fullmatch(name) or not _DIGEST.fullmatch(digest):
            raise _damaged(root, f"It names the frame {name[:80]!r}.")
    # The one rule for what counts as settings holds here too.
    checked = decode_settings(json.dumps(settings))
    return SequenceInfo(tuple(root / name for name in names), tuple(digests), fps, checked)


def _is_only_a_sequence(folder: Path) -> bool:
    names = [entry.name for entry in folder.iterdir()]
    return MANIFEST in names and all(n == MANIFEST or _FRAME_NAME.fullmatch(n) for n in names)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _by_numbers(path: Path) -> list[tuple[int, int, str]]:
    """A key by which frame_2 comes before frame_10."""
    parts = re.split(r"(\d+)", path.name)
    key = []
    for part in parts:
        number = 0
        with suppress(ValueError):
            number = int(part) if part.isdecimal() else 0
        key.append((1 if part.isdecimal() else 0, number, part))
    return key


def _damaged(root: Path, cause: str) -> InvalidMedia:
    return InvalidMedia(
        f"The manifest of the frames in {root} is damaged.",
        cause=cause,
        hints=(f"Delete {MANIFEST} to use the frames as they are, at {FALLBACK_FPS:g} fps.",),
    )
