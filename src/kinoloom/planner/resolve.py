"""How does a request become a plan?

`plan` settles one thing after another: model and backend, inputs, frame rate, size, length, steps,
guidance, words, seed, sound, cost, and for what renders here LoRAs, memory and speed. Where the
model cannot do what was asked, the nearest thing that it can do is planned and said; only what has
no sensible nearest value is refused.
"""

from __future__ import annotations

import datetime
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from kinoloom.backends.base import Speed
from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.loader import Catalog
from kinoloom.config import Settings
from kinoloom.errors import (
    InvalidRequest,
    ModelBroken,
    ModelNotFound,
    Problem,
)
from kinoloom.planner.acceleration import resolve_speed
from kinoloom.planner.complexity import complexity
from kinoloom.planner.cost import cost_of
from kinoloom.planner.estimate import Estimate, Measurements, estimate, estimate_elsewhere
from kinoloom.planner.inputs import Inputs, probe_inputs
from kinoloom.planner.key import recipe_key, seeded_key
from kinoloom.planner.loras import PlannedLora, name_loras, plan_loras
from kinoloom.planner.memory import MemoryPlan, plan_memory
from kinoloom.planner.outlook import Draft, Durations, Machine, Readinesses
from kinoloom.planner.plan import Plan
from kinoloom.planner.presets import PresetChoice, choose_preset
from kinoloom.planner.routing import alternatives, choose, missing_inputs, note_dates
from kinoloom.planner.settle import (
    Notes,
    check_prompt,
    settle_audio,
    settle_context,
    settle_fps,
    settle_frames,
    settle_guidance,
    settle_negative,
    settle_size,
)
from kinoloom.planner.steps import choose_steps
from kinoloom.planner.vocabulary import vocabulary_warnings
from kinoloom.request import VideoRequest
from kinoloom.weights.places import Located, Places


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
    readiness: Readinesses | None = None,
    durations: Durations | None = None,
) -> Plan:
    """What exactly will run for a request.

    `settings` name the default model, the places of weights, the memory budget, and what may be
    spent. `inputs` are probed here unless they are given. `rng` draws a seed when the request has
    none. Without `readiness` every model counts as ready.

    Raises ModelNotFound for an unknown model or LoRA, or when none is ready; InvalidRequest for
    what the model has not (backend, task, input, preset, acceleration), ProviderRetired,
    InvalidMedia for inputs that cannot be used, InsufficientMemory when nothing fits. That it may
    cost too much is `consent.check_consent`'s to say: a plan of it can be looked at.
    """
    notes = Notes()
    day = today or datetime.date.today()
    # Not before they are needed: a mistake in the words is told before any file is read.
    media = cache(lambda: inputs if inputs is not None else probe_inputs(request))
    outlook = Draft(request, settings, machine, media, readiness, durations, measurements)
    route = choose(request, catalog, settings, outlook, day)
    card = route.card
    notes.reasons.extend(route.reasons)
    note_dates(card, day, notes)
    _check_inputs(request, card, catalog)
    check_prompt(request, card)
    preset = choose_preset(card, request.preset, steps=request.steps, guidance=request.guidance)
    found = media()

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
    elif card.steps.maximum == 0:
        steps, guidance = 0, settle_guidance(request, card, notes)
        if request.steps:
            notes.adjust("steps", request.steps, None, f"{card.title} lets nobody choose them")
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

    audio = settle_audio(request, card, notes)
    if card.remote is None:
        place = _here(
            request,
            card,
            preset,
            machine,
            settings,
            measurements,
            catalog,
            notes,
            steps=steps,
            guidance=guidance,
            size=size,
            frames=frames,
        )
    else:
        place = _elsewhere(request, card, readiness, durations, notes)
    cost = cost_of(card, fps=fps, audio=audio, takes=request.candidates, size=size, frames=frames)
    if not cost.free:
        notes.reasons.append(f"cost {cost}: {cost.basis}")

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
        "loras": place.loras,
        "speed": place.speed,
        "inputs": found,
    }
    memory = place.memory
    fp8, tiling = memory is not None and memory.placement == "fp8", bool(memory and memory.tiling)
    if card.remote is not None:  # here the model alone decides about sound
        deciding["audio"] = audio
    recipe = recipe_key(card, place.located, fp8=fp8, tiling=tiling, **deciding)
    deciding["audio"] = audio
    return Plan(
        **deciding,
        seed=seed,
        candidates=request.candidates,
        request=request,
        model=card.id,
        backend=card.backend,
        remote=card.remote is not None,
        device=place.device,
        preset=request.preset,
        memory=memory,
        cost=cost,
        alternatives=alternatives(request, card, catalog, settings, outlook, day),
        tier=request.tier,
        complexity=difficulty,
        estimate=place.estimate,
        weights_bytes=card.memory.total if card.memory is not None else None,
        adjustments=tuple(notes.adjustments),
        warnings=tuple(notes.warnings),
        reasons=tuple(notes.reasons),
        recipe=recipe,
        key=seeded_key(recipe, seed),
    )


@dataclass(frozen=True)
class _Place:
    """Where a plan runs, and all that follows from it."""

    device: str
    estimate: Estimate
    located: Located | None = None
    loras: tuple[PlannedLora, ...] = ()
    memory: MemoryPlan | None = None
    speed: Speed = field(default_factory=Speed)


def _here(
    request: VideoRequest,
    card: ModelCard,
    preset: PresetChoice | None,
    machine: Machine,
    settings: Settings,
    measurements: Measurements | None,
    catalog: Catalog,
    notes: Notes,
    *,
    size: tuple[int, int],
    frames: int,
    steps: int,
    guidance: float,
) -> _Place:
    """On this machine: LoRAs, memory and speed."""
    preset_loras = preset.loras if preset else ()
    located = _located(card, settings, whole=bool(request.loras or preset_loras))
    loras = plan_loras(request.loras, preset_loras, card, located, settings)
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
    expected = estimate(
        card,
        device=machine.device,
        size=size,
        frames=frames,
        steps=steps,
        guidance=guidance,
        measurements=measurements,
        placement=memory.placement,
        acceleration=request.acceleration,
    )
    return _Place(machine.device, expected, located, loras, memory, speed)


def _elsewhere(
    request: VideoRequest,
    card: ModelCard,
    readiness: Readinesses | None,
    durations: Durations | None,
    notes: Notes,
) -> _Place:
    """On another backend, which sees to memory and speed itself."""
    if request.acceleration != "lossless":
        notes.adjust("acceleration", request.acceleration, None, f"{card.title} runs elsewhere")
    if readiness is not None and not (ready := readiness(card)).ready:
        notes.warnings.append(
            f"{card.id} is not ready: {'; '.join((*ready.reasons, *ready.hints))}"
        )
    expected = estimate_elsewhere(durations(card.backend, card.id) if durations else ())
    return _Place(card.backend, expected, loras=name_loras(request.loras, card))


def _check_inputs(request: VideoRequest, card: ModelCard, catalog: Catalog) -> None:
    """Raise InvalidRequest when the request gives something that the model does not take."""
    problems = []
    for name in missing_inputs(card, request):
        able = [
            c.id for c in catalog.doing(request.task) if name in c.pipelines[request.task].inputs
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


def _located(card: ModelCard, settings: Settings, *, whole: bool) -> Located | None:
    """Where the model's weights are; None when they are not here, which the render will say.

    With `whole` also None when a file is missing or damaged: a LoRA cannot be held against that.
    """
    places = Places.of(settings)
    try:
        return places.locate(card) if whole else places.find(card)
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
