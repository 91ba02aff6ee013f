"""How does a request become a plan?

`plan` settles one thing after another: model, backend, inputs, frame rate, size, length, steps,
guidance, words, seed. Where the model cannot do what was asked, the nearest thing that it can do
is planned and said; only what has no sensible nearest value is refused.
"""

from __future__ import annotations

import datetime
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from kinoloom.catalog.card import FpsRule, FrameRule, ModelCard
from kinoloom.catalog.loader import Catalog
from kinoloom.errors import InvalidMedia, InvalidRequest, Problem
from kinoloom.planner.complexity import complexity
from kinoloom.planner.estimate import Measurements, estimate
from kinoloom.planner.inputs import Inputs, probe_inputs
from kinoloom.planner.key import plan_key
from kinoloom.planner.plan import Adjustment, Plan
from kinoloom.planner.snap import (
    context_for,
    cut_away,
    frames_for,
    size_by_shape,
    smallest_frames,
    snap_fps,
    snap_frames,
    snap_guidance,
    snap_size,
)
from kinoloom.planner.steps import choose_steps
from kinoloom.planner.vocabulary import vocabulary_warnings
from kinoloom.request import Task, VideoRequest

_NOTICE_BEFORE_RETIREMENT = datetime.timedelta(days=60)
_VISIBLE_CUT = 0.01


def draw_seed() -> int:
    """A seed for a request that names none: short enough to be typed again."""
    return secrets.randbelow(2**31)


def plan(
    request: VideoRequest,
    *,
    catalog: Catalog,
    default_model: str,
    device: str,
    measurements: Measurements | None = None,
    inputs: Inputs | None = None,
    rng: Callable[[], int] = draw_seed,
    today: datetime.date | None = None,
) -> Plan:
    """What exactly will run for a request.

    `default_model` is used when the request names none. `device` is where it will run, as its
    measurements are recorded. `inputs` are probed here unless they are given. `rng` draws a seed
    when the request has none.

    Raises ModelNotFound for an unknown model, InvalidRequest for a backend or a task that the
    model has not, InvalidMedia for inputs that cannot be used.
    """
    notes = _Notes()
    card = _choose_model(request, catalog, default_model, notes)
    backend = _choose_backend(request, card, notes)
    _check_dates_and_places(card, today or datetime.date.today(), notes)
    found = inputs if inputs is not None else probe_inputs(request)

    fps = _settle_fps(request, card, found, notes)
    size = _settle_size(request, card, found, notes)
    context = _settle_context(request.task, card, found, notes)
    frames = _settle_frames(request, card, fps, context, notes)
    if context:
        notes.reasons.append(
            f"{frames} frames: the last {context} of the given video, which the clip begins with,"
            f" and {frames - context} new ones"
        )

    difficulty = complexity(request.prompt)
    choice = choose_steps(request.steps, request.tier, card.steps, difficulty)
    if choice.changed:
        notes.adjust("steps", request.steps or 0, choice.steps, choice.why)
    else:
        notes.reasons.append(choice.why)
    guidance = _settle_guidance(request, card, notes)
    negative = _settle_negative(request, card, guidance, notes)
    notes.warnings.extend(vocabulary_warnings(request.prompt, negative, card))

    if request.seed is None:
        seed = rng()
        notes.reasons.append(f"seed {seed}: drawn, as none was given")
    else:
        seed = request.seed

    return Plan(
        request=request,
        task=request.task,
        model=card.id,
        backend=backend,
        device=device,
        prompt=request.prompt,
        negative=negative,
        width=size[0],
        height=size[1],
        frames=frames,
        context_frames=context,
        fps=fps,
        steps=choice.steps,
        guidance=guidance,
        seed=seed,
        tier=request.tier,
        complexity=difficulty,
        inputs=found,
        estimate=estimate(
            card,
            device=device,
            size=size,
            frames=frames,
            steps=choice.steps,
            guidance=guidance,
            measurements=measurements,
        ),
        weights_bytes=card.memory.total if card.memory is not None else None,
        adjustments=tuple(notes.adjustments),
        warnings=tuple(notes.warnings),
        reasons=tuple(notes.reasons),
        key=plan_key(
            card,
            task=request.task,
            prompt=request.prompt,
            negative=negative,
            size=size,
            frames=frames,
            context_frames=context,
            fps=fps,
            steps=choice.steps,
            guidance=guidance,
            seed=seed,
            inputs=found,
        ),
    )


