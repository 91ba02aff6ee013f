"""How well does spark do what it is asked?

    python -m training.spark.evaluate --json figures.json --sheet sheet.png

First the judge must pass ground-truth renders. Then the exported model makes clips of held-out
prompts for every task, through the stock diffusers pipeline and the very call of the product, and
the judge and plain pixel differences say what was reached beside what was wanted.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import cv2
import diffusers
import numpy as np
import torch
import transformers
import yaml
from diffusers import LTXConditionPipeline
from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from training.spark.export import TARGET
from training.spark.judge import Verdict, judge
from training.spark.tokenizer import MAX_LENGTH
from training.spark.vae import to_tensor
from training.spark.world import FPS, HEIGHT, WIDTH, WORLD, Scene, render

Film = NDArray[np.uint8]
_T = TypeVar("_T")

CARD = TARGET.parents[1] / "cards" / "spark.yaml"
DIRECTIONS = ("left", "right", "up", "down")
JUDGED = ("background", "colour", "shape", "motion")  # what the judge must be sure of
LEAST_SURE = 0.98
GROUND_TRUTHS = 200
LENGTHS = (17, 25, 33, 49)
BATCH = 4
CONTEXT = 9  # frames that an extension is given
LONG = 49
TIMED_FRAMES, TIMED_RUNS = 25, 5
# Every draw comes from (seed, this, part): training draws from (seed, step) and (seed, 1, step).
HELD_OUT = 20_000_003


@dataclass(frozen=True)
class Figure:
    """One line of the report; `least` or `most` is the target, None where there is none."""

    name: str
    value: float
    unit: str = ""
    least: float | None = None
    most: float | None = None

    @property
    def target(self) -> str:
        """The target in words."""
        if self.least is not None:
            return f">= {self.least:g} {self.unit}".strip()
        return f"<= {self.most:g} {self.unit}".strip() if self.most is not None else ""

    @property
    def reached(self) -> bool | None:
        """Whether the target is met; None without one."""
        if self.least is not None:
            return self.value >= self.least
        return self.value <= self.most if self.most is not None else None


@dataclass(frozen=True)
class Case:
    """A held-out scene with its prompt and the seed of its noise."""

    scene: Scene
    prompt: str
    seed: int


@dataclass(frozen=True)
class Judged:
    """A generated clip, what it was to show, and what the judge saw in it."""

    case: Case
    film: Film
    verdict: Verdict

    def right(self, attribute: str) -> bool:
        """Whether the clip shows that attribute as the prompt says it."""
        return bool(getattr(self.verdict, attribute) == getattr(self.case.scene, attribute))


def draw_cases(seed: int, part: int, count: int, motions: Sequence[str] = ()) -> list[Case]:
    """`count` cases of stream `part`, of only these motions where some are given."""
    rng = np.random.default_rng((seed, HELD_OUT, part))
    cases: list[Case] = []
    while len(cases) < count:
        scene = Scene.draw(rng)
        if not motions or scene.motion in motions:
            cases.append(Case(scene, scene.prompt(rng), int(rng.integers(2**31))))
    return cases


class Sampler:
    """The exported model, called as the product calls it."""

    def __init__(self, folder: Path, steps: int, guidance: float) -> None:
        diffusers.utils.logging.disable_progress_bar()
        transformers.utils.logging.disable_progress_bar()
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.pipe = LTXConditionPipeline.from_pretrained(
            str(folder), dtype=torch.float32, use_safetensors=True, local_files_only=True
        ).to(self.device)
        self.pipe.set_progress_bar_config(disable=True)
        # It warns of timesteps without sigmas, which agree at the scheduler's shift of 1.
        diffusers.utils.logging.set_verbosity_error()
        self.steps, self.guidance = steps, guidance

    def round_trip(self, films: Sequence[Film]) -> list[Film]:
        """What the autoencoder makes of clips of one length."""
        pixels = torch.stack([to_tensor(film) for film in films]).to(self.device)
        with torch.inference_mode():
            latents = self.pipe.vae.encode(pixels).latent_dist.mode()
            back = self.pipe.vae.decode(latents).sample.clamp(-1, 1)
        clips = ((back + 1) * 127.5 + 0.5).to(torch.uint8).permute(0, 2, 3, 4, 1).cpu().numpy()
        return list(clips)

    def __call__(
        self, cases: Sequence[Case], frames: int, conditions: list[LTXVideoCondition] | None = None
    ) -> list[Film]:
        """One clip [T, H, W, 3] for each case, all under the same conditions."""
        with torch.inference_mode():
            clips = self.pipe(
                prompt=[case.prompt for case in cases],
                width=WIDTH,
                height=HEIGHT,
                num_frames=frames,
                frame_rate=FPS,
                num_inference_steps=self.steps,
                timesteps=[1000 * (1 - i / self.steps) for i in range(self.steps)],
                guidance_scale=self.guidance,
                max_sequence_length=MAX_LENGTH,
                decode_timestep=0.0,
                image_cond_noise_scale=0.0,
                generator=[torch.Generator().manual_seed(case.seed) for case in cases],
                output_type="np",
                **({"conditions": conditions} if conditions else {}),
            ).frames
        return [(np.clip(clip, 0, 1) * 255 + 0.5).astype(np.uint8) for clip in clips]


def check_judge(seed: int) -> list[Figure]:
    """The judge's own accuracy on renders; SystemExit when it is not to be trusted."""
    cases = draw_cases(seed, 0, GROUND_TRUTHS)
    judged = []
    for i, case in enumerate(cases):
        film, _ = render(case.scene, LENGTHS[i % len(LENGTHS)])
        judged.append(Judged(case, film[:1], judge(film)))
    figures = [
        Figure(f"judge on renders: {a}", _share(judged, a), least=LEAST_SURE) for a in JUDGED
    ]
    unsure = [f"{f.name} {f.value:.3f}" for f in figures if not f.reached]
    if unsure:
        raise SystemExit(
            f"The judge fails on ground-truth renders ({', '.join(unsure)}; at least"
            f" {LEAST_SURE} is needed), so nothing it says of the model would count."
            " Mend training/spark/judge.py first."
        )
    return figures


