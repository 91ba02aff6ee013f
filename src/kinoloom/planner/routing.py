"""Which model makes a clip, on which backend, and what is tried when it fails?

A model that is named is the one. With ``auto``, and on a backend that is named without a model, the
planner takes what can do the task, is ready and fits the budget, by what the user prefers; it says
why, and why not the others. Nothing that costs money is chosen by itself without a budget.
"""

from __future__ import annotations

import datetime
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from kinoloom.backends.base import Readiness
from kinoloom.catalog.card import InputName, ModelCard
from kinoloom.catalog.loader import Catalog
from kinoloom.config import Settings
from kinoloom.errors import (
    InvalidRequest,
    ModelNotFound,
    Problem,
    ProviderRetired,
    nearest_names,
)
from kinoloom.planner.cost import Cost
from kinoloom.planner.plan import Alternative
from kinoloom.planner.settle import TASK_WORDS, Notes
from kinoloom.request import Task, VideoRequest

AUTO = "auto"
_SHOWN = 5
"""Models that an error or a reason names; there are dozens."""


class Outlook(Protocol):
    """What can be said of a model before a plan of it is made."""

    def ready(self, card: ModelCard) -> Readiness:
        """Whether it can run now."""
        ...

    def usable(self, backend: str) -> bool:
        """Whether anything is set for a backend; asks nobody."""
        ...

    def cost(self, card: ModelCard) -> Cost:
        """What the request would cost with it."""
        ...

    def seconds(self, card: ModelCard) -> float | None:
        """How long it would take; None: not known."""
        ...


@dataclass(frozen=True)
class Route:
    """The model that was chosen, and the reasons in words."""

    card: ModelCard
    reasons: tuple[str, ...]


def choose(
    request: VideoRequest,
    catalog: Catalog,
    settings: Settings,
    outlook: Outlook,
    today: datetime.date,
) -> Route:
    """The model for a request.

    Raises ModelNotFound when there is no such model or none that is ready, InvalidRequest for one
    that cannot do the task or does not run on the backend asked for, ProviderRetired.
    """
    task = request.task
    named = request.model or settings.default_model
    if request.model is None and request.backend not in (None, AUTO):
        card = catalog.get(named) if named in catalog else None
        if card is None or card.backend != request.backend or task not in card.pipelines:
            return _best(request, catalog, settings, outlook, today)
        return Route(card, _named(card, task, "the default model"))
    if AUTO in (request.backend if request.model is None else None, named):
        return _best(request, catalog, settings, outlook, today)
    card = catalog.get(named)
    if request.backend not in (None, AUTO, card.backend):
        card = _sibling(card, str(request.backend), catalog, task)
    if task not in card.pipelines:
        raise InvalidRequest(
            [
                Problem(
                    "model",
                    card.id,
                    *_able(card, catalog.doing(task), settings.default_model, task),
                )
            ],
            message=f"{card.title} cannot do {TASK_WORDS[task]}.",
            hints=[f"It can do: {', '.join(TASK_WORDS[t] for t in card.tasks)}."],
        )
    _check_retired(card, today)
    how = "as asked" if request.model else "the default model"
    return Route(card, _named(card, task, how))


def alternatives(
    request: VideoRequest,
    chosen: ModelCard,
    catalog: Catalog,
    settings: Settings,
    outlook: Outlook,
    today: datetime.date,
) -> tuple[Alternative, ...]:
    """What may be tried after `chosen` has failed, within the consent given: one a backend.

    The chain goes on behind the backend of `chosen`, or is all of it where that is not in it. Free
    ones need no consent; one that costs needs a budget that it fits, and one of an unknown price
    the explicit yes as well.
    """
    rule = settings.fallback
    if not (rule.enabled if request.fallback is None else request.fallback):
        return ()
    chain = list(dict.fromkeys(rule.chain))
    if chosen.backend in chain:
        chain = chain[chain.index(chosen.backend) + 1 :]
    found = []
    for backend in chain:
        if not outlook.usable(backend):
            continue
        cards = [
            card
            for card in catalog.doing(request.task)
            if card.backend == backend
            and _why_not(card, request, today) is None
            # What knows only a few words is no stand-in for what knows all.
            and card.vocabulary is None
        ]
        for card in sorted(cards, key=lambda c: (not _alike(c, chosen), -c.standing, c.id)):
            cost = outlook.cost(card)
            if _over(cost, request, settings) is None and outlook.ready(card).ready:
                same = (
                    "the same weights" if _alike(card, chosen) else "the best that is ready there"
                )
                why = f"{same}, {cost}"
                found.append(Alternative(backend=backend, model=card.id, cost=cost, why=why))
                break
    return tuple(found)


