"""What can be done from the command line?

Each command checks its arguments, calls the Python API and shows the result; nothing is decided
here. Heavy imports happen inside the commands, so that ``--help`` answers at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from kinoloom.cli_backends import backends
from kinoloom.cli_config import config_app
from kinoloom.cli_costs import costs
from kinoloom.cli_film import film_app
from kinoloom.cli_jobs import jobs_app, stats
from kinoloom.cli_keys import keys_app
from kinoloom.cli_models import models_app
from kinoloom.cli_server import serve, worker
from kinoloom.outcome import FAILED, outcome, plain_view, settings_now

if TYPE_CHECKING:
    from kinoloom.clip import Clip
    from kinoloom.config import Settings
    from kinoloom.planner.plan import Plan
    from kinoloom.request import VideoRequest
    from kinoloom.terminal import View

app = typer.Typer(
    name="kinoloom",
    help="Make video from a prompt or a picture, on this machine or wherever can.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Boxes around the help would take longer to load than all else that a command needs.
    rich_markup_mode=None,
)
app.add_typer(film_app, name="film")
app.add_typer(models_app, name="models")
app.add_typer(jobs_app, name="jobs")
app.add_typer(keys_app, name="keys")
app.add_typer(config_app, name="config")

Prompt = Annotated[str, typer.Argument(help="What to show, in words.")]
Model = Annotated[str | None, typer.Option(help="Model card, see `kinoloom models list`.")]
BackendName = Annotated[
    str | None, typer.Option("--backend", help="What runs it, see `kinoloom backends`; or auto.")
]
Tier = Annotated[str | None, typer.Option(help="preview, standard, premium or auto.")]
Size = Annotated[str | None, typer.Option(help="WIDTHxHEIGHT or a name such as 720p.")]
Frames = Annotated[int | None, typer.Option(help="Length in frames.")]
Duration = Annotated[float | None, typer.Option(help="Length in seconds, instead of --frames.")]
Fps = Annotated[float | None, typer.Option(help="Frames a second.")]
Steps = Annotated[int | None, typer.Option(help="Denoising steps; 0 fits them to the prompt.")]
Guidance = Annotated[float | None, typer.Option(help="How strongly the prompt is followed.")]
Seed = Annotated[int | None, typer.Option(help="Same seed, same frames.")]
Negative = Annotated[str | None, typer.Option(help="What should not be seen.")]
Image = Annotated[Path | None, typer.Option(help="Picture to begin with.")]
LastImage = Annotated[Path | None, typer.Option(help="Picture to end with; needs --image.")]
Video = Annotated[Path | None, typer.Option(help="Video to continue, or with --mask to change.")]
Mask = Annotated[
    Path | None, typer.Option(help="Picture or video, white where --video is made anew.")
]
References = Annotated[
    list[Path] | None,
    typer.Option("--reference", help="Picture of what appears in the clip; may be repeated."),
]
Keyframes = Annotated[
    list[str] | None,
    typer.Option("--keyframe", help="FRAME=PICTURE, counted from 0; may be repeated."),
]
Loras = Annotated[
    list[str] | None,
    typer.Option("--lora", help="NAME, PATH or OWNER/REPO[:FILE], and :WEIGHT; may be repeated."),
]
Preset = Annotated[str | None, typer.Option(help="Few-step preset, see `kinoloom models show`.")]
Acceleration = Annotated[
    str | None, typer.Option(help="lossless, or balanced or fast, which change the frames.")
]
Candidates = Annotated[int | None, typer.Option(help="Takes to make; the best is kept.")]
Cache = Annotated[
    str | None, typer.Option(help="use (a clip made before) or bypass (render it anew).")
]
Audio = Annotated[
    bool | None, typer.Option("--audio/--no-audio", help="Sound, where there is a choice.")
]
MaxCost = Annotated[str | None, typer.Option(help="The most that the clip may cost, such as 2.50.")]
UnknownPrice = Annotated[
    bool, typer.Option("--unknown-price", help="Yes to a model whose price is not known.")
]
Fallback = Annotated[
    bool | None,
    typer.Option("--fallback/--no-fallback", help="Try another backend when one fails."),
]
Reword = Annotated[
    bool | None,
    typer.Option("--reword/--no-reword", help="Try words that a service rejects in other words."),
]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="File or folder to write.")]
Format = Annotated[
    str | None, typer.Option("--format", help="mp4, webm, gif or png (a folder of frames).")
]
From = Annotated[
    Path | None, typer.Option("--from", help="Make the clip in FILE again; options change it.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Answer as JSON, for programs.")]
File = Annotated[Path, typer.Argument(help="A video, or a folder of PNG frames.")]


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    if version:
        from importlib import metadata

        typer.echo(f"kinoloom {metadata.version('kinoloom')}")
        raise typer.Exit


@app.command()
def generate(
    prompt: Prompt = "",
    model: Model = None,
    backend: BackendName = None,
    tier: Tier = None,
    size: Size = None,
    frames: Frames = None,
    duration: Duration = None,
    fps: Fps = None,
    steps: Steps = None,
    guidance: Guidance = None,
    seed: Seed = None,
    negative: Negative = None,
    image: Image = None,
    last_image: LastImage = None,
    video: Video = None,
    mask: Mask = None,
    reference: References = None,
    keyframe: Keyframes = None,
    lora: Loras = None,
    preset: Preset = None,
    acceleration: Acceleration = None,
    candidates: Candidates = None,
    audio: Audio = None,
    max_cost: MaxCost = None,
    unknown_price: UnknownPrice = False,
    fallback: Fallback = None,
    reword: Reword = None,
    cache: Cache = None,
    output: Output = None,
    format_: Format = None,
    from_: From = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the plan.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON event a line.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only the path.")] = False,
) -> None:
    """Make a video.

    Prints where it is, its quality scores, and how to make it again. Exit codes: 0 done,
    1 failed, 2 wrong usage, 130 interrupted (nothing partial is left).
    """
    from kinoloom.terminal import view_for

    values = {
        "prompt": prompt or None,
        "model": model,
        "backend": backend,
        "tier": tier,
        "size": size,
        "frames": frames,
        "duration": duration,
        "fps": fps,
        "steps": steps,
        "guidance": guidance,
        "seed": seed,
        "negative": negative,
        "image": image,
        "last_image": last_image,
        "video": video,
        "mask": mask,
        "references": reference or None,
        "keyframes": keyframe or None,
        "loras": lora or None,
        "preset": preset,
        "acceleration": acceleration,
        "candidates": candidates,
        "audio": audio,
        "max_cost": max_cost,
        "unknown_price": unknown_price or None,
        "fallback": fallback,
        "reword": reword,
        "cache": cache,
        "output": output,
        "format": format_,
    }
    view = view_for(as_json, quiet)
    with outcome(view):
        from kinoloom import api

        settings = settings_now()
        request, key = _request(values, from_, settings)
        if dry_run:
            view.plan(api.plan_request(request, settings))
            return
        planned: list[Plan] = []

        def on_plan(plan: Plan) -> None:
            planned.append(plan)
            view.plan(plan)

        with _maker(settings) as make:
            clip = make(request, on_plan, view)
            view.done(clip, _remake_remarks(key, planned[0], values))


@app.command()
def batch(
    file: Annotated[Path, typer.Argument(help="A prompt a line; - reads standard input.")],
    model: Model = None,
    tier: Tier = None,
    size: Size = None,
    frames: Frames = None,
    steps: Steps = None,
    guidance: Guidance = None,
    seed: Seed = None,
    negative: Negative = None,
    lora: Loras = None,
    preset: Preset = None,
    acceleration: Acceleration = None,
    candidates: Candidates = None,
    backend: BackendName = None,
    audio: Audio = None,
    max_cost: MaxCost = None,
    unknown_price: UnknownPrice = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder to write to.")
    ] = None,
    format_: Format = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON event a line.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only the paths.")] = False,
) -> None:
    """Make a video of each prompt in a file, with the model loaded once.

    Empty lines and lines that begin with # are left out. All prompts are checked before the first
    is rendered; what is finished when it stops stays.
    """
    from kinoloom.terminal import view_for

    values = {
        "model": model,
        "tier": tier,
        "size": size,
        "frames": frames,
        "steps": steps,
        "guidance": guidance,
        "seed": seed,
        "negative": negative,
        "loras": lora or None,
        "preset": preset,
        "acceleration": acceleration,
        "candidates": candidates,
        "backend": backend,
        "audio": audio,
        "max_cost": max_cost,
        "unknown_price": unknown_price or None,
        "output": output,
        "format": format_,
    }
    view = view_for(as_json, quiet)
    with outcome(view):
        from kinoloom import api
        from kinoloom.media.output import disk_errors
        from kinoloom.prompts import read_prompts

        settings, prompts = settings_now(), read_prompts(file)
        if output is not None:
            with disk_errors(output):
                output.mkdir(parents=True, exist_ok=True)
        requests = [api.build_request(prompt=prompt, **values) for prompt in prompts]
        with _maker(settings) as make:
            for request in requests:
                view.done(make(request, view.plan, view))


@app.command()
def plan(
    prompt: Prompt = "",
    model: Model = None,
    backend: BackendName = None,
    tier: Tier = None,
    size: Size = None,
    frames: Frames = None,
    duration: Duration = None,
    fps: Fps = None,
    steps: Steps = None,
    guidance: Guidance = None,
    seed: Seed = None,
    negative: Negative = None,
    image: Image = None,
    last_image: LastImage = None,
    video: Video = None,
    mask: Mask = None,
    reference: References = None,
    keyframe: Keyframes = None,
    lora: Loras = None,
    preset: Preset = None,
    acceleration: Acceleration = None,
    candidates: Candidates = None,
    audio: Audio = None,
    max_cost: MaxCost = None,
    unknown_price: UnknownPrice = False,
    fallback: Fallback = None,
    reword: Reword = None,
    cache: Cache = None,
    as_json: AsJson = False,
) -> None:
    """Show what `generate` would run for a prompt, and why, without running it."""
    with outcome(plain_view(as_json)):
        from kinoloom import api, tables
        from kinoloom.terminal import write_json

        request = api.build_request(
            prompt=prompt or None,
            model=model,
            backend=backend,
            tier=tier,
            size=size,
            frames=frames,
            duration=duration,
            fps=fps,
            steps=steps,
            guidance=guidance,
            seed=seed,
            negative=negative,
            image=image,
            last_image=last_image,
            video=video,
            mask=mask,
            references=reference or None,
            keyframes=keyframe or None,
            loras=lora or None,
            preset=preset,
            acceleration=acceleration,
            candidates=candidates,
            audio=audio,
            max_cost=max_cost,
            unknown_price=unknown_price or None,
            fallback=fallback,
            reword=reword,
            cache=cache,
        )
        resolved = api.plan_request(request, settings_now())
        if as_json:
            write_json(resolved.model_dump(mode="json"))
        else:
            tables.show_plan(resolved)


@app.command()
def show(file: File, as_json: AsJson = False) -> None:
    """Show how a video was made, from what Kinoloom wrote into it."""
    with outcome(plain_view(as_json)):
        from kinoloom import tables
        from kinoloom.errors import InvalidMedia
        from kinoloom.media.settings import read_settings
        from kinoloom.terminal import write_json

        settings = read_settings(file)
        if settings is None:
            raise InvalidMedia(
                f"{file} does not say how it was made.",
                cause="it holds no settings of Kinoloom's",
                hints=["only videos that Kinoloom made, and no other program saved again, do"],
            )
        if as_json:
            write_json(settings)
        else:
            tables.show_settings(file, settings)


@app.command()
def score(file: File, as_json: AsJson = False) -> None:
    """Measure the quality of any video, 0 (bad) to 1 (good)."""
    with outcome(plain_view(as_json)):
        from kinoloom import tables
        from kinoloom.media.reader import probe, read_frames
        from kinoloom.quality.score import score as measure
        from kinoloom.terminal import counted, write_json

        info = probe(file)
        frames = counted(read_frames(file), info.frames, "scoring")
        scores = measure(frames, info.fps, info.frames)
        if as_json:
            facts = {"file": str(file), "frames": info.frames, "fps": info.fps}
            write_json(facts | scores.as_dict())
        else:
            tables.show_scores(file, info.frames, info.fps, scores)


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Check whether this machine is ready, and say what to do where it is not."""
    with outcome(plain_view(as_json)):
        from kinoloom import tables
        from kinoloom.doctor import examine
        from kinoloom.terminal import write_json

        checks = examine(settings_now())
        if as_json:
            write_json({"checks": [c.as_dict() for c in checks]})
        else:
            tables.show_checks(checks)
        if any(c.state == "failed" for c in checks):
            raise typer.Exit(FAILED)