def autoencoder(sample: Sampler, seed: int, count: int, frames: int) -> list[Figure]:
    """Whether renders still show what they show once they were latents.

    No transformer can do better: what the autoencoder loses, it cannot learn. The cases are those
    of `text_to_video`.
    """

    def rendered(cases: Sequence[Case], length: int) -> list[Film]:
        return sample.round_trip([render(case.scene, length)[0] for case in cases])

    judged = _judged(rendered, draw_cases(seed, 1, count), frames, "autoencoder")
    figures = [Figure(f"autoencoder {a}", _share(judged, a)) for a in ("shape", "motion")]
    for size in WORLD["sizes"]:
        own = [j for j in judged if j.case.scene.size == size]
        figures.append(Figure(f"autoencoder shape: {size}", _share(own, "shape")))
    return figures


def text_to_video(
    sample: Sampler, seed: int, count: int, frames: int
) -> tuple[list[Figure], list[Judged]]:
    """Whether clips show what their prompts say."""
    judged = _judged(sample, draw_cases(seed, 1, count), frames, "t2v")
    figures = [
        Figure("t2v background", _share(judged, "background"), least=0.98),
        Figure("t2v colour", _share(judged, "colour"), least=0.95),
        Figure("t2v shape", _share(judged, "shape"), least=0.85),
        Figure("t2v direction of motion", _share(_moving(judged), "motion"), least=0.9),
        Figure("t2v all motions", _share(judged, "motion")),
        Figure("t2v size", _share(judged, "size")),
        Figure("t2v camera", _share(judged, "camera")),
    ]
    for motion in sorted({j.case.scene.motion for j in judged}):
        own = [j for j in judged if j.case.scene.motion == motion]
        figures.append(Figure(f"t2v motion: {motion}", _share(own, "motion")))
    for shape in sorted({j.case.scene.shape for j in judged}):
        own = [j for j in judged if j.case.scene.shape == shape]
        figures.append(Figure(f"t2v shape: {shape}", _share(own, "shape")))
    lost = [j for j in judged if j.verdict.colour is None]
    figures.append(Figure("t2v no object found", len(lost) / max(1, len(judged))))
    return figures, judged


def image_to_video(sample: Sampler, seed: int, count: int, frames: int) -> list[Figure]:
    """Whether the first frame is the given one and the rest follows the prompt."""
    judged, quality = [], []
    for case in _progress(draw_cases(seed, 2, count, DIRECTIONS), "i2v"):
        truth, _ = render(case.scene, frames)
        (film,) = sample([case], frames, [_image(truth[0], 0)])
        judged.append(Judged(case, film, judge(film)))
        quality.append(psnr(film[0], truth[0]))
    return [
        Figure("i2v first frame, mean PSNR", statistics.fmean(quality), "dB", least=28),
        Figure("i2v first frame, worst PSNR", min(quality), "dB"),
        Figure("i2v direction of motion", _share(judged, "motion")),
        Figure("i2v shape", _share(judged, "shape")),
    ]


def first_and_last(sample: Sampler, seed: int, count: int, frames: int) -> list[Figure]:
    """Whether a clip starts and ends with the given frames."""
    first, last = [], []
    for case in _progress(draw_cases(seed, 3, count), "flf2v"):
        truth, _ = render(case.scene, frames)
        given = [_image(truth[0], 0), _image(truth[-1], frames - 1)]
        (film,) = sample([case], frames, given)
        first.append(psnr(film[0], truth[0]))
        last.append(psnr(film[-1], truth[-1]))
    return [
        Figure("flf2v last frame, mean PSNR", statistics.fmean(last), "dB", least=26),
        Figure("flf2v last frame, worst PSNR", min(last), "dB"),
        Figure("flf2v first frame, mean PSNR", statistics.fmean(first), "dB"),
    ]


