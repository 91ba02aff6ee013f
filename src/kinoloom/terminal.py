"""How is a running job shown: to a person at a terminal, in a log, or to a program?

Four ways with one interface. What a person watches goes to the error stream; the result goes to
standard output, so that ``video=$(kinoloom generate ... --quiet)`` works.
"""

from __future__ import annotations

import base64
import json
import re
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol, TextIO, TypeVar

if TYPE_CHECKING:
    from kinoloom.clip import Clip
    from kinoloom.errors import KinoloomError
    from kinoloom.jobs.progress import Event
    from kinoloom.planner.plan import Plan

WORDS = {
    "load": "loading the model",
    "encode": "reading the prompt",
    "denoise": "rendering",
    "decode": "decoding",
    "queued": "waiting at the service",
    "render": "being made at the service",
    "fetch": "downloading",
    "score": "scoring",
    "write": "writing",
}
# Control characters, line and paragraph separators, and what turns the direction of writing.
_STEERING = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
Item = TypeVar("Item")
_EVERY = 2.0  # seconds between two plain lines of the same phase


class View(Protocol):
    """Something that shows a job."""

    def plan(self, plan: Plan) -> None:
        """The plan, before it runs."""
        ...

    def note(self, text: str) -> None:
        """Something to know before the job runs."""
        ...

    def progress(self, event: Event) -> None:
        """One report of the job."""
        ...

    def preview(self, jpeg: str) -> None:
        """A rough picture of the clip as it is by now, a JPEG in base64."""
        ...

    def done(self, clip: Clip, remarks: tuple[str, ...] = ()) -> None:
        """The finished clip."""
        ...

    def failed(self, error: KinoloomError) -> None:
        """The error that ended the job."""
        ...


def view_for(as_json: bool, quiet: bool) -> View:
    """The view for the flags and for what standard error is connected to."""
    if as_json:
        return JsonView()
    if quiet:
        return QuietView()
    return BarView() if sys.stderr.isatty() else PlainView()


class QuietView:
    """Only the path of the result; errors as always."""

    def plan(self, plan: Plan) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def preview(self, jpeg: str) -> None:
        """Nothing: a terminal shows no pictures."""

    def progress(self, event: Event) -> None:
        """Nothing."""

    def done(self, clip: Clip, remarks: tuple[str, ...] = ()) -> None:
        """The path alone."""
        write(str(clip.path))

    def failed(self, error: KinoloomError) -> None:
        """What failed, why, and what to do."""
        print_error(error)


class PlainView(QuietView):
    """Lines without any control characters, for logs and pipes."""

    def __init__(self) -> None:
        self._phase = self._line = ""
        self._last = 0.0

    def plan(self, plan: Plan) -> None:
        """The plan in one line, then what was changed and what to know."""
        write(plan_line(plan), to_error=True)
        for line in plan_notes(plan):
            write("  " + line, to_error=True)

    def note(self, text: str) -> None:
        """A line like those after the plan."""
        write("  " + text, to_error=True)

    def progress(self, event: Event) -> None:
        """A line at each new phase and every two seconds within one, if there is anything new."""
        now, line = time.monotonic(), progress_line(event)
        finished = event.steps and event.step == event.steps
        if event.phase == self._phase and now - self._last < _EVERY and not finished:
            return
        self._phase, self._last = event.phase, now
        if line != self._line:
            self._line = line
            write(line, to_error=True)

    def done(self, clip: Clip, remarks: tuple[str, ...] = ()) -> None:
        """The path, the scores, the seconds and how to make it again."""
        for line in (*remarks, *result_lines(clip)):
            write(line)


