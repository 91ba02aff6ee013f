"""How does a Python program make a film?

    import kinoloom
    film = kinoloom.Film.load("film.yaml")
    print(film.plan())
    film.render(on_progress=lambda status: print(status.done, "of", status.total))
    film.export("film.mp4")

The command line calls the same class. Importing this module loads neither torch nor a codec.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

from kinoloom.config import Settings, load_settings
from kinoloom.errors import Conflict, InvalidRequest, NotFound, Problem, nearest_names

if TYPE_CHECKING:
    from kinoloom.film.board import Storyboard
    from kinoloom.film.plan import FilmPlan
    from kinoloom.jobs.film_names import FilmNames
    from kinoloom.jobs.film_service import ExportFormat, FilmService
    from kinoloom.jobs.film_status import FilmStatus
    from kinoloom.store.films import FilmRecord, FilmTake

FILM_FORMATS = ("mp4", "webm", "prores", "png")
"""What a film is written as: a file, or a folder of pictures."""
FORMATS = (*FILM_FORMATS, "otio", "sheet")
"""What a film is exported as: itself, a timeline for an editor, or a picture of all shots."""

_SUFFIXES = {
    ".mp4": "mp4",
    ".webm": "webm",
    ".mov": "prores",
    ".otio": "otio",
    ".png": "sheet",
}
_ENDINGS = {kind: suffix for suffix, kind in _SUFFIXES.items()}


class Film:
    """A film: a storyboard, and what was made of it by now."""

    def __init__(self, name: str | Path, settings: Settings, board: Storyboard | None) -> None:
        """Use `load`. `board` is what the storyboard file `name` says; None for another name."""
        self._name = name
        self._settings = settings
        self._board = board

    @classmethod
    def load(
        cls,
        name: str | Path,
        *,
        max_cost: Decimal | str | None = None,
        settings: Settings | None = None,
    ) -> Self:
        """The film of a storyboard file, or one that there is, by its id or its only title.

        `max_cost` takes the place of the storyboard's budget. Nothing is made or kept yet. Raises
        InvalidRequest with every mistake of the file, NotFound and Conflict for other names.
        """
        from kinoloom.film.storyboard import read_storyboard
        from kinoloom.jobs.film_names import board_of, is_file_name

        settings = settings or load_settings()
        if is_file_name(str(name)):
            return cls(name, settings, _with_budget(read_storyboard(Path(name)), max_cost))
        with films_of(settings) as (_, names):
            record = names.find(name)
        board = None if max_cost is None else _with_budget(board_of(record), max_cost)
        return cls(record.id, settings, board)

    @classmethod
    def find(cls, name: str | Path, *, settings: Settings | None = None) -> Self:
        """A film that there is, by its id, its only title, or the file that it was made of.

        What the file says now does not matter. Raises NotFound and Conflict.
        """
        settings = settings or load_settings()
        with films_of(settings) as (_, names):
            return cls(names.find(name).id, settings, None)

    def plan(self) -> FilmPlan:
        """What rendering would do and cost, by shot; nothing is spent. Raises KinoloomError."""
        from kinoloom.jobs.film_names import board_of, is_file_name

        with films_of(self._settings) as (films, names):
            if self._board is not None and is_file_name(str(self._name)):
                record = names.of_file(Path(self._name))
                return films.plan(self._board, film_id=None if record is None else record.id)
            record = names.find(self._name)
            return films.plan(self._board or board_of(record), film_id=record.id)

    def render(
        self,
        *,
        on_progress: Callable[[FilmStatus], None] | None = None,
        on_note: Callable[[str], None] | None = None,
        unknown_price: bool = False,
    ) -> FilmStatus:
        """Make what is missing, and join it; called again after a kill, it goes on.

        `on_progress` hears how far the film is, and `on_note` what else there is to know; an
        exception from them stops the work. `unknown_price` is the yes to prices that nobody knows.
        Raises KinoloomError.
        """
        from kinoloom.jobs.film_here import FilmHere
        from kinoloom.jobs.film_names import FilmNames

        watch = _Watch(on_progress, on_note)
        with FilmHere(self._settings) as here:
            names = FilmNames(here.films, self._settings.home)
            try:
                record = self._record(here.films, names)
            except Conflict:
                # It was begun with another storyboard, by a process that is gone.
                if not here.give_up(names.find(self._name).id, watch):
                    raise
                record = self._record(here.films, names)
            return here.render(record.id, watch, unknown_price=unknown_price)

    def status(self) -> FilmStatus:
        """How far the film is. Raises NotFound for a file of which no film was made yet."""
        with films_of(self._settings) as (films, names):
            return films.status(names.find(self._name).id)

    def retake(
        self,
        shot: str,
        *,
        seed: int | None = None,
        prompt: str | None = None,
        candidates: int = 1,
    ) -> Sequence[FilmTake]:
        """New takes of a shot, which the next `render` makes; the first of them is chosen.

        Raises NotFound and InvalidRequest.
        """
        with films_of(self._settings) as (films, names):
            film_id = names.find(self._name).id
            return films.retake(film_id, shot, seed=seed, prompt=prompt, candidates=candidates)

    def choose(self, shot: str, take: int) -> tuple[FilmTake, str]:
        """Show another take of a shot: it, and what the next `render` does for that, in words.

        Raises NotFound.
        """
        with films_of(self._settings) as (films, names):
            return films.choose(names.find(self._name).id, shot, take)

    def export(self, target: str | Path, format: str | None = None) -> Path:  # noqa: A002
        """Write the film, as its shots are now: mp4, webm, prores, png (a folder), otio or sheet.

        Without a format the target's suffix decides; one without any is a folder of pictures.
        Raises NotFound, InvalidRequest, Conflict when shots are missing, and OutputFailed.
        """
        target = Path(target)
        kind = format_for(target, format)
        with films_of(self._settings) as (films, names):
            return films.export(names.find(self._name).id, target, kind)

    def delete(self) -> FilmRecord:
        """Forget the film and its takes; their clips stay. Raises NotFound, Conflict."""
        with films_of(self._settings) as (films, names):
            record = names.find(self._name)
            films.delete(record.id)
            return record

    def _record(self, films: FilmService, names: FilmNames) -> FilmRecord:
        """The film, made or changed if its storyboard says so."""
        from kinoloom.jobs.film_names import is_file_name

        if self._board is None:
            return names.find(self._name)
        if is_file_name(str(self._name)):
            return names.made_of(Path(self._name), self._board)
        return films.update(str(self._name), self._board)


class _Watch:
    """Who is told how a film goes, where a program wants to know."""

    def __init__(
        self,
        on_progress: Callable[[FilmStatus], None] | None,
        on_note: Callable[[str], None] | None,
    ) -> None:
        self._on_progress = on_progress
        self._on_note = on_note

    def note(self, text: str) -> None:
        """Something to know."""
        if self._on_note is not None:
            self._on_note(text)

    def film(self, status: FilmStatus) -> None:
        """How far the film is."""
        if self._on_progress is not None:
            self._on_progress(status)


@contextmanager
def films_of(settings: Settings) -> Iterator[tuple[FilmService, FilmNames]]:
    """The films of the settings' store, and their names."""
    from kinoloom.jobs.film_names import FilmNames
    from kinoloom.jobs.film_service import FilmService
    from kinoloom.jobs.service import JobService
    from kinoloom.store.held import held_store

    store = held_store(settings)
    jobs = JobService(settings, store)
    try:
        films = FilmService(settings, store, jobs)
        yield films, FilmNames(films, settings.home)
    finally:
        jobs.close()