def extension(sample: Sampler, seed: int, count: int, frames: int) -> list[Figure]:
    """Whether a given beginning is kept and goes on without a jump."""
    kept, jumps = [], []
    for case in _progress(draw_cases(seed, 4, count, DIRECTIONS), "extend"):
        truth, _ = render(case.scene, frames)
        given = LTXVideoCondition(
            video=[Image.fromarray(f) for f in truth[:CONTEXT]], frame_index=0
        )
        (film,) = sample([case], frames, [given])
        kept.append(psnr(film[:CONTEXT], truth[:CONTEXT]))
        changes = np.abs(np.diff(film.astype(np.float32), axis=0)).mean((1, 2, 3))
        jumps.append(
            float(changes[CONTEXT - 1] / max(1e-6, np.delete(changes, CONTEXT - 1).mean()))
        )
    return [
        Figure("extend context, mean PSNR", statistics.fmean(kept), "dB"),
        Figure("extend seam over mean frame change", statistics.fmean(jumps), "times"),
    ]


def long_clips(sample: Sampler, seed: int, count: int) -> list[Figure]:
    """Whether clips of 49 frames still hold together."""
    judged = _judged(sample, draw_cases(seed, 5, count, DIRECTIONS), LONG, f"{LONG} frames")
    steady = []
    for j in judged:
        halves = [judge(j.film[: LONG // 2]), judge(j.film[LONG // 2 :])]
        looks = {(half.colour, half.shape) for half in halves}
        steady.append(len(looks) == 1 and None not in looks.pop())
    truths = [render(j.case.scene, LONG)[0] for j in judged]
    return [
        Figure(f"{LONG} frames: background", _share(judged, "background")),
        Figure(f"{LONG} frames: colour", _share(judged, "colour")),
        Figure(f"{LONG} frames: shape", _share(judged, "shape")),
        Figure(f"{LONG} frames: direction of motion", _share(judged, "motion")),
        Figure(f"{LONG} frames: same object in both halves", float(np.mean(steady))),
        Figure(
            f"{LONG} frames: object seen in frames",
            float(np.mean([np.isfinite(j.verdict.track.radii).mean() for j in judged])),
        ),
        Figure(f"{LONG} frames: frozen", float(np.mean([_frozen(j.film) for j in judged]))),
        Figure(
            f"{LONG} frames: flicker", float(np.mean([_flicker(j.film) for j in judged])), "levels"
        ),
        Figure(
            f"{LONG} frames: flicker of renders",
            float(np.mean([_flicker(t) for t in truths])),
            "levels",
        ),
    ]


def speed(sample: Sampler, seed: int) -> list[Figure]:
    """Seconds for one clip of 25 frames, prompt to pixels, once warm."""
    cases = draw_cases(seed, 6, TIMED_RUNS + 1)
    sample(cases[:1], TIMED_FRAMES)
    seconds = []
    for case in _progress(cases[1:], "speed"):
        start = time.perf_counter()
        sample([case], TIMED_FRAMES)
        seconds.append(time.perf_counter() - start)
    return [Figure(f"{TIMED_FRAMES} frames, median time", statistics.median(seconds), "s", most=10)]


def psnr(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Peak signal-to-noise ratio of two uint8 arrays in dB, at most 100."""
    error = float(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2))
    return min(100.0, 10 * float(np.log10(255**2 / max(error, 1e-12))))


def _judged(
    make: Callable[[Sequence[Case], int], list[Film]],
    cases: Sequence[Case],
    frames: int,
    label: str,
) -> list[Judged]:
    judged: list[Judged] = []
    batches = [cases[i : i + BATCH] for i in range(0, len(cases), BATCH)]
    for batch in _progress(batches, label):
        for case, film in zip(batch, make(batch, frames), strict=True):
            judged.append(Judged(case, film, judge(film)))
    return judged


def _progress(items: Sequence[_T], label: str) -> Iterator[_T]:
    start = time.monotonic()
    for i, item in enumerate(items, 1):
        yield item
        print(f"{label}: {i}/{len(items)}, {time.monotonic() - start:.0f} s", flush=True)


def _image(frame: Film, index: int) -> LTXVideoCondition:
    return LTXVideoCondition(image=Image.fromarray(frame), frame_index=index)


def _share(judged: Sequence[Judged], attribute: str) -> float:
    """Share of clips with that attribute right; NaN when there are none to count."""
    return sum(j.right(attribute) for j in judged) / len(judged) if judged else math.nan


def _moving(judged: Sequence[Judged]) -> list[Judged]:
    return [j for j in judged if j.case.scene.motion in DIRECTIONS]


def _frozen(film: Film) -> float:
    """Share of frames that hardly differ from the one before, by a tenth of a level on average."""
    return float((np.abs(np.diff(film.astype(np.float32), axis=0)).mean((1, 2, 3)) < 0.1).mean())


def _flicker(film: Film) -> float:
    """Mean bend of the brightness over time in levels of 255: a steady change has none."""
    return float(np.abs(np.diff(film.astype(np.float32).mean((1, 2, 3)), 2)).mean())


# --- the report -----------------------------------------------------------------------------


def table(figures: Sequence[Figure]) -> str:
    """The figures beside their targets, one a line."""
    lines = [f"{'':44} {'reached':>10}   {'target':<12}"]
    for f in figures:
        mark = {True: "yes", False: "NO", None: ""}[f.reached]
        lines.append(f"{f.name:44} {f.value:10.3f} {f.unit:7} {f.target:<12} {mark}".rstrip())
    return "\n".join(lines)


def digest(folder: Path) -> str:
    """SHA-256 over names and contents of the folder's weights."""
    total = hashlib.sha256()
    for file in sorted(folder.rglob("*.safetensors")):
        total.update(file.relative_to(folder).as_posix().encode() + b"\0")
        total.update(hashlib.sha256(file.read_bytes()).digest())
    return f"sha256:{total.hexdigest()}"


def machine(device: str) -> dict[str, Any]:
    """Where the figures were made; timings mean nothing without it."""
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
    }


def sheet(judged: Sequence[Judged], clips: int = 8, columns: int = 4) -> Image.Image:
    """A contact sheet: a clip a row, its prompt above it."""
    font = ImageFont.load_default()
    bar, shown = 18, judged[:clips]
    picture = Image.new("RGB", (columns * WIDTH, len(shown) * (HEIGHT + bar)), "white")
    draw = ImageDraw.Draw(picture)
    for row, j in enumerate(shown):
        top = row * (HEIGHT + bar)
        draw.text((4, top + 3), j.case.prompt, fill="black", font=font)
        for column, t in enumerate(np.linspace(0, len(j.film) - 1, columns).round().astype(int)):
            picture.paste(Image.fromarray(j.film[t]), (column * WIDTH, top + bar))
    return picture


def main() -> None:
    card = yaml.safe_load(CARD.read_text(encoding="utf-8"))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=TARGET, help="folder of the exported model")
    parser.add_argument("--prompts", type=int, default=200, help="the other tasks get a tenth each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=card["steps"]["default"])
    parser.add_argument("--guidance", type=float, default=card["guidance"]["default"])
    parser.add_argument("--frames", type=int, default=25)
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--sheet", type=Path, help="PNG for a contact sheet")
    args = parser.parse_args()
    few = max(1, round(args.prompts / 10))
    cv2.setNumThreads(1)  # the pictures are small: more threads only get into torch's way

    print(f"judging {GROUND_TRUTHS} renders", flush=True)
    figures = check_judge(args.seed)
    sample = Sampler(args.model, args.steps, args.guidance)
    figures += autoencoder(sample, args.seed, args.prompts, args.frames)
    shown, judged = text_to_video(sample, args.seed, args.prompts, args.frames)
    figures += shown
    if args.sheet:
        sheet(judged).save(args.sheet)
    figures += image_to_video(sample, args.seed, few, args.frames)
    figures += first_and_last(sample, args.seed, few, args.frames)
    figures += extension(sample, args.seed, few, args.frames)
    figures += long_clips(sample, args.seed, few)
    figures += speed(sample, args.seed)
    where = machine(sample.device)
    print(
        f"\n{args.prompts} prompts, {args.frames} frames, {args.steps} steps, guidance"
        f" {args.guidance:g}, seed {args.seed}; {where['device']}, {where['cores']} cores,"
        f" {where['torch_threads']} torch threads\n\n{table(figures)}"
    )
    if args.json:
        report = {
            "date": datetime.now(UTC).date().isoformat(),
            "weights": digest(args.model),
            "machine": where,
            "settings": {k: getattr(args, k) for k in _SETTINGS},
            "figures": {f.name: _plain(f) for f in figures},
        }
        args.json.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", "utf-8")


_SETTINGS = ("prompts", "seed", "steps", "guidance", "frames")


def _plain(figure: Figure) -> dict[str, Any]:
    """A figure for JSON, which has no NaN."""
    value = None if math.isnan(figure.value) else round(figure.value, 4)
    return {
        "value": value,
        "unit": figure.unit,
        "target": figure.target,
        "reached": figure.reached,
    }


if __name__ == "__main__":
    main()
