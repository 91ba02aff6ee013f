"""How much faster do Kinoloom's settings make models of real size on this GPU?

Each architecture of ``architectures.yaml`` is built with random weights, and its denoising loop is
timed three times in one run: as diffusers has it, and as Kinoloom's `lossless` and `balanced` would
run it here. Embeddings are random numbers of the right shape, latents are not decoded.

Random weights take as long as trained ones, and say how far rounding moves the result. They do not
say how good a step cache's clip looks; and one that decides by content (first_block) may skip more
or fewer steps than it would with the real weights.
"""

from __future__ import annotations

import argparse
import inspect
import math
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
import yaml

from benchmarks.machine import machine_line
from kinoloom.backends.base import Speed
from kinoloom.backends.local import offload, peak
from kinoloom.backends.local.residency import release
from kinoloom.backends.local.scheduling import shifted
from kinoloom.backends.local.speed import apply_speed, remove_speed
from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.loader import Catalog
from kinoloom.errors import KinoloomError
from kinoloom.planner.acceleration import resolve_speed
from kinoloom.request import Level

ARCHITECTURES = Path(__file__).with_name("architectures.yaml")
LEVELS: tuple[Level, ...] = ("lossless", "balanced")
TARGET = 2.0
TARGET_MODEL = "wan-2.1-t2v-14b"
TINY_STEPS = 8
SEED = 0


@dataclass(frozen=True)
class Work:
    """What is timed: a model's card and architecture, and the clip that is asked for."""

    card: ModelCard
    architecture: dict[str, Any]
    size: tuple[int, int]
    frames: int
    steps: int


@dataclass(frozen=True)
class Row:
    """One setting's figures; the differences are against the bare pipeline's latents."""

    setting: str
    used: str
    seconds: float
    peak_bytes: int | None
    farthest: float = 0.0
    psnr: float = math.inf


def architectures() -> dict[str, dict[str, Any]]:
    """The data file: each architecture by the id of its card."""
    found: dict[str, dict[str, Any]] = yaml.safe_load(ARCHITECTURES.read_text(encoding="utf-8"))
    return found


def shrunk(architecture: dict[str, Any]) -> dict[str, Any]:
    """The architecture with what its `tiny` replaces."""
    tiny = architecture["tiny"]
    transformer = architecture["components"]["transformer"]
    small = transformer | {"config": transformer["config"] | tiny["transformer"]}
    components = architecture["components"] | {"transformer": small}
    rest = {name: value for name, value in tiny.items() if name != "transformer"}
    return architecture | {"components": components} | rest


def build(part: dict[str, Any]) -> Any:
    """A module, scheduler or guider of diffusers with random weights, in torch's default dtype."""
    kind = getattr(diffusers, part["class"])
    made = kind(**part["config"])
    if not isinstance(made, torch.nn.Module):
        return made
    # As from_pretrained does: these stay wide in a half-precision model.
    wide = getattr(kind, "_keep_in_fp32_modules", None) or ()
    for name, parameter in made.named_parameters():
        if set(name.split(".")) & set(wide):
            parameter.data = parameter.data.float()
    return made.eval().requires_grad_(False)


