"""What does each number of a plan become, between the wish and what the model can do?

Each function settles one thing: the wish if the model allows it, else the nearest thing that it can
do, which is noted as an adjustment; without a wish, the model's default, with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from kinoloom.catalog.card import FpsRule, FrameRule, ModelCard
from kinoloom.errors import InvalidMedia, InvalidRequest, Problem
from kinoloom.planner.inputs import Inputs, VideoInput
from kinoloom.planner.plan import Adjustment
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
from kinoloom.request import Task, VideoRequest

_VISIBLE_CUT = 0.01


@dataclass
class Notes:
    """What planning has to tell, as it comes up."""

    adjustments: list[Adjustment] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    def adjust(
        self, name: str, asked: int | float | str, used: int | float | str | None, why: str
    ) -> None:
        self.adjustments.append(Adjustment(field=name, asked=asked, used=used, why=why))


def settle_fps(request: VideoRequest, card: ModelCard, found: Inputs, notes: Notes) -> float:
    """Frames a second, and a warning where a given video has another rate."""
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


def settle_size(
    request: VideoRequest, card: ModelCard, found: Inputs, notes: Notes
) -> tuple[int, int]:
    """Width and height; what is cut off the given pictures is noted."""
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
    for name, media in found.files.items():
        if name.startswith("references"):
            continue  # a model looks at them at their own size
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


def settle_context(task: Task, card: ModelCard, found: Inputs, notes: Notes) -> int:
    """How many frames of the given video the model is shown; 0 where there is none."""
    if task != "extend" or card.extend is None or found.video is None:
        return 0
    wanted = card.extend.context_frames
    try:
        context = context_for(found.video.frames, wanted, card.frame_rule(task))
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


def settle_frames(
    request: VideoRequest,
    card: ModelCard,
    fps: float,
    context: int,
    found: Inputs,
    notes: Notes,
) -> int:
    """The clip's frames. Raises InvalidMedia when the given media do not reach that far."""
    rule = card.frame_rule(request.task)
    needed = _frames_needed(request.task, rule, context)
    why = f"{card.title} makes {_frame_rule(rule)} frames"
    lowest = smallest_frames(rule, needed)
    if lowest > rule.minimum:
        why += f", and {TASK_WORDS[request.task]} needs at least {lowest}"
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
    elif request.task == "inpaint" and found.video is not None:
        frames = snap_frames(found.video.frames, rule, needed)
        if frames > found.video.frames:  # there is nothing to keep beyond the video's end
            frames = max(smallest_frames(rule, needed), frames - rule.multiple)
        if frames != found.video.frames:
            notes.adjust("frames", found.video.frames, frames, f"the given video's, but {why}")
        else:
            notes.reasons.append(f"{frames} frames: those of the given video")
    else:
        frames = snap_frames(rule.default, rule, needed)
        notes.reasons.append(f"{frames} frames: the model's default")
    _check_lengths(request.task, frames, found)
    return frames


def _check_lengths(task: Task, frames: int, found: Inputs) -> None:
    """The given media must reach as far as the clip. Raises InvalidRequest or InvalidMedia."""
    late = [k.index for k in found.keyframes if k.index >= frames]
    if late:
        allowed = f"frames from 0 to {frames - 1}, since the clip has {frames}"
        raise InvalidRequest([Problem("keyframes", n, allowed, frames - 1) for n in late])
    for name in ("video", "mask") if task == "inpaint" else ():
        media = getattr(found, name)
        if isinstance(media, VideoInput) and media.frames < frames:
            raise InvalidMedia(
                f"{media.path} is too short.",
                cause=f"The clip has {frames} frames, the {name} has {media.frames}.",
                hints=("Ask for fewer frames: --frames.", f"Or give a longer {name}."),
            )


def _frames_needed(task: Task, rule: FrameRule, context: int) -> int:
    """The fewest frames that make sense for a task: something must move, or be added."""
    if task in ("i2v", "flf2v"):
        return 2
    return context + 1 if task == "extend" else rule.minimum


def settle_guidance(request: VideoRequest, card: ModelCard, notes: Notes) -> float:
    """The guidance scale."""
    if request.guidance is None:
        return card.guidance.default
    if card.guidance.maximum == 0:
        notes.adjust("guidance", request.guidance, None, f"{card.title} lets nobody choose it")
        return 0.0
    guidance = snap_guidance(request.guidance, card.guidance)
    if guidance != request.guidance:
        rule = card.guidance
        why = f"{card.title} takes {rule.minimum:g} to {rule.maximum:g}"
        notes.adjust("guidance", request.guidance, guidance, why)
    return guidance


def settle_negative(request: VideoRequest, card: ModelCard, guidance: float, notes: Notes) -> str:
    """The negative prompt; empty where it could have no effect."""
    if not request.negative:
        return ""
    if not card.negative:
        why = f"{card.title} has no negative prompt"
        notes.adjust("negative", request.negative, None, why)
        return ""
    if guidance <= 1 and card.guidance.maximum > 0:
        why = "a negative prompt works through guidance, which is off at 1 and below"
        notes.adjust("negative", request.negative, None, why)
        return ""
    return request.negative


def settle_audio(request: VideoRequest, card: ModelCard, notes: Notes) -> bool:
    """Whether the clip is asked for with sound; without a wish, where there is a choice, not."""
    rule = card.remote.audio if card.remote is not None else "always" if card.audio else "never"
    if rule == "optional":
        return bool(request.audio)
    audio = rule == "always"
    if request.audio not in (None, audio):
        why = f"{card.title} {'always' if audio else 'never'} makes sound"
        notes.adjust("audio", str(request.audio).lower(), str(audio).lower(), why)
    return audio


def check_prompt(request: VideoRequest, card: ModelCard) -> None:
    """Raise InvalidRequest for a prompt that is longer than a service takes."""
    limit = card.remote.prompt_limit if card.remote is not None else None
    length = len(request.prompt.encode("utf-16-le")) // 2
    if limit is not None and length > limit:
        allowed = f"at most {limit} characters with {card.title}; this has {length}"
        raise InvalidRequest([Problem("prompt", request.prompt, allowed)])


TASK_WORDS: dict[Task, str] = {
    "t2v": "text to video",
    "i2v": "image to video",
    "flf2v": "first and last frame to video",
    "extend": "continuing a video",
    "inpaint": "inpainting a video",
    "r2v": "reference images to video",
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