def format_for(target: Path, given: str | None) -> ExportFormat:
    """The format that a target is written in: the one that is given, else that of its suffix.

    Raises InvalidRequest for one that there is not, or that goes not with the suffix.
    """
    by_suffix = _SUFFIXES.get(target.suffix.lower(), "png" if not target.suffix else None)
    if given is None and by_suffix is None:
        allowed = "a name that ends with " + ", ".join(_SUFFIXES) + ", a folder, or a --format"
        raise InvalidRequest([Problem("output", target.name, allowed)])
    kind = given or by_suffix
    if kind not in FORMATS:
        raise InvalidRequest([Problem("format", kind, "one of " + ", ".join(FORMATS))])
    if kind == "png":
        if target.suffix.lower() in _SUFFIXES:
            allowed = "a folder, as png is one picture a frame"
            raise InvalidRequest([Problem("output", target.name, allowed, target.stem)])
    elif target.suffix.lower() != _ENDINGS[kind]:
        allowed = f"a name that ends with {_ENDINGS[kind]}, since the format is {kind}"
        near = target.with_suffix(_ENDINGS[kind]).name if target.name else None
        raise InvalidRequest([Problem("output", target.name, allowed, near)])
    return cast("ExportFormat", kind)


@dataclass(frozen=True)
class FilmTarget:
    """Where a rendered film is written: a file or folder that the user named, or a folder for a
    name of our own, which is the same each time for the same film."""

    format: str
    folder: Path
    name: Path | None = None

    @classmethod
    def of(cls, output: Path | None, given: str | None, settings: Settings) -> Self:
        """What the user means by an output and a format, of which each may be left out.

        Raises InvalidRequest.
        """
        if given is not None and given not in FILM_FORMATS:
            raise InvalidRequest([Problem("format", given, "one of " + ", ".join(FILM_FORMATS))])
        if output is None:
            return cls(given or "mp4", settings.outputs)
        if given != "png" and os.path.isdir(output):  # noqa: PTH112 (never raises)
            return cls(given or "mp4", output)
        kind = format_for(output, given)
        if kind not in FILM_FORMATS:
            allowed = "a name that ends with .mp4, .webm or .mov; `kinoloom film export` has others"
            raise InvalidRequest([Problem("output", output.name, allowed)])
        return cls(kind, output.parent, output)

    def check(self) -> None:
        """Find out whether it can be written. Raises OutputFailed."""
        from kinoloom.media.output import check_writable

        check_writable(self.name or self.folder / "film", folder=self.format == "png")

    def path(self, record: FilmRecord) -> Path:
        """The file or folder for a film."""
        from kinoloom.jobs.naming import slug

        name = f"{slug(record.title) or 'film'}-{record.id[-8:]}{_ENDINGS.get(self.format, '')}"
        return self.name or self.folder / name


