"""Where will the weights be during a render, so that it fits, and how much memory will it need?

The fastest placement is taken whose peak fits into what is free and allowed. A peak comes, in this
order, from renders of the same size on this machine, from those of smaller and larger ones, from
the sizes in the model's card.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import BaseModel, ConfigDict

from kinoloom.backends.base import Placement, Take
from kinoloom.catalog.card import ModelCard
from kinoloom.errors import InsufficientMemory
from kinoloom.planner.estimate import Measurement, Measurements
from kinoloom.planner.peak import (
    PROCESS_BYTES,
    RESERVED_BYTES,
    Kind,
    card_peak,
    host_bytes,
    kind_of,
)
from kinoloom.planner.snap import smallest_frames
from kinoloom.request import Task

Source = Literal["measured", "interpolated", "card", "unknown"]

_LADDER: dict[Kind, tuple[Placement, ...]] = {
    "cuda": ("resident", "fp8", "model_offload", "group_offload", "sequential"),
    # Moving weights to main memory gains nothing where that is the device's own.
    "mps": ("resident",),
    "cpu": ("resident", "fp8"),
}
"""What a kind of device can do, the fastest first."""

_NEWEST = 3
"""Renders of one size that tell its peak: the highest of these, since the next must fit too."""

_WHERE: dict[Placement, str] = {
    "resident": "all weights stay on the device",
    "fp8": "the transformer's weights are stored in 8 bits",
    "model_offload": "one component at a time is on the device",
    "group_offload": "a few layers at a time are on the device, the next ones on their way",
    "sequential": "one layer at a time is on the device",
}


class MemoryPlan(BaseModel):
    """Where the weights will be, and what that needs.

    `tiling` decodes in tiles. `predicted_peak` and `free` are bytes of the device, None where they
    are not known; `free` is what may be used of it. `source` says from what the peak is known.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    placement: Placement
    tiling: bool
    predicted_peak: int | None
    free: int | None
    source: Source
    why: str


@dataclass(frozen=True)
class _Ask:
    """What is to be rendered, and on what."""

    card: ModelCard
    task: Task
    size: tuple[int, int]
    frames: int
    kind: Kind
    room: int | None
    ram: int | None
    dtype_bytes: int
    measured: tuple[Measurement, ...]
    allow_fp8: bool
    wanted: Placement | None

    @property
    def work(self) -> int:
        """Pixels of all frames together."""
        return self.size[0] * self.size[1] * self.frames

    def choices(self) -> Iterator[tuple[Placement, bool]]:
        """Placements that may be taken, each without and with tiles, the fastest first."""
        for placement in _LADDER[self.kind]:
            if self.wanted is not None and placement != self.wanted:
                continue
            if placement == "fp8" and not (self.allow_fp8 and self.card.acceleration.fp8):
                continue
            yield placement, False
            yield placement, True


def plan_memory(
    card: ModelCard,
    *,
    task: Task,
    size: tuple[int, int],
    frames: int,
    device: str,
    device_kind: Kind,
    free_bytes: int | None,
    budget_bytes: int | None = None,
    ram_free_bytes: int | None = None,
    dtype_bytes: int = 2,
    measurements: Measurements | None = None,
    allow_fp8: bool = False,
    wanted: Placement | None = None,
    others: Sequence[ModelCard] = (),
) -> MemoryPlan:
    """The fastest placement that fits a clip of `size` (width, height in pixels) and `frames`.

    `device` is its name in measurements, `device_kind` what it is. `free_bytes` of the device and
    `ram_free_bytes` of main memory count what this process would give back; None: not known.
    `budget_bytes` is what the user allows. `dtype_bytes` is the width of the numbers computed with.
    `allow_fp8` lets the weights be stored in 8 bits, which changes frames. `wanted` leaves no other
    choice than that placement. `others` are models that could be taken instead.

    Raises InsufficientMemory when nothing fits; its hints say what would.
    """
    known = measurements(card.id, device) if callable(measurements) else measurements or ()
    ask = _Ask(
        card=card,
        task=task,
        size=size,
        frames=frames,
        kind=device_kind,
        room=_room(device_kind, free_bytes, budget_bytes),
        ram=ram_free_bytes,
        dtype_bytes=dtype_bytes,
        measured=tuple(m for m in known if (m.model, m.device) == (card.id, device)),
        allow_fp8=allow_fp8,
        wanted=wanted,
    )
    if (found := _choose(ask)) is not None:
        return found
    hints = list(_what_fits(ask, others))
    if budget_bytes is not None and (free_bytes is None or free_bytes > budget_bytes):
        more = replace(ask, room=_room(device_kind, free_bytes, None))
        if (better := _choose(more)) is not None and better.predicted_peak is not None:
            hints.insert(0, f"raise the setting memory_budget to {_up(better.predicted_peak)}")
    hints.append("close other programs that use the device's memory")
    raise InsufficientMemory(
        f"{device} has too little memory for {_clip(size, frames)} with {card.id}.",
        cause=_shortage(ask),
        hints=hints,
    )


