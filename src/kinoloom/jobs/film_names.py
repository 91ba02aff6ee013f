"""Which film does a name mean: an id, a title, or the file of its storyboard?

Of each storyboard file that a film was made of, a small note in the home folder says which film
that is, and what the file said. Without the note, or with a file that was moved, a new film is
begun, whose shots find the clips that the old one made.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from kinoloom.errors import Conflict, NotFound, nearest_names
from kinoloom.film.board import Storyboard
from kinoloom.jobs.film_service import FilmService
from kinoloom.media.output import disk_errors, whole_file
from kinoloom.store.films import FilmRecord

SUFFIXES = (".yaml", ".yml", ".json")
"""What the names of storyboard files end with."""

_PAGE = 200
_MOST_NOTE_BYTES = 10_000


class FilmNames:
    """The films of a service by their names; notes of files lie under `home`."""

    def __init__(self, films: FilmService, home: Path) -> None:
        self._films = films
        self._notes = home / "films"

    def find(self, name: str | Path) -> FilmRecord:
        """The film with that id, of that storyboard file, or the only one with that title.

        Raises NotFound, and Conflict when several have the title.
        """
        text = str(name)
        if is_file_name(text):
            record = self.of_file(Path(text))
            if record is not None:
                return record
            raise NotFound(
                f"No film was made of {text[:200]} yet.",
                hints=[f"kinoloom film render {text[:200]}", "`kinoloom film list` shows films."],
            )
        with suppress(NotFound):
            return self._films.get(text)
        titles: dict[str, None] = {}
        found = []
        for record in self._all():
            titles[record.title] = None
            if record.title.casefold() == text.casefold():
                found.append(record)
        if len(found) == 1:
            return found[0]
        if found:
            ids = ", ".join(record.id for record in found[:5])
            raise Conflict(
                f"{len(found)} films are called {text[:100]!r}.",
                cause=f"Their ids are {ids}{', ...' if len(found) > 5 else ''}.",
                hints=["Name the film by its id, or by its storyboard file."],
            )
        near = nearest_names(text[:100], titles, count=1)
        meant = [f"Is {near[0]!r} meant?"] if near else []
        raise NotFound(
            f"There is no film {text[:100]!r}.",
            hints=[*meant, "`kinoloom film list` shows the films there are."],
        )

    def of_file(self, file: Path) -> FilmRecord | None:
        """The film that was made of a storyboard file, if it is still there."""
        film = self._note(file).get("film")
        if isinstance(film, str):
            with suppress(NotFound):
                return self._films.get(film)
        return None

    def made_of(self, file: Path, board: Storyboard) -> FilmRecord:
        """The film of a file: the one it has, with what the file says now, or a new one.

        Raises Conflict when the file has changed while the film is rendered, InvalidMedia and
        OutputFailed.
        """
        said, record = _digest(_said(board)), self.of_file(file)
        if record is None:
            record = self._films.create(board)
        else:
            note = self._note(file)
            if (note.get("said"), note.get("kept")) == (said, _kept(record)):
                return record
            record = self._films.update(record.id, board)
        note = {"film": record.id, "file": str(file), "said": said, "kept": _kept(record)}
        place = self._place(file)
        with disk_errors(place):
            place.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(place) as part, disk_errors(place):
            part.write_text(json.dumps(note), encoding="utf-8")
        return record

    def _all(self) -> Iterator[FilmRecord]:
        before = None
        while page := self._films.list(limit=_PAGE, before=before):
            yield from page
            before = page[-1].id

    def _note(self, file: Path) -> Mapping[str, Any]:
        try:
            with self._place(file).open("rb") as stream:
                note = json.loads(stream.read(_MOST_NOTE_BYTES))
        except (OSError, ValueError):  # there is none, or none that can be read
            return {}
        return note if isinstance(note, dict) else {}

    def _place(self, file: Path) -> Path:
        name = os.fsencode(os.path.realpath(file))
        return self._notes / f"{hashlib.sha256(name).hexdigest()[:32]}.json"


def is_file_name(name: str) -> bool:
    """Whether a film is named by its storyboard file; a title could be an existing file too, and
    then the file counts."""
    return name.lower().endswith(SUFFIXES) or os.path.isfile(name)  # noqa: PTH113 (never raises)


def board_of(record: FilmRecord) -> Storyboard:
    """The storyboard of a film that there is."""
    return Storyboard.model_validate(record.storyboard)


def media_of(board: Storyboard) -> Iterator[Path]:
    """Every picture and sound that a storyboard names."""
    for character in board.characters.values():
        yield from character.references
    if board.audio.bed is not None:
        yield board.audio.bed
    for shot in board.shots:
        sound = None if shot.audio is None else shot.audio.file
        yield from (file for file in (shot.start, shot.end, shot.keyframe, sound) if file)


def _said(board: Storyboard) -> list[Any]:
    """What a storyboard says, and which state its files are in."""
    files = []
    for path in media_of(board):
        with suppress(OSError):
            status = path.stat()
            files.append([str(path), status.st_size, status.st_mtime_ns])
    return [board.model_dump(mode="json"), files]


def _kept(record: FilmRecord) -> str:
    return _digest(record.storyboard)


def _digest(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True, default=str).encode()).hexdigest()
