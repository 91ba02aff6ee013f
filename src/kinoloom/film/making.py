"""How is each shot made: by which model, from which pictures, in how many clips?

Nothing is rendered or looked up here but model cards and plans. What comes out says for every
segment what will be asked for, so that planning a film and rendering it cannot differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kinoloom.catalog.card import ModelCard
from kinoloom.errors import KinoloomError
from kinoloom.film.board import Storyboard
from kinoloom.film.segments import Segment, segments_of
from kinoloom.film.shots import Shot, shots_of
from kinoloom.media.rates import exact_rate
from kinoloom.planner.inputs import ImageInput, Inputs
from kinoloom.planner.plan import Plan
from kinoloom.request import Task, VideoRequest
from kinoloom.request_checks import MAX_SEED

Planner = Callable[[VideoRequest, Inputs | None], Plan]
"""Makes the plan of a request; with inputs, its media are not read. Raises KinoloomError."""
Cards = Callable[[str], ModelCard]
"""Finds a model by its id. Raises NotFound."""

Source = Literal["none", "given", "made", "before"]
"""Where a picture comes from: the user's file, one made for the film, the last frame before it."""

_PENDING = Path("not-made-yet.png")


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

    def request(
        self,
        number: int,
        *,
        seed: int,
        prompt: str,
        image: Path | None,
        end: Path | None = None,
        unknown_price: bool = False,
    ) -> VideoRequest:
        """What is asked for as the segment of that number, of a take with a seed and words.

        `image` is what the segment begins with and `end` what the shot ends with; a task that takes
        none leaves them out. Raises InvalidRequest.
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
            image=image if task in ("i2v", "flf2v") else None,
            last_image=end if task == "flf2v" else None,
            references=shot.references if "references" in takes else (),
            candidates=shot.candidates,
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
            unknown_price=unknown_price,
        )

    def pending(self, number: int) -> Inputs:
        """Inputs in the place of pictures that are not there yet: right in all but content."""
        task = self.tasks[number]
        picture = _placeholder(self.size)
        return Inputs(
            image=picture if task in ("i2v", "flf2v") else None,
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
        for number, segment in enumerate(self.segments):
            skip = round(segment.skip * scale)
            here = math.floor(segment.asked * scale) - skip
            here = left if number == len(self.segments) - 1 else min(here, left)
            found.append(((skip, here),) if here > 0 else ())
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
        ways.append(_way(board, shots, index, models, makers, sized))
        size = ways[0].size
    return tuple(ways)


def _way(
    board: Storyboard,
    shots: Sequence[Shot],
    index: int,
    models: Sequence[ModelCard],
    makers: Sequence[ModelCard | None],
    sized: Callable[[Shot, ModelCard, Task], Plan],
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
    needed = math.ceil(shot.frames * exact_rate(asked.fps) / exact_rate(shot.fps))
    lead = 1 if index and start != "none" and _joined(board, shots, index, start) else 0
    fixed = end != "none" and asked.fps == shot.fps
    rule = card.frame_rule(first)
    if needed + lead <= rule.maximum:
        segments = segments_of(needed, rule, lead=lead, fixed_end=fixed)
        tasks: tuple[Task, ...] = (first,)
    elif "i2v" in card.tasks:
        rule = card.frame_rule("i2v")
        segments = segments_of(needed, rule, shared=1, lead=lead, fixed_end=fixed)
        middle: list[Task] = ["i2v"] * (len(segments) - 1)
        opening = _task(card, shot, start, "none")
        tasks = (opening, *middle[1:], "flf2v" if end != "none" else "i2v")
    else:
        segments = segments_of(needed, rule, shared=0, lead=lead, fixed_end=fixed)
        tasks = (first,) * len(segments)
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
