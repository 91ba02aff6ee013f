"""How are plans, settings, scores, models and checks shown to a person?"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kinoloom.terminal import duration, harmless, plan_line, plan_notes, scores_line, write

if TYPE_CHECKING:
    from kinoloom.doctor import Check
    from kinoloom.planner.cost import Cost
    from kinoloom.planner.plan import Plan
    from kinoloom.quality.score import Scores
    from kinoloom.store.events import JobEvent
    from kinoloom.store.job_record import JobRecord

_WISHES = {"held": "release", "failed": "retry", "cancelled": "retry", "dead": "retry"}
_WIDE = 400
_MARKS = {"ok": "ok", "warning": "!!", "failed": "XX"}


def show_plan(plan: Plan) -> None:
    """The plan, its estimate, what was changed, and the reasons."""
    write(plan_line(plan))
    estimate = plan.estimate
    if estimate.seconds is not None and estimate.low is not None and estimate.high is not None:
        low, high = duration(estimate.low), duration(estimate.high)
        write(f"time: {duration(estimate.seconds)}, from {low} to {high}; from {estimate.basis}")
    if plan.remote:
        write(f"cost: {plan.cost}; {plan.cost.basis}{_who_says(plan.cost)}")
    for other in plan.alternatives:
        write(f"if it fails: {other.model} on {other.backend} ({other.why})")
    complexity = plan.complexity
    write(f"prompt: {complexity.level.replace('_', ' ')}, {complexity.score:.2f} of 1")
    rows = [
        (f.name.replace("_", " "), f"{f.value:.2f}", f"{f.share:.3f}", ", ".join(f.found))
        for f in complexity.factors
    ]
    show_table(("factor", "value", "share", "found"), rows)
    for line in (*plan_notes(plan), *(f"because {r}" for r in plan.reasons)):
        write(f"- {line}")
    write(f"key: {plan.key}")


def _who_says(cost: Cost) -> str:
    """Where a price stands, and from when it is."""
    if not cost.source:
        return ""
    date = f" of {cost.date.isoformat()}" if cost.date is not None else ""
    return f"; from {cost.source}{date}" + ("" if cost.verified else ", not the service's own word")


def show_settings(file: Path, settings: dict[str, Any]) -> None:
    """What a video's file says of how it was made. The values are as untrusted as the file."""
    plan = settings.get("plan")
    plan = plan if isinstance(plan, dict) else {}
    rows = [(str(k), _short(v)) for k, v in plan.items() if not isinstance(v, dict | list)]
    versions, scores = settings.get("versions"), settings.get("scores")
    if isinstance(scores, dict):
        rows.append(("scores", scores_line(scores)))
    if isinstance(versions, dict):
        rows.append(("versions", ", ".join(f"{k} {_short(v)}" for k, v in versions.items())))
    write(str(file))
    show_table(("setting", "value"), rows)


def show_scores(file: Path, frames: int, fps: float, scores: Scores) -> None:
    """Every measure of a video and what it means."""
    write(f"{file}: {frames} frames at {fps:g} fps")
    numbers = {k: v for k, v in scores.as_dict().items() if isinstance(v, int | float)}
    show_table(("measure", "score"), [(k, f"{v:.3f}") for k, v in numbers.items()])
    for note in scores.notes:
        write(f"- {note}")


def show_models(rows: Sequence[dict[str, Any]], problems: Iterable[str]) -> None:
    """The models of this machine, those elsewhere, then what is wrong with other cards."""
    show_table(
        ("model", "here", "tasks", "size", "frames"),
        [
            (
                r["id"],
                r["state"],
                ", ".join(r["tasks"]),
                r["sizes"][0] + (", ..." if len(r["sizes"]) > 1 else ""),
                "-".join(map(str, r["frames"])),
            )
            for r in rows
            if r["backend"] == "local"
        ],
        whole=True,
    )
    others = [
        (
            r["id"],
            r["backend"],
            "ready" if r["ready"] else "no",
            r["price"],
            ", ".join(r["tasks"]),
        )
        for r in rows
        if r["backend"] != "local"
    ]
    if others:
        write("")
        show_table(("model elsewhere", "on", "ready", "price", "tasks"), others, whole=True)
    for row in rows:
        for reason in row["reasons"] if row["state"] == "found" else ():
            write(f"- {row['id']}: {reason}; {'; '.join(row['hints'])}")
    if missing := sum(row["state"] == "missing" for row in rows):
        write(f"- {missing} missing on this disk; what to do: kinoloom models check MODEL")
    elsewhere: dict[str, list[str]] = {}
    for row in rows:
        if row["state"] == "unavailable":  # mostly all of a backend for the same reason
            first = (*row["reasons"][:1], *row["hints"][:1])
            why = "; ".join(text.rstrip(".") for text in first)
            elsewhere.setdefault(f"{row['backend']}: {why}", []).append(row["id"])
    for why, ids in elsewhere.items():
        which = ids[0] if len(ids) == 1 else f"{len(ids)} models"
        write(f"- {which} on {why}")
    for problem in problems:
        write(f"- {problem}")


