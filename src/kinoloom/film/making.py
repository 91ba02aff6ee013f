"""How is each shot made: by which model, from which pictures, in how many clips?

Nothing is rendered or looked up here but model cards and plans. What comes out says for every
segment what will be asked for, so that planning a film and rendering it cannot differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

from kinoloom.catalog.card import ModelCard
from kinoloom.errors import InvalidRequest, KinoloomError, Problem
from kinoloom.film.board import Storyboard
from kinoloom.film.segments import Segment, segments_of
from kinoloom.film.shots import Shot, shots_of
from kinoloom.media.rates import exact_rate
from kinoloom.planner.inputs import ImageInput, Inputs, VideoInput
from kinoloom.planner.plan import Plan
from kinoloom.request import Task, VideoRequest
from kinoloom.request_checks import MAX_SEED

Planner = Callable[[VideoRequest, Inputs | None], Plan]
"""Makes the plan of a request; with inputs, its media are not read. Raises KinoloomError."""
Cards = Callable[[str], ModelCard]
"""Finds a model by its id. Raises NotFound."""

Source = Literal["none", "given", "made", "before"]
"""Where a picture comes from: the user's file, one made for the film, the last frame before it."""

_PENDING = Path("not-made-yet")
_MOST_TIMES = 4
"""By how much more than a shot's frames is tried; only clips shorter than a frame take as much."""


@dataclass(frozen=True)
class Way:
    """How one shot is made.

    `start` and `end` say where its first and its last picture come from. `tasks` are those of its
    `segments`. `size` is in pixels, `rate` frames a second of what the model makes. `maker` is the
    model that makes the picture at its beginning, where the film may need one. `warnings` say what
    the model cannot.
    """

    shot: Shot
    card: ModelCard
    size: tuple[int, int]
    rate: float
    start: Source
    end: Source
    segments: tuple[Segment, ...]
    tasks: tuple[Task, ...]
    maker: ModelCard | None = None
    warnings: tuple[str, ...] = ()

    @property
    def goes_on(self) -> bool:
        """Whether it begins with the last frame of the shot before."""
        return self.start == "before"

    def context(self, number: int) -> int:
        """How many frames the segment of that number is shown of what is before it.

        They are those that the film has already, and are not shown again; 0 or 1 where it begins
        with nothing or a picture.
        """
        task = self.tasks[number]
        return self.segments[number].skip if task == "extend" else int(task in ("i2v", "flf2v"))

    def ending(self, number: int) -> int:
        """How many frames in a row the film shows at the end of the segment of that number."""
        return _runs(self.segments[number].taken)[-1][1]

    def kept(self, number: int) -> int:
        """How many of them its own model would go on from: what an edit may ask for later."""
        return next(_contexts(self.card, self.ending(number)), 1)

    def request(
        self,
        number: int,
        *,
        seed: int,
        prompt: str,
        start: Path | None,
        end: Path | None = None,
        unknown_price: bool = False,
    ) -> VideoRequest:
        """What is asked for as the segment of that number, of a take with a seed and words.

        `start` is what the segment begins with, a picture or the video of its context, and `end`
        the picture that the shot ends with; a task that takes none leaves them out. Raises
        InvalidRequest.
        """
        shot, task = self.shot, self.tasks[number]
        takes = self.card.pipelines[task].inputs
        return VideoRequest.checked(
            prompt=prompt,
            negative=shot.negative if self.card.negative else None,
            model=self.card.id,
            backend=self.card.backend,
            tier=shot.tier,
            size=self.size,
            frames=self.segments[number].asked,
            fps=self.rate,
            steps=shot.steps,
            guidance=shot.guidance,
            seed=(seed + number) % (MAX_SEED + 1),
            image=start if task in ("i2v", "flf2v") else None,
            video=start if task == "extend" else None,
            last_image=end if task == "flf2v" else None,
            references=shot.references if "references" in takes else (),
            candidates=shot.candidates,
            fallback=shot.on_failure == "fallback",
            max_cost=shot.max_cost if shot.on_failure == "fallback" else None,
            unknown_price=unknown_price,
        )

    def still(self, *, seed: int, prompt: str, unknown_price: bool = False) -> VideoRequest:
        """What is asked for as the picture that the shot begins with. Raises InvalidRequest."""
        assert self.maker is not None  # only of a picture that is made
        task = _still_task(self.maker, self.shot)
        return VideoRequest.checked(
            prompt=prompt,
            negative=self.shot.negative if self.maker.negative else None,
            model=self.maker.id,
            backend=self.maker.backend,
            tier=self.shot.tier,
            size=self.size,
            frames=1,
            seed=seed,
            references=self.shot.references if task == "r2v" else (),
            fallback=self.shot.on_failure == "fallback",
            max_cost=self.shot.max_cost if self.shot.on_failure == "fallback" else None,
            unknown_price=unknown_price,
        )

    def pending(self, number: int) -> Inputs:
        """Inputs in the place of what is not there yet: right in all but content."""
        task = self.tasks[number]
        picture = _placeholder(self.size)
        frames = self.context(number)
        video = VideoInput(**picture.model_dump(), frames=frames, fps=self.rate)
        return Inputs(
            image=picture if task in ("i2v", "flf2v") else None,
            video=video if task == "extend" else None,
            last_image=picture if task == "flf2v" else None,
            references=tuple(
                picture
                for _ in self.shot.references
                if "references" in self.card.pipelines[task].inputs
            ),
        )

    def shown(self) -> tuple[tuple[tuple[int, int], ...], ...]:
        """The runs of frames that the film shows of each segment, as (first, how many).

        They are counted at the film's rate, and add up to the shot's frames.
        """
        scale = exact_rate(self.shot.fps) / exact_rate(self.rate)
        if scale == 1:
            return tuple(_runs(segment.taken) for segment in self.segments)
        left, found = self.shot.frames, []
        for segment in self.segments:
            first, here = _part(segment, scale)
            here = min(here, left)
            found.append(((first, here),) if here > 0 else ())
            left -= here
        return tuple(found)


