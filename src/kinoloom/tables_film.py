"""How are the plan of a film, its shots and its takes shown to a person?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from kinoloom.tables import cut, show_table
from kinoloom.terminal import duration, write
from kinoloom.terminal_film import film_plan_lines, money, status_line

if TYPE_CHECKING:
    from kinoloom.film.plan import FilmPlan, PlannedShot
    from kinoloom.jobs.film_status import FilmStatus
    from kinoloom.store.films import FilmRecord, FilmTake

_PROMPT = 40


def show_film_plan(plan: FilmPlan) -> None:
    """Every shot with what makes it and what it costs, then all of them together."""
    show_table(
        ("shot", "model", "frames", "segments", "time", "cost", "prompt"),
        [_planned(shot) for shot in plan.shots],
        whole=True,
    )
    for shot in plan.shots:
        for warning in shot.warnings:
            write(f"- {shot.id}: {warning}")
        if shot.fallbacks:
            write(f"- {shot.id}: if it fails, {', '.join(shot.fallbacks)}")
    for line in film_plan_lines(plan):
        write(line)


def show_films(films: Sequence[FilmRecord]) -> None:
    """Films, a line each."""
    show_table(
        ("film", "shots", "since", "made", "title"),
        [
            (
                film.id,
                str(len(film.storyboard.get("shots", ()))),
                f"{film.created_at.astimezone():%m-%d %H:%M}",
                "yes" if film.clip_id is not None else "-",
                cut(film.title, _PROMPT),
            )
            for film in films
        ],
        whole=True,
        wide=True,
    )


def show_status(status: FilmStatus) -> None:
    """How far a film is, its shots, and what failed."""
    film = status.film
    write(f"{film.title} ({film.id}), {film.mode}")
    write(status_line(status))
    show_table(
        ("shot", "state", "segments", "take", "prompt"),
        [
            (
                str(shot["id"]),
                str(shot["state"]),
                f"{shot['done']} of {shot['segments']}, {' '.join(dict.fromkeys(shot['tasks']))}",
                _chosen(shot),
                cut(str(shot["title"] or shot["prompt"]), _PROMPT),
            )
            for shot in status.shots
        ],
        whole=True,
    )
    for shot in status.shots:
        if error := shot.get("error"):
            write(f"- {shot['id']}: {error.get('message', '')}")
            for hint in error.get("hints", ()):
                write(f"  -> {hint}")
    if status.job is not None:
        write(f"job: {status.job.id} is {status.job.state}")


def show_takes(takes: Sequence[Mapping[str, Any]]) -> None:
    """The takes of a shot; the chosen one has a mark."""
    show_table(
        ("take", "", "seed", "clips", "quality", "seam", "cost", "why"),
        [
            (
                str(take["number"]),
                "chosen" if take["chosen"] else "",
                str(take["seed"]),
                str(len(take["segments"]) or "-"),
                _score(take["scores"].get("overall")),
                _score(take["seam"]),
                _cost(take["cost"], take["currency"]),
                str(take["reason"]),
            )
            for take in takes
        ],
        whole=True,
    )


def take_line(take: FilmTake) -> str:
    """A take in a line."""
    return f"{take.shot}: take {take.number}, seed {take.seed}"


def _planned(shot: PlannedShot) -> tuple[str, ...]:
    each = zip(shot.segments, shot.tasks, strict=True)
    asked = " + ".join(f"{frames} {task}" for frames, task in each)
    takes = f" x{shot.candidates}" if shot.candidates > 1 else ""
    takes += f", {shot.takes} more takes" if shot.takes else ""
    there = f", {shot.reused} there" if shot.reused else ""
    time = "-" if shot.seconds is None else duration(shot.seconds)
    return (
        shot.id,
        f"{shot.model} on {shot.backend}",
        str(shot.frames),
        f"{asked}{takes}{there}",
        time,
        str(shot.cost),
        cut(shot.prompt, _PROMPT),
    )


def _chosen(shot: Mapping[str, Any]) -> str:
    count = len(shot["takes"])
    if shot["take"] is None:
        return "-"
    return str(shot["take"]) if count < 2 else f"{shot['take']} of {count}"


def _score(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, int | float) else "-"


def _cost(amount: Any, currency: Any) -> str:
    return "-" if amount is None else money(Decimal(str(amount)), str(currency or ""))
