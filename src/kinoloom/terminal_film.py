"""How is a film shown while it is rendered: to a person, in a log, or to a program?"""

from __future__ import annotations

import sys
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from kinoloom.terminal import duration, print_error, write, write_json

if TYPE_CHECKING:
    from kinoloom.errors import KinoloomError
    from kinoloom.film.plan import FilmPlan
    from kinoloom.jobs.film_status import FilmStatus


class FilmView(Protocol):
    """Something that shows how a film goes."""

    def film_plan(self, plan: FilmPlan) -> None:
        """The plan, before anything is spent."""
        ...

    def note(self, text: str) -> None:
        """Something to know."""
        ...

    def film(self, status: FilmStatus) -> None:
        """How far the film is."""
        ...

    def made(self, status: FilmStatus, path: Path) -> None:
        """The finished film and where it is."""
        ...

    def failed(self, error: KinoloomError) -> None:
        """The error that ended the command."""
        ...


def film_view_for(as_json: bool, quiet: bool) -> FilmView:
    """The view for the flags and for what standard error is connected to."""
    if as_json:
        return JsonFilmView()
    if quiet:
        return QuietFilmView()
    return BarFilmView() if sys.stderr.isatty() else PlainFilmView()


class QuietFilmView:
    """Only the path of the film; errors as always."""

    def film_plan(self, plan: FilmPlan) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def film(self, status: FilmStatus) -> None:
        """Nothing."""

    def made(self, status: FilmStatus, path: Path) -> None:
        """The path alone."""
        write(str(path))

    def failed(self, error: KinoloomError) -> None:
        """What failed, why, and what to do."""
        print_error(error)


class PlainFilmView(QuietFilmView):
    """Lines without any control characters, for logs and pipes."""

    def __init__(self) -> None:
        self._told: tuple[int, str] | None = None

    def film_plan(self, plan: FilmPlan) -> None:
        """The plan in a few lines."""
        for line in film_plan_lines(plan):
            write(line, to_error=True)

    def note(self, text: str) -> None:
        """A line of its own."""
        write(f"  {text}", to_error=True)

    def film(self, status: FilmStatus) -> None:
        """A line at each new step of the film."""
        now = status.done, status.step
        if now != self._told:
            self._told = now
            write(status_line(status), to_error=True)

    def made(self, status: FilmStatus, path: Path) -> None:
        """The path, what was made of it, and how to redo a shot."""
        write(str(path))
        paid = f"; {_spent(status)}" if _spent(status) else ""
        write(f"{counted_shots(status.total)}{paid}")
        write(f"look closer: kinoloom film status {status.film.id}")


class BarFilmView(PlainFilmView):
    """A bar with the shots done, the current step and the time left, for a person at a terminal."""

    def __init__(self) -> None:
        super().__init__()
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._bar = Progress(
            TextColumn("[bold]{task.fields[shots]}"),
            BarColumn(bar_width=24),
            TextColumn("{task.description}", markup=False),
            TextColumn("[cyan]{task.fields[left]}"),
            TextColumn("{task.fields[spent]}"),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task("starting", total=None, shots="", left="", spent="")

    def film(self, status: FilmStatus) -> None:
        """Move the bar."""
        if not self._bar.live.is_started:
            self._bar.start()
        self._bar.update(
            self._task,
            description=status.step,
            total=status.total,
            completed=status.done,
            shots=f"{status.done} of {counted_shots(status.total)}",
            left="" if status.eta is None else f"{duration(status.eta)} left",
            spent=_spent(status),
        )

    def made(self, status: FilmStatus, path: Path) -> None:
        """Take the bar away, then tell the result."""
        self._bar.stop()
        super().made(status, path)

    def failed(self, error: KinoloomError) -> None:
        """Take the bar away, then tell the error."""
        self._bar.stop()
        super().failed(error)


class JsonFilmView:
    """One JSON object a line on standard output, for programs."""

    def film_plan(self, plan: FilmPlan) -> None:
        """``{"type": "plan", "plan": {...}}``."""
        write_json({"type": "plan", "plan": plan.model_dump(mode="json")})

    def note(self, text: str) -> None:
        """``{"type": "note", "message": "..."}``."""
        write_json({"type": "note", "message": text})

    def film(self, status: FilmStatus) -> None:
        """``{"type": "progress", ...}``: shots done, step, seconds left, money spent."""
        write_json(
            {
                "type": "progress",
                "film": status.film.id,
                "done": status.done,
                "total": status.total,
                "step": status.step,
                "eta": status.eta,
                "spent": status.spent,
                "reserved": status.reserved,
                "currency": status.currency,
            }
        )

    def made(self, status: FilmStatus, path: Path) -> None:
        """``{"type": "success", "path": "...", "film": {...}}``."""
        write_json({"type": "success", "path": str(path), "film": status.as_dict()})

    def failed(self, error: KinoloomError) -> None:
        """``{"type": "error", "error": {...}}``."""
        write_json({"type": "error", "error": error.as_dict()})


def film_plan_lines(plan: FilmPlan) -> list[str]:
    """All shots of a plan together: length, work, cost, budget, and what to know."""
    width, height = plan.size
    known = "time unknown" if plan.seconds is None else f"about {duration(plan.seconds)}"
    there = f", {plan.reused} are there already" if plan.reused else ""
    costs = str(plan.cost)
    if plan.cost.amount is None and plan.known:
        costs += f", at least {money(plan.known, plan.cost.currency)}"
    if plan.spent:
        costs += f"; {money(plan.spent, plan.cost.currency)} spent before"
    if plan.budget is not None:
        budget = money(plan.budget, plan.cost.currency)
        costs += f"; budget {budget}" + ("" if plan.fits else ", which is too little")
    return [
        f"{plan.title}: {counted_shots(len(plan.shots))}, {plan.frames} frames at {plan.fps:g} fps"
        f" ({duration(plan.seconds_of_video)}), {width}x{height}, {plan.mode}",
        f"to make: {plan.clips} clips{there}; {known}",
        f"cost: {costs}",
        *(f"note: {warning}" for warning in plan.warnings),
    ]


def status_line(status: FilmStatus) -> str:
    """How far a film is in a line."""
    left = "" if status.eta is None else f"{duration(status.eta)} left"
    parts = (
        f"{status.done} of {counted_shots(status.total)} done",
        status.step,
        left,
        _spent(status),
    )
    return ", ".join(part for part in parts if part)


def money(amount: Decimal, currency: str) -> str:
    """An amount of money, such as ``0.60 USD``."""
    from kinoloom.planner.cost import shown

    return shown(amount, currency)


def counted_shots(count: int) -> str:
    """``1 shot``, ``2 shots``."""
    return "1 shot" if count == 1 else f"{count} shots"


def _spent(status: FilmStatus) -> str:
    amounts = {"spent": Decimal(status.spent), "reserved": Decimal(status.reserved)}
    told = (f"{money(amount, status.currency)} {n}" for n, amount in amounts.items() if amount)
    return ", ".join(told)
