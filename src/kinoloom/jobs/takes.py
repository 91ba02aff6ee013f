"""What is one take of a plan, and what does a backend need to know of it?"""

from __future__ import annotations

from kinoloom.backends.base import Lora, Take
from kinoloom.planner.plan import Plan


def plan_of_take(plan: Plan, number: int) -> Plan:
    """The plan of one candidate, counted from 0: the same but for its seed."""
    return plan.with_seed(plan.seed + number)


def take_of(plan: Plan) -> Take:
    """What a backend needs to know of a plan."""
    memory = plan.memory
    return Take(
        task=plan.task,
        prompt=plan.prompt,
        negative=plan.negative,
        width=plan.width,
        height=plan.height,
        frames=plan.frames,
        fps=plan.fps,
        steps=plan.steps,
        guidance=plan.guidance,
        seed=plan.seed,
        device=plan.device,
        shift=plan.shift,
        timesteps=plan.timesteps,
        scheduler=plan.scheduler,
        loras=tuple(Lora(x.name, x.path, x.weight, x.component) for x in plan.loras),
        speed=plan.speed,
        placement=memory.placement if memory is not None else "resident",
        tiling=memory.tiling if memory is not None else False,
    )