def ways_of(board: Storyboard, plan: Planner, cards: Cards) -> tuple[Way, ...]:
    """How each shot of a checked storyboard is made. Raises KinoloomError.

    A film of no size of its own has that of its first shot.
    """
    shots = shots_of(board)
    ways: list[Way] = []
    size = board.size
    known: dict[tuple[str, Task, tuple[int, int] | None], Plan] = {}

    def sized(shot: Shot, card: ModelCard, task: Task) -> Plan:
        """Asked once for each model, however many shots it makes."""
        place = card.id, task, size
        if place not in known:
            known[place] = _sized(shot, card, size, task, plan)
        return known[place]

    models = [_card(shot, size, board, plan, cards) for shot in shots]
    makers = [_maker(board, shot, card, cards) for shot, card in zip(shots, models, strict=True)]
    for index in range(len(shots)):
        ways.append(_way(board, shots, index, models, makers, sized, ways[-1] if ways else None))
        size = ways[0].size
    return tuple(ways)


def _way(
    board: Storyboard,
    shots: Sequence[Shot],
    index: int,
    models: Sequence[ModelCard],
    makers: Sequence[ModelCard | None],
    sized: Callable[[Shot, ModelCard, Task], Plan],
    before: Way | None,
) -> Way:
    shot, card = shots[index], models[index]
    warnings: list[str] = []
    start, end = _pictures(board, shots, index, makers)
    if start != "none" and not {"i2v", "flf2v"} & set(card.tasks):
        warnings.append(f"{card.title} starts from no picture: the shot is made from words alone.")
        start, end = "none", "none"
    elif start != "none" and end == "none" and "i2v" not in card.tasks:
        warnings.append(f"{card.title} needs a last picture too: the shot is made from words.")
        start = "none"
    if end != "none" and (start == "none" or "flf2v" not in card.tasks):
        warnings.append(f"{card.title} is not held to a last picture: the shot ends as it likes.")
        end = "none"
    first = _task(card, shot, start, end)
    asked = sized(shot, card, first)
    if asked.fps != shot.fps:
        warnings.append(
            f"{card.title} makes {asked.fps:g} frames a second: they are repeated or left out to"
            f" make the film's {shot.fps:g}."
        )
    lead = 1 if index and start != "none" and _joined(board, shots, index, start) else 0
    if lead and start == "before" and first == "i2v" and before and before.rate == asked.fps:
        lead = next(_contexts(card, before.ending(-1)), 1)
        first = "extend" if lead > 1 else first
    opening = _task(card, shot, start, "none") if first == "flf2v" else first
    fixed = end != "none" and asked.fps == shot.fps
    scale = exact_rate(shot.fps) / exact_rate(asked.fps)

    def laid(needed: int) -> tuple[tuple[Segment, ...], tuple[Task, ...]]:
        rule = card.frame_rule(first)
        if needed + lead <= rule.maximum:
            return segments_of(needed, rule, lead=lead, fixed_end=fixed), (first,)
        if "i2v" in card.tasks:
            return _several(card, needed, lead, opening, end != "none", fixed)
        segments = segments_of(needed, rule, shared=0, lead=lead, fixed_end=fixed)
        return segments, (first,) * len(segments)

    needed = math.ceil(shot.frames / scale)
    # Where the rates differ, what is rounded at the joins can take a few frames more.
    for more in range(_MOST_TIMES * needed):
        segments, tasks = laid(needed + more)
        if scale == 1 or _left(shot, segments, scale) <= 0:
            break
    else:
        allowed = f"a rate nearer to the {asked.fps:g} frames a second of {card.title}"
        raise InvalidRequest([Problem("fps", shot.fps, allowed)])
    if len(segments) > 1 and "i2v" not in card.tasks:
        warnings.append(
            f"{card.title} cannot go on from a frame: the shot has {len(segments)} parts that do"
            " not join."
        )
    return Way(
        shot=shot,
        card=card,
        size=asked.size,
        rate=asked.fps,
        start=start,
        end=end,
        segments=segments,
        tasks=tasks,
        maker=makers[index] if shot.start is None else None,
        warnings=tuple(warnings),
    )