@dataclass
class _Notes:
    """What planning has to tell, as it comes up."""

    adjustments: list[Adjustment] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    def adjust(
        self, name: str, asked: int | float | str, used: int | float | str | None, why: str
    ) -> None:
        self.adjustments.append(Adjustment(field=name, asked=asked, used=used, why=why))


def _choose_model(
    request: VideoRequest, catalog: Catalog, default_model: str, notes: _Notes
) -> ModelCard:
    card = catalog.get(request.model or default_model)
    task = request.task
    if task not in card.pipelines:
        able = [c.id for c in catalog.doing(task)]
        allowed = f"a model that can do {_TASK_WORDS[task]}: {', '.join(able) or 'none is known'}"
        raise InvalidRequest(
            [Problem("model", card.id, allowed, able[0] if able else None)],
            message=f"{card.title} cannot do {_TASK_WORDS[task]}.",
            hints=[f"It can do: {', '.join(_TASK_WORDS[t] for t in card.tasks)}."],
        )
    how = "as asked" if request.model else "the default model"
    notes.reasons.append(f"model {card.id}: {how}; it can do {_TASK_WORDS[task]}")
    return card


def _choose_backend(request: VideoRequest, card: ModelCard, notes: _Notes) -> str:
    if request.backend is not None and request.backend != card.backend:
        allowed = f"the backend that runs {card.id}: {card.backend}"
        raise InvalidRequest([Problem("backend", request.backend, allowed, card.backend)])
    how = "as asked" if request.backend else "the one that runs this model"
    notes.reasons.append(f"backend {card.backend}: {how}")
    return card.backend


def _check_dates_and_places(card: ModelCard, today: datetime.date, notes: _Notes) -> None:
    if card.retirement is not None:
        if card.retirement <= today:
            notes.warnings.append(f"{card.title} was retired on {card.retirement.isoformat()}.")
        elif card.retirement - today <= _NOTICE_BEFORE_RETIREMENT:
            notes.warnings.append(f"{card.title} will be retired on {card.retirement.isoformat()}.")
    if card.licence.territory != "worldwide":
        notes.warnings.append(
            f"The licence of {card.title} ({card.licence.id}) is limited by territory:"
            f" {card.licence.territory}."
        )


def _settle_fps(request: VideoRequest, card: ModelCard, found: Inputs, notes: _Notes) -> float:
    fps = card.fps.default
    if request.fps is not None:
        fps = snap_fps(request.fps, card.fps)
        if fps != request.fps:
            notes.adjust(
                "fps", request.fps, fps, f"{card.title} makes {_fps_rule(card.fps)} a second"
            )
    elif found.video is not None:
        fps = snap_fps(found.video.fps, card.fps)
        if fps == found.video.fps:
            notes.reasons.append(f"{fps:g} frames a second: as in the given video")
    # A file's rate is rarely exact (29.97); a hundredth of it nobody sees.
    if found.video is not None and abs(found.video.fps - fps) > 0.01 * fps:
        notes.warnings.append(
            f"The given video has {found.video.fps:g} frames a second and the clip {fps:g}: its"
            f" frames are used as they are, so it will move at {fps / found.video.fps:.0%} of"
            " its speed."
        )
    return fps


def _settle_size(
    request: VideoRequest, card: ModelCard, found: Inputs, notes: _Notes
) -> tuple[int, int]:
    rule = card.sizes
    if request.size is not None:
        size = snap_size(request.size, rule)
        if size != request.size:
            notes.adjust("size", _by(request.size), _by(size), f"{card.title} makes {_sizes(card)}")
    elif found.shape is not None and len(rule.native) > 1:
        size = size_by_shape(found.shape, rule)
        notes.reasons.append(
            f"size {_by(size)}: nearest in shape to the given {_by(found.shape)} of those that"
            " the model was trained on"
        )
    else:
        size = rule.default
        notes.reasons.append(f"size {_by(size)}: the model's default")
    for name in ("image", "last_image", "video"):
        media = getattr(found, name)
        if media is None:
            continue
        picture = (media.width, media.height)
        cut = cut_away(picture, size)
        if cut > _VISIBLE_CUT:
            wider = picture[0] * size[1] > picture[1] * size[0]
            sides = "left and right" if wider else "top and bottom"
            notes.adjust(
                name,
                _by(picture),
                _by(size),
                f"another shape than the clip's: scaled to cover it, {cut:.0%} cut off {sides}",
            )
    return size


