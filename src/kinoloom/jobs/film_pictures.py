"""Which pictures does a film hand from clip to clip?

Pictures are read and written by the light child process, which decodes what comes from outside.
What was computed once is an artefact of the film's job.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from kinoloom.jobs.job_run import JobRun
from kinoloom.store.clips import ClipRecord


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

    def boundary(self, clip: ClipRecord, shown: int) -> str:
        """The last of so many frames of a clip, without loss. Raises InvalidMedia."""
        known = clip.boundaries.get(str(shown))
        if known is not None:
            return known
        kept = self._store.clips.derived(clip.id, f"boundary:{shown}")
        if kept is not None:
            return kept
        digest = self._made(
            f"{clip.id} {shown}",
            "boundary",
            {"frames": str(self._video(clip)), "shown": shown, "streamed": clip.frames},
        )
        self._store.clips.keep_derived(clip.id, f"boundary:{shown}", digest)
        return digest

    def first(self, clip: ClipRecord) -> str:
        """The first frame of a clip. Raises InvalidMedia."""
        return self._made(
            f"{clip.id} first",
            "boundary",
            {"frames": str(self._video(clip)), "shown": 1, "streamed": clip.frames},
        )

    def matched(self, picture: str, anchor: str) -> str:
        """A picture with the colours of the anchor. Raises InvalidMedia."""
        if picture == anchor:
            return picture
        paths = {
            name: str(self._store.assets.path(d))
            for name, d in (("frame", picture), ("anchor", anchor))
        }
        return self._made(f"{picture} {anchor}", "match", paths)

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
        target = self._folder / f"{name.replace(':', '-')}.png"
        self._run.call(command, {**arguments, "target": str(target)}, light=True)
        return self._run.keep_file(name, target, "frame", {})
