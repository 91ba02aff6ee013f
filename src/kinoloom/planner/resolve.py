"""How does a request become a plan?

`plan` settles one thing after another: model, backend, inputs, frame rate, size, length, steps,
guidance, words, seed, LoRAs, memory, speed. Where the model cannot do what was asked, the nearest
thing that it can do is planned and said; only what has no sensible nearest value is refused.
"""

from __future__ import annotations

import datetime
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from kinoloom.catalog.card import InputName, ModelCard
from kinoloom.catalog.loader import Catalog
from kinoloom.config import Settings
from kinoloom.errors import InvalidRequest, ModelBroken, ModelNotFound, Problem
from kinoloom.planner.acceleration import resolve_speed
from kinoloom.planner.complexity import complexity
from kinoloom.planner.estimate import Measurements, estimate
from kinoloom.planner.inputs import Inputs, probe_inputs
from kinoloom.planner.key import recipe_key, seeded_key
from kinoloom.planner.loras import plan_loras
from kinoloom.planner.memory import MemoryPlan, plan_memory
from kinoloom.planner.peak import Kind, kind_of
from kinoloom.planner.plan import Plan
from kinoloom.planner.presets import choose_preset
from kinoloom.planner.settle import (
    TASK_WORDS,
    Notes,
    settle_context,
    settle_fps,
    settle_frames,
    settle_guidance,
    settle_negative,
    settle_size,
)
from kinoloom.planner.steps import choose_steps
from kinoloom.planner.vocabulary import vocabulary_warnings
from kinoloom.request import Task, VideoRequest
from kinoloom.weights.places import Located, locate

_SHOWN = 5
"""Models that an error names; there are dozens."""

_NOTICE_BEFORE_RETIREMENT = datetime.timedelta(days=60)


@dataclass(frozen=True)
class Machine:
    """Where a plan will run: the device as its measurements are recorded, and its free memory.

    `free` bytes of the device and `ram` of main memory count what this process would give back;
    None where they are not known. `dtype_bytes` is the width of the numbers computed with.
    """

    device: str
    free: int | None = None
    ram: int | None = None
    dtype_bytes: int = 4

    @property
    def kind(self) -> Kind:
        """The kind of device."""
        return kind_of(self.device)


def draw_seed() -> int:
    """A seed for a request that names none: short enough to be typed again."""
    return secrets.randbelow(2**31)


def plan(
    request: VideoRequest,
    *,
    catalog: Catalog,
    settings: Settings,
    machine: Machine,
    measurements: Measurements | None = None,
    inputs: Inputs | None = None,
    rng: Callable[[], int] = draw_seed,
    today: datetime.date | None = None,
) -> Plan:
    """What exactly will run for a request.

    `settings` name the default model, the places of weights and the memory budget. `inputs` are
    probed here unless they are given. `rng` draws a seed when the request has none.

    Raises ModelNotFound for an unknown model or LoRA, InvalidRequest for what the model has not
    (backend, task, input, preset, acceleration), InvalidMedia for inputs that cannot be used,
    InsufficientMemory when nothing fits.
    """
    notes = Notes()
    card = _choose_model(request, catalog, settings.default_model, notes)
    backend = _choose_backend(request, card, notes)
    _check_dates_and_places(card, today or datetime.date.today(), notes)
    _check_inputs(request, card, catalog)
    preset = choose_preset(card, request.preset, steps=request.steps, guidance=request.guidance)
    found = inputs if inputs is not None else probe_inputs(request)

    fps = settle_fps(request, card, found, notes)
    size = settle_size(request, card, found, notes)
    context = settle_context(request.task, card, found, notes)
    frames = settle_frames(request, card, fps, context, found, notes)
    if context:
        notes.reasons.append(
            f"{frames} frames: the last {context} of the given video, which the clip begins with,"
            f" and {frames - context} new ones"
        )

    difficulty = complexity(request.prompt)
    if preset is not None:
        steps, guidance = preset.steps, preset.guidance
        notes.adjustments.extend(preset.adjustments)
        notes.reasons.append(preset.why)
    else:
        choice = choose_steps(request.steps, request.tier, card.steps, difficulty)
        steps = choice.steps
        if choice.changed:
            notes.adjust("steps", request.steps or 0, steps, choice.why)
        else:
            notes.reasons.append(choice.why)
        guidance = settle_guidance(request, card, notes)
    negative = settle_negative(request, card, guidance, notes)
    notes.warnings.extend(vocabulary_warnings(request.prompt, negative, card))
    seed = _settle_seed(request, rng, notes)

    located = _located(card, settings)
    loras = plan_loras(request.loras, preset.loras if preset else (), card, located, settings)
    memory = _settle_memory(request, card, size, frames, machine, settings, measurements, catalog)
    notes.reasons.append(f"memory: {memory.why}")
    speed, why = resolve_speed(
        card,
        request.task,
        request.acceleration,
        guidance=guidance,
        steps=steps,
        frames=frames,
        placement=memory.placement,
        device_kind=machine.kind,
        takes=request.candidates,
    )
    notes.reasons.extend(why)

    deciding: dict[str, Any] = {
        "task": request.task,
        "prompt": request.prompt,
        "negative": negative,
        "width": size[0],
        "height": size[1],
        "frames": frames,
        "context_frames": context,
        "fps": fps,
        "steps": steps,
        "guidance": guidance,
        "shift": preset.shift if preset and preset.shift is not None else card.shift,
        "timesteps": preset.timesteps if preset else None,
        "scheduler": preset.scheduler if preset and preset.scheduler else card.scheduler,
        "loras": loras,
        "speed": speed,
        "inputs": found,
    }
    fp8, tiling = memory.placement == "fp8", memory.tiling
    recipe = recipe_key(card, located, fp8=fp8, tiling=tiling, **deciding)
    return Plan(
        **deciding,
        seed=seed,
        candidates=request.candidates,
        request=request,
        model=card.id,
        backend=backend,
        device=machine.device,
        preset=request.preset,
        memory=memory,
        tier=request.tier,
        complexity=difficulty,
        estimate=estimate(
            card,
            device=machine.device,
            size=size,
            frames=frames,
            steps=steps,
            guidance=guidance,
            measurements=measurements,
            placement=memory.placement,
            acceleration=request.acceleration,
        ),
        weights_bytes=card.memory.total if card.memory is not None else None,
        adjustments=tuple(notes.adjustments),
        warnings=tuple(notes.warnings),
        reasons=tuple(notes.reasons),
        recipe=recipe,
        key=seeded_key(recipe, seed),
    )