def takes_of(status: FilmStatus, shot: str) -> Sequence[dict[str, Any]]:
    """The takes of a shot. Raises NotFound."""
    for known in status.shots:
        if known["id"] == shot:
            takes: list[dict[str, Any]] = known["takes"]
            return takes
    near = nearest_names(shot[:100], [str(known["id"]) for known in status.shots], count=1)
    raise NotFound(
        f"The film has no shot {shot[:100]!r}.",
        hints=[f"The nearest is {near[0]}."] if near else ["kinoloom film status FILM"],
    )


def new_storyboard(
    *,
    title: str | None = None,
    mode: str | None = None,
    text: str | None = None,
    chat: bool = False,
    settings: Settings | None = None,
) -> tuple[str, str | None]:
    """A storyboard as YAML: a commented sample, or a text as shots; and a note on how, if any.

    With `chat` the chat model of the setting `reword` makes the shots, and rules where it does not
    answer. Raises InvalidRequest.
    """
    from kinoloom.film.sample import sample

    if mode not in (None, "keyframe", "chaining"):
        raise InvalidRequest([Problem("mode", mode, "keyframe or chaining")])
    whole = sample(title) if title is not None else sample()
    if mode is not None:
        whole = whole.replace("mode: chaining\n", f"mode: {mode}\n", 1)
    if text is None:
        return whole, None
    return _with_shots(whole, text, _chat_of(settings or load_settings()) if chat else {})


def _with_shots(whole: str, text: str, chat: dict[str, Any]) -> tuple[str, str | None]:
    """The sample with the shots of a text in place of its own; what explains the rest stays."""
    import yaml

    from kinoloom.film.split import split

    found = split(text, **chat)
    shots = [
        {"id": shot.id, "prompt": shot.prompt, "duration": shot.duration} for shot in found.shots
    ]
    written = yaml.safe_dump(
        {"shots": shots}, allow_unicode=True, sort_keys=False, width=90, indent=2
    )
    return whole[: whole.index("\nshots:\n") + 1] + written, found.note


def _chat_of(settings: Settings) -> dict[str, Any]:
    chat = settings.reword
    if chat.url is None:
        allowed = "the address of a chat endpoint (http://.../v1), which --chat asks"
        raise InvalidRequest([Problem("reword.url", None, allowed)])
    key = None if chat.api_key is None else chat.api_key.get_secret_value()
    return {"url": chat.url, "model": chat.model, "api_key": key}


def _with_budget(board: Storyboard, max_cost: Decimal | str | None) -> Storyboard:
    from kinoloom import request_checks as check

    if max_cost is None:
        return board
    try:
        return board.model_copy(update={"budget": check.money(max_cost)})
    except check.Wrong as wrong:
        shown = check.shown(max_cost)
        raise InvalidRequest([Problem("max_cost", shown, wrong.allowed, wrong.nearest)]) from None
