"""What stands in for the child process that renders, in tests of those who call it?

It answers the commands of `kinoloom.jobs.commands` as the real one does, but with a few bytes
instead of frames and videos, and a test decides what goes wrong.
"""

from __future__ import annotations

import base64
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kinoloom.errors import Cancelled, TimedOut, WorkerUnavailable

Message = dict[str, Any]
JPEG = b"\xff\xd8 a rough picture \xff\xd9"

VIDEO: Message = {
    "kind": "video",
    "width": 64,
    "height": 64,
    "frames": 12,
    "fps": 12.0,
    "duration": 1.0,
    "codec": "h264",
    "format": "mp4",
    "has_audio": False,
}


@dataclass
class StandIn:
    """Used in place of a `RenderProcess`.

    `calls` are the commands that it was given. `ends` are the errors that the next calls end with,
    by command. `before` is called with each command before it is carried out. A render goes on only
    while `open` is set. `video` is what a service's file is, `overall` the score of a take by its
    frames' words.
    """

    steps: int = 3
    calls: list[str] = field(default_factory=list)
    ends: dict[str, deque[Exception]] = field(default_factory=dict)
    before: Callable[[str], None] = lambda _command: None
    overall: Callable[[str], float] = lambda _frames: 0.5
    open: threading.Event = field(default_factory=threading.Event)
    rendering: threading.Event = field(default_factory=threading.Event)
    closed: bool = False
    video: Message = field(default_factory=lambda: dict(VIDEO))
    order: list[str] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0

    def __post_init__(self) -> None:
        self.open.set()
        self._lock = threading.Lock()

    def dies(self, command: str, *errors: Exception) -> None:
        """Let the next calls of a command end with these errors, one each."""
        self.ends.setdefault(command, deque()).extend(errors)

    def start(self) -> None:
        """There is nothing to start."""

    @contextmanager
    def another(self) -> Iterator[StandIn]:
        """As `RenderProcess.another`, but all calls are this one's."""
        yield self

    def close(self) -> None:
        """End the calls that wait."""
        self.closed = True

    def call(
        self,
        command: str,
        arguments: Mapping[str, Any],
        *,
        on_message: Callable[[Message], None] = lambda _: None,
        should_stop: Callable[[], bool] = lambda: False,
        timeout: float | None = None,
    ) -> Message:
        """As `RenderProcess.call`: one command at a time."""
        if self.closed:
            raise WorkerUnavailable("The process that renders was ended.")
        with self._lock:
            self.calls.append(command)
            self.before(command)
            if self.ends.get(command):
                raise self.ends[command].popleft()
            deadline = None if timeout is None else time.monotonic() + timeout
            answer: Message = getattr(self, f"_{command}")(
                arguments, on_message, lambda: self._check(should_stop, deadline)
            )
            return answer

    def _check(self, should_stop: Callable[[], bool], deadline: float | None) -> None:
        if self.closed:
            raise WorkerUnavailable("The process that renders was ended.")
        if deadline is not None and time.monotonic() >= deadline:
            raise TimedOut("The work took longer than its deadline.")
        if should_stop():
            raise Cancelled("The work was stopped.")

    def _render(
        self, arguments: Mapping[str, Any], tell: Callable[[Message], None], check: Any
    ) -> Message:
        plan, number = arguments["plan"], arguments["number"]
        self.order.append(plan["prompt"])
        for step in range(1, self.steps + 1):
            progress = {"phase": "denoise", "step": step, "steps": self.steps}
            progress |= {"elapsed": 0.1 * step, "eta": 0.1 * (self.steps - step)}
            progress |= {"take": number + 1, "takes": plan["candidates"]}
            tell({"type": "progress", **progress})
            tell({"type": "preview", "jpeg": base64.b64encode(JPEG).decode()})
            self.rendering.set()
            check()
            while not self.open.wait(0.01):
                check()
        for name, path in arguments["inputs"].items():
            assert Path(path).exists(), name
        frames = Path(arguments["folder"]) / f"frames-{number}.npy"
        frames.write_text(f"frames of {plan['prompt']}, seed {plan['seed'] + number}")
        return {"frames": str(frames), "audio": None, "rendered": facts()}

    def _probe(self, arguments: Mapping[str, Any], tell: object, check: object) -> Message:
        Path(arguments["path"]).read_text()
        return dict(self.video)

    def _fit(self, arguments: Mapping[str, Any], tell: object, check: object) -> Message:
        fitted = {}
        for name, path in arguments["inputs"].items():
            fitted[name] = str(Path(arguments["folder"]) / f"input-{name}.png")
            Path(fitted[name]).write_bytes(Path(path).read_bytes())
        return {"inputs": fitted}

    def _score(self, arguments: Mapping[str, Any], tell: object, check: object) -> Message:
        overall = self.overall(Path(arguments["frames"]).read_text())
        return {"scores": {"overall": overall, "notes": []}, "notes": []}

    def _poster(self, arguments: Mapping[str, Any], tell: object, check: object) -> Message:
        Path(arguments["target"]).write_text("poster: " + Path(arguments["frames"]).read_text())
        return {}

    def _encode(self, arguments: Mapping[str, Any], tell: object, check: object) -> Message:
        target, video = Path(arguments["target"]), Path(arguments["frames"]).read_text()
        if arguments["format"] == "png":
            target.mkdir(parents=True)
            target /= "00001.png"
        target.write_text(f"{arguments['format']} {arguments['settings'].get('clip')}: {video}")
        return {"path": arguments["target"]}


def facts() -> Message:
    """What a render says of itself; see `kinoloom.jobs.record.RenderFacts`."""
    return {
        "seconds": {"load": 0.0, "encode": 0.1, "denoise": 0.3, "step": 0.1, "decode": 0.1},
        "device": "cpu",
        "dtype": "float32",
        "versions": {"torch": "0"},
        "peak_bytes": None,
        "placement": "resident",
        "tiling": False,
        "notes": [],
        "embeddings": "miss",
    }


class Waiting:
    """A `clip_job.Watch` whose run goes on until a test says otherwise."""

    stopped = late = False

    def over(self) -> bool:
        return self.stopped or self.late

    def timed_out(self) -> bool:
        return self.late

    def seconds_left(self) -> float:
        return 600.0


def until(condition: Callable[[], object], seconds: float = 120.0) -> None:
    """Wait for a condition, on a machine however busy."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
