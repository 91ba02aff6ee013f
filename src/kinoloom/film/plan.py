"""What will a film take: which models, how long, how much, and does it fit its budget?

Made from a storyboard alone; nothing is rendered, and nothing is spent. Of a clip that begins with
a frame which is not there yet all is known but its key: neither size nor cost depend on what the
frame shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from pydantic import BaseModel, ConfigDict, Field

from kinoloom.errors import BudgetExceeded, InvalidMedia, KinoloomError
from kinoloom.film.board import Mode, OnFailure, Storyboard
from kinoloom.film.fallback import differs
from kinoloom.film.making import Cards, Planner, Way, ways_of
from kinoloom.film.shots import film_frames
from kinoloom.planner.cost import Cost
from kinoloom.planner.plan import Plan
from kinoloom.request import Task


@dataclass(frozen=True)
class There:
    """What a film has of a shot before it is rendered.

    clips: how many of its clips, from the first, stay as they are. seed, prompt: of the take that
    is shown; None for those of the storyboard. others: further takes that were asked for and are
    not made. picture: whether the one that it begins with is made.
    """

    clips: int = 0
    seed: int | None = None
    prompt: str | None = None
    others: int = 0
    picture: bool = False


NOTHING = There()


class PlannedShot(BaseModel):
    """What one shot takes.

    Fields:
        id, title, prompt, frames: as the film shows it. seconds_of_video: how long it plays.
        model, backend, size: what makes it. tasks, segments: of its clips, and the frames that each
            is asked for.
        start, end: where its first and last pictures come from.
        candidates: takes of each clip. seconds: of rendering, None where nobody knows.
        cost: of what is not there yet; amount None where it is not known.
        reused: its clips that are there already and cost nothing.
        takes: how many takes are made beside the one that is shown.
        on_failure: what happens when it cannot be made; fallbacks: which models may take over then.
        warnings: what the user should know.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    title: str | None
    prompt: str
    frames: int
    seconds_of_video: float
    model: str
    backend: str
    size: tuple[int, int]
    tasks: tuple[Task, ...]
    segments: tuple[int, ...]
    start: str
    end: str
    candidates: int
    seconds: float | None
    cost: Cost
    reused: int = 0
    takes: int = 0
    on_failure: OnFailure
    fallbacks: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class FilmPlan(BaseModel):
    """What a film takes.

    Fields:
        title, mode, fps, size, frames, seconds_of_video: of the finished film.
        shots: each of them. pictures: how many are made for it first.
        clips: how many are made in all, pictures among them; reused: how many are there already.
        seconds: of rendering one after the other, None where that is not known.
        cost: of all that is not there yet, its amount None where a part is not known; `known` is
            what the parts with a price in its currency add up to, which is set aside.
        spent: what the film has cost by now.
        budget: the most that the film may cost in all; fits: whether it does, as far as is known.
        warnings: of the film as a whole.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    mode: Mode
    fps: float
    size: tuple[int, int]
    frames: int
    seconds_of_video: float
    shots: tuple[PlannedShot, ...]
    pictures: int
    clips: int
    reused: int
    seconds: float | None
    cost: Cost
    known: Decimal = Field(ge=0)
    spent: Decimal = Field(ge=0)
    budget: Decimal | None
    fits: bool
    warnings: tuple[str, ...]

    def check_budget(self) -> None:
        """Raises BudgetExceeded when what is known of the cost is more than the budget."""
        if self.fits or self.budget is None:
            return
        raise BudgetExceeded(
            "The film would cost more than its budget.",
            cause=f"What is not made yet costs {self.known:f} {self.cost.currency},"
            f" {self.spent:f} are spent, and its budget is {self.budget:f}.",
            hints=[
                "Raise the budget, in the storyboard or as budgets.film in the settings.",
                "Choose cheaper models, or fewer or shorter shots.",
            ],
            details={
                "budget": f"{self.budget:f}",
                "spent": f"{self.spent:f}",
                "asked": f"{self.known:f}",
            },
        )


def plan_film(
    board: Storyboard,
    plan: Planner,
    cards: Cards,
    *,
    budget: Decimal | None = None,
    spent: Decimal = Decimal(0),
    made: Callable[[Plan], bool] = lambda _plan: False,
    there: Mapping[str, There] | None = None,
) -> FilmPlan:
    """The plan of a checked storyboard.

    `budget` holds beside the storyboard's own, the smaller counts; `spent` is what the film has
    cost by now. `made` is whether the clip of a plan is there, and `there` what the film has of its
    shots, by their names. Raises KinoloomError.
    """
    has = there or {}
    ways = ways_of(board, plan, cards)
    pictures: list[Plan] = []
    shots = []
    for index, way in enumerate(ways):
        needed = way.start == "made" or (index > 0 and ways[index - 1].end == "made")
        of_shot = has.get(way.shot.id, NOTHING)
        if needed and not of_shot.picture:
            asked = way.still(seed=0, prompt=way.shot.prompt, unknown_price=True)
            pictures.append(plan(asked, None))
        shots.append(_shot(way, plan, made, of_shot))
    costs = [shot.cost for shot in shots] + [picture.cost for picture in pictures]
    total, known = _sum(costs)
    limits = [limit for limit in (board.budget, budget) if limit is not None]
    most = min(limits, default=None)
    seconds = [shot.seconds for shot in shots] + [p.estimate.seconds for p in pictures]
    frames = film_frames(way.shot for way in ways)
    return FilmPlan(
        title=board.title,
        mode=board.mode,
        fps=board.fps,
        size=board.size or ways[0].size,
        frames=frames,
        seconds_of_video=frames / board.fps,
        shots=tuple(shots),
        pictures=len(pictures),
        clips=sum(len(s.segments) * (1 + s.takes) - s.reused for s in shots) + len(pictures),
        reused=sum(shot.reused for shot in shots),
        seconds=None if None in seconds else sum(s for s in seconds if s is not None),
        cost=total,
        known=known,
        spent=spent,
        budget=most,
        fits=most is None or spent + known <= most,
        warnings=tuple(_warnings(board, ways, shots, total)),
    )


def _shot(way: Way, plan: Planner, made: Callable[[Plan], bool], there: There) -> PlannedShot:
    shot = way.shot
    plans: list[Plan] = []
    fallbacks: tuple[str, ...] = ()
    reused = 0
    seed = shot.seed if there.seed is None else there.seed
    for number in range(len(way.segments)):
        if number < there.clips and not there.others:
            reused += 1
            continue
        # A picture of the user's own is read: what is wrong with it is told before anything runs.
        first = number == 0
        image = shot.start if first and way.start == "given" else None
        last = number == len(way.segments) - 1
        end = shot.end if last and way.end == "given" else None
        inputs = None
        task = way.tasks[number]
        waits = way.context(number) > 0 and image is None
        if waits or (task == "flf2v" and end is None):
            inputs = way.pending(number)
            _check_there(image, end)
        pending = inputs and (inputs.image or inputs.video)
        request = way.request(
            number,
            seed=seed or 0,
            prompt=there.prompt or shot.prompt,
            start=image or (pending.path if pending else None),
            end=end or (inputs.last_image.path if inputs and inputs.last_image else None),
            unknown_price=True,
        )
        planned = plan(request, inputs)
        plans += [planned] * there.others
        if number < there.clips or (inputs is None and seed is not None and made(planned)):
            reused += 1
        else:
            plans.append(planned)
            fallbacks = fallbacks or _fallbacks(planned, plan)
    seconds = [p.estimate.seconds for p in plans]
    return PlannedShot(
        id=shot.id,
        title=shot.title,
        prompt=shot.prompt,
        frames=shot.frames,
        seconds_of_video=shot.frames / shot.fps,
        model=way.card.id,
        backend=way.card.backend,
        size=way.size,
        tasks=way.tasks,
        segments=tuple(segment.asked for segment in way.segments),
        start=way.start,
        end=way.end,
        candidates=shot.candidates,
        seconds=None if None in seconds else sum(s for s in seconds if s is not None),
        cost=_sum([p.cost for p in plans])[0],
        reused=reused,
        takes=there.others,
        on_failure=shot.on_failure,
        fallbacks=fallbacks,
        warnings=tuple(dict.fromkeys([*way.warnings, *(w for p in plans for w in p.warnings)])),
    )


def _fallbacks(planned: Plan, plan: Planner) -> tuple[str, ...]:
    """The models whose clip may take the place of a plan's, in the order they are tried."""
    found = []
    for other in planned.alternatives:
        update = {"model": other.model, "backend": other.backend}
        try:
            again = plan(planned.request.model_copy(update=update), planned.inputs)
        except KinoloomError:  # it cannot do it after all
            continue
        if differs(planned, again) is None:
            found.append(f"{other.model} on {other.backend}")
    return tuple(found)