def _best(
    request: VideoRequest,
    catalog: Catalog,
    settings: Settings,
    outlook: Outlook,
    today: datetime.date,
) -> Route:
    """The best model of all, or of the backend asked for, by what the user prefers."""
    wanted = None if request.backend in (None, AUTO) else request.backend
    cards = [c for c in catalog if wanted in (None, c.backend)]
    if not cards:
        known = sorted({c.backend for c in catalog})
        near = nearest_names(str(wanted), known, count=1) or [c for c in known if c == "local"]
        allowed = f"a backend that has models: {', '.join(known)}"
        raise InvalidRequest([Problem("backend", wanted, allowed, near[0] if near else None)])
    able, refused = [], defaultdict[str, list[str]](list)
    hints: dict[str, None] = {}
    for card in cards:
        if request.task not in card.pipelines:
            continue
        why = _why_not(card, request, today)
        if why is None and wanted is None and not outlook.usable(card.backend):
            why = f"nothing is set for the backend {card.backend}"
        cost = outlook.cost(card)
        # Who names a backend has said yes to what it costs, within the budgets.
        if why is None:
            why = _over(cost, request, settings, named=wanted is not None)
        if why is None and not (ready := outlook.ready(card)).ready:
            why = ready.reasons[0] if ready.reasons else "not ready"
            hints |= dict.fromkeys(ready.hints[:1])
        if why is None:
            able.append((card, cost))
        else:
            refused[why].append(card.id)
    if not able:
        where = f" on the backend {wanted}" if wanted else ""
        raise ModelNotFound(
            f"No model{where} can do {TASK_WORDS[request.task]} now.",
            cause="\n".join(_refusals(refused)) or "None of the known ones does that.",
            hints=[*list(hints)[:3], "See what is ready: kinoloom backends"],
        )
    order = _order(settings.prefer, outlook)
    ranked = sorted(able, key=lambda entry: order(*entry))
    card, cost = ranked[0]
    others = [f"{c.id} ({at})" for c, at in ranked[1 : _SHOWN + 1]]
    why = f"model {card.id}: the best by {settings.prefer} of {len(able)} that can do"
    why += f" {TASK_WORDS[request.task]}, are ready and fit the budget; {cost}"
    reasons = [why, f"backend {card.backend}: the one that runs this model"]
    if others:
        reasons.append(f"not {', '.join(others)}: behind it by {settings.prefer}")
    return Route(card, (*reasons, *(f"not {line}" for line in _refusals(refused))))


def _order(
    prefer: str, outlook: Outlook
) -> Callable[[ModelCard, Cost], tuple[float | Decimal | str, ...]]:
    """What models are sorted by, the best first; what is not known comes last."""
    most = Decimal("Infinity")

    def amount(cost: Cost) -> Decimal:
        return most if cost.amount is None else cost.amount

    def quality(card: ModelCard, cost: Cost) -> tuple[float | Decimal | str, ...]:
        return -card.standing, amount(cost), card.id

    def speed(card: ModelCard, cost: Cost) -> tuple[float | Decimal | str, ...]:
        seconds = outlook.seconds(card)
        return float("inf") if seconds is None else seconds, -card.standing, card.id

    def cheap(card: ModelCard, cost: Cost) -> tuple[float | Decimal | str, ...]:
        return amount(cost), -card.standing, card.id

    return {"quality": quality, "speed": speed, "cost": cheap}[prefer]


def _why_not(card: ModelCard, request: VideoRequest, today: datetime.date) -> str | None:
    """Why a model cannot do a request, whatever is ready and whatever it costs; None: it can."""
    if card.retirement is not None and card.retirement <= today:
        return f"retired on {card.retirement.isoformat()}"
    lacking = missing_inputs(card, request)
    return f"takes no {' and no '.join(lacking)}" if lacking else None