def show_backends(rows: Sequence[Mapping[str, Any]]) -> None:
    """The backends, the servers of those that have several, and why some are not ready."""
    show_table(
        ("backend", "", "models", "price", "where"),
        [
            (
                row["name"],
                "ready" if row["ready"] else "not ready" if row["set_up"] else "not set up",
                f"{len(row['models'])} of {row['all_models']}" if row["all_models"] else "-",
                row["prices"] or "-",
                _where(row),
            )
            for row in rows
        ],
        whole=True,
    )
    for row in rows:
        for server in row["servers"]:
            write(f"- {row['name']} {_server(server)}")
        if row["verified"]:
            write("; ".join((f"- {row['name']}: the key is taken", *row["account"])))
        told = [server["url"] for server in row["servers"] if not server["reachable"]]
        for reason in row["reasons"]:
            if not any(url in reason for url in told):
                write(f"- {row['name']}: {reason}")
        for hint in row["hints"]:
            write(f"  -> {hint}")


def show_settings_in_use(rows: Iterable[Mapping[str, Any]]) -> None:
    """Every setting, its value and who set it."""
    lines = [(row["name"], _setting(row["value"]), row["where"]) for row in rows]
    show_table(("setting", "value", "from"), lines, whole=True, wide=True)


def show_facts(facts: Iterable[tuple[str, str]]) -> None:
    """What is known of a thing, a line each."""
    show_table(("fact", "value"), facts)


def show_files(files: Iterable[tuple[str, str, str, str]]) -> None:
    """Files: name, state, size and what is wrong with them."""
    show_table(("file", "state", "size", ""), files)


def show_checks(checks: Iterable[Check]) -> None:
    """One line a check, with what to do under those that are not well."""
    for check in checks:
        write(f"{_MARKS[check.state]}  {check.name}: {check.detail}")
        if check.hint and check.state != "ok":
            write(f"    -> {check.hint}")


def show_jobs(jobs: Sequence[JobRecord]) -> None:
    """Jobs, a line each."""
    rows = [
        (
            job.id,
            job.state,
            job.queue if not job.queue.startswith("cli-") else "command",
            job.model,
            f"{job.created_at.astimezone():%m-%d %H:%M}",
            _share_done(job),
            cut(job.prompt, 48),
        )
        for job in jobs
    ]
    columns = ("job", "state", "queue", "model", "since", "done", "prompt")
    show_table(columns, rows, whole=True, wide=True)


def show_job(job: JobRecord, events: Sequence[JobEvent]) -> None:
    """A job, what was told of it, and what can be done with it now."""
    shown = {
        "state": job.state,
        "prompt": job.prompt,
        "task": job.task,
        "model": f"{job.model} on {job.backend}",
        "queue": job.queue,
        "worker": job.worker or "",
        "done": _share_done(job),
        "clip": job.clip_id or "",
    }
    show_table(("job", job.id), [(name, value) for name, value in shown.items() if value])
    for event in events:
        if event.type in ("state", "log"):
            data = event.data
            text = data.get("message") or data.get("reason") or ""
            word = data.get("state", "") if event.type == "state" else "note"
            write(f"{event.created_at.astimezone():%H:%M:%S} {word} {text}".rstrip())
    if job.error is not None:
        write(f"error ({job.error.get('kind')}): {job.error.get('message')}")
        for hint in job.error.get("hints", ()):
            write(f"  try: {hint}")
    if (wish := _WISHES.get(job.state)) is not None:
        write(f"next: kinoloom jobs {wish} {job.id}")