def _part(segment: Segment, scale: Fraction) -> tuple[int, int]:
    """Where a segment begins to be shown at the film's rate, and how many frames it has from there.

    `scale` is that rate over the segment's own.
    """
    skip = round(segment.skip * scale)
    return skip, math.floor(segment.asked * scale) - skip


def _left(shot: Shot, segments: Sequence[Segment], scale: Fraction) -> int:
    """How many frames of a shot its segments lack, at the film's rate."""
    return shot.frames - sum(_part(segment, scale)[1] for segment in segments)


def _several(
    card: ModelCard, needed: int, lead: int, opening: Task, ends: bool, fixed: bool
) -> tuple[tuple[Segment, ...], tuple[Task, ...]]:
    """The segments of a shot that is too long for one, each going on from the one before it.

    They go on from as many frames as the model takes and the film shows of each of them.
    """
    rule = card.frame_rule("i2v")

    def laid(shared: int) -> tuple[Segment, ...]:
        closing = 1 if ends else shared
        return segments_of(needed, rule, shared=shared, lead=lead, closing=closing, fixed_end=fixed)

    def enough(shared: int) -> bool:
        followed = laid(shared)[: -2 if ends else -1]
        return all(segment.frames >= shared for segment in followed)

    shared = next(filter(enough, _contexts(card, rule.maximum - 1)), 1)
    on: Task = "extend" if shared > 1 else "i2v"
    segments = laid(shared)
    return segments, (opening, *[on] * (len(segments) - 2), "flf2v" if ends else on)


def _contexts(card: ModelCard, available: int) -> Iterator[int]:
    """How many frames a model may be shown of so many, where it takes several; most first."""
    if card.extend is None or not card.extend.chains or "i2v" not in card.tasks:
        return
    rule = card.frame_rule("extend")
    if rule != card.frame_rule("i2v"):
        return
    most = min(available, card.extend.context_frames)
    yield from (count for count in range(most, 1, -1) if rule.allows(count))