@contextmanager
def defaults(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Build on the device in this dtype at once: a large model would not fit twice."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(before)


def pipeline(work: Work, device: torch.device, dtype: torch.dtype) -> Any:
    """The pipeline of the card's text to video, without text encoders."""
    kind = getattr(diffusers, work.card.pipelines["t2v"].class_name)
    torch.manual_seed(SEED)
    with defaults(device, dtype):
        parts = {
            name: build(part)
            for name, part in work.architecture["components"].items()
            if name != "scheduler"
        }
    # Outside: schedulers keep their tables in full precision on the processor.
    scheduler = build(work.architecture["components"]["scheduler"])
    parts["scheduler"] = shifted(scheduler, work.card.shift)
    wanted = inspect.signature(kind.__init__).parameters
    absent = [n for n, p in wanted.items() if p.default is p.empty and n not in parts]
    pipe = kind(**parts, **dict.fromkeys(set(absent) - {"self"}))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def arguments(work: Work, pipe: Any, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """What the pipeline is called with, but the steps and the generator."""
    random = torch.Generator("cpu").manual_seed(SEED)
    given: dict[str, Any] = {
        "width": work.size[0],
        "height": work.size[1],
        "num_frames": work.frames,
        "guidance_scale": work.card.guidance.default,
        "output_type": "latent",
    }
    for name, shape in work.architecture["embeds"].items():
        given[name] = torch.randn(1, *shape, generator=random).to(device, dtype)
    for name, (tokens, used) in work.architecture.get("masks", {}).items():
        given[name] = (torch.arange(tokens, device=device) < used).long()[None]
    known = inspect.signature(pipe.__call__).parameters
    return {name: value for name, value in given.items() if name in known}


def denoise(pipe: Any, given: dict[str, Any], steps: int) -> tuple[torch.Tensor, float]:
    """The latents of one run, in float32 on the processor, and its seconds."""
    synchronize()
    begin = time.perf_counter()
    with torch.inference_mode():
        latents = pipe(
            **given,
            num_inference_steps=steps,
            generator=torch.Generator("cpu").manual_seed(SEED),
        ).frames
    synchronize()
    return latents.float().cpu(), time.perf_counter() - begin


def synchronize() -> None:
    """Wait until the GPU has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def measured(
    pipe: Any, given: dict[str, Any], work: Work, speed: Speed | None, device: torch.device
) -> tuple[torch.Tensor, float, int | None]:
    """Latents, seconds a step and peak bytes of a warm run; without a speed, of the bare pipeline.

    Before it, a short run loads kernels; with compiled blocks a whole one, since caches take other
    ways through them at later steps.
    """
    if speed is not None:
        apply_speed(pipe, speed, work.steps)
    denoise(pipe, given, work.steps if speed is not None and speed.compile else 2)
    if speed is not None:
        apply_speed(pipe, speed, work.steps)
    peak.reset(device)
    latents, seconds = denoise(pipe, given, work.steps)
    return latents, seconds / work.steps, peak.read(device)


def rows(work: Work, device: torch.device, dtype: torch.dtype) -> Iterator[Row]:
    """The bare pipeline, then each level; one that fails says why and takes infinite seconds."""
    pipe = pipeline(work, device, dtype)
    given = arguments(work, pipe, device, dtype)
    bare, seconds, most = measured(pipe, given, work, None, device)
    yield Row("bare diffusers", "as it is", seconds, most)
    for level in LEVELS:
        speed, _ = resolve_speed(
            work.card,
            "t2v",
            level,
            guidance=work.card.guidance.default,
            steps=work.steps,
            frames=work.frames,
            placement="resident",
            device_kind=device.type,
        )
        offload.apply(pipe, "resident", False, device, dtype)
        try:
            latents, seconds, most = measured(pipe, given, work, speed, device)
        except (RuntimeError, KinoloomError) as error:  # a kernel that this GPU has not, memory
            reason = f"{type(error).__name__}: {error}".splitlines()[0][:120].replace("|", "/")
            yield Row(level, f"{described(speed)}; failed, {reason}", math.inf, None)
        else:
            farthest, psnr = difference(latents, bare)
            yield Row(level, described(speed), seconds, most, farthest, psnr)
        remove_speed(pipe)
        release()


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> tuple[float, float]:
    """The largest difference, and the signal-to-noise ratio in dB over the range of `theirs`."""
    apart = ours - theirs
    error = apart.square().mean().item()
    span = (theirs.max() - theirs.min()).item()
    psnr = 10 * math.log10(span**2 / error) if error and span else math.inf
    return apart.abs().max().item(), psnr


def described(speed: Speed) -> str:
    """What a speed uses, in words."""
    used = [f"attention {speed.attention}"] if speed.attention else []
    used += ["compiled blocks"] if speed.compile else []
    used += [f"cache {speed.cache.kind}"] if speed.cache else []
    return ", ".join(used) or "nothing that the bare pipeline has not"


def table(work: Work, found: Sequence[Row]) -> list[str]:
    """The lines of one model's table, as Markdown."""
    bare = found[0].seconds
    lines = [
        f"### {work.card.title}: {work.size[0]}x{work.size[1]}, {work.frames} frames,"
        f" {work.steps} steps, guidance {work.card.guidance.default:g}",
        "",
        "| setting | what it uses | s a step | times as fast | peak GB | max abs | PSNR dB |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for row in found:
        most = "-" if row.peak_bytes is None else f"{row.peak_bytes / 1e9:.2f}"
        psnr = "same" if math.isinf(row.psnr) else f"{row.psnr:.1f}"
        lines.append(
            f"| {row.setting} | {row.used} | {row.seconds:.4g} | {bare / row.seconds:.2f} |"
            f" {most} | {row.farthest:.3g} | {psnr} |"
        )
    return lines


def device_line(device: torch.device, dtype: torch.dtype) -> str:
    """Which device, with which libraries."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU, tiny models"
    return (
        f"{machine_line()} | {name}, {str(dtype).removeprefix('torch.')} | torch"
        f" {torch.__version__}, diffusers {diffusers.__version__}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables, and write them to a file where one is named. 1 without a GPU."""
    known = architectures()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--models", nargs="+", choices=known, default=list(known), metavar="ID")
    parser.add_argument("--steps", type=int, default=20, help="denoising steps (20)")
    parser.add_argument("--frames", type=int, help="frames of a clip (each model's default)")
    parser.add_argument("--out", type=Path, help="a Markdown file for the tables")
    parser.add_argument("--tiny", action="store_true", help="try the script with tiny models")
    options = parser.parse_args(argv)
    if not options.tiny and not torch.cuda.is_available():
        sys.stderr.write("This benchmark needs a CUDA GPU; --tiny tries it without one.\n")
        return 1
    device = torch.device("cpu" if options.tiny else "cuda")
    dtype = torch.float32 if options.tiny else torch.bfloat16
    lines = [device_line(device, dtype), ""]
    print(*lines, sep="\n", flush=True)
    catalog = Catalog.load()
    for name in options.models:
        card, architecture = catalog.get(name), known[name]
        size, frames, steps = card.sizes.default, card.frames.default, options.steps
        if options.tiny:
            architecture = shrunk(architecture)
            size, frames, steps = tuple(architecture["size"]), architecture["frames"], TINY_STEPS
        work = Work(card, architecture, size, options.frames or frames, steps)
        try:
            found = list(rows(work, device, dtype))
        except torch.OutOfMemoryError:
            said = [f"### {card.title}", "", "It does not fit in this GPU's memory."]
        else:
            said = table(work, found)
            if name == TARGET_MODEL and not options.tiny:
                ratio = found[0].seconds / found[1].seconds
                verdict = "met" if ratio >= TARGET else "MISSED"
                said += ["", f"target {TARGET:g} times as fast, lossless: {ratio:.2f}, {verdict}"]
        release()
        torch.compiler.reset()  # what was compiled for the next one's shapes is another thing
        print(*said, "", sep="\n", flush=True)
        lines += [*said, ""]
    if options.out is not None:
        options.out.write_text("\n".join(lines), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