def _choose_model(
    request: VideoRequest, catalog: Catalog, default_model: str, notes: Notes
) -> ModelCard:
    card = catalog.get(request.model or default_model)
    task = request.task
    if task not in card.pipelines:
        raise InvalidRequest(
            [Problem("model", card.id, *_able(card, catalog.doing(task), default_model, task))],
            message=f"{card.title} cannot do {TASK_WORDS[task]}.",
            hints=[f"It can do: {', '.join(TASK_WORDS[t] for t in card.tasks)}."],
        )
    how = "as asked" if request.model else "the default model"
    notes.reasons.append(f"model {card.id}: {how}; it can do {TASK_WORDS[task]}")
    return card


def _able(
    card: ModelCard, others: Sequence[ModelCard], default_model: str, task: Task
) -> tuple[str, str | None]:
    """Which models can do a task, in words, and the one to take: the default, else a relative."""
    first = sorted(others, key=lambda c: (c.id != default_model, c.family != card.family, c.id))
    names = ", ".join(c.id for c in first[:_SHOWN]) or "none is known"
    if len(first) > _SHOWN:
        names += f" and {len(first) - _SHOWN} more (kinoloom models list --task {task})"
    allowed = f"a model that can do {TASK_WORDS[task]}: {names}"
    return allowed, first[0].id if first else None


def _choose_backend(request: VideoRequest, card: ModelCard, notes: Notes) -> str:
    if request.backend is not None and request.backend != card.backend:
        allowed = f"the backend that runs {card.id}: {card.backend}"
        raise InvalidRequest([Problem("backend", request.backend, allowed, card.backend)])
    how = "as asked" if request.backend else "the one that runs this model"
    notes.reasons.append(f"backend {card.backend}: {how}")
    return card.backend


def _check_dates_and_places(card: ModelCard, today: datetime.date, notes: Notes) -> None:
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


def _check_inputs(request: VideoRequest, card: ModelCard, catalog: Catalog) -> None:
    """Raise InvalidRequest when the request gives something that the model does not take."""
    taken = card.pipelines[request.task].inputs
    given: dict[InputName, bool] = {
        "references": bool(request.references),
        "keyframes": bool(request.keyframes),
    }
    problems = []
    for name, there in given.items():
        if there and name not in taken:
            able = [
                c.id
                for c in catalog.doing(request.task)
                if name in c.pipelines[request.task].inputs
            ]
            problems.append(
                Problem(
                    name,
                    len(getattr(request, name)),
                    f"none with {card.id}; a model that takes {name}: {', '.join(able) or 'none'}",
                )
            )
    if problems:
        raise InvalidRequest(problems)


def _settle_seed(request: VideoRequest, rng: Callable[[], int], notes: Notes) -> int:
    """The first take's seed."""
    if request.seed is not None:
        return request.seed
    seed = rng()
    notes.reasons.append(f"seed {seed}: drawn, as none was given")
    return seed


def _located(card: ModelCard, settings: Settings) -> Located | None:
    """Where the model's weights are; None when they are not here, which the render will say."""
    try:
        return locate(card, settings)
    except (ModelNotFound, ModelBroken):
        return None


def _settle_memory(
    request: VideoRequest,
    card: ModelCard,
    size: tuple[int, int],
    frames: int,
    machine: Machine,
    settings: Settings,
    measurements: Measurements | None,
    catalog: Catalog,
) -> MemoryPlan:
    """Where the weights will be. Raises InsufficientMemory when nothing fits."""
    return plan_memory(
        card,
        task=request.task,
        size=size,
        frames=frames,
        device=machine.device,
        device_kind=machine.kind,
        free_bytes=machine.free,
        budget_bytes=settings.memory_budget,
        ram_free_bytes=machine.ram,
        dtype_bytes=machine.dtype_bytes,
        measurements=measurements,
        # Eight bits change the frames.
        allow_fp8=request.acceleration != "lossless",
        others=catalog.doing(request.task),
    )