def what_fits(
    card: ModelCard,
    take: Take,
    *,
    free_bytes: int | None,
    budget_bytes: int | None,
    dtype_bytes: int,
) -> tuple[str, ...]:
    """What to ask for instead of a take that ran out of memory; empty where that is not known.

    `free_bytes` of the device are what was found after everything had been given back. What the
    take was predicted to need was too little, so that only what is predicted to need less, and fits
    into what is free, is named.
    """
    ask = _Ask(
        card=card,
        task=take.task,
        size=(take.width, take.height),
        frames=take.frames,
        kind=kind_of(take.device),
        room=None,
        ram=None,
        dtype_bytes=dtype_bytes,
        measured=(),
        # A step cache shows that the user allows what changes the frames already.
        allow_fp8=take.placement == "fp8" or take.speed.cache is not None,
        wanted=take.placement,
    )
    needed, _ = _peak(ask, take.placement, take.tiling)
    if needed is None:
        return ()
    room = _room(ask.kind, free_bytes, budget_bytes)
    ask = replace(ask, room=needed - 1 if room is None else min(room, needed - 1))
    return (*_what_fits(ask, ()), *_budgets(ask, take.placement))


def _budgets(ask: _Ask, tried: Placement) -> Iterator[str]:
    """The budget by which a slower placement would be chosen that fits, if there is one."""
    faster: list[int] = []
    slower = _LADDER[ask.kind][_LADDER[ask.kind].index(tried) + 1 :]
    for placement, tiling in replace(ask, wanted=None).choices():
        peak, _ = _peak(ask, placement, tiling)
        if peak is None or ask.room is None:
            return
        budget = -(-peak // 10**6) * 10**6
        if placement in slower and peak <= ask.room and all(budget < p for p in faster):
            yield f"set memory_budget to {budget // 10**6}MB, so that {_WHERE[placement]}: slower"
            return
        faster.append(peak)


def _choose(ask: _Ask) -> MemoryPlan | None:
    """The first choice that fits; where nothing known does, the first whose peak is not known."""
    unknown: MemoryPlan | None = None
    for placement, tiling in ask.choices():
        peak, source = _peak(ask, placement, tiling)
        if peak is None or ask.room is None:
            why = _WHERE[placement] + (
                ": what the model needs is not known"
                if peak is None
                else f": {_gb(peak)} at the peak, of free memory that is not known"
            )
            plan = _plan(ask, placement, tiling, peak, source, why)
            unknown = unknown or plan
            continue
        host = host_bytes(ask.card, placement, ask.dtype_bytes)
        if peak > ask.room or (ask.ram is not None and host is not None and host > ask.ram):
            continue
        decoded = ", decoded in tiles" if tiling else ""
        why = f"{_WHERE[placement]}{decoded}: {_gb(peak)} at the peak, {_gb(ask.room)} may be used"
        return _plan(ask, placement, tiling, peak, source, why)
    return unknown


def _plan(
    ask: _Ask, placement: Placement, tiling: bool, peak: int | None, source: Source, why: str
) -> MemoryPlan:
    return MemoryPlan(
        placement=placement,
        tiling=tiling,
        predicted_peak=peak,
        free=ask.room,
        source=source,
        why=why,
    )


def _room(kind: Kind, free: int | None, budget: int | None) -> int | None:
    """Bytes that tensors may take: what is free without what the driver takes, within the budget.

    On a CPU the process itself counts, which is in the free memory that is handed in.
    """
    left = None if free is None else max(0, free - RESERVED_BYTES[kind])
    limits = [n for n in (left, budget) if n is not None]
    return min(limits) if limits else None


def _peak(ask: _Ask, placement: Placement, tiling: bool) -> tuple[int | None, Source]:
    """Bytes of the device at the peak, and from what they are known."""
    alike = [
        m
        for m in ask.measured
        if (m.placement, m.tiling) == (placement, tiling) and m.peak is not None and m.peak > 0
    ]
    points: dict[int, list[Measurement]] = {}
    for m in alike:
        points.setdefault(m.width * m.height * m.frames, []).append(m)
    highest = {work: max(m.peak or 0 for m in ms[:_NEWEST]) for work, ms in points.items()}
    if ask.work in highest:
        same = any((m.width, m.height, m.frames) == (*ask.size, ask.frames) for m in alike)
        return highest[ask.work], "measured" if same else "interpolated"
    smaller = max((work for work in highest if work < ask.work), default=None)
    larger = min((work for work in highest if work > ask.work), default=None)
    if smaller is not None and larger is not None:
        # The peak is the highest of several straight lines (one a phase), so that a chord between
        # two measured ones is never below it.
        share = (ask.work - smaller) / (larger - smaller)
        rise = highest[larger] - highest[smaller]
        return round(highest[smaller] + share * rise), "interpolated"
    found = card_peak(
        ask.card,
        placement,
        tiling,
        size=ask.size,
        frames=ask.frames,
        dtype_bytes=ask.dtype_bytes,
        media=bool(ask.card.pipelines[ask.task].inputs),
    )
    if found is None:
        return None, "unknown"
    peak = found + PROCESS_BYTES[ask.kind]
    # A longer clip needs no less than a shorter one was seen to need, and the other way round.
    if smaller is not None:
        peak = max(peak, highest[smaller])
    if larger is not None:
        peak = min(peak, highest[larger])
    return peak, "card"


def _what_fits(ask: _Ask, others: Sequence[ModelCard]) -> Iterator[str]:
    """What could be asked for instead: each line was found to fit."""

    def fits(changed: _Ask) -> bool:
        found = _choose(changed)
        return found is not None and found.predicted_peak is not None and found.free is not None

    if not ask.allow_fp8 and fits(replace(ask, allow_fp8=True, wanted="fp8")):
        yield "allow the transformer's weights to be stored in 8 bits: acceleration=balanced"
    shorter = _longest(ask, fits)
    if shorter is not None:
        yield f"ask for {shorter} frames or fewer instead of {ask.frames}"
    area = ask.size[0] * ask.size[1]
    sizes = [s for s in ask.card.sizes.native if s[0] * s[1] < area]
    for size in sorted(sizes, key=lambda s: -s[0] * s[1]):
        smaller = replace(ask, size=size)
        if fits(smaller):
            yield f"ask for the size {size[0]}x{size[1]}"
            break
        if shorter is None and (count := _longest(smaller, fits)) is not None:
            yield f"ask for the size {size[0]}x{size[1]} and {count} frames"
            break
    for card in others:
        if card.id == ask.card.id or ask.task not in card.pipelines:
            continue
        other = replace(
            ask,
            card=card,
            size=card.sizes.default,
            frames=card.frames.default,
            measured=(),
            wanted=None,
        )
        if fits(other):
            clip = _clip(other.size, other.frames)
            yield f"take another model: --model {card.id} makes {clip}"
            break


def _longest(ask: _Ask, fits: Callable[[_Ask], bool]) -> int | None:
    """The most frames below those asked that fit, None when none does."""
    rule = ask.card.frames
    lowest = smallest_frames(rule, 1 if ask.task == "t2v" else min(2, rule.maximum))
    above = lowest + -(-(min(ask.frames, rule.maximum + 1) - lowest) // rule.multiple) * (
        rule.multiple
    )
    for count in range(above - rule.multiple, lowest - 1, -rule.multiple):
        if fits(replace(ask, frames=count)):
            return count
    return None


def _shortage(ask: _Ask) -> str:
    """What the least demanding choice needs, in a sentence."""
    needs = [(_peak(ask, *choice)[0], choice) for choice in ask.choices()]
    known = [(peak, choice) for peak, choice in needs if peak is not None]
    if not known or ask.room is None:
        return f"{ask.kind} cannot hold the weights as asked."
    peak, (placement, tiling) = min(known)
    least = f"When {_WHERE[placement]}"
    host = host_bytes(ask.card, placement, ask.dtype_bytes)
    if peak <= ask.room and host is not None and ask.ram is not None:
        return f"{least}, {_gb(host)} of main memory must hold the others; {_gb(ask.ram)} are free."
    decoded = " and it is decoded in tiles" if tiling else ""
    return f"{least}{decoded}, it needs {_gb(peak)}; {_gb(ask.room)} may be used."


def _clip(size: tuple[int, int], frames: int) -> str:
    return f"{frames} frames of {size[0]}x{size[1]}"


def _gb(size: int) -> str:
    """Bytes in words, in decimal units as memory budgets are written."""
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.0f} MB"


def _up(size: int) -> str:
    """A budget that surely holds so many bytes."""
    return f"{-(-size // 10**9)}GB"