def show_statistics(found: Mapping[str, Any]) -> None:
    """What was made by now."""
    lines = [
        ("clips", str(found["clips"])),
        ("frames", str(found["frames"])),
        ("time", duration(found["seconds"])),
        ("frames a second", _number(found["average_fps"])),
        ("steps a clip", _number(found["average_steps"])),
        ("found again", f"{found['results']['hits']} ({_percent(found['results']['rate'])})"),
        ("time saved", duration(found["saved"]["seconds"])),
        ("prompts in the cache", _percent(found["embeddings"]["rate"])),
        ("cost", _money(found["cost"], "USD")),
    ]
    lines += [(f"jobs {state}", str(count)) for state, count in found["jobs"].items()]
    lines += [(f"clips {task}", str(made["clips"])) for task, made in found["tasks"].items()]
    lines += [(f"clips by {name}", str(made["clips"])) for name, made in found["backends"].items()]
    show_table(("what", "by now"), lines)


def show_costs(found: Mapping[str, Any]) -> None:
    """What services cost, then what is left of the budgets."""
    if not found["rows"]:
        days = [f" {word} {found[word]}" for word in ("since", "until") if found[word]]
        write(f"Nothing was ordered from a service{''.join(days)}.")
    else:
        totals = [{"name": "in all"} | total for total in found["totals"]]
        show_table(
            (found["by"], "calls", "paid", "set aside", "of unknown cost"),
            [
                (
                    row["name"] or "-",
                    str(row["calls"]),
                    _money(row["charged"], row["currency"]),
                    _money(row["reserved"], row["currency"]),
                    str(row["unknown"] or "-"),
                )
                for row in (*found["rows"], *totals)
            ],
            whole=True,
        )
    for budget in found["budgets"]:
        used = f"{_percent(budget['share'])} of {_money(budget['limit'], budget['currency'])}"
        left = f"{_money(budget['left'], budget['currency'])} left"
        write(
            f"{_MARKS['warning' if budget['warn'] else 'ok']} budget {budget['name']}: {used}"
            f" spent or set aside, {left}"
        )


def _money(amount: str, currency: str) -> str:
    from kinoloom.planner.cost import shown

    return shown(Decimal(amount), currency)


def _where(row: Mapping[str, Any]) -> str:
    if row["device"] is None:
        return "elsewhere" if row["remote"] else "here"
    return f"{row['device']}{_free(row['memory_free'], row['memory_total'])}"


def _server(server: Mapping[str, Any]) -> str:
    """A server in a line: what it is and has, or why it cannot be used."""
    if not server["reachable"]:
        return f"{server['url']}: {server['reason'] or 'not reachable'}"
    version = f"version {server['version']}" if server["version"] else "of an unknown version"
    queue = "" if server["queue"] is None else f", {server['queue']} jobs in its queue"
    return f"{server['url']}: {version}{_free(server['vram_free'], server['vram_total'])}{queue}"


def _free(free: int | None, total: int | None) -> str:
    return f", {free / 1e9:.1f} of {total / 1e9:.1f} GB free" if free and total else ""


def _setting(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None or value == {} else str(value)


def _share_done(job: JobRecord) -> str:
    """How far a job is: its phase and steps while it runs."""
    if job.state != "running" or not job.progress:
        return ""
    step, steps = job.progress.get("step"), job.progress.get("steps")
    phase = str(job.progress.get("phase", ""))
    return f"{phase} {step}/{steps}" if steps else phase


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f} %"


def cut(text: str, length: int) -> str:
    """Text of at most so many characters."""
    return text if len(text) <= length else text[: length - 1] + "…"


def show_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    whole: bool = False,
    wide: bool = False,
) -> None:
    """Rows under their columns; with `whole` the first one, a name to be typed, is never broken.

    A `wide` table has a line for each row where no terminal sets the width, for `grep`.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=whole and column == columns[0])
    for row in rows:
        table.add_row(*(Text(harmless(cell, sys.stdout)) for cell in row))
    Console(width=None if not wide or sys.stdout.isatty() else _WIDE).print(table)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 200 else text[:197] + "..."