def missing_inputs(card: ModelCard, request: VideoRequest) -> list[InputName]:
    """The inputs that a request gives and a model does not take."""
    taken = card.pipelines[request.task].inputs
    given: dict[InputName, bool] = {
        "references": bool(request.references),
        "keyframes": bool(request.keyframes),
    }
    return [name for name, there in given.items() if there and name not in taken]


def _over(
    cost: Cost, request: VideoRequest, settings: Settings, *, named: bool = False
) -> str | None:
    """Why a cost is outside of what the user allowed; None: it is within.

    `named` is whether the user named what costs it, which is a yes to paying at all.
    """
    if cost.free:
        return None
    budgets = settings.budgets
    if not named and not budgets.any and request.max_cost is None:
        return "it costs money and no budget is set"
    if cost.amount is None:
        return None if request.unknown_price else "its price is not known"
    limits = {"max_cost": request.max_cost, "the budget of a clip": budgets.clip}
    for name, limit in limits.items():
        if limit is not None and cost.amount > limit:
            return f"{cost} is more than {name}, {limit:f} {cost.currency}"
    return None


def _sibling(card: ModelCard, backend: str, catalog: Catalog, task: Task) -> ModelCard:
    """The card of the same weights on another backend. Raises InvalidRequest: there is none."""
    for other in catalog:
        if other.backend == backend and _alike(other, card):
            return other
    there = [c.id for c in catalog.doing(task) if c.backend == backend]
    allowed = f"the backend that runs {card.id}: {card.backend}"
    if there:
        allowed += f"; or leave --model out, or take one that {backend} runs: "
        allowed += ", ".join(there[:_SHOWN])
    raise InvalidRequest([Problem("backend", backend, allowed, card.backend)])


def _alike(one: ModelCard, other: ModelCard) -> bool:
    """Whether two cards are of the same weights."""
    return (one.same_as or one.id) == (other.same_as or other.id)


def _check_retired(card: ModelCard, today: datetime.date) -> None:
    """A service's model that was switched off cannot be asked for; local weights stay usable."""
    if card.remote is None or card.retirement is None or card.retirement > today:
        return
    hints = [f"Use its successor: --model {card.successor}"] if card.successor else []
    raise ProviderRetired(
        f"{card.title} was retired on {card.retirement.isoformat()}.",
        hints=[*hints, "See what there is: kinoloom models list"],
        details={"successor": card.successor} if card.successor else None,
    )


def _named(card: ModelCard, task: Task, how: str) -> tuple[str, ...]:
    return (
        f"model {card.id}: {how}; it can do {TASK_WORDS[task]}",
        f"backend {card.backend}: the one that runs this model",
    )


def _able(
    card: ModelCard, others: Sequence[ModelCard], default_model: str, task: Task
) -> tuple[str, str | None]:
    """Which models can do a task, in words, and the one to take: the default, else a relative."""
    first = sorted(
        others,
        key=lambda c: (
            c.id != default_model,
            c.family != card.family,
            c.backend != card.backend,
            c.id,
        ),
    )
    names = ", ".join(c.id for c in first[:_SHOWN]) or "none is known"
    if len(first) > _SHOWN:
        names += f" and {len(first) - _SHOWN} more (kinoloom models list --task {task})"
    allowed = f"a model that can do {TASK_WORDS[task]}: {names}"
    return allowed, first[0].id if first else None


def _refusals(refused: dict[str, list[str]]) -> Iterable[str]:
    """A line for each reason, with the models that it keeps out."""
    for why, ids in refused.items():
        more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
        yield f"{', '.join(ids[:_SHOWN])}{more}: {why}"


def note_dates(card: ModelCard, today: datetime.date, notes: Notes) -> None:
    """Warn of a retirement that is near or past, and of a licence that does not hold everywhere."""
    if card.retirement is not None:
        if card.retirement <= today:
            notes.warnings.append(f"{card.title} was retired on {card.retirement.isoformat()}.")
        elif card.retirement - today <= _NOTICE_BEFORE_RETIREMENT:
            successor = f" Its successor is {card.successor}." if card.successor else ""
            notes.warnings.append(
                f"{card.title} will be retired on {card.retirement.isoformat()}.{successor}"
            )
    if card.licence.territory != "worldwide":
        notes.warnings.append(
            f"The licence of {card.title} ({card.licence.id}) is limited by territory:"
            f" {card.licence.territory}."
        )


_NOTICE_BEFORE_RETIREMENT = datetime.timedelta(days=60)