def _settle_context(task: Task, card: ModelCard, found: Inputs, notes: _Notes) -> int:
    """How many frames of the given video the model is shown; 0 where there is none."""
    if task != "extend" or card.extend is None or found.video is None:
        return 0
    wanted = card.extend.context_frames
    try:
        context = context_for(found.video.frames, wanted, card.frames)
    except ValueError as error:
        raise InvalidMedia(
            f"{found.video.path} is too short to be continued.",
            cause=f"It has {found.video.frames} frames; {error}.",
            hints=("Give a longer video, or a picture instead: --image.",),
        ) from error
    if context < wanted:
        notes.warnings.append(
            f"The given video has only {found.video.frames} frames: the model sees {context} of"
            f" the {wanted} that tell it how things move."
        )
    return context


def _settle_frames(
    request: VideoRequest, card: ModelCard, fps: float, context: int, notes: _Notes
) -> int:
    rule = card.frames
    needed = _frames_needed(request.task, rule, context)
    why = f"{card.title} makes {_frame_rule(rule)} frames"
    lowest = smallest_frames(rule, needed)
    if lowest > rule.minimum:
        why += f", and {_TASK_WORDS[request.task]} needs at least {lowest}"
    if request.frames is not None:
        frames = snap_frames(request.frames, rule, needed)
        if frames != request.frames:
            notes.adjust("frames", request.frames, frames, why)
    elif request.duration is not None:
        wanted = frames_for(request.duration, fps)
        frames = snap_frames(wanted, rule, needed)
        if frames != wanted:
            used = round(frames / fps, 3)
            why = f"{wanted} frames at {fps:g} a second would fit; {why}: {frames} it is"
            notes.adjust("duration", request.duration, used, why)
        else:
            notes.reasons.append(f"{frames} frames: {request.duration:g} s at {fps:g} a second")
    else:
        frames = snap_frames(rule.default, rule, needed)
        notes.reasons.append(f"{frames} frames: the model's default")
    return frames


def _frames_needed(task: Task, rule: FrameRule, context: int) -> int:
    """The fewest frames that make sense for a task: something must move, or be added."""
    return {"t2v": rule.minimum, "i2v": 2, "flf2v": 2, "extend": context + 1}[task]


def _settle_guidance(request: VideoRequest, card: ModelCard, notes: _Notes) -> float:
    if request.guidance is None:
        return card.guidance.default
    guidance = snap_guidance(request.guidance, card.guidance)
    if guidance != request.guidance:
        rule = card.guidance
        why = f"{card.title} takes {rule.minimum:g} to {rule.maximum:g}"
        notes.adjust("guidance", request.guidance, guidance, why)
    return guidance


def _settle_negative(request: VideoRequest, card: ModelCard, guidance: float, notes: _Notes) -> str:
    if not request.negative:
        return ""
    if not card.negative:
        why = f"{card.title} has no negative prompt"
        notes.adjust("negative", request.negative, None, why)
        return ""
    if guidance <= 1:
        why = "a negative prompt works through guidance, which is off at 1 and below"
        notes.adjust("negative", request.negative, None, why)
        return ""
    return request.negative


_TASK_WORDS: dict[Task, str] = {
    "t2v": "text to video",
    "i2v": "image to video",
    "flf2v": "first and last frame to video",
    "extend": "continuing a video",
}


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _sizes(card: ModelCard) -> str:
    rule = card.sizes
    if rule.only_native:
        native = [_by(s) for s in rule.native]
        return f"only {native[0]}" if len(native) == 1 else "only " + ", ".join(native)
    return f"sides of {rule.minimum} to {rule.maximum} in multiples of {rule.multiple_of}"


def _frame_rule(rule: FrameRule) -> str:
    if rule.minimum == rule.maximum:
        return f"{rule.minimum}"
    if rule.multiple == 1:
        return f"{rule.minimum} to {rule.maximum}"
    form = f"{rule.multiple}n+{rule.offset}" if rule.offset else f"multiples of {rule.multiple},"
    return f"{form} from {rule.minimum} to {rule.maximum}"


def _fps_rule(rule: FpsRule) -> str:
    low, high = rule.minimum, rule.maximum
    return f"{low:g} frames" if low == high else f"{low:g} to {high:g} frames"
