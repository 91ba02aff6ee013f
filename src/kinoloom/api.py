"""How does a Python program use Kinoloom?

    import kinoloom
    clip = kinoloom.generate("a red ball rolling to the right on green grass", seed=7)
    print(clip.path, clip.scores["overall"])

The command line calls the same functions. Importing this module loads neither torch nor a codec.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kinoloom.config import Settings, load_settings
from kinoloom.errors import Cancelled, InvalidRequest, Problem
from kinoloom.request import VideoRequest

if TYPE_CHECKING:
    from kinoloom.clip import Clip
    from kinoloom.jobs.progress import Event, Listener
    from kinoloom.planner.plan import Plan
    from kinoloom.remake import Remake

_SUFFIXES = {".mp4": "mp4", ".webm": "webm", ".gif": "gif"}


def plan(prompt: str | VideoRequest = "", **options: Any) -> Plan:
    """What would run for a prompt, and why, without running it.

    `options` are the fields of `VideoRequest`. Raises KinoloomError.
    """
    settings = load_settings()
    return plan_request(_request(prompt, options), settings)


def generate(
    prompt: str | VideoRequest = "", *, on_progress: Listener | None = None, **options: Any
) -> Clip:
    """Make a clip from a prompt and `options`, the fields of `VideoRequest`.

    `on_progress` is called with an `Event` at each step; an exception from it stops the work and
    leaves nothing behind. Raises KinoloomError.
    """
    settings = load_settings()
    return run(_request(prompt, options), settings, on_progress=on_progress)


async def agenerate(
    prompt: str | VideoRequest = "", *, on_progress: Listener | None = None, **options: Any
) -> Clip:
    """`generate` in a thread of its own; cancelling the task stops the render at its next step."""
    stop = threading.Event()

    def listen(event: Event) -> None:
        if stop.is_set():
            raise Cancelled("The render was cancelled.")
        if on_progress is not None:
            on_progress(event)

    work = asyncio.create_task(asyncio.to_thread(generate, prompt, on_progress=listen, **options))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        stop.set()
        # The thread holds the model: only when it has let go is the cancelling done.
        await asyncio.wait([work])
        work.exception()
        raise


def text_to_video(prompt: str, **options: Any) -> Clip:
    """A clip from words alone; see `generate`."""
    return generate(prompt, **options)


def image_to_video(image: str | Path, prompt: str = "", **options: Any) -> Clip:
    """A clip that begins with a picture; with `last_image`, one that also ends with one."""
    return generate(prompt, image=image, **options)


def generate_many(
    requests: Iterable[str | VideoRequest],
    *,
    on_progress: Listener | None = None,
    **options: Any,
) -> Iterator[Clip]:
    """A clip for each prompt or request, one after the other, with `options` for all.

    All are checked before the first is made, and the model is loaded once. Raises KinoloomError;
    the clips made by then stay.
    """
    settings = load_settings()
    checked = [_request(request, options) for request in requests]
    return (run(request, settings, on_progress=on_progress) for request in checked)


def run(
    request: VideoRequest,
    settings: Settings,
    *,
    on_plan: Callable[[Plan], None] | None = None,
    on_progress: Listener | None = None,
) -> Clip:
    """Plan and make one clip; `on_plan` sees the plan before anything is spent.

    What a service makes is a durable job: asked for again after a kill, it goes on and nothing is
    paid twice.
    """
    from kinoloom.clip import Clip
    from kinoloom.jobs import planning
    from kinoloom.jobs.clip import make_clip
    from kinoloom.store.held import held_store

    planning.join_others()
    catalog = planning.load_catalog(settings)
    store = held_store(settings)
    resolved = planning.plan_request(request, settings, store, catalog=catalog)
    if resolved.remote:
        return _run_elsewhere(request, resolved, settings, on_plan, on_progress)
    if on_plan is not None:
        on_plan(resolved)
    made = make_clip(
        resolved,
        catalog.get(resolved.model),
        backend=planning.renderer_for(resolved.backend, settings),
        store=store,
        outputs=settings.outputs,
        listener=on_progress,
    )
    return Clip(made.record, reused=made.reused)


def _run_elsewhere(
    request: VideoRequest,
    resolved: Plan,
    settings: Settings,
    on_plan: Callable[[Plan], None] | None,
    on_progress: Listener | None,
) -> Clip:
    from kinoloom.clip import Clip
    from kinoloom.jobs.here import Here

    with Here(settings, renders=False) as here:
        made = here.make(
            request,
            on_plan=on_plan or (lambda _plan: None),
            view=_Listening(on_progress),
            plan=resolved,
        )
    return Clip(made.record, reused=made.reused)


class _Listening:
    """What a job tells, for a listener that only wants to hear of its progress."""

    def __init__(self, listener: Listener | None) -> None:
        self._listener = listener

    def note(self, text: str) -> None:
        """Nobody listens to that."""

    def progress(self, event: Event) -> None:
        """One report of the job."""
        if self._listener is not None:
            self._listener(event)

    def preview(self, jpeg: str) -> None:
        """Nobody listens to that."""


def plan_request(request: VideoRequest, settings: Settings) -> Plan:
    """The plan of a checked request under given settings."""
    from kinoloom.jobs import planning
    from kinoloom.store.held import held_store

    return planning.plan_request(request, settings, held_store(settings))


def remake(file: Path, changes: dict[str, Any], settings: Settings) -> Remake:
    """The request that makes the clip in `file` again, with `changes`; see `read_remake`."""
    from kinoloom.remake import read_remake
    from kinoloom.store.held import held_store

    return read_remake(file, _with_format(changes), held_store(settings))


def _request(prompt: str | VideoRequest, options: dict[str, Any]) -> VideoRequest:
    if isinstance(prompt, VideoRequest):
        return build_request(**(prompt.model_dump(exclude_unset=True) | options))
    return build_request(prompt=prompt, **options)


def build_request(**values: Any) -> VideoRequest:
    """A checked request in which the output's suffix decides the format when none is given.

    Raises InvalidRequest with every mistake at once.
    """
    return VideoRequest.checked(**_with_format(values))


def _with_format(values: dict[str, Any]) -> dict[str, Any]:
    """The values that are given, with the format that the output's suffix asks for."""
    values = {k: v for k, v in values.items() if v is not None}
    output = Path(str(values.get("output", "")))
    by_suffix = _SUFFIXES.get(output.suffix.lower())
    if by_suffix is None or os.path.isdir(output):  # noqa: PTH112 (never raises)
        return values
    wanted = values.setdefault("format", by_suffix)
    if wanted != by_suffix:
        allowed = f"{by_suffix}, since the output is named {output.name}"
        raise InvalidRequest([Problem("format", wanted, allowed, by_suffix)])
    return values
