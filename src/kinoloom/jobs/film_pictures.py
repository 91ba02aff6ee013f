"""Which pictures does a film hand from clip to clip?

Pictures are read and written by the light child process, which decodes what comes from outside.
What was computed once is an artefact of the film's job.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from kinoloom.jobs.job_run import JobRun
from kinoloom.store.clips import BOUNDARY, ClipRecord, boundary_name


class Pictures:
    """The pictures of one run of a film's job; all are known by their digests."""

    def __init__(self, run: JobRun, folder: Path) -> None:
        self._run = run
        self._store = run.store
        self._folder = folder
        self._given: dict[Path, str] = {}

    def given(self, path: Path) -> str:
        """A picture of the user's own, kept. Raises InvalidMedia."""
        if path not in self._given:
            name = (
                "given:" + hashlib.sha256(str(path).encode("utf-8", "surrogateescape")).hexdigest()
            )
            self._given[path] = self._run.keep_file(name[:80], path, "input", {})
        return self._given[path]

    def boundary(self, clip: ClipRecord, shown: int, frames: int) -> str:
        """The last `frames` of so many frames of a clip, without loss. Raises InvalidMedia.

        Several are a video, one is a picture.
        """
        kept = clip.boundary(shown, frames)
        if kept is not None and kept[0] == frames:
            return kept[1]
        name = boundary_name(shown, frames)
        known = self._store.clips.derived(clip.id, f"{BOUNDARY}{name}")
        if known is not None:
            return known
        if kept is None:
            source, length = self._video(clip), clip.frames
        else:
            length = shown = kept[0]
            source = self._store.assets.path(kept[1])
        digest = self._made(
            f"{clip.id} {name}",
            "boundary",
            {
                "frames": str(source),
                "streamed": length,
                "fps": clip.fps,
                "shown": shown,
                "count": frames,
            },
        )
        self._store.clips.keep_derived(clip.id, f"{BOUNDARY}{name}", digest)
        return digest

    def first(self, clip: ClipRecord) -> str:
        """The first frame of a clip. Raises InvalidMedia."""
        video = {"frames": str(self._video(clip)), "streamed": clip.frames, "fps": clip.fps}
        return self._made(f"{clip.id} first", "boundary", {**video, "shown": 1, "count": 1})

    def matched(self, frames: str, anchor: str, *, video: bool) -> str:
        """A picture, or a video, with the colours of the anchor. Raises InvalidMedia."""
        if frames == anchor:
            return frames
        paths = {
            name: str(self._store.assets.path(d))
            for name, d in (("frames", frames), ("anchor", anchor))
        }
        return self._made(f"{frames} {anchor}", "match", {**paths, "video": video})

    def seam(self, before: ClipRecord, shown: int, after: ClipRecord, skip: int) -> float:
        """How well a clip goes on from another, of which so many frames are shown: 0 to 1."""
        answer = self._run.call(
            "seam",
            {
                "before": str(self._video(before)),
                "shown": shown,
                "after": str(self._video(after)),
                "skip": skip,
            },
            light=True,
        )
        return float(answer["overall"])

    def path(self, digest: str) -> Path:
        """The file of a picture. Raises InvalidMedia."""
        return self._store.assets.path(digest)

    def _video(self, clip: ClipRecord) -> Path:
        assert clip.asset is not None  # clips of a film are kept in the store
        return self._store.assets.path(clip.asset)

    def _made(self, of: str, command: str, arguments: Mapping[str, object]) -> str:
        """What a command makes of something, made once."""
        name = f"{command}:{hashlib.sha256(of.encode()).hexdigest()}"
        known = self._run.artefact(name)
        if known is not None and known.digest is not None:
            return known.digest
        target = self._folder / name.replace(":", "-")
        self._run.call(command, {**arguments, "target": str(target)}, light=True)
        return self._run.keep_file(name, target, "frame", {})