def _pictures(
    board: Storyboard, shots: Sequence[Shot], index: int, makers: Sequence[ModelCard | None]
) -> tuple[Source, Source]:
    """Where the pictures at the two ends of a shot would come from."""
    shot = shots[index]
    start: Source = "given" if shot.start is not None else "none"
    end: Source = "given" if shot.end is not None else "none"
    if board.mode == "chaining":
        return ("before" if start == "none" and index else start), end
    if start == "none" and makers[index] is not None:
        start = "made"
    after = index + 1
    if end == "none" and after < len(shots) and shots[after].transition.kind == "cut":
        given = shots[after].start is not None
        end = "given" if given else "made" if makers[after] is not None else "none"
    return start, end


def _joined(board: Storyboard, shots: Sequence[Shot], index: int, start: Source) -> bool:
    """Whether the first frame of a shot is the last one of the shot before."""
    if shots[index].transition.kind != "cut":
        return False
    return start == "before" if board.mode == "chaining" else True


def _task(card: ModelCard, shot: Shot, start: Source, end: Source) -> Task:
    if start != "none" and end != "none":
        return "flf2v"
    if start != "none":
        return "i2v"
    if "r2v" in card.tasks and (shot.references or "t2v" not in card.tasks):
        return "r2v"
    return "t2v"


def _still_task(card: ModelCard, shot: Shot) -> Task:
    return "r2v" if "r2v" in card.tasks and shot.references else "t2v"


def _card(
    shot: Shot, size: tuple[int, int] | None, board: Storyboard, plan: Planner, cards: Cards
) -> ModelCard:
    """The model of a shot: the one it names, else the one that the planner chooses."""
    if shot.model not in (None, "auto"):
        return cards(str(shot.model))
    starts = shot.start is not None or (board.mode == "chaining" and shot.index > 0)
    picture = _placeholder(size or (512, 512))
    request = VideoRequest.checked(
        prompt=shot.prompt,
        model=shot.model,
        backend=shot.backend,
        tier=shot.tier,
        size=size,
        seed=0,
        image=picture.path if starts else None,
        unknown_price=True,
    )
    return cards(plan(request, Inputs(image=picture if starts else None)).model)


def _maker(board: Storyboard, shot: Shot, card: ModelCard, cards: Cards) -> ModelCard | None:
    """The model that makes the picture a shot begins with; None without one."""
    if board.mode != "keyframe":
        return None
    found = card if board.keyframe_model is None else cards(board.keyframe_model)
    task = _still_task(found, shot)
    if task not in found.tasks or not found.frame_rule(task).allows(1):
        if board.keyframe_model is None:
            return None
        raise KinoloomError(
            f"{found.title} makes no still pictures.",
            cause="keyframe_model must be a model that can make a single frame from words.",
            hints=["Choose another keyframe_model, or give each shot a picture in `start`."],
        )
    return found


def _sized(
    shot: Shot, card: ModelCard, size: tuple[int, int] | None, task: Task, plan: Planner
) -> Plan:
    """A plan of the model at the film's size, which says what size and rate it really makes."""
    picture = _placeholder(size or card.sizes.default)
    pictures = Inputs(
        image=picture if task in ("i2v", "flf2v") else None,
        last_image=picture if task == "flf2v" else None,
        references=(picture,) if task == "r2v" else (),
    )
    request = VideoRequest.checked(
        prompt=shot.prompt,
        model=card.id,
        backend=card.backend,
        size=size or card.sizes.default,
        fps=shot.fps,
        seed=0,
        image=pictures.image and pictures.image.path,
        last_image=pictures.last_image and pictures.last_image.path,
        references=tuple(reference.path for reference in pictures.references),
        unknown_price=True,
    )
    return plan(request, pictures)


def _placeholder(size: tuple[int, int]) -> ImageInput:
    return ImageInput(path=_PENDING, width=size[0], height=size[1], digest="sha256:" + "0" * 64)


def _runs(taken: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Rising numbers as runs of (first, how many)."""
    found: list[tuple[int, int]] = []
    for number in taken:
        if found and sum(found[-1]) == number:
            found[-1] = found[-1][0], found[-1][1] + 1
        else:
            found.append((number, 1))
    return tuple(found)