def _check_there(*pictures: object) -> None:
    for picture in pictures:
        is_file = getattr(picture, "is_file", None)
        if is_file is not None and not is_file():
            raise InvalidMedia(f"{picture} cannot be used.", cause="There is no such file.")


def _sum(costs: Sequence[Cost]) -> tuple[Cost, Decimal]:
    """What costs add up to, and what those of them that are known do."""
    paid = [cost for cost in costs if not cost.free]
    if not paid:
        return Cost(amount=Decimal(0), basis="nothing is paid"), Decimal(0)
    currencies = sorted({cost.currency for cost in paid})
    known = sum((c.amount for c in paid if c.amount is not None), Decimal(0))
    unknown = sum(cost.amount is None for cost in paid)
    if len(currencies) > 1:
        paid = [cost for cost in paid if cost.currency == currencies[0]]
        known = sum((c.amount for c in paid if c.amount is not None), Decimal(0))
        basis = "prices in " + " and ".join(currencies) + ", which cannot be added up"
        return Cost(basis=basis, currency=currencies[0], verified=False), known
    basis = f"{len(paid)} clips" + (f", of {unknown} the price is not known" if unknown else "")
    return (
        Cost(
            amount=None if unknown else known,
            currency=currencies[0],
            basis=basis,
            verified=all(cost.verified for cost in paid),
        ),
        known,
    )


def _warnings(
    board: Storyboard, ways: Sequence[Way], shots: Sequence[PlannedShot], total: Cost
) -> Iterable[str]:
    if board.mode == "chaining" and len(ways) > 1:
        yield "Shots are made one after the other: each goes on from the last frame before it."
    if total.amount is None:
        yield f"What the film costs is not known: {total.basis}."
    alone = [
        shot.id
        for shot in shots
        if shot.on_failure == "fallback" and shot.reused < len(shot.segments) and not shot.fallbacks
    ]
    if alone:
        yield f"Nothing else that is ready can make the same frames as {', '.join(alone)}."
    size = board.size or ways[0].size
    others = sorted({way.shot.id for way in ways if way.size != size})
    if others:
        yield f"Scaled to the film's {size[0]}x{size[1]}: {', '.join(others)}."