# After the commands that a newcomer needs, since the help lists them in this order.
app.command()(backends)
app.command()(serve)
app.command()(worker)
app.command()(stats)
app.command()(costs)


def main() -> NoReturn:
    """The entry point of the `kinoloom` command."""
    if "WORLD_SIZE" in os.environ:  # set by a launcher: what follows is for the first process only
        from kinoloom.jobs.planning import join_others

        join_others()
    app()
    raise SystemExit(0)


@contextmanager
def _maker(
    settings: Settings,
) -> Iterator[Callable[[VideoRequest, Callable[[Plan], None], View], Clip]]:
    """What makes clips so that killing the command loses nothing; see `kinoloom.jobs.here`.

    Several processes that render one clip together do so by themselves, past all jobs.
    """
    from kinoloom import api
    from kinoloom.clip import Clip

    if "WORLD_SIZE" in os.environ:
        yield lambda request, on_plan, view: api.run(
            request, settings, on_plan=on_plan, on_progress=view.progress
        )
        return
    from kinoloom.jobs.here import Here

    with Here(settings) as here:

        def make(request: VideoRequest, on_plan: Callable[[Plan], None], view: View) -> Clip:
            made = here.make(request, on_plan=on_plan, view=view)
            return Clip(made.record, reused=made.reused)

        yield make


def _request(
    values: dict[str, Any], source: Path | None, settings: Settings
) -> tuple[VideoRequest, str | None]:
    """The request, and with --from the key of the clip that is made again."""
    from kinoloom import api

    if source is None:
        return api.build_request(**values), None
    remake = api.remake(source, values, settings)
    return remake.request, remake.key


def _remake_remarks(key: str | None, plan: Plan, values: dict[str, Any]) -> tuple[str, ...]:
    """Whether a clip that was made again unchanged really has the same plan."""
    free = {"output", "format"}
    unchanged = all(value is None for name, value in values.items() if name not in free)
    if key is None or not unchanged or key == plan.key:
        return ()
    return ("note: the model or its weights have changed since, so the frames may differ",)
