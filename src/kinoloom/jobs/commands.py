"""What can a child process be asked to do?

Each command takes JSON and gives JSON; what is large lies in files that both sides name. A command
that is asked to stop ends with Cancelled at its next step and leaves no partial file.

What `score`, `poster`, `encode` and `boundary` are given as `frames` is a file of frames as a
render leaves it, or a video: then `streamed` is how many frames that has, else None.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kinoloom.config import Settings
from kinoloom.errors import Cancelled, KinoloomError
from kinoloom.jobs import planning
from kinoloom.jobs.progress import Event, Reporter
from kinoloom.planner.plan import Plan
from kinoloom.request import VideoRequest

# What decodes, renders or computes is imported by the command that needs it: a child that only
# looks at pictures never waits for the rest.

_PREVIEW_SECONDS = 1.0
_WRITE_SECONDS = 0.1

Arguments = Mapping[str, Any]
Tell = Callable[[dict[str, Any]], None]


class Commands:
    """The commands of one child; loaded models stay between them."""

    def __init__(self, settings: Settings, tell: Tell, stopping: Callable[[], bool]) -> None:
        """`tell` sends a message to the parent, `stopping` is whether the command is to stop."""
        self._settings = settings
        self._tell = tell
        self._stopping = stopping
        self._previewed = self._written = 0.0
        self._known: dict[str, Callable[[Arguments], dict[str, Any]]] = {
            "inputs": self._inputs,
            "probe": self._probe,
            "fit": self._fit,
            "render": self._render,
            "score": self._score,
            "encode": self._encode,
            "poster": self._poster,
            "thumbnail": self._thumbnail,
            "gif": self._gif,
            "spritesheet": self._spritesheet,
            "boundary": self._boundary,
            "match": self._match,
            "seam": self._seam,
            "stitch": self._stitch,
            "timeline": self._timeline,
            "film_sheet": self._film_sheet,
        }

    def run(self, name: str, arguments: Arguments) -> dict[str, Any]:
        """The answer of a command. Raises KinoloomError, Cancelled when it was to stop."""
        command = self._known.get(name)
        if command is None:
            raise KinoloomError(f"A child process knows no command {name!r}.")
        self._check()
        return command(arguments)

    def _inputs(self, arguments: Arguments) -> dict[str, Any]:
        from kinoloom.planner.inputs import probe_inputs

        request = VideoRequest.checked(**arguments["request"])
        return {"inputs": probe_inputs(request).model_dump(mode="json")}

    def _probe(self, arguments: Arguments) -> dict[str, Any]:
        from kinoloom.jobs.outside import facts_of

        return facts_of(Path(arguments["path"]))

    def _fit(self, arguments: Arguments) -> dict[str, Any]:
        from kinoloom.jobs.media import fitted_inputs, with_inputs

        plan = Plan.model_validate(arguments["plan"])
        plan = with_inputs(plan, {name: Path(p) for name, p in arguments["inputs"].items()})
        fitted = fitted_inputs(plan, Path(arguments["folder"]))
        return {"inputs": {name: str(path) for name, path in fitted.items()}}

    def _render(self, arguments: Arguments) -> dict[str, Any]:
        from kinoloom.jobs.frames_file import save_audio, save_frames
        from kinoloom.jobs.media import read_inputs, with_inputs
        from kinoloom.jobs.record import RenderFacts
        from kinoloom.jobs.steps import render_take
        from kinoloom.jobs.takes import plan_of_take

        plan, number = Plan.model_validate(arguments["plan"]), int(arguments["number"])
        folder = Path(arguments["folder"])
        report = Reporter(self._listen, plan.estimate.seconds, plan.candidates)
        report.take(number)
        plan = with_inputs(plan, {name: Path(p) for name, p in arguments["inputs"].items()})
        rendered = render_take(
            plan_of_take(plan, number),
            planning.load_catalog(self._settings).get(plan.model),
            planning.renderer_for(plan.backend, self._settings),
            read_inputs(plan),
            report,
        )
        self._check()
        frames, audio = folder / f"take-{number}.npy", None
        save_frames(frames, rendered.frames)
        if rendered.audio is not None:
            audio = folder / f"take-{number}.npz"
            save_audio(audio, rendered.audio)
        return {
            "frames": str(frames),
            "audio": None if audio is None else str(audio),
            "rendered": RenderFacts.of(rendered).as_dict(),
        }

    def _score(self, arguments: Arguments) -> dict[str, Any]:
        from kinoloom.jobs.frames_file import load_frames
        from kinoloom.jobs.steps import score_frames

        source, fps = Path(arguments["frames"]), float(arguments["fps"])
        Reporter(self._listen, None).tell("score")
        if (length := arguments.get("streamed")) is not None:
            from kinoloom.jobs.streams import score_video

            scores = score_video(source, fps, length, self._check)
        else:
            scores = score_frames(load_frames(source), fps, self._check)
        return {"scores": scores.as_dict(), "notes": list(scores.notes)}

    def _encode(self, arguments: Arguments) -> dict[str, Any]:
        from kinoloom.jobs.frames_file import load_audio, load_frames
        from kinoloom.jobs.steps import encode_clip

        plan, target = Plan.model_validate(arguments["plan"]), Path(arguments["target"])
        source, sound = Path(arguments["frames"]), arguments["audio"]
        report = Reporter(self._listen, None)
        if (length := arguments.get("streamed")) is not None:
            from kinoloom.jobs.streams import encode_video

            encode_video(
                source,
                target,
                float(arguments["fps"]),
                arguments["settings"],
                arguments["format"],
                self._check,
                lambda done: report.tell("write", done, length),
            )
            return {"path": str(target)}
        encode_clip(
            target,
            plan,
            load_frames(source),
            load_audio(Path(sound)) if sound is not None else None,
            arguments["settings"],
            arguments["format"],
            lambda done: report.tell("write", done, plan.frames),
        )
        return {"path": str(target)}

    def _poster(self, arguments: Arguments) -> dict[str, Any]:
        from kinoloom.jobs.frames_file import load_frames
        from kinoloom.jobs.steps import poster_png
        from kinoloom.media.output import disk_errors, whole_file

        source, target = Path(arguments["frames"]), Path(arguments["target"])
        if arguments.get("streamed") is not None:
            from kinoloom.jobs.streams import poster_of_video

            picture = poster_of_video(source, self._check)
        else:
            picture = poster_png(load_frames(source))
        with whole_file(target) as part, disk_errors(target):
            part.write_bytes(picture)
        return {}

    def _thumbnail(self, arguments: Arguments) -> dict[str, Any]:
        from kinoloom.jobs.outside import write_thumbnail

        write_thumbnail(Path(arguments["video"]), Path(arguments["target"]), self._check)
        return {}

    def _gif(self, arguments: Arguments) -> dict[str, Any]:
        from kinoloom.jobs.outside import write_gif

        write_gif(Path(arguments["video"]), Path(arguments["target"]), self._check)
        return {}

    def _spritesheet(self, arguments: Arguments) -> dict[str, Any]:
        from kinoloom.jobs.outside import write_sheet

        write_sheet(Path(arguments["video"]), Path(arguments["target"]), self._check)
        return {}

    def _boundary(self, arguments: Arguments) -> dict[str, Any]:
        from kinoloom.film.boundary import last_frames, write_boundary

        frames = last_frames(
            Path(arguments["frames"]),
            int(arguments["count"]),
            shown=int(arguments["shown"]),
            video=arguments.get("streamed") is not None,
        )
        write_boundary(Path(arguments["target"]), frames, float(arguments["fps"]))
        return {}

    def _match(self, arguments: Arguments) -> dict[str, Any]:
        from kinoloom.jobs.film_frames import write_matched

        paths = (Path(arguments[name]) for name in ("frames", "anchor", "target"))
        write_matched(*paths, video=bool(arguments["video"]))
        return {}

    def _seam(self, arguments: Arguments) -> dict[str, Any]:
        from kinoloom.jobs.film_frames import score_seam

        return score_seam(
            Path(arguments["before"]),
            int(arguments["shown"]),
            Path(arguments["after"]),
            int(arguments["skip"]),
        )

    def _stitch(self, arguments: Arguments) -> dict[str, Any]:
        from kinoloom.jobs.film_frames import stitch_film

        report = Reporter(self._listen, None)
        length = int(arguments["cut"]["frames"])
        return stitch_film(arguments, self._check, lambda done: report.tell("write", done, length))

    def _timeline(self, arguments: Arguments) -> dict[str, Any]:
        from kinoloom.jobs.film_frames import film_timeline

        film_timeline(arguments)
        return {}

    def _film_sheet(self, arguments: Arguments) -> dict[str, Any]:
        from kinoloom.jobs.film_frames import film_sheet

        film_sheet(arguments)
        return {}

    def _check(self) -> None:
        if self._stopping():
            raise Cancelled("The work was stopped.")

    def _listen(self, event: Event) -> None:
        """Pass on how far a render or an encoding is; raising from here is what stops it."""
        self._check()
        now = time.monotonic()
        if event.preview is not None and now - self._previewed >= _PREVIEW_SECONDS:
            from kinoloom.jobs.outside import preview_jpeg

            self._previewed = now
            picture = base64.b64encode(preview_jpeg(event.preview)).decode("ascii")
            self._tell({"type": "preview", "jpeg": picture})
        if event.phase == "write" and event.step < event.steps:
            if now - self._written < _WRITE_SECONDS:
                return  # frames are written faster than anybody can look
            self._written = now
        self._tell(event.as_dict())