class BarView(PlainView):
    """A progress bar with phase, step and time left, for a person at a terminal."""

    def __init__(self) -> None:
        super().__init__()
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._bar = Progress(
            TextColumn("[bold]{task.description:<18}"),
            BarColumn(bar_width=32),
            TextColumn("{task.fields[step]}"),
            TextColumn("[cyan]{task.fields[left]}"),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task("starting", total=None, step="", left="")

    def progress(self, event: Event) -> None:
        """Move the bar; it runs through the steps, and stands full while the rest is done."""
        if not self._bar.live.is_started:
            self._bar.start()
        self._bar.update(
            self._task,
            description=described(event),
            total=event.steps or None,
            completed=event.step,
            step=f"{event.step}/{event.steps}" if event.steps else "",
            left=f"{duration(event.eta)} left" if event.eta is not None else "",
        )

    def done(self, clip: Clip, remarks: tuple[str, ...] = ()) -> None:
        """Take the bar away, then tell the result."""
        self._bar.stop()
        super().done(clip, remarks)

    def failed(self, error: KinoloomError) -> None:
        """Take the bar away, then tell the error."""
        self._bar.stop()
        super().failed(error)


class JsonView:
    """One JSON object a line on standard output, for programs."""

    def plan(self, plan: Plan) -> None:
        """``{"type": "plan", "plan": {...}}``."""
        write_json({"type": "plan", "plan": plan.model_dump(mode="json")})

    def progress(self, event: Event) -> None:
        """``{"type": "progress", ...}``, and ``{"type": "preview", ...}`` where there is one."""
        write_json(event.as_dict())
        if event.preview is not None:
            import cv2

            _, png = cv2.imencode(".png", event.preview[..., ::-1])
            image = "data:image/png;base64," + base64.b64encode(png.tobytes()).decode()
            write_json({"type": "preview", "step": event.step, "image": image})

    def note(self, text: str) -> None:
        """``{"type": "note", "message": "..."}``."""
        write_json({"type": "note", "message": text})

    def preview(self, jpeg: str) -> None:
        """``{"type": "preview", "image": "data:image/jpeg;base64,..."}``."""
        write_json({"type": "preview", "image": "data:image/jpeg;base64," + jpeg})

    def done(self, clip: Clip, remarks: tuple[str, ...] = ()) -> None:
        """``{"type": "success", "clip": {...}}``."""
        write_json(
            {
                "type": "success",
                "clip": clip.as_dict(),
                "reused": clip.reused,
                "remarks": list(remarks),
            }
        )

    def failed(self, error: KinoloomError) -> None:
        """``{"type": "error", "error": {...}}``."""
        write_json({"type": "error", "error": error.as_dict()})


def counted(items: Iterable[Item], total: int, what: str) -> Iterator[Item]:
    """Pass items on; at a terminal, a bar shows how many of `total` have passed."""
    if not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(items, what, total=total, console=Console(stderr=True), transient=True)


def plan_line(plan: Plan) -> str:
    """The plan in one line."""
    known = plan.estimate.seconds
    took = "time unknown" if known is None else f"about {duration(known)} ({plan.estimate.source})"
    sampled = f", {plan.steps} steps, guidance {plan.guidance:g}" if plan.steps else ""
    costs = f"; {plan.cost}" if plan.remote else ""
    if plan.cost.amount is None:
        costs = "; price unknown"
    return (
        f"{plan.task} with {plan.model} on {plan.device}: {plan.width}x{plan.height},"
        f" {plan.frames} frames at {plan.fps:g} fps{sampled}, seed {plan.seed}; {took}{costs}"
    )


def plan_notes(plan: Plan) -> list[str]:
    """What was changed of the request, and what the user should know."""
    changed = [f"changed {a}" for a in plan.adjustments]
    return changed + [f"note: {w}" for w in plan.warnings]


def described(event: Event) -> str:
    """The phase in words, and which take it is of several."""
    words = WORDS[event.phase] + (f" ({event.detail})" if event.detail else "")
    return f"take {event.take}/{event.takes}: {words}" if event.takes > 1 else words


def progress_line(event: Event) -> str:
    """One report as text."""
    text = described(event)
    if event.steps:
        text += f" {event.step}/{event.steps}"
    return text + (f", {duration(event.eta)} left" if event.eta is not None else "")


def result_lines(clip: Clip) -> list[str]:
    """What is told of a finished clip."""
    total = float(clip.record.timings.get("total", 0.0))
    made = f"made in {duration(total)}; seed {clip.seed}"
    if clip.reused:
        made = f"was there already (--cache bypass makes it anew); {made}"
    if clip.record.takes:
        made += f"; the best of {len(clip.record.takes)} takes"
    if clip.record.cost is not None and not clip.reused:
        from kinoloom.planner.cost import shown as money  # only what cost something waits for it

        made += f"; it cost {money(clip.record.cost, clip.record.currency or '')}"
    # What the plan warned of was shown with it, and a score's notes belong to the score.
    shown = (*clip.record.plan.get("warnings", ()), *clip.scores.get("notes", ()))
    return [
        str(clip.path),
        "scores: " + scores_line(clip.scores),
        *(f"note: {warning}" for warning in clip.record.warnings if warning not in shown),
        made,
        f"again: kinoloom generate --from {quoted(str(clip.path))}",
    ]


def scores_line(scores: dict[str, Any]) -> str:
    """Scores as ``overall 0.83, sharpness 0.90, ...``."""
    parts = {k: v for k, v in scores.items() if isinstance(v, int | float) and 0 <= v <= 1}
    ordered = {"overall": parts.pop("overall", None)} | parts
    return ", ".join(f"{k} {v:.2f}" for k, v in ordered.items() if v is not None)


def duration(seconds: float) -> str:
    """Seconds as ``0.8 s``, ``42 s``, ``3 min 20 s`` or ``2 h 05 min``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def quoted(text: str) -> str:
    """A path as the shell takes it."""
    import shlex

    return shlex.quote(text)


def print_error(error: KinoloomError) -> None:
    """What failed, why, and what to do next, on the error stream."""
    write(f"error ({error.kind}): {error.message}", to_error=True)
    for line in error.cause.splitlines():
        write(f"  {line}", to_error=True)
    for hint in error.hints:
        write(f"  -> {hint}", to_error=True)


def write_json(data: Any) -> None:
    """One line of JSON on standard output, seen at once by whoever reads it."""
    try:
        text = json.dumps(data, allow_nan=False)
    except ValueError:
        # JSON has no infinity, but a stranger's file may hold 1e999.
        text = json.dumps(json.loads(json.dumps(data), parse_constant=str))
    write(text)


def harmless(text: str, stream: TextIO) -> str:
    """Text as a stream can show it: it may come out of a stranger's file.

    What could steer a terminal is replaced, and what the stream's encoding lacks is escaped.
    """
    encoding = stream.encoding or "utf-8"
    text = _STEERING.sub("\N{REPLACEMENT CHARACTER}", text)
    return text.encode(encoding, "backslashreplace").decode(encoding)


def write(text: str, *, to_error: bool = False) -> None:
    """One harmless line."""
    stream = sys.stderr if to_error else sys.stdout
    stream.write(harmless(text, stream) + "\n")
    stream.flush()
