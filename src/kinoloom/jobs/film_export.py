"""How is a finished film written in another form: for the web, for an editor, as a picture?

It is joined from its shots again, so that nothing is encoded twice.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from kinoloom.config import Settings
from kinoloom.errors import Conflict
from kinoloom.jobs.naming import slug
from kinoloom.jobs.render_process import RenderProcess
from kinoloom.media.output import disk_errors
from kinoloom.store.clips import ClipRecord
from kinoloom.store.store import Store

_COMMANDS = {"sheet": "film_sheet", "otio": "timeline"}


class Exporter:
    """Writes the films of a store."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store

    def write(self, film: ClipRecord, target: Path, form: str) -> None:
        """Write a film to `target`. Raises Conflict when a clip of it is gone, OutputFailed."""
        cut = self._cut(film)
        arguments: dict[str, Any] = {
            "target": str(target.absolute()),
            "title": str(film.request.get("prompt") or ""),
            "shots": film.plan["shots"],
            "settings": {"film": film.plan["film"], "shots": film.plan["shots"]},
            "format": form,
        }
        if form == "otio":
            cut = _with_media(cut, target.absolute())
        if form == "sheet":
            assert film.asset is not None  # it is finished
            arguments["film"] = str(self._store.assets.path(film.asset))
        child = RenderProcess(self._settings, light=True)
        try:
            child.call(_COMMANDS.get(form, "stitch"), arguments | {"cut": cut})
        finally:
            child.close()

    def _cut(self, film: ClipRecord) -> dict[str, Any]:
        """The film's cut, with its clips where they are on this machine now."""
        cut: dict[str, Any] = dict(film.plan["cut"])
        pieces = []
        for piece in cut["pieces"]:
            clip = self._store.clips.get(piece["clip"])
            if clip is None or clip.asset is None:
                raise Conflict(
                    "The film cannot be written again: a clip of it was removed.",
                    hints=[f"Render it again: kinoloom film render {film.plan['film']}"],
                )
            pieces.append(piece | {"video": str(self._store.assets.path(clip.asset))})
        return cut | {"pieces": pieces}


def _with_media(cut: dict[str, Any], target: Path) -> dict[str, Any]:
    """The cut with its clips in a folder beside the timeline, as files that editors know."""
    folder = target.with_name(f"{target.stem}-media")
    names: dict[str, Path] = {}
    pieces = []
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for piece in cut["pieces"]:
            if piece["clip"] not in names:
                place = folder / f"{slug(piece['shot']) or 'shot'}-{len(names) + 1:03d}.mp4"
                shutil.copyfile(piece["video"], place)
                names[piece["clip"]] = place
            pieces.append(piece | {"video": str(names[piece["clip"]])})
    return cut | {"pieces": pieces}
